//! A member: one process of the bridge with its dispatcher, driven the way the sink's loop drives it. What is in here
//! is volatile; a crash takes it all.

use std::collections::VecDeque;

use super::super::event::{RequestBody, RequestId};
use super::super::{Dispatcher, Effect, Event};
use crate::model::Epoch;

/// Something that reaches a process. While it is frozen these wait.
#[derive(Debug)]
pub(super) enum Input {
    /// Out of the channel between the poller's thread and the loop; these keep their order.
    Channel(Event),
    /// A record out of that channel, with the fetch that brought it; void once another fetch was asked for.
    Record { event: Event, partition: usize, fetch: u32 },
    /// Anything else the loop selects on.
    Loop(Event),
    /// The pace has a permit.
    Permit,
    /// A timer that was set for this instant.
    Wake(u64),
    /// The poller polls.
    Poll,
    /// The poller learns that the group dropped the member.
    NoticeLost,
    /// The client joins the group.
    Join,
    /// The client learns the group's generation.
    Sync { generation: u64, session: u32 },
    /// The rebalance callback hands a partition over.
    Assign { partition: usize, session: u32, generation: u64 },
    /// The rebalance callback asks for a partition.
    Revoke { partition: usize, session: u32 },
    /// The rebalance callback returns.
    Returned { partition: usize },
    /// The committer renews the leases.
    Renew,
    /// The committer sends what it was given.
    Commit { partition: usize },
    /// A stamped commit leaves the process.
    CommitLeaves(Stamped),
    /// A commit was accepted.
    Committed(Stamped),
    /// A request that had to wait for something else in the driver, a new access token say, before its last check.
    Check(Box<Outgoing>),
    /// A write's or a look's answer.
    Answered { request: u32 },
    /// A ledger produce was answered.
    Produced { produce: u32, event: Event },
    /// The ledger was read up to the token.
    ReadDone { partition: usize, epoch: Epoch, token: i64 },
    /// A produce of an owner record failed.
    OwnerFailed { partition: usize, epoch: Epoch },
    /// A rebalance callback is due at an engine that has not let go in time.
    DrainOver { partition: usize, epoch: Epoch },
}

/// A request before its last check.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) id: RequestId,
    pub(super) partition: usize,
    pub(super) epoch: Epoch,
    pub(super) tenure: u32,
    pub(super) lease_until: u64,
    pub(super) body: RequestBody,
}

/// A commit with what was stamped on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamped {
    pub(super) partition: usize,
    pub(super) epoch: Epoch,
    pub(super) offset: i64,
    pub(super) sent_at: u64,
}

/// What the client knows of one partition.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The epoch that the threads share; `None` while the partition is not ours as far as the client knows.
    pub(super) epoch: Option<Epoch>,
    /// Next offset to hand out.
    pub(super) fetch: Option<i64>,
    /// Counts what was asked to be fetched.
    pub(super) fetches: u32,
    /// Counts take-overs: what was to be sent before one may not be sent after it.
    pub(super) tenure: u32,
    /// Offset to commit.
    pub(super) commit: Option<i64>,
    /// A commit is about to be sent.
    pub(super) committing: bool,
    /// When the last ledger produce lands: produces keep their order.
    pub(super) lands: u64,
    /// When the callback began to block.
    pub(super) revoked_at: Option<u64>,
}

impl Part {
    /// Nothing of a partition but what counts on through assignments.
    pub(super) fn counts(&self) -> Self {
        Self { fetches: self.fetches, tenure: self.tenure, ..Self::default() }
    }
}

/// One member.
pub(super) struct Member {
    /// Counts processes of this member; what belongs to an older one is void.
    pub(super) life: u32,
    pub(super) dispatcher: Option<Box<Dispatcher>>,
    /// Effects not yet performed.
    pub(super) todo: VecDeque<Effect>,
    /// Inputs that arrived while frozen.
    pub(super) held: Vec<Input>,
    pub(super) frozen_until: Option<u64>,
    pub(super) stalled_until: u64,
    /// When it last came out of a freeze.
    pub(super) thawed_at: u64,
    pub(super) cut_until: u64,
    /// Changes whenever the coordinator can or can't hear the member.
    pub(super) reach: u32,
    pub(super) reachable: bool,
    pub(super) parts: [Part; 2],
    pub(super) epochs: u64,
    /// Counts memberships of this client; what the group sent to an older one is void.
    pub(super) session: u32,
    /// The generation the client knows.
    pub(super) generation: Option<u64>,
    /// The group dropped the member, and it hasn't noticed.
    pub(super) dropped: bool,
    pub(super) paused: bool,
    pub(super) last_poll: u64,
    pub(super) channel: u64,
    pub(super) wake: Option<u64>,
    pub(super) permit: bool,
    /// The next commit leaves so late.
    pub(super) hold_commit: Option<u64>,
    /// Its wall clock minus the true time.
    pub(super) skew: i64,
    /// SIGTERM was given.
    pub(super) ending: bool,
}

impl Member {
    pub(super) fn new() -> Self {
        Self {
            life: 0,
            dispatcher: None,
            todo: VecDeque::new(),
            held: Vec::new(),
            frozen_until: None,
            stalled_until: 0,
            thawed_at: 0,
            cut_until: 0,
            reach: 0,
            reachable: false,
            parts: Default::default(),
            epochs: 0,
            session: 0,
            generation: None,
            dropped: false,
            paused: false,
            last_poll: 0,
            channel: 0,
            wake: None,
            permit: false,
            hold_commit: None,
            skew: 0,
            ending: false,
        }
    }

    pub(super) fn frozen(&self) -> bool {
        self.frozen_until.is_some()
    }

    pub(super) fn alive(&self) -> bool {
        self.dispatcher.is_some()
    }

    /// A rebalance callback blocks the poller.
    pub(super) fn blocked(&self) -> bool {
        self.parts.iter().any(|p| p.revoked_at.is_some())
    }

    /// Everything volatile is gone.
    pub(super) fn die(&mut self) {
        let (life, skew, reach, cut_until) = (self.life + 1, self.skew, self.reach, self.cut_until);
        let (mut todo, mut held) = (std::mem::take(&mut self.todo), std::mem::take(&mut self.held));
        todo.clear();
        held.clear();
        *self = Self { life, skew, reach, cut_until, todo, held, ..Self::new() };
    }
}
