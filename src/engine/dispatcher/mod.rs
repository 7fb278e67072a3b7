//! The dispatcher: the single owner of all delivery state of a route.
//!
//! `apply(event, now)` is synchronous and total: it takes an event, changes the state, and returns effects. It reads no
//! clock and does no I/O, so that a test can run thousands of random schedules per second over it. It implements the
//! rules of the delivery protocol, which rest on one core rule: a lane has at most one attempt, and nothing of a lane
//! is folded or sent while an attempt of it is ambiguous.
//!
//! The path of an event: `receive` folds it into the queue of its lane. When the lane gets its turn (`write`), the fold
//! is planned against the entry, and a claim is produced. Once that is acked, the lane waits for a permit, and then the
//! write is sent (`send`). Its answer (`settle`) leads to an entry, a verification (`verify`), a delay or a rejection
//! (`reject`). The entry's ack resolves the positions. `look` reads the rows on which decisions rest. `ownership`
//! handles tokens, leases, marks and the release of partitions, `expiry` the removal of entries, `hold_down` delayed
//! lanes, `parked` what passes a parked key, `noop` events that need no request, and `lane_stage` the stages of lanes and
//! their queues.
//!
//! It guarantees what ARCHITECTURE.md lists under "Guarantees", as long as the driver does what [`Event`] and
//! [`Effect`] require. It does not limit the request rate: the driver grants permits, one per request.

mod entry;
mod expiry;
mod hold_down;
mod lane_stage;
mod look;
mod noop;
mod ownership;
mod parked;
mod receive;
mod reject;
mod send;
mod settle;
mod snapshot;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub use snapshot::Snapshot;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::breaker::Breaker;
use super::budget::Budget;
use super::claim_window::ClaimWindow;
use super::event::{BlockReason, DeadLetter, Effect, Event, LedgerKey, LedgerWrite, Observation, ProduceId, RequestId};
use super::fold::FoldLimits;
use super::freshness::RowAgeLimit;
use super::lane::{Lane, ReadPurpose, Stage};
use super::mutation::Rules;
use super::partition::{self, Partition};
use super::priority::CriticalStreak;
use super::settings::Settings;
use crate::model::{Epoch, FastMap, HttpMethod, HttpMethodSet, Key, Now, Token};

/// What a pending produce is for. The first two fields are the partition and its load generation.
#[derive(Debug)]
enum PendingProduce {
    /// A claim of this lane.
    Claim(i32, u64, Key),
    /// An entry of this lane.
    Entry(i32, u64, Key),
    /// A dead letter of a rejected or parked lane, kept to produce it again; `None` for the lane's park.
    Rejection(i32, u64, Key, Option<Box<DeadLetter>>),
    /// The dead letter of a record that could not be decoded or mapped and never had a lane.
    InvalidRecord(i32, u64, Box<DeadLetter>),
    /// The tombstone of this key's claim, which is not needed any more.
    ClaimTombstone(i32, u64, Key),
    /// The tombstone of a claim during revocation or shutdown, which waits for it.
    ClaimWithdrawal(i32, u64),
    /// The tombstone of a previous owner's entry, before ours expires; with the round of [`partition::PendingExpiry`].
    PreviousOwnerTombstone(i32, u64, Key, u64),
    /// A mark with this watermark.
    Mark(i32, u64, i64),
    /// The tombstone of our own record of an expired or released key. It is produced again if it was not written: else
    /// the next owner would load what was removed here.
    FinalTombstone(i32, u64, LedgerKey, Token),
    /// Nothing waits for it, but an unknown outcome still matters.
    Unawaited(i32, u64),
}

/// A request that was sent.
#[derive(Debug)]
struct PendingRequest {
    method: HttpMethod,
    sender: RequestSender,
}

/// For whom a request was sent.
#[derive(Debug)]
enum RequestSender {
    /// The lane of this key.
    Lane { partition: i32, load_generation: u64, key: Key },
    /// The tickets whose rows it reads.
    Look { targets: Vec<look::LookTarget>, sent_at: u64 },
}

