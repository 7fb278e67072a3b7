//! The dispatcher: one owner of all delivery state of a route.
//!
//! `apply(event, now)` is synchronous and total: it takes whatever happened, changes the state, and returns what is to
//! be done as effects. It reads no clock and does no I/O, so thousands of random schedules a second run over it in a
//! test. The rules it keeps are those of the delivery protocol, and they rest on one: a lane has at most one attempt,
//! and nothing of a lane is folded or sent while an attempt of it is in doubt.
//!
//! A lane's life: events are folded into its queue; when it is its turn (`writing`) the fold is decided against the
//! entry, a claim is produced, and once that is acked the lane asks for a permit; with the permit the write is sent (`sending`);
//! its answer (`settling`) becomes an entry, a doubt (`looking`), a delay or a refusal (`refusing`); the entry's ack
//! resolves the positions. `ownership` has tokens, leases, marks and letting go; `expiry` forgets; `intake` what arrives;
//! `stages` a lane's place in line.
//!
//! It guarantees what ARCHITECTURE.md says under "guarantees" as long as the driver keeps the promises written at
//! [`Event`] and [`Effect`]. It does not pace: the driver grants permits, one per request.

mod expiry;
mod hold_down;
mod lane_stage;
mod noop;
mod ownership;
mod receive;
mod reject;
mod send;
mod settle;
#[cfg(test)]
mod tests;
mod verify;
mod write;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::breaker::Breaker;
use super::budget::Budget;
use super::claim_window::Ahead;
use super::event::{BlockReason, DeadLetter, Effect, Event, LedgerKey, LedgerWrite, Observation, OpId, RequestId};
use super::fold::Bounds;
use super::lane::Lane;
use super::mutation::Rules;
use super::partition::{self, Partition};
use super::priority::Turns;
use super::settings::Settings;
use crate::model::{Epoch, FastMap, HttpMethod, HttpMethods, Key, Now, Token};

/// What a produce was for.
#[derive(Debug)]
enum Op {
    /// A claim of this lane.
    Claim(i32, u64, Key),
    /// An entry of this lane.
    Entry(i32, u64, Key),
    /// A dead letter or the parking of a lane that is being refused; the letter, to produce it again.
    Refusal(i32, u64, Key, Option<Box<DeadLetter>>),
    /// A dead letter of an event that never had a lane.
    Buried(i32, u64, Box<DeadLetter>),
    /// The tombstone of this key's claim, which is not needed any more.
    Removed(i32, u64, Key),
    /// A claim's withdrawal that letting go waits for.
    Withdrawal(i32, u64),
    /// A tombstone of a former owner's entry, before ours is forgotten; of this round.
    PreviousOwner(i32, u64, Key, u64),
    /// A mark of this watermark.
    Mark(i32, u64, i64),
    /// The tombstone of what is removed for good; it is produced again where Kafka refuses it, or what is forgotten here
    /// would be remembered by the next owner.
    Removal(i32, u64, LedgerKey, Token),
    /// Nobody waits, but an unknown outcome still matters.
    Aside(i32, u64),
}

/// Whom a request is for.
#[derive(Debug)]
struct PendingRequest {
    partition: i32,
    life: u64,
    key: Key,
    method: HttpMethod,
}

/// One owner of all delivery state of a route.
#[derive(Debug)]
pub struct Dispatcher {
    settings: Settings,
    rules: Rules,
    partitions: BTreeMap<i32, Partition>,
    ops: FastMap<OpId, Op>,
    requests: FastMap<RequestId, PendingRequest>,
    timers: BinaryHeap<Reverse<(u64, i32, u64, Key)>>,
    breaker: Breaker,
    budget: Budget,
    next_id: u64,
    last_poll: u64,
    /// Lower bound of the instance's clock minus ours, milliseconds.
    skew: i64,
    blocked_by: Option<BlockReason>,
    kept: Vec<crate::model::Column>,
    ahead: Ahead,
    turns: Turns,
    flaps_forgotten: u64,
    /// When housekeeping was done last, on the mono clock.
    kept_house: u64,
}

/// A request that waits for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// How it will be made.
    pub method: HttpMethod,
    /// Whether it is for a critical lane.
    pub critical: bool,
}

/// What a person may want to see of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Partitions held, and how many of them are still loading.
    pub partitions: (usize, usize),
    /// Partitions whose lease stands.
    pub leased: usize,
    /// Events received and not resolved.
    pub unresolved: usize,
    /// Bytes of originals held.
    pub bytes: usize,
    /// Keys at work.
    pub lanes: usize,
    /// Keys at work that wait for a turn, a permit or an instant.
    pub waiting: usize,
    /// Of them, critical ones: they are next.
    pub critical: usize,
    /// Keys in doubt.
    pub doubts: usize,
    /// Keys parked.
    pub parked: usize,
    /// Keys remembered.
    pub entries: usize,
    /// Requests out.
    pub requests: usize,
    /// Watermark per partition.
    pub watermarks: BTreeMap<i32, i64>,
}

