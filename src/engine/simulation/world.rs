//! The simulated world: two members, a group, a ledger, an instance and its users, in virtual time. It performs the
//! engine's effects with delays and faults, and feeds the results back as events. One seed gives one history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;

use super::super::event::{DeadLetter, InstanceRequest, MappedRecord};
use super::super::flap_detection::FlapSettings;
use super::super::retry::RetryDelays;
use super::super::{Dispatcher, Effect, Event, Settings};
use super::coverage::Coverage;
use super::group::Group;
use super::injection::{Injection, InjectionPoint, ProduceFault, Target, WriteOutcome};
use super::instance::Instance;
use super::ledger::{LedgerLog, StoredRecord};
use super::member::{Input, Member, StampedCommit};
use super::publisher::{self, PublishParams};
use super::queue::Queue;
use super::redrive::StoredLetter;
use super::scenario::{DriverMutation, PlannedInjection, Scenario};
use crate::model::entry::AttemptId;
use crate::model::{Answer, Epoch, EventOrdering, Intent, Key, Now, Position};

/// Unix milliseconds at virtual time 0.
pub(super) const BASE: i64 = 1_700_000_000_000;

/// Something that happens at a virtual time, outside of the processes or to one of them.
#[derive(Debug)]
pub(super) enum ScheduledEvent {
    Publish,
    Inject(Injection),
    Deliver {
        member: usize,
        pid: u32,
        input: Input,
    },
    Resume {
        member: usize,
        pid: u32,
    },
    Reconnect {
        member: usize,
    },
    Restart {
        member: usize,
    },
    Exit {
        member: usize,
        pid: u32,
        down: u64,
    },
    ProduceLands(u32),
    CommitArrives {
        member: usize,
        pid: u32,
        generation: Option<u64>,
        stamped: StampedCommit,
    },
    RequestArrives(u32),
    CommitWrite(u32),
    /// The coordinator has received no heartbeat of the member for its session timeout.
    SessionTimeout {
        member: usize,
        pid: u32,
        reachability: u32,
    },
    /// The client leaves the group because it was not polled.
    PollTimeout {
        member: usize,
        pid: u32,
    },
    /// The rebalance callback has returned: the coordinator may reassign the partition.
    PartitionReleased {
        member: usize,
        pid: u32,
        partition: usize,
    },
    /// No more faults are injected.
    EndFaults,
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) member: usize,
    pub(super) pid: u32,
    pub(super) id: super::super::event::RequestId,
    pub(super) partition: usize,
    pub(super) body: InstanceRequest,
    pub(super) attempt: Option<AttemptId>,
    pub(super) lease_until: u64,
    pub(super) checked_at: u64,
    pub(super) sent_at: u64,
    /// The process was frozen between the check and the sending.
    pub(super) frozen_unsent: bool,
    /// The request arrived at the instance, or never will.
    pub(super) arrived: bool,
    /// The instance may still commit the write.
    pub(super) may_commit: bool,
    /// The sender has received the response.
    pub(super) answered: bool,
    /// The response on its way to the sender.
    pub(super) answer: Option<Answer>,
    pub(super) outcome: WriteOutcome,
}

/// A record that was enqueued in the producer.
#[derive(Debug)]
pub(super) struct Produce {
    pub(super) member: usize,
    pub(super) pid: u32,
    pub(super) partition: usize,
    pub(super) enqueued_at: u64,
    pub(super) produce_id: Option<super::super::event::ProduceId>,
    pub(super) payload: ProducePayload,
    pub(super) landed: bool,
    /// The engine already received the outcome `Unknown` or `NotWritten`.
    pub(super) outcome_reported: bool,
    /// The injection point that is reached when the record is acked.
    pub(super) ack_point: Option<InjectionPoint>,
}

/// The content of a produce.
#[derive(Debug)]
pub(super) enum ProducePayload {
    Ledger(StoredRecord),
    /// The epoch for which the token is taken.
    Owner(Epoch),
    DeadLetter(Option<Box<DeadLetter>>),
}

