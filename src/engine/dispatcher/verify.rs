//! Doubts, and everything that is asked of the instance without changing it: looks that settle a doubt, reads before a
//! write, look-ups of keys that the ledger may not know (protocol rules 5a, 9 to 12).

use super::settle::seen;
use super::{Dispatcher, Op};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, Observation};
use crate::engine::field_hash::field_hash;
use crate::engine::lane::{AmbiguousWrite, ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::model::answer::Journal;
use crate::model::entry::ClaimKind;
use crate::model::{Answer, Claim, Class, Column, Entry, Failure, FieldDigest, Key, Now, Phase, Position, Row, Seen};

/// A ticket created this much before the claim, on the instance's clock, is an older one. Seconds; generous, since
/// entries outlive their tickets by minutes.
const CLEARLY_BEFORE: i64 = 10;

/// What a look says of a claim's write.
enum Found {
    There(Box<Row>),
    NotThere,
    Inconclusive,
}

impl Dispatcher {
    pub(super) fn open_doubt(
        &mut self,
        partition: i32,
        key: &Key,
        doubt: AmbiguousWrite,
        why: &str,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        Self::observe(out, Observation::WriteAmbiguous(key.clone(), why.to_owned()));
        self.make_want(partition, key, Stage::Wants(ReadPurpose::Look(doubt, false)), now);
    }

    /// The answer to a read or a look.
    pub(super) fn asked(
        &mut self,
        partition: i32,
        key: &Key,
        wish: ReadPurpose,
        answer: Answer,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        match (wish, answer) {
            (ReadPurpose::Look(doubt, conclusive), Answer::Rows { rows, journal }) => {
                self.looked(partition, key, doubt, conclusive, rows, journal, now, out);
            }
            (ReadPurpose::Look(doubt, conclusive), Answer::Failed(Failure { class: Class::Gone, .. })) => {
                self.looked(partition, key, doubt, conclusive, Vec::new(), Some(Journal::Read(Vec::new())), now, out);
            }
            (ReadPurpose::Look(doubt, _), _) => {
                let due = now.mono + self.delay(partition, key);
                self.make_wait(partition, key, due, Stage::AmbiguousWrite(doubt, due));
            }
            (ReadPurpose::Read, Answer::Rows { mut rows, .. }) if !rows.is_empty() => {
                self.has_read(partition, key, rows.swap_remove(0), now);
                self.turn(partition, key, now, out);
            }
            (ReadPurpose::Read, Answer::Rows { .. } | Answer::Failed(Failure { class: Class::Gone, .. })) => {
                self.make_want(partition, key, Stage::Wants(ReadPurpose::Confirm), now);
            }
            (ReadPurpose::Confirm, Answer::Rows { rows, .. }) => self.confirmed(partition, key, &rows, now, out),
            (ReadPurpose::Discover, Answer::Rows { rows, .. }) => {
                self.discovered(partition, key, rows, now);
                self.turn(partition, key, now, out);
            }
            (ReadPurpose::Read | ReadPurpose::Confirm | ReadPurpose::Discover, _) => {
                self.wait_a_little(partition, key, now)
            }
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
        p.put_entry(key, entry);
    }

    /// A look has been answered.
    fn looked(
        &mut self,
        partition: i32,
        key: &Key,
        doubt: AmbiguousWrite,
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
                Self::observe(out, Observation::AmbiguitySettled(key.clone(), true));
                self.settle(partition, key, &row, None, Vec::new(), now, out);
            }
            Found::NotThere if conclusive => {
                Self::observe(out, Observation::AmbiguitySettled(key.clone(), false));
                if let Some(row) = shown {
                    self.adopt_matching_values(partition, key, &claim, &row, now, out);
                }
                self.requeue(partition, key);
                self.make_ready(partition, key, now, out);
            }
            Found::Inconclusive if conclusive => {
                let why = "the answer was lost, and the journal is not readable: whether the note was written can't be \
                           told; give the bridge's user the right to read sys_journal_field";
                self.refuse(partition, key, "in_doubt", why, false, now, out);
            }
            Found::NotThere | Found::Inconclusive => {
                let after = u64::from(!self.rules.off(Mutation::LookAtSpanEnd));
                let due = (doubt.alive_until + after).max(now.mono + 1);
                let doubt = AmbiguousWrite { looked: true, ..doubt };
                self.make_wait(partition, key, due, Stage::AmbiguousWrite(doubt, due));
            }
        }
    }

    /// A person wrote last, so nobody can tell whether our write came before. What stands as we were about to write it
    /// is nobody's decision against us, and counts as written by us.
    fn adopt_matching_values(
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
            if stands.is_none_or(|v| field_hash(v) != *sent) {
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
            let former = std::mem::replace(&mut entry.token, p.token);
            let (entry, life) = (Box::new(entry.clone()), p.life);
            if former != p.token {
                p.stale.entry(LedgerKey::Entry(key.clone())).or_default().push(former);
            }
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
                self.found_update(self.entry(partition, key).as_deref(), claim, row, journal)
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
            Self::observe(out, Observation::DuplicateTickets(key.clone(), rows.len()));
        }
        if rows.is_empty() { Found::NotThere } else { Found::There(Box::new(rows.swap_remove(0))) }
    }

    fn found_update(&self, entry: Option<&Entry>, claim: &Claim, row: Row, journal: Option<Journal>) -> Found {
        let stands_so = |(c, d): &(Column, u64)| {
            let value = if **c == *self.settings.states.column { Some(&row.state) } else { row.values.get(&**c) };
            value.is_some_and(|v| field_hash(v) == *d)
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
            Some(Journal::Inconclusive) | None if by_values => Found::There(Box::new(row)),
            Some(Journal::Inconclusive) | None => Found::Inconclusive,
        }
    }
}