impl Dispatcher {
    /// A dispatcher without partitions.
    pub fn new(settings: Settings) -> Self {
        let budget = Budget::new(settings.budget);
        let ahead = Ahead::new(settings.claims_ahead);
        Self {
            settings,
            rules: Rules::default(),
            partitions: BTreeMap::new(),
            ops: FastMap::default(),
            requests: FastMap::default(),
            timers: BinaryHeap::new(),
            breaker: Breaker::default(),
            budget,
            next_id: 0,
            last_poll: 0,
            skew: 0,
            blocked_by: None,
            kept: Vec::new(),
            ahead,
            turns: Turns::default(),
            flaps_forgotten: 0,
            kept_house: 0,
        }
    }

    /// Leaves out a rule of the protocol, to show that it is needed.
    #[cfg(test)]
    pub fn mutate(&mut self, mutation: super::mutation::Mutation) {
        self.rules = Rules::without(mutation);
    }

    /// Takes one event and appends what is to be done.
    pub fn apply(&mut self, event: Event, now: Now, out: &mut Vec<Effect>) {
        let frequent = matches!(
            event,
            Event::Received { .. }
                | Event::Produced { .. }
                | Event::Permit { .. }
                | Event::AvailablePermits { .. }
                | Event::Answered { .. }
        );
        match event {
            Event::Assigned { partition, epoch } => self.assigned(partition, epoch, out),
            Event::Loaded { partition, epoch, ledger } => self.loaded(partition, epoch, *ledger, now, out),
            Event::Received { partition, epoch, record } => self.received(partition, epoch, record, now, out),
            Event::Revoked { partition, epoch } => self.revoked(partition, epoch, now, out),
            Event::Lost { partition, epoch } => self.lost(partition, epoch),
            Event::Committed { partition, epoch, sent_at, offset } => {
                self.leased(partition, epoch, sent_at, offset, now, out);
            }
            Event::Polled { at } => self.polled(at),
            Event::Produced { op, outcome } => self.produced(op, outcome, now, out),
            Event::Permit { without } => self.permitted(without, now, out),
            Event::AvailablePermits { permits } => self.room(permits, now),
            Event::Answered { request, issued_at, instance_date, answer, told } => {
                self.learn_clock(instance_date, now);
                self.answered(request, issued_at, answer, told, now, out);
            }
            Event::InstanceTime { date } => self.learn_clock(Some(date), now),
            Event::Tick => {}
            Event::Drain => self.drain(out),
            Event::Retry => self.breaker.retry(),
        }
        self.breaker.pass(now.mono);
        self.fire_timers(now, out);
        // Time alone brings nothing new twice within its unit; but who lets go waits for every answer.
        if !frequent || now.mono > self.kept_house || self.partitions.values().any(Partition::is_leaving) {
            self.kept_house = now.mono;
            self.maintain(now, out);
        }
        self.pump(now, out);
        self.report_block(now, out);
        if let Some(effect) = self.budget.change() {
            out.push(effect);
        }
    }

    /// True where a permit would be used now. Ask again after every `apply`.
    pub fn wants_permit(&self, now: Now) -> bool {
        self.wanted(now, HttpMethods::NONE).is_some()
    }

    /// Lanes that wait for a permit.
    pub fn wanting(&self) -> usize {
        self.partitions.values().map(|p| p.wants.len()).sum()
    }

    /// The request that a permit would be used for now, those of some methods left aside; ask again after every `apply`.
    pub fn wanted(&self, now: Now, without: HttpMethods) -> Option<Wanted> {
        let (want, ..) = self.next_want(now, without)?;
        Some(Wanted { method: want.method, critical: want.ticket.is_critical() })
    }