/// An injection that waits for its injection point.
struct ArmedInjection {
    point: InjectionPoint,
    nth: u32,
    injection: Injection,
}

/// One history.
pub(super) struct World {
    pub(super) now: u64,
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) queue: Queue<ScheduledEvent>,
    pub(super) settings: Settings,
    pub(super) scenario: Arc<Scenario>,
    pub(super) members: [Member; 2],
    pub(super) group: Group,
    pub(super) logs: [LedgerLog; 2],
    pub(super) input: [Vec<MappedRecord>; 2],
    pub(super) visible: [usize; 2],
    pub(super) instance: Instance,
    pub(super) requests: Vec<Request>,
    pub(super) produces: Vec<Produce>,
    /// Attempt, first and last position of each claim.
    pub(super) claimed_ranges: Vec<(AttemptId, Position, Position)>,
    /// Highest position that was committed, by key.
    pub(super) newest_committed: [Option<Position>; 3],
    /// Positions that will not be applied, because they were dead-lettered or superseded by a dead-lettered event.
    pub(super) not_applied: BTreeSet<Position>,
    /// The dead letters of all keys.
    pub(super) dead_letters: Vec<StoredLetter>,
    /// Original positions of redriven events, before their first redrive.
    pub(super) original_positions: BTreeMap<Position, Position>,
    /// Number of redrives so far.
    pub(super) redrives: u64,
    /// The end of the last redrive in each partition.
    pub(super) redrive_end: [i64; 2],
    /// Keys whose entry expired.
    pub(super) expired: BTreeSet<Key>,
    /// An event that a resync has read and not yet appended to the input: the position of the entry, and the intent.
    pub(super) pending_resync: Option<(Position, Intent)>,
    /// Positions resolved by reports, in the current assignment of each member and partition.
    pub(super) resolved: [[(Epoch, BTreeSet<Position>); 2]; 2],
    pub(super) coverage: Coverage,
    pub(super) params: HistoryParams,
    pub(super) planned_outcomes: Vec<WriteOutcome>,
    pub(super) produce_faults: Vec<(InjectionPoint, ProduceFault)>,
    pub(super) trace: Option<Vec<String>>,
    pub(super) first_violation: Option<String>,
    /// Keys whose ticket a user and the bridge wrote at the same time: its values prove nothing.
    pub(super) user_raced: [bool; 3],
    /// Keys whose ticket's state a user changed.
    pub(super) user_changed_state: [bool; 3],
    /// When a user last ended a key's ticket (resolved, closed, canceled or deleted it), in virtual time.
    pub(super) user_ended_at: [Option<u64>; 3],
    /// Writes that may still take effect.
    pub(super) in_flight: Vec<u32>,
    pub(super) faults_over: bool,
    pub(super) faults_over_at: u64,
    /// Number of records published before the long pause, by partition.
    pub(super) published_before_pause: [usize; 2],
    published_count: usize,
    schedule: Vec<(usize, u64)>,
    armed: Vec<ArmedInjection>,
    point_counts: [u32; InjectionPoint::COUNT],
    effects: Vec<Effect>,
}

/// The parameters drawn for a history.
#[derive(Debug, Default, Clone)]
pub(super) struct HistoryParams {
    pub(super) partitions: usize,
    pub(super) bad_writes: u32,
    pub(super) ghosts: u32,
    pub(super) unknown_produces: u32,
    pub(super) rejects: bool,
    pub(super) user_edits: bool,
    pub(super) resyncs: bool,
    pub(super) whole_seconds: bool,
    /// The senders of this number of keys name the firings of their alerts.
    pub(super) episodes: usize,
    pub(super) ordering: EventOrdering,
    pub(super) long_pause: u64,
    pub(super) max_permit_delay: u64,
    pub(super) slow_commits: bool,
    /// The instance's clock minus the true time, in milliseconds.
    pub(super) instance_clock_offset: i64,
    pub(super) poll_interval: u64,
    pub(super) hold_down: u64,
    pub(super) outage_until: u64,
    pub(super) throttle_until: u64,
    pub(super) unauthorized_until: u64,
    pub(super) permits_from: u64,
}

