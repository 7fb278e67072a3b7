//! The queue of one key and the stage of its one attempt.

use std::collections::VecDeque;

use super::event::{DeadLetter, ProduceId, RequestId};
use super::fold::Queue;
use super::freshness::SeenVersion;
use super::plan::WritePlan;
use super::priority::{LaneClass, LaneRank, PermitRank};
use super::retry::Backoff;
use crate::model::entry::Entry;
use crate::model::{Claim, Park, Position, Token};

/// The present work for one key. A lane exists only while there is work.
#[derive(Debug, Default)]
pub struct Lane {
    /// Folded events that wait for their turn.
    pub queue: Queue,
    /// The events of the current attempt. While an attempt of a previous owner is ambiguous: the events up to its last
    /// position that have arrived, which must not be folded with later ones.
    pub in_flight: Queue,
    /// The claim of the current attempt, and the token in its ledger key.
    pub claim: Option<(Token, Box<Claim>)>,
    /// Token of a claim that is still in the ledger although its write was certainly not applied.
    pub void_claim: Option<Token>,
    /// True once the instance was asked whether the key has a ticket that the ledger does not know.
    pub lookup_done: bool,
    /// The last position that a previous owner claimed; see [`super::fold::FoldLimits::claimed_up_to`].
    pub claimed_up_to: Option<Position>,
    /// May be taken out while a step changes it; `counts` contains what the partition counts of it.
    pub stage: Stage,
    pub counts: LaneCounts,
    /// The row on which the present claim was decided; `None` for a key without a ticket.
    pub decided_on: Option<SeenVersion>,
    /// Number of looks for the lane since its last write: more than one if the row was too old when its turn or its
    /// permit came.
    pub looks: u8,
    /// True if the lane was made only to read the row of a ticket whose entry may expire.
    pub looks_for_expiry: bool,
    /// The request that reads the lane's row although it does not wait for that yet.
    pub being_read: Option<RequestId>,
    /// Until when the lane's look may wait to share a request, on the mono clock.
    pub look_due: Option<u64>,
    /// Rank of the lane, if it waits for a turn or a permit.
    pub queue_position: Option<QueuePosition>,
    /// Since when it has been waiting for a permit, on the mono clock.
    pub waiting_since: u64,
    /// When its last request was sent, on the mono clock.
    pub sent_at: u64,
    /// As of the last computed rank.
    pub class: LaneClass,
    /// Delays between the retries of the current failure; `None` if the last attempt did not fail.
    pub backoff: Option<Backoff>,
    /// Number of requests for the events in flight, for the result.
    pub requests: u32,
}

/// In which queue a lane waits, and its rank there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuePosition {
    /// The lane waits for a turn.
    Turn(LaneRank),
    /// The lane waits until its row is read.
    Look(LaneRank),
    /// The lane waits for a permit.
    Permit(PermitRank),
}

impl QueuePosition {
    /// The rank of the lane.
    pub fn lane_rank(self) -> LaneRank {
        match self {
            Self::Turn(rank) | Self::Look(rank) => rank,
            Self::Permit(rank) => rank.lane_rank,
        }
    }

    /// The same queue with another rank.
    #[must_use]
    pub fn with(self, rank: LaneRank) -> Self {
        match self {
            Self::Turn(_) => Self::Turn(rank),
            Self::Look(_) => Self::Look(rank),
            Self::Permit(old) => Self::Permit(old.with(rank)),
        }
    }
}

/// What a partition counts of a lane.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneCounts {
    /// The class under which the lane counts as prepared; `None` if it is not prepared.
    pub prepared: Option<LaneClass>,
    /// True if a drain waits for the lane.
    pub blocks_drain: bool,
}

