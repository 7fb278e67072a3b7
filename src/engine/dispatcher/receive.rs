//! Receipt of records, and of the outcomes of produces.

use std::sync::Arc;

use super::{Dispatcher, PendingProduce};
use crate::engine::event::{
    DeadLetter, Effect, LedgerKey, MappedRecord, Observation, ProduceId, ProduceOutcome, RecordContent,
};
use crate::engine::fold::{InvalidEvent, Queue};
use crate::engine::lane::{Lane, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::partition::PartitionPhase;
use crate::model::{Action, Entry, Epoch, EventOrder, Intent, Key, Now, Phase, Position, Record, RecordOrigin};

/// Why a change of state without a note is skipped.
const OUTDATED: &str = "older than the applied state";

/// Milliseconds. A sender's clock may be so far ahead of ours without being wrong.
const MAX_CLOCK_DIFFERENCE: i64 = 60_000;

/// Why a resync is skipped.
const OVERTAKEN: &str = "newer events of the key were applied or are queued since the resync read its entry";

impl Dispatcher {
    pub(super) fn received(
        &mut self,
        partition: i32,
        epoch: Epoch,
        record: MappedRecord,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.partition_in_epoch(partition, epoch) else { return };
        if p.phase != PartitionPhase::Running || p.tracker.has_seen(record.offset) {
            return;
        }
        let load_generation = p.load_generation;
        match record.content {
            RecordContent::Skipped => p.tracker.receive(record.offset, 0),
            RecordContent::Release(key) => {
                p.tracker.receive(record.offset, 1);
                self.budget.add(1, 0);
                self.enqueue_unfolded(partition, record.offset, &key, 0, now, out, |queue, position| {
                    queue.push_release(record.origin, position, now.mono);
                });
            }
            RecordContent::InvalidRedriven { key, code, reason } => {
                p.tracker.receive(record.offset, 1);
                let bytes = record.raw.size();
                self.budget.add(1, bytes);
                self.enqueue_unfolded(partition, record.offset, &key, bytes, now, out, |queue, position| {
                    let invalid = InvalidEvent { code, reason };
                    queue.push_invalid(position, record.origin, (&record.raw, bytes), invalid, now.mono);
                });
            }
            RecordContent::Invalid { code, reason } => {
                p.tracker.receive(record.offset, 1);
                self.budget.add(1, 0);
                let dead_letter = DeadLetter {
                    position: Position::new(partition, record.offset, 0),
                    key: None,
                    code: code.into(),
                    reason,
                    superseded: Vec::new(),
                    raw: record.raw,
                };
                let pending = |l| PendingProduce::InvalidRecord(partition, load_generation, l);
                self.produce_dead_letter(Box::new(dead_letter), pending, out);
            }
            RecordContent::Intents(intents) => {
                p.tracker.receive(record.offset, u32::try_from(intents.len()).unwrap_or(u32::MAX));
                let share = record.raw.size() / intents.len().max(1);
                self.budget.add(intents.len(), share * intents.len());
                for intent in intents {
                    self.enqueue_event(partition, intent, record.origin, (&record.raw, share), now, out);
                }
            }
        }
    }

    /// Adds an event to its lane, unless it is already known or too old.
    fn enqueue_event(
        &mut self,
        partition: i32,
        mut intent: Intent,
        origin: RecordOrigin,
        (raw, bytes): (&Arc<Record>, usize),
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let offset = intent.position.offset;
        if self.is_already_done(partition, &intent, origin) {
            self.resolve(partition, offset, bytes);
            return;
        }
        let key = intent.key.clone();
        Self::limit_time(&mut intent, now, out);
        let action = intent.action;
        let filtered = match origin {
            RecordOrigin::Resync(at) if !self.is_resync_current(partition, &intent, at) => Err(OVERTAKEN),
            _ => self.filter_event(partition, intent, origin),
        };
        if origin == RecordOrigin::Source {
            self.report_outdated(partition, &key, action, &filtered, out);
        }
        let mut intent = match filtered {
            Ok(intent) => intent,
            Err(reason) => {
                self.resolve(partition, offset, bytes);
                Self::observe(out, Observation::Skipped(key, reason));
                return;
            }
        };
        self.record_flapping(partition, &mut intent);
        let limits = self.fold_limits(partition, &key);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        p.entries.activate(&key);
        let lane = p.lanes.entry(key.clone()).or_default();
        // Events that an ambiguous claim may contain are not folded with later ones.
        let maybe_claimed = lane.claim.as_ref().is_some_and(|(_, claim)| intent.position <= claim.last_position);
        let position = intent.position;
        let queue = if maybe_claimed { &mut lane.in_flight } else { &mut lane.queue };
        let freed = queue.push(intent, origin, (raw, bytes), limits, now.mono);
        self.budget.free(0, freed);
        self.continue_partial_note(partition, &key, position);
        self.schedule_lane(partition, &key, now, out);
    }

    /// A time in the future counts as the time of receipt: taken as it is, it would keep later events from counting, and
    /// move the end of the reopen window.
    fn limit_time(intent: &mut Intent, now: Now, out: &mut Vec<Effect>) {
        let ahead = intent.occurred_at.saturating_sub(now.unix);
        if ahead <= MAX_CLOCK_DIFFERENCE {
            return;
        }
        intent.occurred_at = now.unix;
        if intent.order.is_time() {
            intent.order = EventOrder::of_time(now.unix);
        }
        Self::observe(out, Observation::FutureTime(intent.key.clone(), ahead));
    }

    /// Reports a change of state that is not applied to the open ticket because it is outdated.
    fn report_outdated(
        &self,
        partition: i32,
        key: &Key,
        action: Action,
        filtered: &Result<Intent, &'static str>,
        out: &mut Vec<Effect>,
    ) {
        let is_outdated = match filtered {
            Ok(intent) => intent.action != action,
            Err(reason) => *reason == OUTDATED,
        };
        let changes_state = action.closes() || matches!(action, Action::Acknowledge | Action::Unacknowledge);
        let is_open = |entry: &Entry| entry.phase(&self.settings.states).is_open();
        if is_outdated && changes_state && self.entry(partition, key).is_some_and(|entry| is_open(&entry)) {
            Self::observe(out, Observation::OutdatedStateChange(key.clone(), action));
        }
    }

    /// Adds something that is not folded (the end of a redrive, a redriven event that still cannot be decoded or
    /// mapped) to the lane, after the events that arrived before it.
    fn enqueue_unfolded(
        &mut self,
        partition: i32,
        offset: i64,
        key: &Key,
        bytes: usize,
        now: Now,
        out: &mut Vec<Effect>,
        push: impl FnOnce(&mut Queue, Position),
    ) {
        let position = Position::new(partition, offset, 0);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        // Later writes of the key are made only after its turn: so if there is one, this was already processed.
        let processed = p.entries.get(key).is_some_and(|e| position <= e.position)
            || p.lanes
                .get(key)
                .and_then(|l| l.claim.as_ref())
                .is_some_and(|(_, claim)| position <= claim.last_position);
        if processed {
            return self.resolve(partition, offset, bytes);
        }
        p.entries.activate(key);
        push(&mut p.lanes.entry(key.clone()).or_default().queue, position);
        self.schedule_lane(partition, key, now, out);
    }

    /// Gets an idle lane in line for a turn; updates the rank of one that already waits.
    fn schedule_lane(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        let idle = matches!(lane.stage, Stage::Idle | Stage::WaitingToShare(_));
        let unsafe_turn = lane.is_ambiguous() && self.rules.is_disabled(Mutation::NoWaitWhileAmbiguous);
        if unsafe_turn && let Some(lane) = self.lane(partition, key) {
            lane.claim = None;
        }
        if idle || unsafe_turn {
            self.enqueue_for_turn(partition, key, now, out);
        } else {
            self.update_rank(partition, key, now);
        }
    }

    /// True if the ledger says that the event was already applied or dead-lettered.
    fn is_already_done(&self, partition: i32, intent: &Intent, origin: RecordOrigin) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let applied = p.entries.get(&intent.key).is_some_and(|e| intent.position <= e.position);
        let dead_lettered = p.parks.get(&intent.key).is_some_and(|park| park.covers(intent.position, origin));
        (applied && !self.rules.is_disabled(Mutation::NoPositionCheck)) || dead_lettered
    }

    /// True if nothing of the key was applied after `at` and nothing is pending that would be: then the values of the
    /// resync are the newest. If a previous owner had claimed it, the check was true then, and it is applied.
    fn is_resync_current(&self, partition: i32, intent: &Intent, at: Position) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        if self.rules.is_disabled(Mutation::NoResyncCheck) {
            return true;
        }
        let lane = p.lanes.get(&intent.key);
        let claimed = lane.and_then(|lane| lane.claim.as_ref());
        if claimed.is_some_and(|(_, claim)| (claim.first_position..=claim.last_position).contains(&intent.position)) {
            return true;
        }
        let idle = lane.is_none_or(|l| l.queue.is_empty() && l.in_flight.is_empty() && l.claim.is_none());
        idle && !p.parks.contains_key(&intent.key) && p.entries.get(&intent.key).is_some_and(|e| e.position == at)
    }

    /// Skips repeated events and old ones; of an old event the note is kept (protocol rule 8).
    fn filter_event(&self, partition: i32, mut intent: Intent, origin: RecordOrigin) -> Result<Intent, &'static str> {
        let Some(p) = self.partitions.get(&partition) else { return Ok(intent) };
        let known = p.entries.get(&intent.key);
        let entry = known.as_deref();
        let lane = p.lanes.get(&intent.key);
        // A redriven event is older than what the source published since, so it is compared with redriven events only.
        let redriven = origin.redrive().is_some();
        let counts = |other: RecordOrigin| !redriven || other.redrive().is_some();
        // For events after them, dead letters count as if they were still queued; else it would depend on the owner
        // which opening event passes. An announced dead letter is still to be written, and is itself in the queue.
        let parked = p.parks.get(&intent.key).filter(|park| !redriven && intent.position > park.position);
        if let Some(id) = intent.event_id {
            let has = |queue: &Queue| if redriven { queue.has_redriven_id(id) } else { queue.has_recent_id(id) };
            if parked.is_some_and(|park| park.event_ids.contains(&id)) {
                return Err("an event with this id is among the dead letters");
            }
            let repeated = entry.is_some_and(|e| e.event_ids.contains(&id))
                || lane.is_some_and(|l: &Lane| has(&l.queue) || has(&l.in_flight));
            if repeated {
                return Err("an event with this id was applied already");
            }
        }
        // Events that wait without a ticket to apply them to will be skipped, so no event is too old compared with
        // them. They may return to the queue, though.
        let mut ticket =
            parked.is_some() || entry.is_some_and(|entry| entry.phase(&self.settings.states) != Phase::Closed);
        let in_flight = lane.map(|l| l.in_flight.newest_order(&mut ticket, counts));
        let queued = lane.map(|l| l.queue.newest_order(&mut ticket, counts));
        let dead_lettered = parked.map(|park| park.order);
        let newer = [entry.map(|entry| entry.order), dead_lettered, in_flight, queued];
        let is_outdated = newer.into_iter().flatten().any(|newest| intent.order.is_before(newest));
        // If a part of an event's long note is written, everything else of the event is already applied.
        let only_note_left = entry.is_some_and(|e| e.partial_note.is_some_and(|done| done.position == intent.position));
        if only_note_left || (intent.action.affects_state() && is_outdated) {
            if intent.note.is_none() {
                return Err(OUTDATED);
            }
            intent.action = Action::Note;
            intent.fields = Vec::new();
            intent.closing = Vec::new();
        }
        Ok(intent)
    }

    /// A long note of which some parts are written continues after them.
    fn continue_partial_note(&mut self, partition: i32, key: &Key, position: Position) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(done) = p.entries.get(key).and_then(|e| e.partial_note) else { return };
        if done.position == position
            && let Some(lane) = p.lanes.get_mut(key)
        {
            lane.queue.set_written_parts(position, done.parts);
            lane.in_flight.set_written_parts(position, done.parts);
        }
    }

    pub(super) fn produce_completed(
        &mut self,
        id: ProduceId,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(pending) = self.pending_produces.remove(&id) else { return };
        match pending {
            PendingProduce::InvalidRecord(partition, load_generation, dead_letter) => {
                self.invalid_record_dead_lettered(partition, load_generation, dead_letter, outcome, out);
            }
            PendingProduce::Rejection(partition, load_generation, key, dead_letter) => {
                self.rejection_produced(partition, load_generation, &key, dead_letter, outcome, now, out);
            }
            PendingProduce::Claim(partition, load_generation, _)
            | PendingProduce::Entry(partition, load_generation, _)
            | PendingProduce::ClaimTombstone(partition, load_generation, _)
            | PendingProduce::ClaimWithdrawal(partition, load_generation)
            | PendingProduce::PreviousOwnerTombstone(partition, load_generation, ..)
            | PendingProduce::Mark(partition, load_generation, _)
            | PendingProduce::FinalTombstone(partition, load_generation, ..)
            | PendingProduce::Unawaited(partition, load_generation)
                if outcome == ProduceOutcome::Unknown =>
            {
                if self.current_partition(partition, load_generation).is_some() {
                    self.renew_token(partition, out);
                }
            }
            PendingProduce::Claim(partition, load_generation, key) => {
                self.claim_produced(partition, load_generation, &key, id, outcome, now);
            }
            PendingProduce::Entry(partition, load_generation, key) => {
                self.entry_produced(partition, load_generation, &key, id, outcome, now, out);
            }
            PendingProduce::PreviousOwnerTombstone(partition, load_generation, key, round) => {
                self.previous_owner_tombstone_produced(partition, load_generation, &key, round, outcome, now, out);
            }
            PendingProduce::ClaimTombstone(partition, load_generation, key) => {
                self.claim_tombstone_produced(partition, load_generation, &key, now, out);
            }
            PendingProduce::ClaimWithdrawal(partition, load_generation) => {
                if let Some(p) = self.current_partition(partition, load_generation) {
                    p.outstanding -= 1;
                }
            }
            PendingProduce::Mark(partition, load_generation, watermark) => {
                let acked = (outcome == ProduceOutcome::Acked).then_some(watermark);
                self.mark_produced(partition, load_generation, acked);
            }
            PendingProduce::FinalTombstone(partition, load_generation, name, token) => {
                self.removal_produced(partition, load_generation, name, token, outcome, out);
            }
            PendingProduce::Unawaited(..) => {}
        }
    }

    fn invalid_record_dead_lettered(
        &mut self,
        partition: i32,
        load_generation: u64,
        dead_letter: Box<DeadLetter>,
        outcome: ProduceOutcome,
        out: &mut Vec<Effect>,
    ) {
        if self.current_partition(partition, load_generation).is_none() {
            return;
        }
        if outcome == ProduceOutcome::Acked {
            self.resolve(partition, dead_letter.position.offset, 0);
        } else {
            let pending = |l| PendingProduce::InvalidRecord(partition, load_generation, l);
            self.produce_dead_letter(dead_letter, pending, out);
        }
    }

    /// Releases a parked key: tombstones the ledger records of its park, older ones first.
    pub(super) fn unpark(&mut self, partition: i32, key: &Key, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(park) = p.parks.remove(key) else { return };
        let (load_generation, name) = (p.load_generation, LedgerKey::Park(key.clone()));
        let mut tokens = p.take_stale_tokens(&name);
        tokens.push(park.token);
        for token in tokens {
            self.remove_record(partition, load_generation, name.clone(), token, out);
        }
        Self::observe(out, Observation::Unparked(key.clone()));
    }
}