/// The single owner of all delivery state of a route.
#[derive(Debug)]
pub struct Dispatcher {
    settings: Settings,
    rules: Rules,
    partitions: BTreeMap<i32, Partition>,
    pending_produces: FastMap<ProduceId, PendingProduce>,
    pending_requests: FastMap<RequestId, PendingRequest>,
    /// (due on the mono clock, partition, load generation, key), earliest first.
    timers: BinaryHeap<Reverse<(u64, i32, u64, Key)>>,
    breaker: Breaker,
    budget: Budget,
    next_id: u64,
    /// On the mono clock.
    last_poll: u64,
    /// Lower bound of the instance's clock minus ours, milliseconds.
    clock_skew: i64,
    blocked_by: Option<BlockReason>,
    row_age_limit: RowAgeLimit,
    /// When the lanes in line were last looked through for rows to read, on the mono clock.
    looked_ahead_at: u64,
    /// Number of writes that were sent since the last look was.
    writes_since_look: usize,
    /// Reused buffer: columns in which a plan preserved a user's value.
    preserved: Vec<crate::model::Column>,
    claim_window: ClaimWindow,
    critical_streak: CriticalStreak,
    /// When obsolete flap states were last removed, on the mono clock.
    flaps_pruned_at: u64,
    /// When `maintain` last ran, on the mono clock.
    maintained_at: u64,
}

/// The request for which the next permit would be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextRequest {
    pub method: HttpMethod,
    pub critical: bool,
}

impl Dispatcher {
    /// A dispatcher without partitions.
    pub fn new(settings: Settings) -> Self {
        let budget = Budget::new(settings.budget);
        let claim_window = ClaimWindow::new(settings.min_claim_window);
        Self {
            settings,
            rules: Rules::default(),
            partitions: BTreeMap::new(),
            pending_produces: FastMap::default(),
            pending_requests: FastMap::default(),
            timers: BinaryHeap::new(),
            breaker: Breaker::default(),
            budget,
            next_id: 0,
            last_poll: 0,
            clock_skew: 0,
            blocked_by: None,
            row_age_limit: RowAgeLimit::default(),
            looked_ahead_at: 0,
            writes_since_look: 0,
            preserved: Vec::new(),
            claim_window,
            critical_streak: CriticalStreak::default(),
            flaps_pruned_at: 0,
            maintained_at: 0,
        }
    }

    /// Disables a rule of the protocol, to show that it is needed.
    #[cfg(test)]
    pub fn disable_rule(&mut self, mutation: super::mutation::Mutation) {
        self.rules = Rules::without(mutation);
    }

    /// Processes one event and appends its effects.
    pub fn apply(&mut self, event: Event, now: Now, out: &mut Vec<Effect>) {
        let frequent = matches!(
            event,
            Event::Received { .. }
                | Event::ProduceCompleted { .. }
                | Event::PermitGranted { .. }
                | Event::AvailablePermits { .. }
                | Event::RequestCompleted { .. }
        );
        match event {
            Event::Assigned { partition, epoch } => self.assigned(partition, epoch, out),
            Event::LedgerLoaded { partition, epoch, ledger } => self.ledger_loaded(partition, epoch, *ledger, now, out),
            Event::Received { partition, epoch, record } => self.received(partition, epoch, record, now, out),
            Event::Revoked { partition, epoch } => self.revoked(partition, epoch, now, out),
            Event::Lost { partition, epoch } => self.lost(partition, epoch),
            Event::Committed { partition, epoch, sent_at, offset } => {
                self.offset_committed(partition, epoch, sent_at, offset, now, out);
            }
            Event::Polled { at } => self.consumer_polled(at),
            Event::ProduceCompleted { produce_id, outcome } => self.produce_completed(produce_id, outcome, now, out),
            Event::PermitGranted { without } => self.permit_granted(without, now, out),
            Event::AvailablePermits { permits } => self.set_available_permits(permits, now),
            Event::RequestCompleted { request, issued_at, instance_date, answer, already_counted } => {
                self.update_clock_skew(instance_date, now);
                self.request_completed(request, issued_at, answer, already_counted, now, out);
            }
            Event::InstanceTime { date } => self.update_clock_skew(Some(date), now),
            Event::RowVersionsSeen { versions } => self.row_versions_seen(&versions),
            Event::Tick => {}
            Event::Drain => self.drain(out),
            Event::ResumeRequested => self.breaker.resume(),
        }
        self.breaker.clear_expired_throttling(now.mono);
        self.fire_timers(now, out);
        // Within one millisecond, time alone changes nothing; but a partition being released waits for every answer.
        if !frequent || now.mono > self.maintained_at || self.partitions.values().any(Partition::is_revoked) {
            self.maintained_at = now.mono;
            self.maintain(now, out);
        }
        self.run_ready_lanes(now, out);
        self.report_blocked(now, out);
        if let Some(effect) = self.budget.fetch_effect() {
            out.push(effect);
        }
    }

