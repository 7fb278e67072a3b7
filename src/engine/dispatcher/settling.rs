//! From the answer to the resolved position: entries, doubts, looks, refusals (protocol rules 6, 8 to 12, 16).

use super::{Dispatcher, Op};
use crate::engine::decide::Plan;
use crate::engine::digest::digest;
use crate::engine::event::{DeadLetter, Effect, LedgerKey, LedgerWrite, Observation, OpId, ProduceOutcome, RequestId};
use crate::engine::fold::{Queue, REMEMBERED_IDS, Segment};
use crate::engine::lane::{Doubt, Settlement, Stage, Wish};
use crate::engine::mutation::Mutation;
use crate::engine::retry::Delays;
use crate::model::answer::Journal;
use crate::model::entry::ClaimKind;
use crate::model::{
    Answer, Claim, Class, Column, Entry, Failure, FieldDigest, Key, Now, Park, Phase, Position, Row, Seen,
};

/// A ticket created this much before the claim, on the instance's clock, is an older one. Seconds; generous, since
/// entries outlive their tickets by minutes.
const CLEARLY_BEFORE: i64 = 10;

/// What a look says of a claim's write.
enum Found {
    There(Box<Row>),
    NotThere,
    Blind,
}

impl Dispatcher {
    pub(super) fn answered(&mut self, id: RequestId, issued_at: u64, answer: Answer, now: Now, out: &mut Vec<Effect>) {
        self.judge(id, &answer, now);
        let Some((partition, life, key)) = self.requests.remove(&id) else { return };
        if self.live(partition, life).is_none() {
            return;
        }
        let Some(lane) = self.lane(partition, &key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::Asking(request, wish) if request == id => {
                self.asked(partition, &key, wish, answer, now, out);
            }
            Stage::Sending(request, plan) if request == id => {
                self.wrote(partition, &key, plan, issued_at, answer, now, out);
            }
            other => lane.stage = other,
        }
    }

    /// What an answer says of the instance, whoever asked.
    fn judge(&mut self, id: RequestId, answer: &Answer, now: Now) {
        let seed = self.settings.seed ^ id.0;
        let Answer::Failed(Failure { class, message, .. }) = answer else {
            return match answer {
                Answer::NotSent { .. } => self.breaker.not_sent(id),
                _ => self.breaker.answered(),
            };
        };
        let settings = &self.settings;
        match class {
            Class::Unauthorised => self.breaker.unauthorised(id, message, now.mono, settings, seed),
            Class::Throttled { retry_after } => self.breaker.throttled(id, *retry_after, now.mono, settings, seed),
            Class::Transient | Class::Unavailable | Class::Ambiguous { .. } => {
                self.breaker.failed(id, message, now.mono, settings, seed);
            }
            Class::Rejected | Class::Gone | Class::Conflict => self.breaker.answered(),
        }
    }

    /// The answer to a write.
    fn wrote(
        &mut self,
        partition: i32,
        key: &Key,
        plan: Box<Plan>,
        issued_at: u64,
        answer: Answer,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let span = self.settings.request_deadline + self.settings.settle_time;
        let doubt = |ended| Doubt { alive_until: issued_at + span, ended, looked: false };
        match answer {
            Answer::Applied { row, warnings } => {
                self.breaker.applied();
                self.settle(partition, key, &row, Some(plan), warnings, now, out);
            }
            Answer::Rows { .. } => {
                self.open_doubt(partition, key, doubt(true), "an answer of the wrong kind", now, out);
            }
            Answer::NotSent { .. } => {
                self.give_back(partition, key);
                self.make_wait(partition, key, now.mono + 50, Stage::Waiting(now.mono + 50));
            }
            Answer::Failed(failure) => match failure.class {
                Class::Ambiguous { ended } => self.open_doubt(partition, key, doubt(ended), &failure.code, now, out),
                Class::Conflict => self.open_doubt(partition, key, doubt(true), &failure.code, now, out),
                Class::Rejected => self.refuse(partition, key, "rejected", &failure.message, true, now, out),
                Class::Gone => {
                    self.give_back(partition, key);
                    self.make_want(partition, key, 1, Stage::Wants(Wish::Confirm), now);
                }
                Class::Throttled { .. } | Class::Unauthorised => {
                    self.give_back(partition, key);
                    self.make_ready(partition, key, now, out);
                }
                Class::Transient | Class::Unavailable => {
                    self.give_back(partition, key);
                    self.wait_a_little(partition, key, now);
                }
            },
        }
    }