/// What a lane is doing. Instants are on the mono clock.
#[derive(Debug, Default)]
pub enum Stage {
    /// Nothing. A lane with an empty queue is dropped in this stage.
    #[default]
    Idle,
    /// Waits for a turn.
    Ready,
    /// Waits for a permit to read.
    WaitingToRead(ReadPurpose),
    /// The row must be read before the lane can be written: waits for the next look, while lanes whose rows are known
    /// get their turns.
    WaitingForLook,
    /// The row must be read, but probably nothing has to be written: waits until this instant, or until other lanes
    /// read theirs, and shares their request.
    WaitingToShare(u64),
    /// A read or a verification is in flight.
    Reading(RequestId, ReadPurpose),
    /// The claim was produced and is not acked yet.
    Claiming(ProduceId, Box<WritePlan>),
    /// The claim is acked; the lane waits for a permit to write.
    Claimed(Box<WritePlan>),
    /// The write is in flight.
    Sending(RequestId, Box<WritePlan>),
    /// The write is settled; its entry waits for a lease.
    EntryPending(Box<Settlement>),
    /// The entry was produced and is not acked yet.
    WritingEntry(ProduceId, Box<Settlement>),
    /// The outcome of the write is unknown. The next verification is due at this instant.
    Ambiguous(AmbiguousWrite, u64),
    /// Waits until this instant, then gets in line for a turn.
    Waiting(u64),
    /// An announced park was produced and is not acked yet. Then the dead letters are produced, and then the park.
    AnnouncingPark(Vec<DeadLetter>, Box<Park>),
    /// A dead letter was produced and is not acked yet; the others follow. Each is produced once the one before it is
    /// acked, so that a redrive finds none without those before it. Then the park is produced, which says that the dead
    /// letters are in the topic, and its ack is awaited too.
    DeadLettering(VecDeque<DeadLetter>, Option<Box<Park>>),
}

/// Why a lane reads from the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPurpose {
    /// To see the row's present values before it is written.
    RefreshRow,
    /// To find out whether the key already has a ticket, because the ledger may have lost it.
    DiscoverTicket,
    /// To settle an ambiguous write.
    Verify {
        write: AmbiguousWrite,
        /// True if not finding the write settles it as well. Determined when the request is sent.
        conclusive: bool,
    },
    /// To find out whether a ticket that a read or a write did not find is really missing.
    ConfirmMissing {
        /// True if a write did not find it.
        by_write: bool,
    },
}

/// A write that may or may not have been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmbiguousWrite {
    /// The instance may still commit the write until this instant on the mono clock.
    pub may_commit_until: u64,
    /// True if the transaction has ended, so that the first verification is conclusive.
    pub transaction_ended: bool,
    /// True once a verification did not settle it.
    pub verified_once: bool,
}

/// An entry to be written, and the result that its ack completes.
#[derive(Debug)]
pub struct Settlement {
    pub entry: Entry,
    /// See [`super::event::WriteResult::outcome`].
    pub outcome: &'static str,
    /// Columns that were written.
    pub fields: Vec<(crate::model::Column, String)>,
    /// Number of notes that were written.
    pub notes: usize,
    /// Differences between the values that were sent and those in the record afterwards.
    pub warnings: Vec<String>,
}

impl Lane {
    /// True while the outcome of the lane's write is unknown.
    pub fn is_ambiguous(&self) -> bool {
        matches!(
            self.stage,
            Stage::Ambiguous(..)
                | Stage::WaitingToRead(ReadPurpose::Verify { .. })
                | Stage::Reading(_, ReadPurpose::Verify { .. })
        )
    }

    /// True while the lane waits for a permit to look at its ticket.
    pub fn asks_for_look(&self) -> bool {
        matches!(self.stage, Stage::WaitingToRead(ReadPurpose::RefreshRow))
    }

    /// True while the lane waits for a turn, a permit or an instant, so that it will send a request later.
    pub fn is_waiting(&self) -> bool {
        self.queue_position.is_some()
            || matches!(
                self.stage,
                Stage::Waiting(_) | Stage::WaitingToShare(_) | Stage::Ambiguous(..) | Stage::Claiming(..)
            )
    }

    /// True while the lane counts as prepared: it is claimed, or reads for a plan, before the permit to write.
    pub fn is_prepared(&self) -> bool {
        matches!(
            self.stage,
            Stage::Claiming(..)
                | Stage::Claimed(_)
                | Stage::WaitingToRead(ReadPurpose::RefreshRow | ReadPurpose::DiscoverTicket)
                | Stage::Reading(_, ReadPurpose::RefreshRow | ReadPurpose::DiscoverTicket)
        )
    }

    /// True while the lane awaits an answer, of the instance or the ledger, that a drain waits for.
    pub fn blocks_drain(&self) -> bool {
        matches!(
            self.stage,
            Stage::Sending(..)
                | Stage::EntryPending(_)
                | Stage::WritingEntry(..)
                | Stage::AnnouncingPark(..)
                | Stage::DeadLettering(..)
        )
    }
}
