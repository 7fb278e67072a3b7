//! From a lane's turn to the request: decide, claim, permit, send (protocol rules 4, 5, 5a, 14).

use super::{Dispatcher, Op};
use crate::engine::decide::{Base, Decision, Plan, Rest, decide};
use crate::engine::digest::digest;
use crate::engine::event::{
    Effect, LedgerKey, LedgerWrite, Observation, OpId, ProduceOutcome, Report, RequestBody, RequestId,
};
use crate::engine::fold::{REMEMBERED_IDS, Segment};
use crate::engine::lane::{Doubt, Settlement, Stage, Wish};
use crate::engine::mutation::Mutation;
use crate::engine::partition::{Partition, Standing};
use crate::model::entry::ClaimKind;
use crate::model::{AttemptId, Claim, Column, Entry, Key, Now, Phase, Position};

/// A row that was read this recently may be written even where the policy is to read always: the claim takes some
/// time and the permit, under a scarce quota, much more. Shorter, and a lane could read again and again.
const ALWAYS_FRESH: u64 = 60_000;

impl Dispatcher {
    /// Gives turns to lanes while few enough are prepared. The most urgent lane of all partitions comes first.
    pub(super) fn pump(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.breaker.may_prepare() && self.prepared() < self.settings.claims_ahead + self.room {
            let next = self
                .partitions
                .iter()
                .filter(|(_, p)| p.standing == Standing::Running && self.lease_until(p) > now.mono)
                .filter_map(|(&number, p)| p.ready.first_key_value().map(|(ticket, key)| (*ticket, number, key)))
                .min_by_key(|(ticket, ..)| *ticket)
                .map(|(_, number, key)| (number, key.clone()));
            let Some((partition, key)) = next else { return };
            self.turn(partition, &key, now, out);
        }
    }

    fn prepared(&self) -> usize {
        self.partitions.values().map(|p| p.prepared).sum()
    }

    /// A lane's turn: the first segment that needs a request is claimed; those that need none are resolved.
    pub(super) fn turn(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        self.stage(partition, key, Stage::Idle);
        while let Some(segment) = self.lane(partition, key).and_then(|l| l.queue.pop()) {
            if self.is_barred(partition, key, &segment) {
                self.bury(partition, key, segment, now, out);
                return;
            }
            if self.must_discover(partition, key, &segment) {
                self.put_back(partition, key, segment);
                self.make_want(partition, key, 1, Stage::Wants(Wish::Discover), now);
                return;
            }
            match self.decide(partition, key, &segment, now, out) {
                Decision::Skip(why) => {
                    Self::observe(out, Observation::Skipped(key.clone(), why));
                    self.settle_without_write(partition, &segment);
                }
                Decision::Unchanged { resolved_at } => {
                    Self::observe(out, Observation::Unchanged(key.clone()));
                    if let Some(entry) = self.news_of_unchanged(partition, key, &segment, resolved_at, now) {
                        self.settle_unchanged(partition, key, segment, entry, now, out);
                        return;
                    }
                    self.settle_without_write(partition, &segment);
                }
                Decision::Read => {
                    self.put_back(partition, key, segment);
                    self.make_want(partition, key, 1, Stage::Wants(Wish::Read), now);
                    return;
                }
                Decision::Write(plan) => {
                    self.claim(partition, key, segment, plan, now, out);
                    return;
                }
            }
        }
        self.drop_lane(partition, key, now, out);
    }

    fn put_back(&mut self, partition: i32, key: &Key, segment: Segment) {
        if let Some(lane) = self.lane(partition, key) {
            lane.queue.put_back_apart(segment);
        }
    }