    /// Lets a lane wait for the next of its growing delays.
    pub(super) fn wait_a_little(&mut self, partition: i32, key: &Key, now: Now) {
        let until = now.mono + self.delay(partition, key);
        self.make_wait(partition, key, until, Stage::Waiting(until));
    }

    fn delay(&mut self, partition: i32, key: &Key) -> u64 {
        let seed = self.settings.seed ^ self.id();
        let retry = self.settings.retry;
        let Some(lane) = self.lane(partition, key) else { return retry.0 };
        lane.delays.get_or_insert_with(|| Delays::new(retry, seed)).next_delay()
    }

    /// A lane's instant has come.
    pub(super) fn timer(&mut self, partition: i32, key: &Key, now: Now) {
        let Some(lane) = self.lane(partition, key) else { return };
        match lane.stage {
            Stage::Waiting(until) if until <= now.mono => {
                // `make_ready` drops empty lanes and then has something to say; a waiting lane is never empty.
                self.make_ready(partition, key, now, &mut Vec::new());
            }
            Stage::Doubt(doubt, due) if due <= now.mono => {
                self.make_want(partition, key, 0, Stage::Wants(Wish::Look(doubt, false)), now);
            }
            _ => {}
        }
    }

    fn open_doubt(&mut self, partition: i32, key: &Key, doubt: Doubt, why: &str, now: Now, out: &mut Vec<Effect>) {
        Self::observe(out, Observation::DoubtOpened(key.clone(), why.to_owned()));
        self.make_want(partition, key, 0, Stage::Wants(Wish::Look(doubt, false)), now);
    }

    /// The answer to a read or a look.
    fn asked(&mut self, partition: i32, key: &Key, wish: Wish, answer: Answer, now: Now, out: &mut Vec<Effect>) {
        match (wish, answer) {
            (Wish::Look(doubt, conclusive), Answer::Rows { rows, journal }) => {
                self.looked(partition, key, doubt, conclusive, rows, journal, now, out);
            }
            (Wish::Look(doubt, conclusive), Answer::Failed(Failure { class: Class::Gone, .. })) => {
                self.looked(partition, key, doubt, conclusive, Vec::new(), Some(Journal::Read(Vec::new())), now, out);
            }
            (Wish::Look(doubt, _), _) => {
                let due = now.mono + self.delay(partition, key);
                self.make_wait(partition, key, due, Stage::Doubt(doubt, due));
            }
            (Wish::Read, Answer::Rows { mut rows, .. }) if !rows.is_empty() => {
                self.has_read(partition, key, rows.swap_remove(0), now);
                self.turn(partition, key, now, out);
            }
            (Wish::Read, Answer::Rows { .. } | Answer::Failed(Failure { class: Class::Gone, .. })) => {
                self.make_want(partition, key, 1, Stage::Wants(Wish::Confirm), now);
            }
            (Wish::Confirm, Answer::Rows { rows, .. }) => self.confirmed(partition, key, &rows, now, out),
            (Wish::Discover, Answer::Rows { rows, .. }) => {
                self.discovered(partition, key, rows, now);
                self.turn(partition, key, now, out);
            }
            (Wish::Read | Wish::Confirm | Wish::Discover, _) => self.wait_a_little(partition, key, now),
        }
    }

    /// The row as it stands: what the decision is made against.
    fn has_read(&mut self, partition: i32, key: &Key, row: Row, now: Now) {
        let phase = self.settings.states.phase(&row.state);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        if let Some(entry) = p.entries.get_mut(key) {
            let was = self.settings.states.phase(&entry.seen.state);
            entry.seen = seen(&row, now);
            if phase == Phase::Resolved && was != Phase::Resolved {
                entry.resolved_at = Some(row.updated_on.saturating_mul(1000));
            } else if phase.is_open() {
                entry.resolved_at = None;
            }
        }
        if let Some(lane) = p.lanes.get_mut(key) {
            lane.row = Some(Box::new(row));
        }
        self.plan_expiry(partition, key);
    }

