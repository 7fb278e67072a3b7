//! The world: two members, a group, a ledger, an instance and people, in virtual time, from one seed. It performs the
//! engine's effects with delays and faults of its own and feeds back what came of them. One seed gives one history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;

use super::super::event::{DeadLetter, Received, RequestBody};
use super::super::flap_detection::Flapping;
use super::super::{Dispatcher, Effect, Event, Settings};
use super::alerts::{self, Habits};
use super::coverage::Coverage;
use super::group::Group;
use super::instance::Instance;
use super::ledger::{Log, Stored};
use super::member::{Input, Member, Stamped};
use super::queue::Queue;
use super::redrive::Shelved;
use super::scenario::{DriverMutation, Fault, Scenario};
use super::script::{Directive, Fate, Landing, Moment, Who};
use crate::model::entry::AttemptId;
use crate::model::{Answer, Epoch, Intent, Key, Now, Position};

/// Unix milliseconds at virtual time 0.
pub(super) const BASE: i64 = 1_700_000_000_000;

/// What happens outside of processes, or reaches one.
#[derive(Debug)]
pub(super) enum Happening {
    Publish,
    Strike(Directive),
    Reach {
        member: usize,
        life: u32,
        input: Input,
    },
    Thaw {
        member: usize,
        life: u32,
    },
    LinkUp {
        member: usize,
    },
    Restart {
        member: usize,
    },
    Exit {
        member: usize,
        life: u32,
        down: u64,
    },
    /// A ledger produce reaches the broker.
    Land(u32),
    /// A commit reaches the coordinator.
    CommitArrives {
        member: usize,
        life: u32,
        generation: Option<u64>,
        stamped: Stamped,
    },
    /// A request reaches the instance.
    Arrive(u32),
    /// The instance commits a write.
    Commit(u32),
    /// The coordinator misses a member's heartbeats.
    SessionOver {
        member: usize,
        life: u32,
        reach: u32,
    },
    /// The client leaves the group because it was not polled.
    PollOver {
        member: usize,
        life: u32,
    },
    /// The callback has returned, the coordinator may give the partition on.
    Freed {
        member: usize,
        life: u32,
        partition: usize,
    },
    /// Faults stop.
    Calm,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) member: usize,
    pub(super) life: u32,
    pub(super) id: super::super::event::RequestId,
    pub(super) partition: usize,
    pub(super) body: RequestBody,
    pub(super) attempt: Option<AttemptId>,
    pub(super) lease_until: u64,
    pub(super) checked_at: u64,
    /// When its sender had last looked at the row.
    pub(super) looked_at: u64,
    pub(super) left_at: u64,
    /// A freeze struck between the check and the sending.
    pub(super) stuck: bool,
    /// Arrived at the instance (or never will).
    pub(super) arrived: bool,
    /// The write will still be committed.
    pub(super) pending: bool,
    /// The sender has got its answer.
    pub(super) answered: bool,
    /// Answer on its way.
    pub(super) answer: Option<Answer>,
    pub(super) fate: Fate,
}

/// A ledger produce under way.
#[derive(Debug)]
pub(super) struct Produce {
    pub(super) member: usize,
    pub(super) life: u32,
    pub(super) partition: usize,
    pub(super) handed: u64,
    pub(super) op: Option<super::super::event::OpId>,
    pub(super) what: Handed,
    pub(super) landed: bool,
    /// The loop has been told already, as unknown.
    pub(super) told: bool,
    /// The moment that its ack is.
    pub(super) moment: Option<Moment>,
}

/// What was handed to the producer.
#[derive(Debug)]
pub(super) enum Handed {
    Ledger(Stored),
    /// With the epoch that wants the token.
    Owner(Epoch),
    Letter(Option<Box<DeadLetter>>),
}

/// A fault that waits for its moment.
struct Watch {
    moment: Moment,
    nth: u32,
    what: Directive,
}

