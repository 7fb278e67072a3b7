//! The probabilities of all faults in a family of histories. A scenario is plain data, so a trace or a mutation can
//! make the faults that it needs more likely, in the same world.

use super::super::Settings;
use super::super::mutation::Mutation;
use super::injection::{Injection, InjectionPoint};

/// The probabilities of one family of histories. Chances and shares are per mille.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// Records per history.
    pub(super) records: usize,
    /// Number of partitions, at most 2. `None`: drawn.
    pub(super) partitions: Option<usize>,
    /// Maximum number of random injections per history.
    pub(super) faults: usize,
    /// Share of histories with failing writes, and the chance of a write to fail in them.
    pub(super) bad_writes: (u32, u32),
    /// Chance of a failing write to become a ghost write.
    pub(super) ghosts: u32,
    /// Share of histories with failing produces, and the chance of a produce to fail in them.
    pub(super) unknown_produces: (u32, u32),
    /// Share of histories with users who edit tickets.
    pub(super) user_edits: u32,
    /// Share of histories in which the instance rejects some values.
    pub(super) rejects: u32,
    /// Dead letters are redriven from time to time and at the end.
    pub(super) redrives: bool,
    /// Share of histories with resyncs by an operator.
    pub(super) resyncs: u32,
    /// Share of histories in which events have times in whole seconds.
    pub(super) whole_seconds: u32,
    /// Share of histories with a pause in the middle that is longer than the expiry of an entry.
    pub(super) pauses: u32,
    /// Share of histories with slow permits.
    pub(super) slow_permits: u32,
    /// Share of histories with a slow committer (stray commits).
    pub(super) slow_commits: u32,
    /// Chance that the loop receives a message of the poller late.
    pub(super) slow_channel: u32,
    /// Chance that a request waits in the driver before its last check.
    pub(super) slow_driver: u32,
    /// Injections that every history of this scenario has.
    pub(super) always: Vec<PlannedInjection>,
    /// The parameters of the histories are fixed instead of drawn, and there are no slow requests.
    pub(super) scripted: bool,
    /// The rule that is switched off in the engine.
    pub(super) mutation: Option<Mutation>,
    /// The rule that is switched off in its driver.
    pub(super) driver: Option<DriverMutation>,
    /// Changes the drawn settings.
    pub(super) tune: Option<fn(&mut Settings)>,
}

/// A rule of the protocol that the driver implements, to be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DriverMutation {
    /// A request that was to be sent before a new token was taken is sent after it.
    NoLoadGenerationCheck,
    /// Keys in the ledger contain no token.
    TokenlessKeys,
    /// A lease counts from the response to the commit.
    LeaseFromAnswer,
    /// Neither the response to a commit nor a request that is about to be sent is compared with the current epoch.
    NoEpochCheck,
}

/// An injection and when it happens.
#[derive(Debug, Clone)]
pub(super) enum PlannedInjection {
    /// At this virtual time, in milliseconds.
    At(u64, Injection),
    /// When this injection point is reached for the nth time (from 1).
    OnNth(InjectionPoint, u32, Injection),
    /// At a random occurrence of this injection point.
    OnRandom(InjectionPoint, Injection),
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            records: 50,
            partitions: None,
            faults: 4,
            bad_writes: (800, 150),
            ghosts: 400,
            unknown_produces: (250, 25),
            user_edits: 250,
            rejects: 80,
            redrives: true,
            resyncs: 200,
            whole_seconds: 200,
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
    /// A scenario without random faults.
    pub(super) fn quiet() -> Self {
        Self {
            faults: 0,
            bad_writes: (0, 0),
            ghosts: 0,
            unknown_produces: (0, 0),
            user_edits: 0,
            rejects: 0,
            redrives: false,
            resyncs: 0,
            whole_seconds: 0,
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