    /// A row that answered 404 was looked for by its correlation: a lost right looks the same as a deletion.
    fn confirmed(&mut self, partition: i32, key: &Key, rows: &[Row], now: Now, out: &mut Vec<Effect>) {
        let Some(sys_id) = self.entry(partition, key).map(|e| e.sys_id.clone()) else {
            return self.make_ready(partition, key, now, out);
        };
        if rows.iter().any(|r| r.sys_id == sys_id) {
            return self.wait_a_little(partition, key, now);
        }
        self.breaker.refused(&format!("ticket {sys_id} of {key} is gone"), &self.settings);
        Self::observe(out, Observation::Gone(key.clone(), sys_id));
        let closed = self.settings.states.closed.first().cloned().unwrap_or_default();
        if let Some(entry) = self.partitions.get_mut(&partition).and_then(|p| p.entries.get_mut(key)) {
            // A ticket that is gone is like a closed one: never written again; an opening event makes a new one.
            entry.seen = Seen { state: closed, at: now.unix, ..Seen::default() };
        }
        self.plan_expiry(partition, key);
        self.make_ready(partition, key, now, out);
    }

    /// Tickets of a key that the ledger does not know.
    fn discovered(&mut self, partition: i32, key: &Key, rows: Vec<Row>, now: Now) {
        let generation = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        if let Some(lane) = p.lanes.get_mut(key) {
            lane.proven = true;
        }
        let open = rows.iter().rposition(|r| self.settings.states.phase(&r.state).is_open());
        let Some(row) = rows.get(open.unwrap_or(rows.len().wrapping_sub(1))) else { return };
        let earlier = rows.iter().filter(|r| r.sys_id != row.sys_id).map(|r| r.sys_id.clone()).collect();
        let resolved = self.settings.states.phase(&row.state) == Phase::Resolved;
        let entry = Entry {
            token: p.token,
            attempt: crate::model::AttemptId { token: p.token, number: 0 },
            sys_id: row.sys_id.clone(),
            number: row.number.clone(),
            generation,
            position: Position::new(partition, -1, 0),
            partial: None,
            fields: Vec::new(),
            earlier,
            occurred_at: i64::MIN,
            resolved_at: resolved.then_some(row.updated_on.saturating_mul(1000)),
            event_ids: Vec::new(),
            seen: seen(row, now),
            written_at: now.unix,
        };
        p.entries.insert(key.clone(), entry);
    }

    /// A look has been answered.
    fn looked(
        &mut self,
        partition: i32,
        key: &Key,
        doubt: Doubt,
        conclusive: bool,
        rows: Vec<Row>,
        journal: Option<Journal>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(claim) = self.lane(partition, key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.clone()) else {
            return self.make_ready(partition, key, now, out);
        };
        let shown = rows.first().filter(|_| matches!(claim.kind, ClaimKind::Update { .. })).cloned();
        match self.found(partition, key, &claim, rows, journal, out) {
            Found::There(row) => {
                Self::observe(out, Observation::DoubtSettled(key.clone(), true));
                self.settle(partition, key, &row, None, Vec::new(), now, out);
            }
            Found::NotThere if conclusive => {
                Self::observe(out, Observation::DoubtSettled(key.clone(), false));
                if let Some(row) = shown {
                    self.own_equal_values(partition, key, &claim, &row, now, out);
                }
                self.give_back(partition, key);
                self.make_ready(partition, key, now, out);
            }
            Found::Blind if conclusive => {
                let why = "the answer was lost, and the journal is not readable: whether the note was written can't be \
                           told; give the bridge's user the right to read sys_journal_field";
                self.refuse(partition, key, "in_doubt", why, false, now, out);
            }
            Found::NotThere | Found::Blind => {
                let after = u64::from(!self.rules.off(Mutation::LookAtSpanEnd));
                let due = (doubt.alive_until + after).max(now.mono + 1);
                let doubt = Doubt { looked: true, ..doubt };
                self.make_wait(partition, key, due, Stage::Doubt(doubt, due));
            }
        }
    }

    /// A person wrote last, so nobody can tell whether our write came before. What stands as we were about to write it
    /// is nobody's decision against us, and counts as written by us.
    fn own_equal_values(
        &mut self,
        partition: i32,
        key: &Key,
        claim: &Claim,
        row: &Row,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let leased = self.lease_stands(partition, now);
        let column = &self.settings.states.column;
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(entry) = p.entries.get_mut(key) else { return };
        let mut changed = false;
        for (name, sent) in &claim.fields {
            let stands = if **name == **column { Some(&row.state) } else { row.values.get(&**name) };
            if stands.is_none_or(|v| digest(v) != *sent) {
                continue;
            }
            let value = FieldDigest { sent: *sent, stood: None };
            changed = true;
            match entry.fields.binary_search_by(|(c, _)| c.cmp(name)) {
                Ok(at) => entry.fields[at].1 = value,
                Err(at) => entry.fields.insert(at, (name.clone(), value)),
            }
        }
        if changed && leased {
            entry.token = p.token;
            let (entry, life) = (Box::new(entry.clone()), p.life);
            self.produce(partition, LedgerWrite::Entry(key.clone(), entry), Op::Aside(partition, life), out);
        }
    }