    /// True if a permit would be used now. Ask again after every `apply`.
    pub fn wants_permit(&self, now: Now) -> bool {
        self.next_request(now, HttpMethodSet::NONE).is_some()
    }

    /// Number of lanes that wait for a permit.
    pub fn waiting_for_permit(&self) -> usize {
        self.partitions.values().map(|p| p.permit_queue.len()).sum()
    }

    /// The request for which a permit would be used now, methods in `without` excluded. Ask again after every `apply`.
    pub fn next_request(&self, now: Now, without: HttpMethodSet) -> Option<NextRequest> {
        let (rank, ..) = self.next_permit_waiter(now, without)?;
        Some(NextRequest { method: rank.method, critical: rank.lane_rank.is_critical() })
    }

    /// When [`Event::Tick`] is due at the latest, on the mono clock. It may be in the past while a lease is missing.
    /// Expiry also needs ticks: send one every second or so in any case.
    pub fn next_wake(&self) -> Option<u64> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let partitions = self.partitions.values().filter_map(|p| match p.phase {
            partition::PartitionPhase::Revoked { deadline } => Some(deadline),
            partition::PartitionPhase::Running if p.tracker.watermark() > p.mark.produced => {
                Some(p.mark.produced_at + self.settings.mark_interval)
            }
            _ => None,
        });
        partitions.chain(timer).chain(self.breaker.next_wake()).min()
    }

    /// Number of answers that a drain should wait for: of writes, entries, dead letters and claim withdrawals.
    pub fn outstanding(&self) -> usize {
        self.partitions.values().map(|p| p.outstanding).sum()
    }

    /// Why the route is blocked, if it is.
    pub fn blocked_by(&self) -> Option<&BlockReason> {
        self.blocked_by.as_ref()
    }

    /// Parked keys, with the reason.
    pub fn parked_keys(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.partitions.values().flat_map(|p| p.parks.iter().map(|(k, park)| (k, park.reason.as_str())))
    }

    fn set_available_permits(&mut self, permits: usize, now: Now) {
        let waiting_for_permit = self.waiting_for_permit();
        let other_lanes_ready = self.partitions.values().any(|p| !p.ready.is_empty());
        self.claim_window.record(permits, waiting_for_permit, other_lanes_ready, now.mono);
    }

    fn update_clock_skew(&mut self, date: Option<i64>, now: Now) {
        if let Some(date) = date {
            // A lower bound: `Date` has whole seconds, and the response took time to arrive.
            self.clock_skew = date.saturating_mul(1000) - now.unix;
        }
    }

    /// The partitions that are neither being loaded nor released.
    fn running_partitions(&self) -> impl Iterator<Item = (i32, &Partition)> {
        let running = self.partitions.iter().filter(|(_, p)| p.phase == partition::PartitionPhase::Running);
        running.map(|(&number, p)| (number, p))
    }

    /// Those of them whose lease holds: their lanes get turns and may write.
    fn active_partitions(&self, now: Now) -> impl Iterator<Item = (i32, &Partition)> {
        self.running_partitions().filter(move |(_, p)| self.lease_until(p) > now.mono)
    }

    fn fold_limits(&self, partition: i32, key: &Key) -> FoldLimits {
        let reopen_window = i64::try_from(self.settings.reopen_window).unwrap_or(i64::MAX);
        let lane = self.partitions.get(&partition).and_then(|p| p.lanes.get(key));
        FoldLimits {
            reopen_window,
            max_note_chars: self.settings.note_limit,
            claimed_up_to: lane.and_then(|lane| lane.claimed_up_to),
            opens_apart: lane.is_some_and(|lane| {
                lane.being_read.is_some() || matches!(lane.stage, Stage::Reading(_, ReadPurpose::RefreshRow))
            }),
        }
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn current_partition(&mut self, partition: i32, load_generation: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(&partition).filter(|p| p.load_generation == load_generation)
    }

    fn partition_in_epoch(&mut self, partition: i32, epoch: Epoch) -> Option<&mut Partition> {
        self.partitions.get_mut(&partition).filter(|p| p.epoch == epoch)
    }

    /// End of the lease on the mono clock, under the rules in force.
    fn lease_until(&self, p: &Partition) -> u64 {
        use super::mutation::Mutation::{NoLease, NoPollBound};
        if self.rules.is_disabled(NoLease) {
            return u64::MAX;
        }
        let last_poll = if self.rules.is_disabled(NoPollBound) { u64::MAX / 2 } else { self.last_poll };
        p.lease_until(last_poll, &self.settings)
    }

    fn produce(
        &mut self,
        partition: i32,
        write: LedgerWrite,
        pending: PendingProduce,
        out: &mut Vec<Effect>,
    ) -> ProduceId {
        let produce_id = ProduceId(self.new_id());
        self.pending_produces.insert(produce_id, pending);
        out.push(Effect::ProduceLedgerRecord { produce_id, partition, write });
        produce_id
    }

    fn produce_dead_letter(
        &mut self,
        dead_letter: Box<DeadLetter>,
        pending: impl FnOnce(Box<DeadLetter>) -> PendingProduce,
        out: &mut Vec<Effect>,
    ) {
        let produce_id = ProduceId(self.new_id());
        self.pending_produces.insert(produce_id, pending(dead_letter.clone()));
        out.push(Effect::ProduceDeadLetter { produce_id, dead_letter });
    }

    fn lane(&mut self, partition: i32, key: &Key) -> Option<&mut Lane> {
        self.partitions.get_mut(&partition)?.lanes.get_mut(key)
    }

    /// Resolves one event of the record at `offset`.
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

    fn report_blocked(&mut self, now: Now, out: &mut Vec<Effect>) {
        let blocked_by = self.breaker.blocked_by(now.mono);
        if blocked_by != self.blocked_by {
            self.blocked_by.clone_from(&blocked_by);
            Self::observe(out, Observation::Blocked(blocked_by));
        }
    }

    fn fire_timers(&mut self, now: Now, out: &mut Vec<Effect>) {
        while self.timers.peek().is_some_and(|Reverse((at, ..))| *at <= now.mono) {
            let Some(Reverse((_, partition, load_generation, key))) = self.timers.pop() else { return };
            if self.current_partition(partition, load_generation).is_some() {
                self.timer_fired(partition, &key, now, out);
            }
        }
    }

    /// Keys of the partition's lanes, for the rare steps that affect all of them.
    fn keys(&self, partition: i32) -> BTreeSet<Key> {
        self.partitions.get(&partition).map(|p| p.lanes.keys().cloned().collect()).unwrap_or_default()
    }
}
