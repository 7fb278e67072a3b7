//! What arrives: records, and the answers of produces.

use std::sync::Arc;

use super::{Dispatcher, Op};
use crate::engine::event::{Content, DeadLetter, Effect, LedgerKey, Observation, OpId, ProduceOutcome, Received};
use crate::engine::fold::Queue;
use crate::engine::lane::{Lane, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::partition::PartitionPhase;
use crate::model::{Action, Epoch, Intent, Key, Now, Phase, Position, Record, RecordOrigin};

/// Why a resync is left out.
const OVERTAKEN: &str = "more of the key was applied since the resync looked, or waits before it";

impl Dispatcher {
    pub(super) fn received(&mut self, partition: i32, epoch: Epoch, record: Received, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.with_epoch(partition, epoch) else { return };
        if p.phase != PartitionPhase::Running || p.tracker.has_seen(record.offset) {
            return;
        }
        let life = p.life;
        match record.content {
            Content::Skipped => p.tracker.receive(record.offset, 0),
            Content::Release(key) => {
                p.tracker.receive(record.offset, 1);
                self.budget.take(1, 0);
                self.admit_apart(partition, record.offset, &key, 0, now, out, |queue, position| {
                    queue.push_release(record.origin, position, now.mono);
                });
            }
            Content::RefusedAgain { key, code, reason } => {
                p.tracker.receive(record.offset, 1);
                let bytes = record.raw.size();
                self.budget.take(1, bytes);
                self.admit_apart(partition, record.offset, &key, bytes, now, out, |queue, position| {
                    queue.push_refused(position, record.origin, (&record.raw, bytes), (code, reason), now.mono);
                });
            }
            Content::Refused { code, reason } => {
                p.tracker.receive(record.offset, 1);
                self.budget.take(1, 0);
                let letter = DeadLetter {
                    position: Position::new(partition, record.offset, 0),
                    key: None,
                    code: code.into(),
                    reason,
                    superseded: Vec::new(),
                    raw: record.raw,
                };
                self.produce_letter(Box::new(letter), |l| Op::Buried(partition, life, l), out);
            }
            Content::Intents(intents) => {
                p.tracker.receive(record.offset, u32::try_from(intents.len()).unwrap_or(u32::MAX));
                let share = record.raw.size() / intents.len().max(1);
                self.budget.take(intents.len(), share * intents.len());
                for intent in intents {
                    self.admit(partition, intent, record.origin, (&record.raw, share), now, out);
                }
            }
        }
    }

    /// Lets an event into its lane, unless it is known already or too old.
    fn admit(
        &mut self,
        partition: i32,
        intent: Intent,
        origin: RecordOrigin,
        (raw, bytes): (&Arc<Record>, usize),
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let offset = intent.position.offset;
        if self.is_done(partition, &intent, origin) {
            self.resolve(partition, offset, bytes);
            return;
        }
        let key = intent.key.clone();
        let screened = match origin {
            RecordOrigin::Resync(at) if !self.stands_at(partition, &intent, at) => Err(OVERTAKEN),
            _ => self.screen(partition, intent, origin),
        };
        let mut intent = match screened {
            Ok(intent) => intent,
            Err(why) => {
                self.resolve(partition, offset, bytes);
                Self::observe(out, Observation::Skipped(key, why));
                return;
            }
        };
        self.hear_flapping(partition, &mut intent);
        let bounds = self.bounds(partition, &key);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        p.entries.wake(&key);
        let lane = p.lanes.entry(key.clone()).or_default();
        // What a claim in doubt may have carried is kept apart from what came after it.
        let contested = lane.claim.as_ref().is_some_and(|(_, claim)| intent.position <= claim.hi);
        let position = intent.position;
        let queue = if contested { &mut lane.held } else { &mut lane.queue };
        let freed = queue.push(intent, origin, (raw, bytes), bounds, now.mono);
        self.budget.free(0, freed);
        self.continue_partial_note(partition, &key, position);
        self.make_turn(partition, &key, now, out);
    }

    /// What is no event to be folded (the end of a redrive, a redriven event that can't be mapped) takes its place in the
    /// lane behind what came before it.
    fn admit_apart(
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
        // Later writes of the key are made only after it had its turn.
        let passed = p.entries.get(key).is_some_and(|e| position <= e.position)
            || p.lanes.get(key).and_then(|l| l.claim.as_ref()).is_some_and(|(_, claim)| position <= claim.hi);
        if passed {
            return self.resolve(partition, offset, bytes);
        }
        p.entries.wake(key);
        push(&mut p.lanes.entry(key.clone()).or_default().queue, position);
        self.make_turn(partition, key, now, out);
    }

    /// A new lane gets in line; one that waits may move forward.
    fn make_turn(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        let idle = matches!(lane.stage, Stage::Idle);
        let goes_on = lane.is_ambiguous() && self.rules.off(Mutation::NoWaitInDoubt);
        if goes_on && let Some(lane) = self.lane(partition, key) {
            lane.claim = None;
        }
        if idle || goes_on {
            self.make_ready(partition, key, now, out);
        } else {
            self.move_up(partition, key, now);
        }
    }

    /// True where this incarnation of the ledger says that the event is done.
    fn is_done(&self, partition: i32, intent: &Intent, origin: RecordOrigin) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        let applied = p.entries.get(&intent.key).is_some_and(|e| intent.position <= e.position);
        let refused = p.parks.get(&intent.key).is_some_and(|park| park.covers(intent.position, origin));
        (applied && !self.rules.off(Mutation::NoPositionCheck)) || refused
    }

    /// Whether nothing of the key was applied beyond `at`, and nothing is under way that would be: then what a resync says
    /// of its values is the newest that there is. What a former owner had begun to write of it stood so, and is taken.
    fn stands_at(&self, partition: i32, intent: &Intent, at: Position) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        if self.rules.off(Mutation::NoResyncCheck) {
            return true;
        }
        let lane = p.lanes.get(&intent.key);
        let claimed = lane.and_then(|lane| lane.claim.as_ref());
        if claimed.is_some_and(|(_, claim)| (claim.lo..=claim.hi).contains(&intent.position)) {
            return true;
        }
        let idle = lane.is_none_or(|l| l.queue.is_empty() && l.held.is_empty() && l.claim.is_none());
        idle && !p.parks.contains_key(&intent.key) && p.entries.get(&intent.key).is_some_and(|e| e.position == at)
    }

    /// Leaves out repeated events, and what old events say of the state; their notes are kept (protocol rule 5b).
    fn screen(&self, partition: i32, mut intent: Intent, origin: RecordOrigin) -> Result<Intent, &'static str> {
        let Some(p) = self.partitions.get(&partition) else { return Ok(intent) };
        let known = p.entries.get(&intent.key);
        let entry = known.as_deref();
        let lane = p.lanes.get(&intent.key);
        // A redriven event has come before, and what the source has published since goes behind it.
        let redriven = origin.redrive().is_some();
        let counts = |other: RecordOrigin| !redriven || other.redrive().is_some();
        // What lies among the dead letters counts for what comes behind it as if it still waited, or which opening event
        // passes would depend on who reads it when. What is announced as such is still to be written, and counts itself.
        let parked = p.parks.get(&intent.key).filter(|park| !redriven && intent.position > park.position);
        if let Some(id) = intent.event_id {
            let has = |queue: &Queue| if redriven { queue.has_redriven(id) } else { queue.has_event(id) };
            if parked.is_some_and(|park| park.event_ids.contains(&id)) {
                return Err("an event with this id is among the dead letters");
            }
            let repeated = entry.is_some_and(|e| e.event_ids.contains(&id))
                || lane.is_some_and(|l: &Lane| has(&l.queue) || has(&l.held));
            if repeated {
                return Err("an event with this id was applied already");
            }
        }
        // What waits without a ticket to be applied to comes to nothing, so nothing is too old for it; but it may be put back.
        let mut ticket = parked.is_some()
            || entry.is_some_and(|entry| self.settings.states.phase(&entry.seen.state) != Phase::Closed);
        let held = lane.and_then(|l| l.held.newest(&mut ticket, counts));
        let queued = lane.and_then(|l| l.queue.newest(&mut ticket, counts));
        let dead = parked.and_then(|park| park.occurred_at);
        let newest = entry.map(|e| e.occurred_at).max(dead).max(held).max(queued);
        // Of an event whose long note is written in part everything else is applied already.
        let half_done = entry.is_some_and(|e| e.partial.is_some_and(|(at, _)| at == intent.position));
        if half_done || (intent.action.affects_state() && newest.is_some_and(|n| intent.occurred_at < n)) {
            if intent.note.is_none() {
                return Err("older than what is applied already");
            }
            intent.action = Action::Note;
            intent.fields = Vec::new();
            intent.closing = Vec::new();
        }
        Ok(intent)
    }

    /// A long note of which some parts are written already goes on after them.
    fn continue_partial_note(&mut self, partition: i32, key: &Key, position: Position) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some((at, parts)) = p.entries.get(key).and_then(|e| e.partial) else { return };
        if at == position
            && let Some(lane) = p.lanes.get_mut(key)
        {
            lane.queue.set_parts_done(position, parts);
            lane.held.set_parts_done(position, parts);
        }
    }

    pub(super) fn produced(&mut self, id: OpId, outcome: ProduceOutcome, now: Now, out: &mut Vec<Effect>) {
        let Some(op) = self.ops.remove(&id) else { return };
        match op {
            Op::Buried(partition, life, letter) => self.buried(partition, life, letter, outcome, out),
            Op::Refusal(partition, life, key, letter) => {
                self.refusal_produced(partition, life, &key, letter, outcome, now, out);
            }
            Op::Claim(partition, life, _)
            | Op::Entry(partition, life, _)
            | Op::Removed(partition, life, _)
            | Op::Withdrawal(partition, life)
            | Op::PreviousOwner(partition, life, ..)
            | Op::Mark(partition, life, _)
            | Op::Removal(partition, life, ..)
            | Op::Aside(partition, life)
                if outcome == ProduceOutcome::Unknown =>
            {
                if self.live(partition, life).is_some() {
                    self.renew_token(partition, out);
                }
            }
            Op::Claim(partition, life, key) => self.claim_produced(partition, life, &key, id, outcome, now),
            Op::Entry(partition, life, key) => self.entry_produced(partition, life, &key, id, outcome, now, out),
            Op::PreviousOwner(partition, life, key, round) => {
                self.former_produced(partition, life, &key, round, outcome, now, out);
            }
            Op::Removed(partition, life, key) => self.claim_removed(partition, life, &key, now, out),
            Op::Withdrawal(partition, life) => {
                if let Some(p) = self.live(partition, life) {
                    p.awaited -= 1;
                }
            }
            Op::Mark(partition, life, watermark) => {
                let acked = outcome == ProduceOutcome::Acked;
                self.produced_mark(partition, life, if acked { watermark } else { -1 });
            }
            Op::Removal(partition, life, name, token) => self.removed(partition, life, name, token, outcome, out),
            Op::Aside(..) => {}
        }
    }

    fn buried(
        &mut self,
        partition: i32,
        life: u64,
        letter: Box<DeadLetter>,
        outcome: ProduceOutcome,
        out: &mut Vec<Effect>,
    ) {
        if self.live(partition, life).is_none() {
            return;
        }
        if outcome == ProduceOutcome::Acked {
            self.resolve(partition, letter.position.offset, 0);
        } else {
            self.produce_letter(letter, |l| Op::Buried(partition, life, l), out);
        }
    }

    /// What a key's parking leaves in the ledger is removed, older records first.
    pub(super) fn unpark(&mut self, partition: i32, key: &Key, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(park) = p.parks.remove(key) else { return };
        let (life, name) = (p.life, LedgerKey::Park(key.clone()));
        let mut tokens = p.take_stale(&name);
        tokens.push(park.token);
        for token in tokens {
            self.remove(partition, life, name.clone(), token, out);
        }
        Self::observe(out, Observation::Unparked(key.clone()));
    }
}