    /// Whether the claim's write is there (protocol rule 11).
    fn found(
        &self,
        partition: i32,
        key: &Key,
        claim: &Claim,
        rows: Vec<Row>,
        journal: Option<Journal>,
        out: &mut Vec<Effect>,
    ) -> Found {
        match &claim.kind {
            ClaimKind::Create { .. } => self.found_ticket(key, claim, rows, out),
            ClaimKind::Update { .. } => {
                let Some(row) = rows.into_iter().next() else { return Found::NotThere };
                self.found_update(self.entry(partition, key), claim, row, journal)
            }
        }
    }

    fn found_ticket(&self, key: &Key, claim: &Claim, rows: Vec<Row>, out: &mut Vec<Effect>) -> Found {
        let known = Self::known_of(claim);
        let adopt_any = self.rules.off(Mutation::NoKnownSysIds);
        let since = claim.instance_time.div_euclid(1000) - CLEARLY_BEFORE;
        let mut rows: Vec<Row> =
            rows.into_iter().filter(|r| adopt_any || (!known.contains(&r.sys_id) && r.created_on >= since)).collect();
        if rows.len() > 1 {
            Self::observe(out, Observation::Doubled(key.clone(), rows.len()));
        }
        if rows.is_empty() { Found::NotThere } else { Found::There(Box::new(rows.swap_remove(0))) }
    }

    fn found_update(&self, entry: Option<&Entry>, claim: &Claim, row: Row, journal: Option<Journal>) -> Found {
        let stands_so = |(c, d): &(Column, u64)| {
            let value = if **c == *self.settings.states.column { Some(&row.state) } else { row.values.get(&**c) };
            value.is_some_and(|v| digest(v) == *d)
        };
        // One request carries all values together, so one value that was not there before proves the write, although a
        // business rule may have changed others. One that stood there before proves nothing.
        let is_new = |(c, d): &(Column, u64)| {
            entry.is_some_and(|e| match e.fields.binary_search_by(|(known, _)| known.cmp(c)) {
                Ok(at) => e.fields[at].1.sent != *d && e.fields[at].1.stood != Some(*d),
                Err(_) => false,
            })
        };
        let stands = claim.fields.iter().any(|field| is_new(field) && stands_so(field));
        let since_claim = row.updated_on >= claim.instance_time.div_euclid(1000);
        let ours = row.updated_by == self.settings.bridge_user && since_claim;
        let by_values = stands && ours;
        if claim.markers.is_empty() || self.rules.off(Mutation::NoNoteMarkers) {
            return if by_values { Found::There(Box::new(row)) } else { Found::NotThere };
        }
        match journal {
            Some(Journal::Read(found)) if claim.markers.iter().any(|m| found.contains(m)) => {
                Found::There(Box::new(row))
            }
            Some(Journal::Read(_)) => Found::NotThere,
            // One request carries values and notes together, so the values speak for the notes.
            Some(Journal::Blind) | None if by_values => Found::There(Box::new(row)),
            Some(Journal::Blind) | None => Found::Blind,
        }
    }

    /// The write is there: its entry is written before anything else of the lane.
    fn settle(
        &mut self,
        partition: i32,
        key: &Key,
        row: &Row,
        plan: Option<Box<Plan>>,
        warnings: Vec<String>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let Some(lane) = p.lanes.get(key) else { return };
        let Some((_, claim)) = &lane.claim else { return };
        let entry = make_entry(p.token, p.entries.get(key), claim, row, &self.settings.bridge_user, now);
        let settlement = Settlement {
            entry,
            outcome: plan.as_ref().map_or("verified", |p| p.outcome),
            notes: plan.as_ref().map_or(claim.markers.len(), |p| p.notes.len()),
            fields: plan.map(|p| p.fields).unwrap_or_default(),
            warnings,
        };
        self.stage(partition, key, Stage::Settled(Box::new(settlement)));
        self.write_entry(partition, key, now, out);
    }