    /// A parked key lets nothing through but an opening event while no ticket is open.
    fn is_barred(&self, partition: i32, key: &Key, segment: &Segment) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        if !p.parks.contains_key(key) {
            return false;
        }
        let open = p.entries.get(key).is_some_and(|e| self.settings.states.phase(&e.seen.state).is_open());
        open || segment.post.is_none()
    }

    fn must_discover(&self, partition: i32, key: &Key, segment: &Segment) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        p.unproven
            && segment.post.is_some()
            && !p.entries.contains_key(key)
            && p.lanes.get(key).is_some_and(|l| !l.proven)
    }

    fn decide(&mut self, partition: i32, key: &Key, segment: &Segment, now: Now, out: &mut Vec<Effect>) -> Decision {
        let row = self.lane(partition, key).and_then(|l| l.row.take());
        let entry = self.partitions.get(&partition).and_then(|p| p.entries.get(key));
        let base = Base { entry, row: row.as_deref(), now: now.unix };
        let decision = decide(base, segment, &self.settings, &mut self.kept);
        for column in std::mem::take(&mut self.kept) {
            Self::observe(out, Observation::PersonKept(key.clone(), column));
        }
        decision
    }

    /// Nothing was written for these events, on purpose.
    pub(super) fn settle_without_write(&mut self, partition: i32, segment: &Segment) {
        for event in &segment.events {
            self.resolve(partition, event.position.offset, event.bytes);
        }
    }

    /// The ticket stands as the events want it, but what they say of time counts for later events: the entry that
    /// remembers it, where it is news.
    fn news_of_unchanged(
        &self,
        partition: i32,
        key: &Key,
        segment: &Segment,
        resolved_at: Option<i64>,
        now: Now,
    ) -> Option<Entry> {
        let p = self.partitions.get(&partition)?;
        let old = p.entries.get(key)?;
        let occurred_at = old.occurred_at.max(segment.occurred_at());
        if occurred_at == old.occurred_at && resolved_at == old.resolved_at {
            return None;
        }
        let mut entry = Entry { token: p.token, occurred_at, resolved_at, written_at: now.unix, ..old.clone() };
        entry.position = segment.hi().unwrap_or(old.position).max(old.position);
        entry.partial = None;
        entry.event_ids.extend(segment.events.iter().filter_map(|e| e.event_id));
        let forget = entry.event_ids.len().saturating_sub(REMEMBERED_IDS);
        entry.event_ids.drain(..forget);
        Some(entry)
    }

    /// Nothing is written to the ticket; the entry is, before anything of the segment is resolved.
    fn settle_unchanged(
        &mut self,
        partition: i32,
        key: &Key,
        segment: Segment,
        entry: Entry,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(lane) = self.lane(partition, key) else { return };
        lane.held.put_back_apart(segment);
        let settlement = Settlement { entry, outcome: "unchanged", fields: Vec::new(), notes: 0, warnings: Vec::new() };
        self.stage(partition, key, Stage::Settled(Box::new(settlement)));
        self.write_entry(partition, key, now, out);
    }

    /// Produces the claim of a write and takes what it carries out of the queue.
    fn claim(
        &mut self,
        partition: i32,
        key: &Key,
        mut segment: Segment,
        plan: Box<Plan>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let occurred_at = match (&plan.kind, &segment.post) {
            // What came before the opening event is not in the new ticket.
            (ClaimKind::Create { .. }, Some(post)) => post.occurred_at,
            _ if matches!(plan.rest, Rest::Post | Rest::Notes { apart: true, .. }) => segment.pre.occurred_at,
            _ => segment.occurred_at(),
        };
        if matches!(plan.rest, Rest::Notes { apart: true, .. })
            && let Some(post) = segment.split_post()
        {
            self.put_back(partition, key, post);
        }
        let rest = match plan.rest {
            Rest::None => None,
            Rest::Post => segment.split_post(),
            Rest::Notes { keep, parts, .. } => Some(segment.split_notes(keep, parts)),
        };
        let claim = self.make_claim(partition, key, &segment, rest.as_ref(), &plan, occurred_at, now);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let (life, token) = (p.life, p.token);
        let Some(lane) = p.lanes.get_mut(key) else { return };
        if let Some(rest) = rest {
            lane.queue.put_back_apart(rest);
        }
        lane.held.put_back_apart(segment);
        lane.claim = Some((token, Box::new(claim.clone())));
        let void = lane.void.take().filter(|old| *old != token);
        if self.rules.off(Mutation::NoClaim) {
            self.make_want(partition, key, 2, Stage::Claimed(plan), now);
            return;
        }
        let write = LedgerWrite::Claim(key.clone(), token, Box::new(claim));
        let op = self.produce(partition, write, Op::Claim(partition, life, key.clone()), out);
        let name = LedgerKey::Claim(key.clone());
        self.tombstone_stale(partition, life, &name, out);
        if let Some(old) = void {
            self.produce(partition, LedgerWrite::Tombstone(name, old), Op::Aside(partition, life), out);
        }
        self.stage(partition, key, Stage::Claiming(op, plan));
    }

    fn make_claim(
        &mut self,
        partition: i32,
        key: &Key,
        segment: &Segment,
        rest: Option<&Segment>,
        plan: &Plan,
        occurred_at: i64,
        now: Now,
    ) -> Claim {
        let partial = match plan.rest {
            Rest::Notes { parts, .. } if parts > 0 => rest.and_then(Segment::lo).map(|at| (at, parts)),
            _ => None,
        };
        let fallback = rest.and_then(Segment::lo).map_or(Position::new(partition, 0, 0), before);
        // A write without a whole event of its own leaves the position where it is.
        let done = self.entry(partition, key).map(|e| e.position);
        let attempt = match self.partitions.get_mut(&partition) {
            Some(p) => {
                p.attempts += 1;
                AttemptId { token: p.token, number: p.attempts }
            }
            None => AttemptId { token: crate::model::Token::default(), number: 0 },
        };
        Claim {
            attempt,
            kind: plan.kind.clone(),
            generation: plan.generation,
            lo: segment.lo().unwrap_or(fallback),
            hi: segment.hi().unwrap_or(fallback).max(done.unwrap_or(fallback)),
            partial,
            fields: plan.fields.iter().map(|(c, v)| (c.clone(), digest(v))).collect(),
            state: plan.state.clone(),
            markers: plan.notes.iter().map(|n| n.marker.clone()).collect(),
            occurred_at,
            resolved_at: plan.resolved_at,
            event_ids: segment.events.iter().filter_map(|e| e.event_id).collect(),
            instance_time: now.unix + self.skew,
            span: self.settings.request_deadline + self.settings.settle_time,
        }
    }

    pub(super) fn claim_produced(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        id: OpId,
        outcome: ProduceOutcome,
        now: Now,
    ) {
        if self.live(partition, life).is_none() {
            return;
        }
        let Some(lane) = self.lane(partition, key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::Claiming(op, plan) if op == id => {
                if outcome == ProduceOutcome::Acked {
                    self.make_want(partition, key, 2, Stage::Claimed(plan), now);
                } else {
                    self.give_back(partition, key);
                    self.wait_a_little(partition, key, now);
                }
            }
            other => lane.stage = other,
        }
    }

    /// What the attempt carried goes back into the queue; its claim stands for nothing any more.
    pub(super) fn give_back(&mut self, partition: i32, key: &Key) {
        let bounds = self.bounds();
        if let Some(lane) = self.lane(partition, key) {
            let held = lane.held.take();
            lane.queue.put_back_all(held, bounds);
            let Some((token, claim)) = lane.claim.take() else { return };
            lane.void = Some(token);
            // The parts of a long note that it was to write are not written.
            if let Some((at, _)) = claim.partial {
                let written = self.entry(partition, key).and_then(|e| e.partial).filter(|(done, _)| *done == at);
                let parts = written.map_or(0, |(_, parts)| parts);
                if let Some(lane) = self.lane(partition, key) {
                    lane.queue.set_parts_done(at, parts);
                }
            }
        }
    }

    /// The next thing that a permit would be used for: looks, then reads, then writes whose lease stands.
    pub(super) fn next_want<'a>(&self, p: &'a Partition, now: Now) -> Option<(&'a (u8, super::Ticket), &'a Key)> {
        let (order, key) = p.wants.first_key_value()?;
        let may = p.standing == Standing::Running && (order.0 < 2 || self.lease_until(p) > now.mono);
        may.then_some((order, key))
    }

    pub(super) fn permitted(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.breaker.may_send(now.mono) {
            return;
        }
        let next = self
            .partitions
            .iter()
            .filter_map(|(&number, p)| self.next_want(p, now).map(|(order, key)| (*order, number, key)))
            .min_by_key(|(order, ..)| *order)
            .map(|(_, number, key)| (number, key.clone()));
        if let Some((partition, key)) = next {
            self.send(partition, &key, now, out);
        }
    }

    fn send(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::Wants(wish) => self.send_wish(partition, key, wish, now, out),
            Stage::Claimed(plan) => {
                if self.has_gone_stale(partition, key, now) {
                    // The claim waited so long that a person may have changed the row meanwhile.
                    self.give_back(partition, key);
                    self.turn(partition, key, now, out);
                } else {
                    self.send_write(partition, key, plan, out);
                }
            }
            other => lane.stage = other,
        }
    }

    fn has_gone_stale(&self, partition: i32, key: &Key, now: Now) -> bool {
        let fresh = self.settings.row_freshness.max(ALWAYS_FRESH);
        let entry = self.partitions.get(&partition).and_then(|p| p.entries.get(key));
        // A closed or deleted row stays so, however long ago that was seen.
        let entry = entry.filter(|e| self.settings.states.phase(&e.seen.state) != Phase::Closed);
        entry.is_some_and(|e| now.unix.saturating_sub(e.seen.at) > i64::try_from(fresh).unwrap_or(i64::MAX))
    }

    fn send_write(&mut self, partition: i32, key: &Key, plan: Box<Plan>, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let attempt = p.lanes.get(key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.attempt);
        let Some(attempt) = attempt else { return };
        let lease_until = self.lease_until(p);
        let (fields, notes) = (plan.fields.clone(), plan.notes.clone());
        let body = match &plan.kind {
            ClaimKind::Create { .. } => RequestBody::Create { key: key.clone(), fields, notes, attempt },
            ClaimKind::Update { sys_id } => {
                RequestBody::Update { key: key.clone(), sys_id: sys_id.clone(), fields, notes, attempt }
            }
        };
        let id = self.request(partition, key, lease_until, body, out);
        self.stage(partition, key, Stage::Sending(id, plan));
    }

    fn send_wish(&mut self, partition: i32, key: &Key, wish: Wish, now: Now, out: &mut Vec<Effect>) {
        let columns = self.columns_of(partition, key);
        let entry_id = self.entry(partition, key).map(|e| e.sys_id.clone());
        let claim = self.lane(partition, key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.clone());
        let key_of = key.clone();
        let (wish, body) = match (wish, claim, entry_id) {
            (Wish::Look(doubt, _), Some(claim), _) => {
                let conclusive = self.is_conclusive(doubt, now);
                let columns = claim.fields.iter().map(|(c, _)| c.clone()).collect();
                let body = match &claim.kind {
                    ClaimKind::Create { .. } => RequestBody::Find { key: key_of, columns },
                    ClaimKind::Update { sys_id } => {
                        let markers = claim.markers.clone();
                        RequestBody::Read { key: key_of, sys_id: sys_id.clone(), columns, markers }
                    }
                };
                (Wish::Look(doubt, conclusive), body)
            }
            (Wish::Read, _, Some(sys_id)) => {
                (wish, RequestBody::Read { key: key_of, sys_id, columns, markers: Vec::new() })
            }
            (wish, ..) => (wish, RequestBody::Find { key: key_of, columns }),
        };
        let id = self.request(partition, key, u64::MAX, body, out);
        self.stage(partition, key, Stage::Asking(id, wish));
    }

    /// Whether finding nothing now settles the doubt: the transaction has ended, or its time is over for certain.
    fn is_conclusive(&self, doubt: Doubt, now: Now) -> bool {
        doubt.ended
            || now.mono > doubt.alive_until
            || self.rules.off(Mutation::NoSettleTime)
            || (self.rules.off(Mutation::LookAtSpanEnd) && now.mono >= doubt.alive_until)
    }

    fn request(
        &mut self,
        partition: i32,
        key: &Key,
        lease_until: u64,
        body: RequestBody,
        out: &mut Vec<Effect>,
    ) -> RequestId {
        let id = RequestId(self.id());
        self.breaker.sent(id);
        if let Some(p) = self.partitions.get_mut(&partition) {
            self.requests.insert(id, (partition, p.life, key.clone()));
            if let Some(lane) = p.lanes.get_mut(key) {
                lane.requests += 1;
            }
            out.push(Effect::Request { id, partition, epoch: p.epoch, lease_until, body });
        }
        id
    }

    /// The columns whose values matter for a decision: those we write, and those that wait to be written.
    fn columns_of(&self, partition: i32, key: &Key) -> Vec<Column> {
        let Some(p) = self.partitions.get(&partition) else { return Vec::new() };
        let mut columns: Vec<Column> =
            p.entries.get(key).map(|e| e.fields.iter().map(|(c, _)| c.clone()).collect()).unwrap_or_default();
        if let Some(first) = p.lanes.get(key).and_then(|l| l.queue.first()) {
            let post = first.post.iter().flat_map(|p| p.fields.iter());
            columns.extend(first.pre.fields.iter().chain(post).map(|(c, _)| c.clone()));
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    pub(super) fn entry(&self, partition: i32, key: &Key) -> Option<&Entry> {
        self.partitions.get(&partition)?.entries.get(key)
    }

    pub(super) fn report(key: &Key, outcome: &'static str, entry: &Entry) -> Report {
        Report {
            key: key.clone(),
            outcome,
            sys_id: entry.sys_id.clone(),
            number: entry.number.clone(),
            positions: Vec::new(),
            fields: Vec::new(),
            notes: 0,
            attempts: 0,
            latency: 0,
            warnings: Vec::new(),
        }
    }
}

/// The position right before another.
fn before(at: Position) -> Position {
    match at.index {
        0 => Position::new(at.partition, at.offset - 1, u32::MAX),
        index => Position::new(at.partition, at.offset, index - 1),
    }
}
