//! A member: one process of the bridge with its dispatcher, driven as the sink's loop drives it. All of its state is
//! volatile; a crash loses it.

use std::collections::VecDeque;

use super::super::event::{InstanceRequest, RequestId};
use super::super::{Dispatcher, Effect, Event};
use crate::model::Epoch;

/// An input of a process. While the process is frozen, inputs are deferred.
#[derive(Debug)]
pub(super) enum Input {
    /// An event from the channel between the poller's thread and the loop. Such events keep their order.
    Channel(Event),
    /// A record from the same channel. `fetch_count` is that of the fetch that returned it; the record is void after
    /// the next fetch.
    Record { event: Event, partition: usize, fetch_count: u32 },
    /// Any other input of the loop.
    Loop(Event),
    /// A permit is available.
    Permit,
    /// A timer that was set for this instant.
    Wake(u64),
    /// The poller polls.
    Poll,
    /// The poller learns that the group expelled the member.
    LostNoticed,
    /// The client joins the group.
    Join,
    /// The client learns the group's generation.
    Sync { generation: u64, membership: u32 },
    /// The rebalance callback assigns a partition.
    Assign { partition: usize, membership: u32, generation: u64 },
    /// The rebalance callback revokes a partition.
    Revoke { partition: usize, membership: u32 },
    /// The rebalance callback returns.
    CallbackReturned { partition: usize },
    /// The committer renews the leases.
    RenewLeases,
    /// The committer stamps a commit.
    Commit { partition: usize },
    /// A stamped commit is sent.
    SendCommit(StampedCommit),
    /// The coordinator accepted a commit.
    Committed(StampedCommit),
    /// A request that waited in the driver, for example for a new access token, reaches its last check.
    CheckAndSend(Box<OutgoingRequest>),
    /// The response to a write or a read arrives.
    Answered { request: u32 },
    /// A produce was completed.
    Produced { produce: u32, event: Event },
    /// The ledger was read.
    LedgerRead { partition: usize, epoch: Epoch, token: i64 },
    /// The produce of an owner record failed.
    OwnerFailed { partition: usize, epoch: Epoch },
    /// The engine must have released the partition by now.
    DrainDeadline { partition: usize, epoch: Epoch },
}

/// A request before its last check.
#[derive(Debug)]
pub(super) struct OutgoingRequest {
    pub(super) id: RequestId,
    pub(super) partition: usize,
    pub(super) epoch: Epoch,
    pub(super) load_generation: u32,
    pub(super) lease_until: u64,
    pub(super) body: InstanceRequest,
}

/// An offset commit with its stamp.
#[derive(Debug, Clone, Copy)]
pub(super) struct StampedCommit {
    pub(super) partition: usize,
    pub(super) epoch: Epoch,
    pub(super) offset: i64,
    pub(super) sent_at: u64,
}

/// The client's state of one partition.
#[derive(Debug, Default)]
pub(super) struct ClientPartition {
    /// The epoch that the threads share. `None` while the client does not know of an assignment.
    pub(super) epoch: Option<Epoch>,
    /// Next offset to fetch.
    pub(super) next_offset: Option<i64>,
    /// Number of fetches that were started.
    pub(super) fetch_count: u32,
    /// Number of tokens taken: a request from an older load generation may not be sent.
    pub(super) load_generation: u32,
    /// Offset to commit.
    pub(super) offset_to_commit: Option<i64>,
    /// A commit is scheduled.
    pub(super) commit_scheduled: bool,
    /// When the last ledger produce reaches the broker: produces keep their order.
    pub(super) last_landing: u64,
    /// When the callback began to block.
    pub(super) revoked_at: Option<u64>,
}

impl ClientPartition {
    /// A partition without an assignment: only the counters that outlast assignments are kept.
    pub(super) fn persistent_counters(&self) -> Self {
        Self { fetch_count: self.fetch_count, load_generation: self.load_generation, ..Self::default() }
    }
}

/// One member.
pub(super) struct Member {
    /// Counts the processes of this member. Inputs of an older process are void.
    pub(super) pid: u32,
    pub(super) dispatcher: Option<Box<Dispatcher>>,
    /// Effects that were not performed yet.
    pub(super) effects_to_run: VecDeque<Effect>,
    /// Inputs that arrived while the process was frozen.
    pub(super) deferred: Vec<Input>,
    pub(super) frozen_until: Option<u64>,
    pub(super) stalled_until: u64,
    /// When the process last resumed after a freeze.
    pub(super) resumed_at: u64,
    pub(super) disconnected_until: u64,
    /// Changes whenever the coordinator loses or regains contact with the member.
    pub(super) reachability: u32,
    pub(super) reachable: bool,
    pub(super) client_partitions: [ClientPartition; 2],
    pub(super) last_epoch: u64,
    /// Counts memberships of this client. Inputs of an older membership are void.
    pub(super) membership: u32,
    /// The group's generation as the client knows it.
    pub(super) generation: Option<u64>,
    /// The group expelled the member, which does not know it yet.
    pub(super) expelled: bool,
    pub(super) paused: bool,
    pub(super) last_poll: u64,
    pub(super) channel_time: u64,
    pub(super) wake_at: Option<u64>,
    pub(super) permit_requested: bool,
    /// Delay of the next commit, in milliseconds.
    pub(super) commit_delay: Option<u64>,
    /// The process's wall clock minus the true time, in milliseconds.
    pub(super) clock_offset: i64,
    /// The process got SIGTERM.
    pub(super) terminating: bool,
}

impl Member {
    pub(super) fn new() -> Self {
        Self {
            pid: 0,
            dispatcher: None,
            effects_to_run: VecDeque::new(),
            deferred: Vec::new(),
            frozen_until: None,
            stalled_until: 0,
            resumed_at: 0,
            disconnected_until: 0,
            reachability: 0,
            reachable: false,
            client_partitions: Default::default(),
            last_epoch: 0,
            membership: 0,
            generation: None,
            expelled: false,
            paused: false,
            last_poll: 0,
            channel_time: 0,
            wake_at: None,
            permit_requested: false,
            commit_delay: None,
            clock_offset: 0,
            terminating: false,
        }
    }

    pub(super) fn frozen(&self) -> bool {
        self.frozen_until.is_some()
    }

    pub(super) fn alive(&self) -> bool {
        self.dispatcher.is_some()
    }

    /// True while a rebalance callback blocks the poller.
    pub(super) fn poller_blocked(&self) -> bool {
        self.client_partitions.iter().any(|p| p.revoked_at.is_some())
    }

    /// Loses all volatile state.
    pub(super) fn reset(&mut self) {
        let (pid, clock_offset, reachability, disconnected_until) =
            (self.pid + 1, self.clock_offset, self.reachability, self.disconnected_until);
        let (mut effects_to_run, mut deferred) =
            (std::mem::take(&mut self.effects_to_run), std::mem::take(&mut self.deferred));
        effects_to_run.clear();
        deferred.clear();
        *self = Self { pid, clock_offset, reachability, disconnected_until, effects_to_run, deferred, ..Self::new() };
    }
}