    /// Produces the entry of a settled lane, if the lease stands; else when it stands again.
    pub(super) fn write_entry(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let stands = self.lease_stands(partition, now);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let Stage::Settled(settlement) = &lane.stage else { return };
        if !stands {
            p.unleased.push(key.clone());
            return;
        }
        let entry = settlement.entry.clone();
        let life = p.life;
        let Stage::Settled(settlement) = std::mem::take(&mut lane.stage) else { return };
        let write = LedgerWrite::Entry(key.clone(), Box::new(entry));
        let op = self.produce(partition, write, Op::Entry(partition, life, key.clone()), out);
        self.stage(partition, key, Stage::Settling(op, settlement));
    }

    pub(super) fn entry_produced(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        id: OpId,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if self.live(partition, life).is_none() {
            return;
        }
        let Some(lane) = self.lane(partition, key) else { return };
        if !matches!(&lane.stage, Stage::Settling(op, _) if *op == id) {
            return;
        }
        let Stage::Settling(_, settlement) = std::mem::take(&mut lane.stage) else { return };
        if outcome == ProduceOutcome::Refused {
            self.stage(partition, key, Stage::Settled(settlement));
            self.write_entry(partition, key, now, out);
            return;
        }
        self.resolve_settled(partition, life, key, *settlement, now, out);
    }

    /// The entry is acked: its positions are resolved, and its claim is of no more use.
    fn resolve_settled(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        settlement: Settlement,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let mut report = Self::report(key, settlement.outcome, &settlement.entry);
        let partial = settlement.entry.partial;
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        p.entries.insert(key.clone(), settlement.entry);
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let held = lane.held.take();
        let claim = lane.claim.take();
        lane.delays = None;
        if let Some((at, parts)) = partial {
            // The rest of a long note may have come again while a former owner's write was in doubt.
            lane.queue.set_parts_done(at, parts);
        }
        let requests = std::mem::take(&mut lane.requests);
        self.tombstone_stale(partition, life, &LedgerKey::Entry(key.clone()), out);
        if let Some((token, _)) = claim {
            self.tombstone_claim(partition, life, key, token, out);
        }
        report.latency = held.urgency().map_or(0, |(_, since)| now.mono.saturating_sub(since));
        for event in held.events() {
            report.positions.push(event.position);
            self.resolve(partition, event.position.offset, event.bytes);
        }
        report.fields = settlement.fields;
        report.notes = settlement.notes;
        report.attempts = requests;
        report.warnings = settlement.warnings;
        out.push(Effect::Result(Box::new(report)));
        if settlement.outcome != "unchanged" {
            self.unpark(partition, key, out);
        }
        self.plan_expiry(partition, key);
        self.make_ready(partition, key, now, out);
    }

    /// What the attempt carried can't be applied: dead letters, and the key is parked behind them.
    fn refuse(
        &mut self,
        partition: i32,
        key: &Key,
        code: &str,
        reason: &str,
        park: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if park {
            self.breaker.refused(reason, &self.settings);
        }
        let bounds = self.bounds();
        if let Some(lane) = self.lane(partition, key)
            && lane.held.events().next().is_none()
        {
            // It was the first part of a long note: the event goes as a whole.
            let part = lane.held.take();
            lane.queue.put_back_all(part, bounds);
            if let Some(whole) = lane.queue.pop() {
                lane.held.put_back_apart(whole);
            }
        }
        let letters = self.lane(partition, key).map(|l| letters(&l.held, key, code, reason)).unwrap_or_default();
        self.send_letters(partition, key, letters, park, now, out);
    }

    /// An event behind a parked one goes the same way.
    pub(super) fn bury(&mut self, partition: i32, key: &Key, segment: Segment, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        lane.held.put_back_apart(segment);
        let letters = letters(&lane.held, key, "parked", "waits behind a refused record of this key");
        self.send_letters(partition, key, letters, false, now, out);
    }

    fn send_letters(
        &mut self,
        partition: i32,
        key: &Key,
        letters: Vec<DeadLetter>,
        park: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let (life, token) = (p.life, p.token);
        let reason = letters.last().map(|l| l.reason.clone()).unwrap_or_default();
        let Some(last) = p.lanes.get(key).and_then(|l| l.held.events().last().map(|e| e.position)) else {
            return self.make_ready(partition, key, now, out);
        };
        self.stage(partition, key, Stage::Refusing(letters.len() + usize::from(park)));
        for letter in letters {
            let key = key.clone();
            self.produce_letter(Box::new(letter), |l| Op::Refusal(partition, life, key, Some(l)), out);
        }
        if park {
            let record = Park { token, position: last, reason: reason.clone() };
            self.produce(
                partition,
                LedgerWrite::Park(key.clone(), record.clone()),
                Op::Refusal(partition, life, key.clone(), None),
                out,
            );
            self.tombstone_stale(partition, life, &LedgerKey::Park(key.clone()), out);
            if let Some(p) = self.partitions.get_mut(&partition) {
                p.parks.insert(key.clone(), record);
            }
            Self::observe(out, Observation::Parked(key.clone(), reason));
        }
    }