/// One history.
pub(super) struct World {
    pub(super) now: u64,
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) queue: Queue<Happening>,
    pub(super) settings: Settings,
    pub(super) scenario: Arc<Scenario>,
    pub(super) members: [Member; 2],
    pub(super) group: Group,
    pub(super) logs: [Log; 2],
    pub(super) input: [Vec<Received>; 2],
    pub(super) visible: [usize; 2],
    pub(super) instance: Instance,
    pub(super) requests: Vec<Request>,
    pub(super) produces: Vec<Produce>,
    /// Where each attempt's claim begins and ends.
    pub(super) claimed: Vec<(AttemptId, Position, Position)>,
    /// Highest position committed, by key.
    pub(super) newest: [Option<Position>; 3],
    /// Positions that will not be applied because they were dead-lettered or superseded by something that was.
    pub(super) dead: BTreeSet<Position>,
    /// Dead letters that stand, of all keys.
    pub(super) shelf: Vec<Shelved>,
    /// Where redriven events stood before they were put back for the first time.
    pub(super) originals: BTreeMap<Position, Position>,
    /// Redrives so far.
    pub(super) redrives: u64,
    /// Where in each partition the last of them ended.
    pub(super) redriven_to: [i64; 2],
    /// Keys that were forgotten.
    pub(super) expired: BTreeSet<Key>,
    /// What a resync has found and not put into the input yet.
    pub(super) resync: Option<(Position, Intent)>,
    /// Positions resolved by reports, in the present assignment of each member and partition.
    pub(super) resolved: [[(Epoch, BTreeSet<Position>); 2]; 2],
    pub(super) coverage: Coverage,
    pub(super) odds: Odds,
    pub(super) plan: Vec<Fate>,
    pub(super) produce_plan: Vec<(Moment, Landing)>,
    pub(super) trace: Option<Vec<String>>,
    pub(super) violation: Option<String>,
    /// Keys whose tickets a person and the bridge wrote at once: their values prove nothing.
    pub(super) raced: [bool; 3],
    /// Keys whose ticket's state a person changed.
    pub(super) handled: [bool; 3],
    /// Writes that may still take effect.
    pub(super) under_way: Vec<u32>,
    pub(super) calm: bool,
    pub(super) calm_at: u64,
    /// Records published before the long pause, by partition.
    pub(super) first_half: [usize; 2],
    published: usize,
    schedule: Vec<(usize, u64)>,
    watches: Vec<Watch>,
    moments: [u32; Moment::COUNT],
    effects: Vec<Effect>,
}

/// What this history drew.
#[derive(Debug, Default, Clone)]
pub(super) struct Odds {
    pub(super) partitions: usize,
    pub(super) bad_writes: u32,
    pub(super) ghosts: u32,
    pub(super) unknown: u32,
    pub(super) rejects: bool,
    pub(super) people: bool,
    pub(super) resyncs: bool,
    pub(super) coarse: bool,
    pub(super) pause: u64,
    pub(super) permit: u64,
    pub(super) slow_commits: bool,
    /// The instance's clock minus the true time, milliseconds.
    pub(super) clock: i64,
    pub(super) poll: u64,
    pub(super) hold_down: u64,
    pub(super) outage_until: u64,
    pub(super) throttle_until: u64,
    pub(super) lockout_until: u64,
    pub(super) permits_from: u64,
}

