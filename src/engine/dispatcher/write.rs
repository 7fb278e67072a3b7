//! A lane's turn, until its claim: segments that need no request are resolved, the first one that needs one is claimed
//! (protocol rules 5 to 7, 16).

use std::borrow::Cow;

use super::noop::SHORT_LIVED;
use super::parked::ParkDecision;
use super::{Dispatcher, PendingProduce};
use crate::engine::event::{
    Effect, LedgerKey, LedgerWrite, MarkedNote, Observation, ProduceId, ProduceOutcome, WriteResult,
};
use crate::engine::field_hash::field_hash;
use crate::engine::fold::Segment;
use crate::engine::freshness::SeenRow;
use crate::engine::lane::{ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::plan::{Decision, PlanContext, Remainder, WritePlan, attempt_marker, decide};
use crate::engine::priority::{LaneClass, LaneRank};
use crate::model::entry::ClaimKind;
use crate::model::{AttemptId, Claim, Entry, EventOrder, Key, Now, PartialNote, Position, RecordOrigin};

/// Maximum number of critical lanes that are prepared, in addition to the claim window.
const MAX_CRITICAL_PREPARED: usize = 16;

/// The same if the next one's alert has no ticket yet, so that it does not wait behind changes of state.
const MAX_CRITICAL_PREPARED_WITHOUT_TICKET: usize = 2 * MAX_CRITICAL_PREPARED;

impl Dispatcher {
    /// Runs ready lanes until enough are prepared, in the order of their ranks over all partitions. Critical lanes have
    /// a limit of their own, so that none waits until another lane is sent.
    pub(super) fn run_ready_lanes(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.breaker.may_prepare() {
            let critical = self.next_ready_lane(LaneClass::Critical, now).filter(|(rank, ..)| {
                let without_ticket = rank.is_critical_without_ticket();
                let limit = if without_ticket { MAX_CRITICAL_PREPARED_WITHOUT_TICKET } else { MAX_CRITICAL_PREPARED };
                self.prepared(LaneClass::Critical) < limit
            });
            let next = critical.or_else(|| {
                self.next_ready_lane(LaneClass::Standard, now)
                    .filter(|_| self.prepared(LaneClass::Standard) < self.claim_window.limit())
            });
            let Some((_, partition, key)) = next else { break };
            self.run_lane(partition, &key, now, out);
        }
        self.look_ahead(now);
    }

    /// The first ready lane of a class.
    fn next_ready_lane(&self, class: LaneClass, now: Now) -> Option<(LaneRank, i32, Key)> {
        self.active_partitions(now)
            .filter_map(|(number, p)| {
                let mut ready = p.ready.range(LaneRank::range(class));
                ready.next().map(|(rank, key)| (*rank, number, key))
            })
            .min_by_key(|(rank, ..)| *rank)
            .map(|(rank, number, key)| (rank, number, key.clone()))
    }

    pub(super) fn prepared(&self, class: LaneClass) -> usize {
        self.partitions.values().map(|p| p.prepared.of(class)).sum()
    }

    /// Runs a lane's turn: resolves segments that need no request, and claims the first one that needs one.
    pub(super) fn run_lane(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        self.stage(partition, key, Stage::Idle);
        while let Some(mut segment) = self.lane(partition, key).and_then(|l| l.queue.pop()) {
            if let RecordOrigin::Release(id, upto) = segment.origin {
                if let Some(park) = self.release_key(partition, key, (id, upto), out) {
                    if let Some(lane) = self.lane(partition, key) {
                        lane.in_flight.requeue_unfolded(segment);
                    }
                    self.park(partition, key, park, out);
                    return;
                }
                self.resolve_without_write(partition, &segment);
                continue;
            }
            match self.park_decision(partition, key, &segment, now) {
                ParkDecision::Pass => {}
                ParkDecision::DeadLetter => return self.dead_letter(partition, key, segment, now, out),
                ParkDecision::Look => {
                    self.requeue_segment(partition, key, segment);
                    return self.look(partition, key, true, now);
                }
            }
            if self.is_parked_for(partition, key, segment.origin)
                && segment.open_position > segment.first_position()
                && let Some(opening) = segment.split_from_open()
            {
                // Only the opening event passes; the events before it are dead-lettered, as they would be without it.
                self.requeue_segment(partition, key, opening);
                self.dead_letter(partition, key, segment, now, out);
                return;
            }
            if segment.invalid.is_some() {
                self.reject_redriven(partition, key, segment, now, out);
                return;
            }
            if let Some(park) = self.park_before_redrive(partition, key, &segment) {
                self.requeue_segment(partition, key, segment);
                self.park(partition, key, park, out);
                return;
            }
            if let Some(until) = self.wait_instant(partition, key, &segment, now) {
                self.requeue_segment(partition, key, segment);
                self.wait_on_hold(partition, key, until);
                return;
            }
            if self.must_look_up_ticket(partition, key) {
                self.requeue_segment(partition, key, segment);
                self.wait_for_permit(partition, key, Stage::WaitingToRead(ReadPurpose::DiscoverTicket), now);
                return;
            }
            match self.decide(partition, key, &segment, now, out) {
                Decision::Skip(reason) => {
                    Self::observe(out, Observation::Skipped(key.clone(), reason));
                    self.resolve_without_write(partition, &segment);
                }
                Decision::SkipShortLived => {
                    Self::observe(out, Observation::Skipped(key.clone(), SHORT_LIVED));
                    if let Some(entry) = self.entry_past_skipped(partition, key, &segment, now) {
                        self.write_entry_only(partition, key, segment, entry, now, out);
                        return;
                    }
                    self.resolve_without_write(partition, &segment);
                }
                Decision::Unchanged { resolved_at } => {
                    Self::observe(out, Observation::Unchanged(key.clone()));
                    if let Some(entry) = self.entry_for_unchanged(partition, key, &segment, resolved_at, now) {
                        self.write_entry_only(partition, key, segment, entry, now, out);
                        return;
                    }
                    self.resolve_without_write(partition, &segment);
                }
                Decision::Read { will_write: false } if self.rules.is_disabled(Mutation::NoLookBeforeNothing) => {
                    self.resolve_without_write(partition, &segment);
                }
                Decision::Read { will_write } => {
                    self.requeue_segment(partition, key, segment);
                    self.look(partition, key, will_write, now);
                    return;
                }
                Decision::Write(plan) => {
                    self.claim_write(partition, key, segment, plan, now, out);
                    return;
                }
            }
        }
        self.drop_lane(partition, key, now, out);
    }

    fn requeue_segment(&mut self, partition: i32, key: &Key, segment: Segment) {
        if let Some(lane) = self.lane(partition, key) {
            lane.queue.requeue_unfolded(segment);
        }
    }

    /// True if events that a previous owner had claimed have not arrived yet. They are retried together, because that
    /// owner may have written dead letters of them: a part of them might be accepted.
    pub(super) fn is_missing_claimed_events(&self, partition: i32, key: &Key) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let claimed_up_to = p.lanes.get(key).and_then(|lane| lane.claimed_up_to);
        claimed_up_to.is_some_and(|last| !p.tracker.has_seen(last.offset))
    }

    /// True if the instance must be asked for the key's ticket, because the ledger may have lost its entry. This
    /// applies not only to events that would create a ticket: those that resolve one must find it, too.
    fn must_look_up_ticket(&self, partition: i32, key: &Key) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        p.incomplete && !p.entries.contains_key(key) && p.lanes.get(key).is_some_and(|l| !l.lookup_done)
    }

    fn decide(&mut self, partition: i32, key: &Key, segment: &Segment, now: Now, out: &mut Vec<Effect>) -> Decision {
        let max_age = self.max_row_age(partition, key);
        let p = self.partitions.get(&partition);
        let entry = p.and_then(|p| p.entries.get(key));
        let entry = entry.map(|mut entry| {
            if self.rules.is_disabled(Mutation::NoFirings) {
                entry.to_mut().ended_by_user = false;
            }
            entry
        });
        let topic_generation = p.map_or(0, |p| p.topic_generation);
        let seen = p.and_then(|p| p.rows.get(key, now.mono, max_age)).filter(|_| entry.is_some());
        let context = PlanContext {
            entry: entry.as_deref(),
            row: seen.map(|seen| &seen.row),
            seen_after_open: seen.is_some_and(|seen| seen.sent_at >= segment.newest_open_received_at()),
            topic_generation,
        };
        let decision = decide(context, segment, &self.settings, &mut self.preserved);
        let decided_on = seen.map(SeenRow::version);
        if let Some(lane) = self.lane(partition, key) {
            lane.decided_on = decided_on;
        }
        for column in std::mem::take(&mut self.preserved) {
            Self::observe(out, Observation::UserEditPreserved(key.clone(), column));
        }
        decision
    }

    /// Produces the claim of a write, and moves its events out of the queue.
    fn claim_write(
        &mut self,
        partition: i32,
        key: &Key,
        mut segment: Segment,
        mut plan: Box<WritePlan>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let order = match (&plan.kind, &segment.from_open) {
            // The new ticket contains nothing from before the opening event.
            (ClaimKind::Create { .. }, Some(from_open)) => from_open.order,
            _ if matches!(plan.remainder, Remainder::FromOpen | Remainder::Notes { with_from_open: true, .. }) => {
                segment.before_open.order
            }
            _ => segment.order(),
        };
        if matches!(plan.remainder, Remainder::Notes { with_from_open: true, .. })
            && let Some(from_open) = segment.split_from_open()
        {
            self.requeue_segment(partition, key, from_open);
        }
        let remainder = match plan.remainder {
            Remainder::None => None,
            Remainder::FromOpen => segment.split_from_open(),
            Remainder::Notes { whole_notes, parts, .. } => Some(segment.split_notes(whole_notes, parts)),
        };
        let mut claim = self.make_claim(partition, key, &segment, remainder.as_ref(), &plan, order, now);
        if self.settings.full_snapshot {
            let marker = attempt_marker(&self.settings, partition, claim.attempt, claim.instance_time);
            claim.markers.push(marker.clone());
            plan.notes.push(MarkedNote { text: String::new(), marker });
        }
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let (load_generation, token) = (p.load_generation, p.token);
        let Some(lane) = p.lanes.get_mut(key) else { return };
        if let Some(remainder) = remainder {
            lane.queue.requeue_unfolded(remainder);
        }
        lane.in_flight.requeue_unfolded(segment);
        lane.claim = Some((token, Box::new(claim.clone())));
        let void_claim = lane.void_claim.take().filter(|old| *old != token);
        if self.rules.is_disabled(Mutation::NoClaim) {
            self.wait_for_permit(partition, key, Stage::Claimed(plan), now);
            return;
        }
        let write = LedgerWrite::Claim(key.clone(), token, Box::new(claim));
        let pending = PendingProduce::Claim(partition, load_generation, key.clone());
        let produce_id = self.produce(partition, write, pending, out);
        let name = LedgerKey::Claim(key.clone());
        self.tombstone_stale(partition, load_generation, &name, out);
        if let Some(old) = void_claim {
            let pending = PendingProduce::Unawaited(partition, load_generation);
            self.produce(partition, LedgerWrite::Tombstone(name, old), pending, out);
        }
        self.stage(partition, key, Stage::Claiming(produce_id, plan));
    }

    fn make_claim(
        &mut self,
        partition: i32,
        key: &Key,
        segment: &Segment,
        remainder: Option<&Segment>,
        plan: &WritePlan,
        order: EventOrder,
        now: Now,
    ) -> Claim {
        let partial_note = match plan.remainder {
            Remainder::Notes { parts, .. } if parts > 0 => {
                remainder.and_then(Segment::first_position).map(|position| PartialNote { position, parts })
            }
            _ => None,
        };
        let fallback =
            remainder.and_then(Segment::first_position).map_or(Position::new(partition, 0, 0), position_before);
        // Once a part of a note is written, everything before the note is done, skipped repetitions included: a
        // successor that does not know why they were skipped must not write them after the part.
        let covered = if partial_note.is_some() { fallback } else { segment.last_position().unwrap_or(fallback) };
        // A write that completes no event leaves the position unchanged.
        let applied = self.entry(partition, key).map(|e| e.position);
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
            first_position: segment.first_position().unwrap_or(fallback),
            last_position: covered.max(applied.unwrap_or(fallback)),
            partial_note,
            fields: plan.fields.iter().map(|(c, v)| (c.clone(), field_hash(v))).collect(),
            state: plan.state.clone(),
            markers: plan.notes.iter().map(|n| n.marker.clone()).collect(),
            order,
            resolved_at: plan.resolved_at,
            event_ids: segment.events.iter().filter_map(|e| e.event_id).collect(),
            episode: segment.episode,
            alert_over: segment.closed_at().is_some(),
            instance_time: now.unix + self.clock_skew,
            span: self.settings.request_deadline + self.settings.max_transaction_time,
        }
    }

    pub(super) fn claim_produced(
        &mut self,
        partition: i32,
        load_generation: u64,
        key: &Key,
        id: ProduceId,
        outcome: ProduceOutcome,
        now: Now,
    ) {
        if self.current_partition(partition, load_generation).is_none() {
            return;
        }
        let Some(lane) = self.lane(partition, key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::Claiming(produce_id, plan) if produce_id == id => {
                if outcome == ProduceOutcome::Acked {
                    self.wait_for_permit(partition, key, Stage::Claimed(plan), now);
                } else {
                    self.requeue(partition, key);
                    self.wait_for_retry(partition, key, now);
                }
            }
            stage => lane.stage = stage,
        }
    }

    /// Returns the events of an attempt that was not applied to the queue. Its claim is void.
    pub(super) fn requeue(&mut self, partition: i32, key: &Key) {
        let limits = self.fold_limits(partition, key);
        if let Some(lane) = self.lane(partition, key) {
            let in_flight = lane.in_flight.take();
            lane.queue.requeue_all(in_flight, limits);
            let Some((token, claim)) = lane.claim.take() else { return };
            lane.void_claim = Some(token);
            // The parts of a long note that the attempt contained are not written.
            if let Some(PartialNote { position: at, .. }) = claim.partial_note {
                let written =
                    self.entry(partition, key).and_then(|e| e.partial_note).filter(|done| done.position == at);
                let parts = written.map_or(0, |done| done.parts);
                if let Some(lane) = self.lane(partition, key) {
                    lane.queue.set_written_parts(at, parts);
                }
            }
        }
    }

    pub(super) fn entry(&self, partition: i32, key: &Key) -> Option<Cow<'_, Entry>> {
        self.partitions.get(&partition)?.entries.get(key)
    }

    pub(super) fn result_of(key: &Key, outcome: &'static str, entry: &Entry) -> WriteResult {
        WriteResult {
            key: key.clone(),
            outcome,
            sys_id: entry.sys_id.clone(),
            number: entry.number.clone(),
            positions: Vec::new(),
            fields: Vec::new(),
            notes: 0,
            requests: 0,
            latency_ms: 0,
            warnings: Vec::new(),
        }
    }
}

/// The position immediately before another.
fn position_before(at: Position) -> Position {
    match at.index {
        0 => Position::new(at.partition, at.offset - 1, u32::MAX),
        index => Position::new(at.partition, at.offset, index - 1),
    }
}