    pub(super) fn refusal_produced(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        letter: Option<Box<DeadLetter>>,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if self.live(partition, life).is_none() {
            return;
        }
        match (letter, outcome) {
            (_, ProduceOutcome::Acked) => {}
            (Some(letter), _) => {
                let key = key.clone();
                return self.produce_letter(letter, |l| Op::Refusal(partition, life, key, Some(l)), out);
            }
            // The parking may or may not stand: whoever loads next finds out.
            (None, _) => return self.renew_token(partition, out),
        }
        let Some(lane) = self.lane(partition, key) else { return };
        let Stage::Refusing(left) = &mut lane.stage else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        let held = lane.held.take();
        lane.requests = 0;
        if let Some((token, _)) = lane.claim.take() {
            lane.void = Some(token);
        }
        for event in held.events() {
            self.resolve(partition, event.position.offset, event.bytes);
        }
        self.make_ready(partition, key, now, out);
    }
}

/// One dead letter per event that still has its original; each lists those it superseded.
fn letters(held: &Queue, key: &Key, code: &str, reason: &str) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    let mut superseded = Vec::new();
    for event in held.events() {
        match &event.raw {
            None => superseded.push(event.position),
            Some(raw) => letters.push(DeadLetter {
                raw: raw.clone(),
                position: event.position,
                key: Some(key.clone()),
                code: code.to_owned(),
                reason: reason.to_owned(),
                superseded: std::mem::take(&mut superseded),
            }),
        }
    }
    // What superseded these is in a later write; the last letter of this one names them.
    if let Some(last) = letters.last_mut() {
        last.superseded.append(&mut superseded);
    }
    letters
}

fn seen(row: &Row, now: Now) -> Seen {
    Seen { state: row.state.clone(), mod_count: row.mod_count, updated_by: row.updated_by.clone(), at: now.unix }
}

/// The entry of a claim whose write is there.
fn make_entry(
    token: crate::model::Token,
    old: Option<&Entry>,
    claim: &Claim,
    row: &Row,
    bridge_user: &str,
    now: Now,
) -> Entry {
    let creates = matches!(claim.kind, ClaimKind::Create { .. });
    let same = old.filter(|_| !creates);
    let mut fields = same.map(|e| e.fields.clone()).unwrap_or_default();
    for (column, sent) in &claim.fields {
        // Where a person wrote last, what differs is the person's and not a business rule's.
        let stood = row.values.get(&**column).filter(|_| row.updated_by == bridge_user);
        let stood = stood.map(|v| digest(v)).filter(|d| d != sent);
        let value = FieldDigest { sent: *sent, stood };
        match fields.binary_search_by(|(c, _)| c.cmp(column)) {
            Ok(at) => fields[at].1 = value,
            Err(at) => fields.insert(at, (column.clone(), value)),
        }
    }
    let mut earlier = old.map(|e| e.earlier.clone()).unwrap_or_default();
    if creates && let Some(old) = old {
        earlier.push(old.sys_id.clone());
    }
    let mut event_ids = old.map(|e| e.event_ids.clone()).unwrap_or_default();
    event_ids.extend(&claim.event_ids);
    let forget = event_ids.len().saturating_sub(REMEMBERED_IDS);
    event_ids.drain(..forget);
    let mut seen = seen(row, now);
    if same.is_some_and(|e| row.mod_count != e.seen.mod_count + 1) {
        // Somebody else wrote between our last sight of the row and this write: read it before the next.
        seen.at = 0;
    }
    Entry {
        token,
        attempt: claim.attempt,
        sys_id: row.sys_id.clone(),
        number: row.number.clone(),
        generation: claim.generation,
        position: claim.hi,
        partial: claim.partial,
        fields,
        earlier,
        occurred_at: claim.occurred_at.max(old.map_or(i64::MIN, |e| e.occurred_at)),
        resolved_at: claim.resolved_at,
        event_ids,
        seen,
        written_at: now.unix,
    }
}