macro_rules! tell {
    ($world:expr, $($arg:tt)*) => {
        if let Some(trace) = $world.trace.as_mut() {
            trace.push(format!("{:>9.3}  {}", $world.now as f64 / 1000.0, format_args!($($arg)*)));
        }
    };
}
pub(super) use tell;

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
            claimed: Vec::new(),
            newest: [None; 3],
            dead: BTreeSet::new(),
            shelf: Vec::new(),
            originals: BTreeMap::new(),
            redrives: 0,
            redriven_to: [0; 2],
            expired: BTreeSet::new(),
            resync: None,
            resolved: Default::default(),
            coverage: Coverage::default(),
            odds: Odds::default(),
            plan: Vec::new(),
            produce_plan: Vec::new(),
            trace: None,
            violation: None,
            raced: [false; 3],
            handled: [false; 3],
            under_way: Vec::new(),
            calm: false,
            calm_at: 0,
            first_half: [0; 2],
            published: 0,
            schedule: Vec::new(),
            watches: Vec::new(),
            moments: [0; Moment::COUNT],
            effects: Vec::new(),
        }
    }

    /// Runs one history from a seed. Coverage adds up over the histories of a world.
    pub(super) fn run(&mut self, seed: u64, scenario: &Arc<Scenario>) -> Result<(), String> {
        self.prepare(seed, scenario);
        let mut steps = 0_u64;
        while self.violation.is_none() {
            steps += 1;
            if steps > 2_000_000 {
                self.violate("the history does not end".into());
                break;
            }
            let Some((at, happening)) = self.queue.pop() else {
                self.violate("the world has nothing more to do, and records are unresolved".into());
                break;
            };
            self.now = self.now.max(at);
            self.happen(happening);
            if self.calm && self.finished() {
                if self.scenario.redrives && self.has_open_letters() {
                    self.redrive_all();
                    self.calm_at = self.now;
                    if self.redrives > 100 {
                        self.violate("redrives do not come to an end".into());
                    }
                    continue;
                }
                self.judge_end();
                break;
            }
        }
        self.coverage.histories += 1;
        match self.violation.take() {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }

    pub(super) fn violate(&mut self, what: String) {
        tell!(self, "VIOLATION {what}");
        self.violation.get_or_insert(what);
    }

    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.u32(0..1000) < per_mille
    }

    pub(super) fn off(&self, mutation: DriverMutation) -> bool {
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
        self.claimed.clear();
        self.newest = [None; 3];
        self.dead.clear();
        self.shelf.clear();
        self.originals.clear();
        self.redrives = 0;
        self.redriven_to = [0; 2];
        self.expired.clear();
        self.resync = None;
        self.resolved = Default::default();
        self.plan.clear();
        self.produce_plan.clear();
        self.raced = [false; 3];
        self.handled = [false; 3];
        self.under_way.clear();
        self.visible = [0; 2];
        self.published = 0;
        self.calm = false;
        self.watches.clear();
        self.moments = [0; Moment::COUNT];
        self.draw();
        for log in &mut self.logs {
            log.clear();
            log.tokenless = scenario.driver == Some(DriverMutation::TokenlessKeys);
        }
        self.draw_records();
        self.draw_faults();
        for member in 0..2 {
            self.members[member].die();
            self.members[member].life = 0;
            self.members[member].cut_until = 0;
            self.members[member].skew = self.rng.i64(-800..800);
            let at = if scenario.scripted { 1 } else { self.rng.u64(0..3_000) };
            self.queue.push(at + member as u64, Happening::Restart { member });
        }
    }

    /// Settings and odds of this history.
    fn draw(&mut self) {
        let scenario = self.scenario.clone();
        let rng = &mut self.rng;
        let session = if scenario.scripted { 10_000 } else { [6_000, 10_000, 20_000][rng.usize(0..3)] };
        let deadline = if scenario.scripted { 5_000 } else { [2_000, 5_000, 12_000][rng.usize(0..3)] };
        let settle = if scenario.scripted { 20_000 } else { [3_000, 10_000, 30_000][rng.usize(0..3)] };
        let people = rng.u32(0..1000) < scenario.people;
        self.settings = Settings {
            reopen_window: if scenario.scripted { 30_000 } else { [5_000, 20_000, 60_000][rng.usize(0..3)] },
            row_freshness: if people || rng.bool() { 0 } else { 30_000 },
            request_deadline: deadline,
            settle_time: settle,
            session_timeout: session,
            max_poll_interval: 30_000,
            poll_margin: 2_000,
            drain: 3_000,
            mark_every: 1_000,
            claims_ahead: rng.usize(1..4),
            brake: u32::MAX,
            breaker: 5,
            retry: (200, 4_000),
            auth_retry: (1_000, 8_000),
            flapping: (!scenario.scripted && rng.u32(0..4) == 0).then_some(Flapping {
                changes: rng.usize(2..5),
                within: 20_000,
                hold: 4_000,
            }),
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
        let unknown = share(scenario.unknown);
        self.odds = Odds {
            partitions: drawn,
            bad_writes,
            unknown,
            ghosts: scenario.ghosts,
            rejects: rng.u32(0..1000) < scenario.rejects,
            people,
            resyncs: scenario.resyncs > 0 && rng.u32(0..1000) < scenario.resyncs,
            coarse: scenario.coarse > 0 && rng.u32(0..1000) < scenario.coarse,
            pause: if rng.u32(0..1000) < scenario.pauses { rng.u64(1_260_000..1_400_000) } else { 0 },
            permit: if rng.u32(0..1000) < scenario.slow_permits { rng.u64(100..20_000) } else { 20 },
            slow_commits: rng.u32(0..1000) < scenario.slow_commits,
            clock: rng.i64(-300_000..300_000),
            poll: if scenario.scripted { 300 } else { rng.u64(300..1_500) },
            hold_down: if scenario.scripted || rng.u32(0..20) > 0 { 0 } else { rng.u64(300..6_000) },
            ..Odds::default()
        };
        if rng.u32(0..12) == 0 {
            self.instance.rule = Some((alerts::COLUMNS[2], "2"));
            self.coverage.rule_changes += 1;
        }
    }

    fn draw_records(&mut self) {
        for input in &mut self.input {
            input.clear();
        }
        self.schedule.clear();
        let habits = Habits {
            records: self.scenario.records,
            partitions: self.odds.partitions,
            rejects: self.odds.rejects,
            pause: self.odds.pause,
            reopen_window: self.settings.reopen_window,
            hold_down: self.odds.hold_down,
            coarse: self.odds.coarse,
            base: BASE,
        };
        self.first_half = [0; 2];
        for (n, published) in alerts::publish(&mut self.rng, &habits).into_iter().enumerate() {
            self.first_half[published.partition] += usize::from(n < habits.records / 2);
            self.add_record(published.partition, published.at, published.record);
        }
    }

    /// Puts a record on the agenda.
    pub(super) fn add_record(&mut self, partition: usize, at: u64, record: Received) {
        self.schedule.push((partition, at));
        self.input[partition].push(record);
        self.queue.push(at, Happening::Publish);
    }

    fn draw_faults(&mut self) {
        let scenario = self.scenario.clone();
        let last = self.schedule.last().map_or(1_000, |(_, at)| *at);
        for fault in &scenario.always {
            match fault {
                Fault::At(at, what) => self.queue.push(*at, Happening::Strike(what.clone())),
                Fault::When(moment, nth, what) => {
                    self.watches.push(Watch { moment: *moment, nth: *nth, what: what.clone() });
                }
                Fault::Sometime(moment, what) => {
                    let nth = self.rng.u32(1..30);
                    self.watches.push(Watch { moment: *moment, nth, what: what.clone() });
                }
            }
        }
        if scenario.faults > 0 {
            for _ in 0..self.rng.usize(1..=scenario.faults) {
                let what = self.draw_directive();
                if self.rng.u32(0..4) == 0 {
                    let at = self.rng.u64(0..last);
                    self.queue.push(at, Happening::Strike(what));
                } else {
                    let moment = Moment::ALL[self.rng.usize(0..Moment::COUNT)];
                    let nth = self.rng.u32(1..25);
                    self.watches.push(Watch { moment, nth, what });
                }
            }
            for _ in 0..self.rng.usize(0..3) {
                let at = self.rng.u64(0..last);
                self.queue.push(at, Happening::Strike(Directive::Compact));
            }
        }
        if self.odds.rejects && scenario.redrives {
            for _ in 0..self.rng.usize(1..6) {
                let at = self.rng.u64(0..last);
                let key = self.rng.usize(0..3);
                self.queue.push(at, Happening::Strike(Directive::Redrive(key)));
            }
        }
        if self.odds.resyncs {
            for _ in 0..self.rng.usize(2..12) {
                let at = self.rng.u64(0..last);
                let key = self.rng.usize(0..3);
                self.queue.push(at, Happening::Strike(Directive::Resync(key)));
            }
        }
        if self.odds.people {
            for _ in 0..self.rng.usize(1..10) {
                let at = self.rng.u64(0..last);
                let deed = self.draw_deed();
                let key = self.rng.usize(0..3);
                self.queue.push(at, Happening::Strike(Directive::Person(key, deed)));
            }
        }
        let faults_end = scenario.always.iter().map(|f| if let Fault::At(at, _) = f { *at } else { 0 }).max();
        self.calm_at = last.max(faults_end.unwrap_or(0)) + 500 + self.rng.u64(0..10_000);
        self.queue.push(self.calm_at, Happening::Calm);
    }

    fn draw_directive(&mut self) -> Directive {
        let session = self.settings.session_timeout;
        let span = self.settings.request_deadline + self.settings.settle_time;
        let rng = &mut self.rng;
        let member = if rng.bool() { Who::Here } else { Who::Is(rng.usize(0..2)) };
        let length = match rng.u32(0..3) {
            0 => rng.u64(10..session / 2),
            1 => rng.u64(session / 2..session * 2),
            _ => rng.u64(session..session * 2 + span),
        };
        match rng.u32(0..100) {
            0..30 => Directive::Crash { member, down: rng.u64(100..session * 2) },
            30..55 => Directive::Freeze { member, length },
            55..63 => Directive::Stall { member, length: length + rng.u64(0..40_000) },
            63..70 => Directive::Cut { member, length },
            70..82 => Directive::Rebalance,
            82..86 => Directive::Terminate { member, drain: rng.u64(0..25_000), down: rng.u64(100..5_000) },
            86..89 => Directive::Outage(length),
            89..91 => Directive::Throttle(length),
            91..93 => Directive::Lockout(length / 2),
            93..96 => Directive::HoldPermits(length),
            _ => Directive::HoldCommit { member, length },
        }
    }

    /// Marks a moment at a member; what waits for it strikes on the spot.
    pub(super) fn moment(&mut self, moment: Moment, member: usize) {
        let count = &mut self.moments[moment as usize];
        *count += 1;
        if self.watches.is_empty() || self.calm {
            return;
        }
        let nth = *count;
        while let Some(at) = self.watches.iter().position(|w| w.moment == moment && w.nth == nth) {
            let watch = self.watches.swap_remove(at);
            tell!(self, "at {moment:?} #{nth}:");
            self.strike(&watch.what, Some(member));
        }
    }

    pub(super) fn clock(&self, member: usize) -> Now {
        let unix = BASE + i64::try_from(self.now).unwrap_or(0) + self.members[member].skew;
        Now { mono: self.now, unix }
    }

    /// The instance's clock, seconds.
    pub(super) fn date(&self) -> i64 {
        (BASE + i64::try_from(self.now).unwrap_or(0) + self.odds.clock).div_euclid(1000)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Publish => {
                let (partition, _) = self.schedule[self.published];
                self.published += 1;
                self.visible[partition] += 1;
                self.coverage.records += 1;
            }
            Happening::Strike(what) => {
                if !self.calm {
                    self.strike(&what, None);
                }
            }
            Happening::Reach { member, life, input } => {
                if self.members[member].life == life {
                    if self.members[member].frozen() {
                        self.members[member].held.push(input);
                    } else {
                        self.reach(member, input);
                    }
                }
            }
            Happening::Thaw { member, life } => self.thaw(member, life),
            Happening::LinkUp { member } => self.update_reach(member),
            Happening::Restart { member } => self.start(member),
            Happening::Exit { member, life, down } => {
                if self.members[member].life == life && self.members[member].alive() {
                    self.exit(member, down);
                }
            }
            Happening::Land(produce) => self.land(produce),
            Happening::CommitArrives { member, life, generation, stamped } => {
                self.commit_arrives(member, life, generation, stamped);
            }
            Happening::Arrive(request) => self.arrive(request),
            Happening::Commit(request) => self.commit_write(request),
            Happening::SessionOver { member, life, reach } => {
                let gone = self.members[member].life != life;
                if gone || (self.members[member].reach == reach && !self.members[member].reachable) {
                    self.expel(member, life, "no heartbeat");
                }
            }
            Happening::PollOver { member, life } => {
                let late = self.members[member].last_poll + self.settings.max_poll_interval <= self.now;
                if self.members[member].life == life && late && !self.members[member].frozen() {
                    self.expel(member, life, "not polled");
                }
            }
            Happening::Freed { member, life, partition } => self.freed(member, life, partition),
            Happening::Calm => self.calm_down(),
        }
    }

    /// Sends an input to a process after a delay.
    pub(super) fn send(&mut self, member: usize, delay: u64, input: Input) {
        let life = self.members[member].life;
        self.queue.push(self.now + delay, Happening::Reach { member, life, input });
    }

    /// A new process begins.
    fn start(&mut self, member: usize) {
        if self.members[member].alive() {
            return;
        }
        tell!(self, "member {member} starts");
        let settings = Settings { seed: self.settings.seed ^ member as u64, ..self.settings.clone() };
        let mut dispatcher = Box::new(Dispatcher::new(settings));
        if let Some(mutation) = self.scenario.mutation {
            dispatcher.mutate(mutation);
        }
        self.members[member].dispatcher = Some(dispatcher);
        self.members[member].last_poll = self.now;
        self.resolved[member] = Default::default();
        self.update_reach(member);
        self.feed(member, Event::InstanceTime { date: self.date() });
        let delay = self.rng.u64(10..500);
        self.send(member, delay, Input::Join);
        self.send(member, delay, Input::Poll);
        self.send(member, delay, Input::Renew);
    }

    /// Gives an event to a member's dispatcher and performs what it wants.
    pub(super) fn feed(&mut self, member: usize, event: Event) {
        let now = self.clock(member);
        tell!(self, "{member} <- {}", super::report::event(&event));
        let Some(dispatcher) = self.members[member].dispatcher.as_mut() else { return };
        dispatcher.apply(event, now, &mut self.effects);
        self.coverage.applies += 1;
        self.members[member].todo.extend(self.effects.drain(..));
        self.perform(member);
    }

    /// Performs effects until there are none, or the process is struck by something.
    pub(super) fn perform(&mut self, member: usize) {
        while !self.members[member].frozen() {
            let Some(effect) = self.members[member].todo.pop_front() else { break };
            self.effect(member, effect);
        }
        self.rearm(member);
    }

    /// Asks the dispatcher what it waits for.
    pub(super) fn rearm(&mut self, member: usize) {
        let now = self.clock(member);
        let state = &mut self.members[member];
        if state.frozen_until.is_some() {
            return;
        }
        let Some(dispatcher) = state.dispatcher.as_mut() else { return };
        let permit = !state.permit && dispatcher.wants_permit(now);
        let wake = dispatcher.next_wake();
        if permit {
            state.permit = true;
            let delay = if self.odds.permit > 0 { self.rng.u64(0..self.odds.permit) } else { 0 };
            let at = (now.mono + delay).max(self.odds.permits_from);
            self.send(member, at - now.mono, Input::Permit);
        }
        if let Some(at) = wake {
            // What is due and waits for something else is asked for again now and then.
            let at = if at > now.mono { at } else { now.mono + 100 };
            let state = &mut self.members[member];
            if state.wake.is_none_or(|set| at < set || set < now.mono) {
                state.wake = Some(at);
                self.send(member, at - now.mono, Input::Wake(at));
            }
        }
    }
}