    /// When [`Event::Tick`] is due at the latest, on the mono clock; it may lie in the past while a lease is missing.
    /// Expiry needs a tick now and then as well: give one every second or so, whatever this says.
    pub fn next_wake(&self) -> Option<u64> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let leaving = self.partitions.values().filter_map(|p| match p.phase {
            partition::PartitionPhase::Leaving(until) => Some(until),
            partition::PartitionPhase::Running if p.tracker.watermark() > p.mark.0 => {
                Some(p.mark.2 + self.settings.mark_every)
            }
            _ => None,
        });
        leaving.chain(timer).chain(self.breaker.wake()).min()
    }

    /// Answers still awaited that a drain should wait for: writes out, entries, dead letters, withdrawals.
    pub fn finishing(&self) -> usize {
        self.partitions.values().map(|p| p.awaited).sum()
    }

    /// Why the route stands still, if it does.
    pub fn blocked_by(&self) -> Option<&BlockReason> {
        self.blocked_by.as_ref()
    }

    /// What a person may want to see.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut s = Snapshot { requests: self.requests.len(), ..Snapshot::default() };
        (s.unresolved, s.bytes) = self.budget.used();
        for (&number, p) in &self.partitions {
            s.partitions.0 += 1;
            s.partitions.1 += usize::from(p.phase == partition::PartitionPhase::Loading);
            s.leased += usize::from(p.lease_until(self.last_poll, &self.settings) > now.mono);
            s.lanes += p.lanes.len();
            s.waiting += p.lanes.values().filter(|l| l.waits()).count();
            s.critical += p.lanes.values().filter(|l| l.waits() && l.critical).count();
            s.doubts += p.lanes.values().filter(|l| l.is_ambiguous()).count();
            s.parked += p.parks.len();
            s.entries += p.entries.len();
            s.watermarks.insert(number, p.tracker.watermark());
        }
        s
    }

    /// Keys that are parked, with the reason.
    pub fn parked(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.partitions.values().flat_map(|p| p.parks.iter().map(|(k, park)| (k, park.reason.as_str())))
    }

    fn room(&mut self, permits: usize, now: Now) {
        let wanting = self.wanting();
        let others_wait = self.partitions.values().any(|p| !p.ready.is_empty());
        self.ahead.hear(permits, wanting, others_wait, now.mono);
    }

    fn learn_clock(&mut self, date: Option<i64>, now: Now) {
        if let Some(date) = date {
            // The instance's clock is at least this far: its date was cut to the second, and the answer travelled.
            self.skew = date.saturating_mul(1000) - now.unix;
        }
    }

    /// What bounds a fold of this key.
    fn bounds(&self, partition: i32, key: &Key) -> Bounds {
        let window = i64::try_from(self.settings.reopen_window).unwrap_or(i64::MAX);
        let lane = self.partitions.get(&partition).and_then(|p| p.lanes.get(key));
        Bounds { window, notes: self.settings.note_limit, apart: lane.and_then(|l| l.apart) }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn live(&mut self, partition: i32, life: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(&partition).filter(|p| p.life == life)
    }

    fn with_epoch(&mut self, partition: i32, epoch: Epoch) -> Option<&mut Partition> {
        self.partitions.get_mut(&partition).filter(|p| p.epoch == epoch)
    }

    /// The lease's end, with the rules that are in force.
    fn lease_until(&self, p: &Partition) -> u64 {
        use super::mutation::Mutation::{NoLease, NoPollBound};
        if self.rules.off(NoLease) {
            return u64::MAX;
        }
        let last_poll = if self.rules.off(NoPollBound) { u64::MAX / 2 } else { self.last_poll };
        p.lease_until(last_poll, &self.settings)
    }

    fn produce(&mut self, partition: i32, write: LedgerWrite, op: Op, out: &mut Vec<Effect>) -> OpId {
        let id = OpId(self.id());
        self.ops.insert(id, op);
        out.push(Effect::Produce { op: id, partition, write });
        id
    }

    fn produce_letter(
        &mut self,
        letter: Box<DeadLetter>,
        op: impl FnOnce(Box<DeadLetter>) -> Op,
        out: &mut Vec<Effect>,
    ) {
        let id = OpId(self.id());
        self.ops.insert(id, op(letter.clone()));
        out.push(Effect::DeadLetter { op: id, letter });
    }

    fn lane(&mut self, partition: i32, key: &Key) -> Option<&mut Lane> {
        self.partitions.get_mut(&partition)?.lanes.get_mut(key)
    }

    /// Resolves an event.
    fn resolve(&mut self, partition: i32, offset: i64, bytes: usize) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let resolved = p.tracker.resolve(offset);
        debug_assert!(resolved, "offset {offset} of partition {partition} resolved twice");
        if resolved {
            self.budget.free(1, bytes);
        }
    }

    fn observe(out: &mut Vec<Effect>, observation: Observation) {
        out.push(Effect::Observe(observation));
    }

    fn report_block(&mut self, now: Now, out: &mut Vec<Effect>) {
        let blocked_by = self.breaker.blocked_by(now.mono);
        if blocked_by != self.blocked_by {
            self.blocked_by.clone_from(&blocked_by);
            Self::observe(out, Observation::Blocked(blocked_by));
        }
    }

    fn fire_timers(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.timers.peek().is_some_and(|Reverse((at, ..))| *at <= now.mono) {
            let Some(Reverse((_, partition, life, key))) = self.timers.pop() else { return };
            if self.live(partition, life).is_some() {
                self.timer(partition, &key, now, out);
            }
        }
    }

    /// Keys of this partition's lanes; for the rare steps that touch all of them.
    fn keys(&self, partition: i32) -> BTreeSet<Key> {
        self.partitions.get(&partition).map(|p| p.lanes.keys().cloned().collect()).unwrap_or_default()
    }
}