macro_rules! trace_line {
    ($world:expr, $($arg:tt)*) => {
        if let Some(trace) = $world.trace.as_mut() {
            trace.push(format!("{:>9.3}  {}", $world.now as f64 / 1000.0, format_args!($($arg)*)));
        }
    };
}
pub(super) use trace_line;

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: 0,
            seed: 0,
            rng: Rng::with_seed(0),
            queue: Queue::new(),
            settings: Settings::default(),
            scenario: Arc::new(Scenario::default()),
            members: [Member::new(), Member::new()],
            group: Group::default(),
            logs: Default::default(),
            input: Default::default(),
            visible: [0; 2],
            instance: Instance::default(),
            requests: Vec::new(),
            produces: Vec::new(),
            claimed_ranges: Vec::new(),
            newest_committed: [None; 3],
            not_applied: BTreeSet::new(),
            dead_letters: Vec::new(),
            original_positions: BTreeMap::new(),
            redrives: 0,
            redrive_end: [0; 2],
            expired: BTreeSet::new(),
            pending_resync: None,
            resolved: Default::default(),
            coverage: Coverage::default(),
            params: HistoryParams::default(),
            planned_outcomes: Vec::new(),
            produce_faults: Vec::new(),
            trace: None,
            first_violation: None,
            user_raced: [false; 3],
            user_changed_state: [false; 3],
            user_ended_at: [None; 3],
            in_flight: Vec::new(),
            faults_over: false,
            faults_over_at: 0,
            published_before_pause: [0; 2],
            published_count: 0,
            schedule: Vec::new(),
            armed: Vec::new(),
            point_counts: [0; InjectionPoint::COUNT],
            effects: Vec::new(),
        }
    }

    /// Runs one history from a seed. Coverage accumulates over the histories of a world.
    pub(super) fn run(&mut self, seed: u64, scenario: &Arc<Scenario>) -> Result<(), String> {
        self.prepare(seed, scenario);
        let mut steps = 0_u64;
        while self.first_violation.is_none() {
            steps += 1;
            if steps > 2_000_000 {
                self.report_violation("the history does not end".into());
                break;
            }
            let Some((at, event)) = self.queue.pop() else {
                self.report_violation("no more events are scheduled, but records are unresolved".into());
                break;
            };
            self.now = self.now.max(at);
            self.handle(event);
            if self.faults_over && self.finished() {
                if self.scenario.redrives && self.has_open_letters() {
                    self.redrive_all();
                    self.faults_over_at = self.now;
                    if self.redrives > 100 {
                        self.report_violation("redrives do not end".into());
                    }
                    continue;
                }
                self.check_final_state();
                break;
            }
        }
        self.coverage.histories += 1;
        match self.first_violation.take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    pub(super) fn report_violation(&mut self, violation: String) {
        trace_line!(self, "VIOLATION {violation}");
        self.first_violation.get_or_insert(violation);
    }

    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.u32(0..1000) < per_mille
    }

    pub(super) fn rule_off(&self, mutation: DriverMutation) -> bool {
        self.scenario.driver == Some(mutation)
    }

    fn prepare(&mut self, seed: u64, scenario: &Arc<Scenario>) {
        self.now = 0;
        self.seed = seed;
        self.rng = Rng::with_seed(seed);
        self.scenario = scenario.clone();
        self.queue.clear();
        self.group = Group::default();
        self.instance.clear();
        self.requests.clear();
        self.produces.clear();
        self.claimed_ranges.clear();
        self.newest_committed = [None; 3];
        self.not_applied.clear();
        self.dead_letters.clear();
        self.original_positions.clear();
        self.redrives = 0;
        self.redrive_end = [0; 2];
        self.expired.clear();
        self.pending_resync = None;
        self.resolved = Default::default();
        self.planned_outcomes.clear();
        self.produce_faults.clear();
        self.user_raced = [false; 3];
        self.user_changed_state = [false; 3];
        self.user_ended_at = [None; 3];
        self.in_flight.clear();
        self.visible = [0; 2];
        self.published_count = 0;
        self.faults_over = false;
        self.armed.clear();
        self.point_counts = [0; InjectionPoint::COUNT];
        self.draw_params();
        for log in &mut self.logs {
            log.clear();
            log.tokenless = scenario.driver == Some(DriverMutation::TokenlessKeys);
        }
        self.draw_records();
        self.draw_faults();
        for member in 0..2 {
            self.members[member].reset();
            self.members[member].pid = 0;
            self.members[member].disconnected_until = 0;
            self.members[member].clock_offset = self.rng.i64(-800..800);
            let at = if scenario.scripted { 1 } else { self.rng.u64(0..3_000) };
            self.queue.push(at + member as u64, ScheduledEvent::Restart { member });
        }
    }

    /// Draws the settings and parameters of this history.
    fn draw_params(&mut self) {
        let scenario = self.scenario.clone();
        let rng = &mut self.rng;
        let session = if scenario.scripted { 10_000 } else { [6_000, 10_000, 20_000][rng.usize(0..3)] };
        let deadline = if scenario.scripted { 5_000 } else { [2_000, 5_000, 12_000][rng.usize(0..3)] };
        let settle = if scenario.scripted { 20_000 } else { [3_000, 10_000, 30_000][rng.usize(0..3)] };
        let user_edits = rng.u32(0..1000) < scenario.user_edits;
        self.settings = Settings {
            reopen_window: if scenario.scripted { 30_000 } else { [5_000, 20_000, 60_000][rng.usize(0..3)] },
            max_row_age: [1_000, 5_000, 20_000][rng.usize(0..3)],
            max_look_delay: [10, 3_000, 20_000][rng.usize(0..3)],
            columns: publisher::mapped_columns(),
            request_deadline: deadline,
            max_transaction_time: settle,
            session_timeout: session,
            max_poll_interval: 30_000,
            poll_interval_margin: 2_000,
            drain_timeout: 3_000,
            mark_interval: 1_000,
            min_claim_window: rng.usize(1..4),
            rejection_limit: u32::MAX,
            breaker_threshold: 5,
            retry: RetryDelays { first: 200, max: 4_000 },
            auth_retry: RetryDelays { first: 1_000, max: 8_000 },
            flapping: (!scenario.scripted && rng.u32(0..4) == 0).then_some(FlapSettings {
                changes: rng.usize(2..5),
                within: 20_000,
                hold: 4_000,
            }),
            reopen_after_user: rng.bool(),
            note_limit: [5, 12, 40, 16_000][rng.usize(0..16).min(3)],
            seed: rng.u64(..),
            ..Settings::default()
        };
        if let Some(tune) = scenario.tune {
            tune(&mut self.settings);
        }
        let drawn = scenario.partitions.unwrap_or_else(|| rng.usize(1..3));
        let mut share = |(often, rate): (u32, u32)| if rng.u32(0..1000) < often { rng.u32(0..=rate * 2) } else { 0 };
        let bad_writes = share(scenario.bad_writes);
        let unknown_produces = share(scenario.unknown_produces);
        self.params = HistoryParams {
            partitions: drawn,
            bad_writes,
            unknown_produces,
            ghosts: scenario.ghosts,
            rejects: rng.u32(0..1000) < scenario.rejects,
            user_edits,
            resyncs: scenario.resyncs > 0 && rng.u32(0..1000) < scenario.resyncs,
            episodes: rng.usize(0..4),
            ordering: if rng.bool() { EventOrdering::Log } else { EventOrdering::OccurredAt },
            whole_seconds: scenario.whole_seconds > 0 && rng.u32(0..1000) < scenario.whole_seconds,
            long_pause: if rng.u32(0..1000) < scenario.pauses { rng.u64(1_260_000..1_400_000) } else { 0 },
            max_permit_delay: if rng.u32(0..1000) < scenario.slow_permits { rng.u64(100..20_000) } else { 20 },
            slow_commits: rng.u32(0..1000) < scenario.slow_commits,
            instance_clock_offset: rng.i64(-300_000..300_000),
            poll_interval: if scenario.scripted { 300 } else { rng.u64(300..1_500) },
            hold_down: if scenario.scripted || rng.u32(0..20) > 0 { 0 } else { rng.u64(300..6_000) },
            ..HistoryParams::default()
        };
        self.instance.shows_end_times = rng.bool();
        if rng.u32(0..12) == 0 {
            self.instance.business_rule = Some((publisher::COLUMNS[2], "2"));
            self.coverage.rule_changes += 1;
        }
    }

    fn draw_records(&mut self) {
        for input in &mut self.input {
            input.clear();
        }
        self.schedule.clear();
        let params = PublishParams {
            records: self.scenario.records,
            partitions: self.params.partitions,
            rejects: self.params.rejects,
            long_pause: self.params.long_pause,
            reopen_window: self.settings.reopen_window,
            hold_down: self.params.hold_down,
            whole_seconds: self.params.whole_seconds,
            episodes: self.params.episodes,
            ordering: self.params.ordering,
            base: BASE,
        };
        self.published_before_pause = [0; 2];
        for (n, published) in publisher::publish(&mut self.rng, &params).into_iter().enumerate() {
            self.published_before_pause[published.partition] += usize::from(n < params.records / 2);
            self.add_record(published.partition, published.at, published.record);
        }
    }

    /// Schedules the publishing of a record.
    pub(super) fn add_record(&mut self, partition: usize, at: u64, record: MappedRecord) {
        self.schedule.push((partition, at));
        self.input[partition].push(record);
        self.queue.push(at, ScheduledEvent::Publish);
    }

    fn draw_faults(&mut self) {
        let scenario = self.scenario.clone();
        let last = self.schedule.last().map_or(1_000, |(_, at)| *at);
        for fault in &scenario.always {
            match fault {
                PlannedInjection::At(at, injection) => self.queue.push(*at, ScheduledEvent::Inject(injection.clone())),
                PlannedInjection::OnNth(point, nth, injection) => {
                    self.armed.push(ArmedInjection { point: *point, nth: *nth, injection: injection.clone() });
                }
                PlannedInjection::OnRandom(point, injection) => {
                    let nth = self.rng.u32(1..30);
                    self.armed.push(ArmedInjection { point: *point, nth, injection: injection.clone() });
                }
            }
        }
        if scenario.faults > 0 {
            for _ in 0..self.rng.usize(1..=scenario.faults) {
                let injection = self.draw_injection();
                if self.rng.u32(0..4) == 0 {
                    let at = self.rng.u64(0..last);
                    self.queue.push(at, ScheduledEvent::Inject(injection));
                } else {
                    let point = InjectionPoint::ALL[self.rng.usize(0..InjectionPoint::COUNT)];
                    let nth = self.rng.u32(1..25);
                    self.armed.push(ArmedInjection { point, nth, injection });
                }
            }
            for _ in 0..self.rng.usize(0..3) {
                let at = self.rng.u64(0..last);
                self.queue.push(at, ScheduledEvent::Inject(Injection::Compact));
            }
        }
        if self.params.rejects && scenario.redrives {
            for _ in 0..self.rng.usize(1..6) {
                let at = self.rng.u64(0..last);
                let key = self.rng.usize(0..3);
                self.queue.push(at, ScheduledEvent::Inject(Injection::Redrive(key)));
            }
        }
        if self.params.resyncs {
            for _ in 0..self.rng.usize(2..12) {
                let at = self.rng.u64(0..last);
                let key = self.rng.usize(0..3);
                self.queue.push(at, ScheduledEvent::Inject(Injection::Resync(key)));
            }
        }
        if self.params.user_edits {
            for _ in 0..self.rng.usize(1..10) {
                let at = self.rng.u64(0..last);
                let action = self.draw_user_action();
                let key = self.rng.usize(0..3);
                self.queue.push(at, ScheduledEvent::Inject(Injection::UserAction(key, action)));
            }
        }
        let faults_end =
            scenario.always.iter().map(|f| if let PlannedInjection::At(at, _) = f { *at } else { 0 }).max();
        self.faults_over_at = last.max(faults_end.unwrap_or(0)) + 500 + self.rng.u64(0..10_000);
        self.queue.push(self.faults_over_at, ScheduledEvent::EndFaults);
    }

    fn draw_injection(&mut self) -> Injection {
        let session = self.settings.session_timeout;
        let span = self.settings.request_deadline + self.settings.max_transaction_time;
        let rng = &mut self.rng;
        let target = if rng.bool() { Target::Triggering } else { Target::Member(rng.usize(0..2)) };
        let length = match rng.u32(0..3) {
            0 => rng.u64(10..session / 2),
            1 => rng.u64(session / 2..session * 2),
            _ => rng.u64(session..session * 2 + span),
        };
        match rng.u32(0..100) {
            0..30 => Injection::Crash { target, down: rng.u64(100..session * 2) },
            30..55 => Injection::Freeze { target, length },
            55..63 => Injection::StallPoller { target, length: length + rng.u64(0..40_000) },
            63..70 => Injection::Disconnect { target, length },
            70..82 => Injection::Rebalance,
            82..86 => Injection::Terminate { target, drain: rng.u64(0..25_000), down: rng.u64(100..5_000) },
            86..89 => Injection::Outage(length),
            89..91 => Injection::Throttle(length),
            91..93 => Injection::Unauthorized(length / 2),
            93..96 => Injection::DelayPermits(length),
            _ => Injection::DelayCommit { target, length },
        }
    }

    /// Counts an injection point at a member, and performs the injections that wait for it.
    pub(super) fn reached(&mut self, point: InjectionPoint, member: usize) {
        let count = &mut self.point_counts[point as usize];
        *count += 1;
        if self.armed.is_empty() || self.faults_over {
            return;
        }
        let nth = *count;
        while let Some(at) = self.armed.iter().position(|w| w.point == point && w.nth == nth) {
            let armed = self.armed.swap_remove(at);
            trace_line!(self, "at {point:?} #{nth}:");
            self.inject(&armed.injection, Some(member));
        }
    }

    pub(super) fn member_clock(&self, member: usize) -> Now {
        let unix = BASE + i64::try_from(self.now).unwrap_or(0) + self.members[member].clock_offset;
        Now { mono: self.now, unix }
    }

    /// The instance's clock, in seconds.
    pub(super) fn instance_date(&self) -> i64 {
        (BASE + i64::try_from(self.now).unwrap_or(0) + self.params.instance_clock_offset).div_euclid(1000)
    }

    fn handle(&mut self, event: ScheduledEvent) {
        match event {
            ScheduledEvent::Publish => {
                let (partition, _) = self.schedule[self.published_count];
                self.published_count += 1;
                self.visible[partition] += 1;
                self.coverage.records += 1;
            }
            ScheduledEvent::Inject(injection) => {
                if !self.faults_over {
                    self.inject(&injection, None);
                }
            }
            ScheduledEvent::Deliver { member, pid, input } => {
                if self.members[member].pid == pid {
                    if self.members[member].frozen() {
                        self.members[member].deferred.push(input);
                    } else {
                        self.deliver(member, input);
                    }
                }
            }
            ScheduledEvent::Resume { member, pid } => self.resume(member, pid),
            ScheduledEvent::Reconnect { member } => self.update_reachability(member),
            ScheduledEvent::Restart { member } => self.start(member),
            ScheduledEvent::Exit { member, pid, down } => {
                if self.members[member].pid == pid && self.members[member].alive() {
                    self.exit(member, down);
                }
            }
            ScheduledEvent::ProduceLands(produce) => self.land(produce),
            ScheduledEvent::CommitArrives { member, pid, generation, stamped } => {
                self.commit_arrives(member, pid, generation, stamped);
            }
            ScheduledEvent::RequestArrives(request) => self.arrive(request),
            ScheduledEvent::CommitWrite(request) => self.commit_write(request),
            ScheduledEvent::SessionTimeout { member, pid, reachability } => {
                let gone = self.members[member].pid != pid;
                if gone || (self.members[member].reachability == reachability && !self.members[member].reachable) {
                    self.expel(member, pid, "no heartbeat");
                }
            }
            ScheduledEvent::PollTimeout { member, pid } => {
                let late = self.members[member].last_poll + self.settings.max_poll_interval <= self.now;
                if self.members[member].pid == pid && late && !self.members[member].frozen() {
                    self.expel(member, pid, "not polled");
                }
            }
            ScheduledEvent::PartitionReleased { member, pid, partition } => self.released(member, pid, partition),
            ScheduledEvent::EndFaults => self.end_faults(),
        }
    }

    /// Sends an input to a process after a delay.
    pub(super) fn send(&mut self, member: usize, delay: u64, input: Input) {
        let pid = self.members[member].pid;
        self.queue.push(self.now + delay, ScheduledEvent::Deliver { member, pid, input });
    }

    /// Starts a new process.
    fn start(&mut self, member: usize) {
        if self.members[member].alive() {
            return;
        }
        trace_line!(self, "member {member} starts");
        let settings = Settings { seed: self.settings.seed ^ member as u64, ..self.settings.clone() };
        let mut dispatcher = Box::new(Dispatcher::new(settings));
        if let Some(mutation) = self.scenario.mutation {
            dispatcher.disable_rule(mutation);
        }
        self.members[member].dispatcher = Some(dispatcher);
        self.members[member].last_poll = self.now;
        self.resolved[member] = Default::default();
        self.update_reachability(member);
        self.apply_event(member, Event::InstanceTime { date: self.instance_date() });
        let delay = self.rng.u64(10..500);
        self.send(member, delay, Input::Join);
        self.send(member, delay, Input::Poll);
        self.send(member, delay, Input::RenewLeases);
    }

    /// Gives an event to a member's dispatcher and performs the effects.
    pub(super) fn apply_event(&mut self, member: usize, event: Event) {
        let now = self.member_clock(member);
        trace_line!(self, "{member} <- {}", super::trace_format::event(&event));
        let Some(dispatcher) = self.members[member].dispatcher.as_mut() else { return };
        dispatcher.apply(event, now, &mut self.effects);
        self.coverage.applies += 1;
        self.members[member].effects_to_run.extend(self.effects.drain(..));
        self.run_effects(member);
    }

    /// Performs effects until there are none, or until an injection stops the process.
    pub(super) fn run_effects(&mut self, member: usize) {
        while !self.members[member].frozen() {
            let Some(effect) = self.members[member].effects_to_run.pop_front() else { break };
            self.perform_effect(member, effect);
        }
        self.update_timers(member);
    }

    /// Schedules the permit and the timer that the dispatcher needs.
    pub(super) fn update_timers(&mut self, member: usize) {
        let now = self.member_clock(member);
        let state = &mut self.members[member];
        if state.frozen_until.is_some() {
            return;
        }
        let Some(dispatcher) = state.dispatcher.as_mut() else { return };
        let permit = !state.permit_requested && dispatcher.wants_permit(now);
        let wake = dispatcher.next_wake();
        if permit {
            state.permit_requested = true;
            let delay =
                if self.params.max_permit_delay > 0 { self.rng.u64(0..self.params.max_permit_delay) } else { 0 };
            let at = (now.mono + delay).max(self.params.permits_from);
            self.send(member, at - now.mono, Input::Permit);
        }
        if let Some(at) = wake {
            // A due timer that depends on something else is repeated from time to time.
            let at = if at > now.mono { at } else { now.mono + 100 };
            let state = &mut self.members[member];
            if state.wake_at.is_none_or(|set| at < set || set < now.mono) {
                state.wake_at = Some(at);
                self.send(member, at - now.mono, Input::Wake(at));
            }
        }
    }
}
