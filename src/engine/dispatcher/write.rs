//! From a lane's turn to its claim: what needs no request is resolved, what needs one is claimed (protocol rules 4, 5,
//! 5a, 14).

use std::borrow::Cow;

use super::noop::TOO_BRIEF;
use super::{Dispatcher, Op};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, MarkedNote, Observation, OpId, ProduceOutcome, Report};
use crate::engine::field_hash::field_hash;
use crate::engine::fold::Segment;
use crate::engine::lane::{ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::partition::PartitionPhase;
use crate::engine::plan::{Base, Decision, Rest, WritePlan, attempt_marker, decide};
use crate::engine::priority::Ticket;
use crate::model::entry::ClaimKind;
use crate::model::{AttemptId, Claim, Entry, Key, Now, Position, RecordOrigin};

/// Critical lanes that may be prepared beside the others.
const CRITICAL_AHEAD: usize = 16;

impl Dispatcher {
    /// Gives turns to lanes while few enough are prepared. The most urgent lane of all partitions comes first; critical
    /// ones have room of their own, so that none waits until one of the others is sent.
    pub(super) fn pump(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.breaker.may_prepare() {
            let next = self.next_turn(true, now).filter(|_| self.prepared(true) < CRITICAL_AHEAD);
            let next =
                next.or_else(|| self.next_turn(false, now).filter(|_| self.prepared(false) < self.ahead.limit()));
            let Some((partition, key)) = next else { return };
            self.turn(partition, &key, now, out);
        }
    }

    /// The first critical lane that is ready, or the first of the others.
    fn next_turn(&self, critical: bool, now: Now) -> Option<(i32, Key)> {
        let running = self.partitions.iter().filter(|(_, p)| p.phase == PartitionPhase::Running);
        running
            .filter(|(_, p)| self.lease_until(p) > now.mono)
            .filter_map(|(&number, p)| {
                let mut ready = p.ready.range(Ticket::line(critical));
                ready.next().map(|(ticket, key)| (*ticket, number, key))
            })
            .min_by_key(|(ticket, ..)| *ticket)
            .map(|(_, number, key)| (number, key.clone()))
    }

    fn prepared(&self, critical: bool) -> usize {
        self.partitions.values().map(|p| p.prepared[usize::from(!critical)]).sum()
    }

    /// A lane's turn: the first segment that needs a request is claimed; those that need none are resolved.
    pub(super) fn turn(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        self.stage(partition, key, Stage::Idle);
        while let Some(mut segment) = self.lane(partition, key).and_then(|l| l.queue.pop()) {
            if let RecordOrigin::Release(id, upto) = segment.origin {
                if let Some(park) = self.release_key(partition, key, (id, upto), out) {
                    if let Some(lane) = self.lane(partition, key) {
                        lane.held.put_back_apart(segment);
                    }
                    self.park(partition, key, park, out);
                    return;
                }
                self.settle_without_write(partition, &segment);
                continue;
            }
            if self.is_barred(partition, key, &segment) {
                self.dead_letter(partition, key, segment, now, out);
                return;
            }
            if self.is_parked_for(partition, key, segment.origin)
                && segment.opened_by > segment.lo()
                && let Some(opening) = segment.split_post()
            {
                // Only the opening event passes; what came before it goes where it would have gone without it.
                self.put_back(partition, key, opening);
                self.dead_letter(partition, key, segment, now, out);
                return;
            }
            if segment.refusal.is_some() {
                self.refuse_again(partition, key, segment, now, out);
                return;
            }
            if let Some(park) = self.parking_to_pass(partition, key, &segment) {
                self.put_back(partition, key, segment);
                self.park(partition, key, park, out);
                return;
            }
            if let Some(until) = self.must_wait(partition, key, &segment, now) {
                self.put_back(partition, key, segment);
                self.let_wait(partition, key, until);
                return;
            }
            if self.must_discover(partition, key) {
                self.put_back(partition, key, segment);
                self.make_want(partition, key, Stage::Wants(ReadPurpose::Discover), now);
                return;
            }
            match self.decide(partition, key, &segment, now, out) {
                Decision::Skip(why) => {
                    Self::observe(out, Observation::Skipped(key.clone(), why));
                    self.settle_without_write(partition, &segment);
                }
                Decision::SkipShortLived => {
                    Self::observe(out, Observation::Skipped(key.clone(), TOO_BRIEF));
                    if let Some(entry) = self.past_what_is_left_out(partition, key, &segment, now) {
                        self.settle_unchanged(partition, key, segment, entry, now, out);
                        return;
                    }
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
                    self.make_want(partition, key, Stage::Wants(ReadPurpose::Read), now);
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

    /// A parked key lets nothing through but an opening event while no ticket is open and no redrive under way.
    fn is_barred(&self, partition: i32, key: &Key, segment: &Segment) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let park = p.parks.get(key);
        if park.zip(segment.lo()).is_some_and(|(park, lo)| park.may_have_buried(lo)) {
            return true;
        }
        if !self.is_parked_for(partition, key, segment.origin) {
            return false;
        }
        let open = p.entries.get(key).is_some_and(|e| self.settings.states.phase(&e.seen.state).is_open());
        open || segment.post.is_none() || park.is_some_and(|park| park.redriving.is_some())
    }

    /// Whether the key is parked, and events of this origin must not pass by themselves.
    fn is_parked_for(&self, partition: i32, key: &Key, origin: RecordOrigin) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        p.parks.get(key).is_some_and(|park| park.bars(origin))
    }

    /// Whether events that a former owner had claimed have not arrived yet. They are tried again together, since that
    /// owner may have written dead letters of them: fewer of them might be accepted.
    pub(super) fn misses_claimed_events(&self, partition: i32, key: &Key) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let apart = p.lanes.get(key).and_then(|lane| lane.apart);
        apart.is_some_and(|hi| !p.tracker.has_seen(hi.offset))
    }

    /// Whether the key must be looked for: the ledger may have lost it. Not only where a ticket would be made, since what
    /// closes a ticket must find it, too.
    fn must_discover(&self, partition: i32, key: &Key) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        p.incomplete && !p.entries.contains_key(key) && p.lanes.get(key).is_some_and(|l| !l.proven)
    }

    fn decide(&mut self, partition: i32, key: &Key, segment: &Segment, now: Now, out: &mut Vec<Effect>) -> Decision {
        let row = self.lane(partition, key).and_then(|l| l.row.take());
        let p = self.partitions.get(&partition);
        let entry = p.and_then(|p| p.entries.get(key));
        let topic_generation = p.map_or(0, |p| p.topic_generation);
        let base = Base { entry: entry.as_deref(), row: row.as_deref(), now: now.unix, topic_generation };
        let decision = decide(base, segment, &self.settings, &mut self.kept);
        for column in std::mem::take(&mut self.kept) {
            Self::observe(out, Observation::UserEditPreserved(key.clone(), column));
        }
        decision
    }

    /// Produces the claim of a write and takes what it carries out of the queue.
    fn claim(
        &mut self,
        partition: i32,
        key: &Key,
        mut segment: Segment,
        mut plan: Box<WritePlan>,
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
        let mut claim = self.make_claim(partition, key, &segment, rest.as_ref(), &plan, occurred_at, now);
        if self.settings.whole {
            let marker = attempt_marker(&self.settings, partition, claim.attempt, claim.instance_time);
            claim.markers.push(marker.clone());
            plan.notes.push(MarkedNote { text: String::new(), marker });
        }
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
            self.make_want(partition, key, Stage::Claimed(plan), now);
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
        plan: &WritePlan,
        occurred_at: i64,
        now: Now,
    ) -> Claim {
        let partial = match plan.rest {
            Rest::Notes { parts, .. } if parts > 0 => rest.and_then(Segment::lo).map(|at| (at, parts)),
            _ => None,
        };
        let fallback = rest.and_then(Segment::lo).map_or(Position::new(partition, 0, 0), before);
        // Once a part of a note is written, whatever lies before the note is done, left-out repetitions too: a successor
        // that does not know why it was left out must not write it behind the part.
        let reached = if partial.is_some() { fallback } else { segment.hi().unwrap_or(fallback) };
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
            hi: reached.max(done.unwrap_or(fallback)),
            partial,
            fields: plan.fields.iter().map(|(c, v)| (c.clone(), field_hash(v))).collect(),
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
                    self.make_want(partition, key, Stage::Claimed(plan), now);
                } else {
                    self.requeue(partition, key);
                    self.wait_a_little(partition, key, now);
                }
            }
            other => lane.stage = other,
        }
    }

    /// What the attempt carried goes back into the queue; its claim stands for nothing any more.
    pub(super) fn requeue(&mut self, partition: i32, key: &Key) {
        let bounds = self.bounds(partition, key);
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

    pub(super) fn entry(&self, partition: i32, key: &Key) -> Option<Cow<'_, Entry>> {
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
