//! Which histories a run draws: the odds of every fault. A scenario is plain data, so a trace or a mutation can bend
//! the odds towards what it needs without another world.

use super::super::Settings;
use super::super::mutation::Mutation;
use super::script::{Directive, Moment};

/// The odds of one family of histories. Chances are per mille.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// Records per history.
    pub(super) records: usize,
    /// Partitions, at most 2.
    pub(super) partitions: Option<usize>,
    /// Faults that strike members and links, at most this many a history.
    pub(super) faults: usize,
    /// Share of histories whose writes go wrong, and how often they then do.
    pub(super) bad_writes: (u32, u32),
    /// Of bad writes: that the write strikes after its sender gave up.
    pub(super) ghosts: u32,
    /// Chance that a ledger produce ends unknown, in histories that have it.
    pub(super) unknown: (u32, u32),
    /// Share of histories with people.
    pub(super) people: u32,
    /// Share of histories in which the instance refuses some values.
    pub(super) rejects: u32,
    /// Dead letters are put back, now and then and in the end.
    pub(super) redrives: bool,
    /// Share of histories in which an operator has values written anew.
    pub(super) resyncs: u32,
    /// Share of histories in which times are told in whole seconds.
    pub(super) coarse: u32,
    /// Share of histories with a pause longer than an entry's life in the middle.
    pub(super) pauses: u32,
    /// Share of histories whose permits are slow.
    pub(super) slow_permits: u32,
    /// Share of histories whose committer is slow (stray commits).
    pub(super) slow_commits: u32,
    /// Chance that the loop is slow to see what the poller says.
    pub(super) slow_channel: u32,
    /// Chance that a request waits in the driver before its last check.
    pub(super) slow_driver: u32,
    /// Faults that every history of this scenario has.
    pub(super) always: Vec<Fault>,
    /// Only members stay that a script names; no random faults at all.
    pub(super) scripted: bool,
    /// What is switched off in the engine.
    pub(super) mutation: Option<Mutation>,
    /// What is switched off in its driver.
    pub(super) driver: Option<DriverMutation>,
    /// Changes the drawn settings.
    pub(super) tune: Option<fn(&mut Settings)>,
}

/// A rule of the protocol that the driver keeps, left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DriverMutation {
    /// What was to be sent before a new token was taken is sent after it.
    NoTenureCheck,
    /// Keys in the ledger carry no token.
    TokenlessKeys,
    /// A lease counts from the commit's answer.
    LeaseFromAnswer,
    /// Neither a commit's answer nor a request about to be sent is compared with the present epoch.
    NoEpochCheck,
}

/// A fault and when it strikes.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// At this virtual time.
    At(u64, Directive),
    /// When this moment comes for the nth time (from 1).
    When(Moment, u32, Directive),
    /// At a random occurrence of this moment.
    Sometime(Moment, Directive),
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            records: 50,
            partitions: None,
            faults: 4,
            bad_writes: (800, 150),
            ghosts: 400,
            unknown: (250, 25),
            people: 250,
            rejects: 80,
            redrives: true,
            resyncs: 200,
            coarse: 200,
            pauses: 60,
            slow_permits: 250,
            slow_commits: 250,
            slow_channel: 15,
            slow_driver: 20,
            always: Vec::new(),
            scripted: false,
            mutation: None,
            driver: None,
            tune: None,
        }
    }
}

impl Scenario {
    /// Nothing goes wrong by itself.
    pub(super) fn quiet() -> Self {
        Self {
            faults: 0,
            bad_writes: (0, 0),
            ghosts: 0,
            unknown: (0, 0),
            people: 0,
            rejects: 0,
            redrives: false,
            resyncs: 0,
            coarse: 0,
            pauses: 0,
            slow_permits: 0,
            slow_commits: 0,
            slow_channel: 0,
            slow_driver: 0,
            scripted: true,
            ..Self::default()
        }
    }
}
