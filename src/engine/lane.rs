//! The queue of one key and the stage of its one attempt.

use std::collections::VecDeque;

use super::event::{DeadLetter, OpId, RequestId};
use super::fold::Queue;
use super::plan::WritePlan;
use super::priority::{Ticket, Want};
use super::retry::Delays;
use crate::model::entry::Entry;
use crate::model::{Claim, Park, Position, Row, Token};

/// Everything that happens to one key at the moment. A lane exists only while something does.
#[derive(Debug, Default)]
pub struct Lane {
    /// Folded events that wait for their turn.
    pub queue: Queue,
    /// What the attempt under way carries. While an attempt of a former owner is in doubt: the events up to its last
    /// position that have arrived, which must not be folded with later ones.
    pub held: Queue,
    /// The claim under way, and the token its ledger key carries.
    pub claim: Option<(Token, Box<Claim>)>,
    /// Token of a claim that stands in the ledger although its write certainly did not happen.
    pub void: Option<Token>,
    /// The instance was asked whether the key has a ticket that the ledger does not know.
    pub proven: bool,
    /// Up to where a former owner had claimed; see [`super::fold::Bounds::apart`].
    pub apart: Option<Position>,
    /// What is being done. While a step moves it on it may be taken out; what the partition counts of it is in
    /// `counted`.
    pub stage: Stage,
    /// What the partition counts of this lane.
    pub counted: Counted,
    /// The row, where it was read for the next decision.
    pub row: Option<Box<Row>>,
    /// Its place among lanes that wait for a turn or a permit.
    pub place: Option<QueuePosition>,
    /// Whether it is critical, as of its last ticket.
    pub critical: bool,
    /// Delays of the present trouble; none while all is well.
    pub delays: Option<Delays>,
    /// Requests made for what is held, for the report.
    pub requests: u32,
}

/// Where a lane waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuePosition {
    /// For a turn.
    Turn(Ticket),
    /// For a permit.
    Permit(Want),
}

/// What a partition counts of a lane.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Prepared ahead of a permit: as a critical lane, or as one of the others.
    pub prepared: Option<bool>,
    /// An answer that a drain waits for.
    pub finishing: bool,
}

/// What a lane is doing.
#[derive(Debug, Default)]
pub enum Stage {
    /// Nothing; a lane with an empty queue is dropped in this stage.
    #[default]
    Idle,
    /// Has its ticket for a turn.
    Ready,
    /// Wants a permit for this.
    Wants(ReadPurpose),
    /// A read or look is out.
    Asking(RequestId, ReadPurpose),
    /// The claim is on its way to the ledger.
    Claiming(OpId, Box<WritePlan>),
    /// The claim stands; wants a permit.
    Claimed(Box<WritePlan>),
    /// The write is out.
    Sending(RequestId, Box<WritePlan>),
    /// The entry waits for a lease.
    Settled(Box<Settlement>),
    /// The entry is on its way to the ledger.
    Settling(OpId, Box<Settlement>),
    /// In doubt; the next look is due at this instant on the mono clock.
    AmbiguousWrite(AmbiguousWrite, u64),
    /// Tries again at this instant.
    Waiting(u64),
    /// That dead letters will be written is on its way to the ledger: the letters, and the parking that then stands.
    Announcing(Vec<DeadLetter>, Box<Park>),
    /// A dead letter is on its way, and behind it these; then the key is parked, and that waits for its answer as well.
    /// One goes after the other, so that whoever puts them back finds none without those before it. The parking comes
    /// after the letters: it says that they stand.
    Refusing(VecDeque<DeadLetter>, Option<Box<Park>>),
}

/// A request without effect that a lane wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPurpose {
    /// Read the row before writing it.
    Read,
    /// Find out whether the key has a ticket already, because the ledger may not know.
    Discover,
    /// Settle the doubt; `conclusive` where finding nothing settles it as well.
    Look(AmbiguousWrite, bool),
    /// The row answered 404: is it gone?
    Confirm,
}

/// A write that may or may not have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmbiguousWrite {
    /// Until this instant on the mono clock the instance may still commit it.
    pub alive_until: u64,
    /// True where the transaction has ended, so that the first look is conclusive.
    pub ended: bool,
    /// True once a look has been made.
    pub looked: bool,
}

/// An entry to be written, and what its ack resolves.
#[derive(Debug)]
pub struct Settlement {
    /// The entry.
    pub entry: Entry,
    /// For the report: what happened.
    pub outcome: &'static str,
    /// Columns that were written.
    pub fields: Vec<(crate::model::Column, String)>,
    /// Notes that were written.
    pub notes: usize,
    /// Differences between what was sent and what stands.
    pub warnings: Vec<String>,
}

impl Lane {
    /// True while something of this lane may be known to the instance and not to the ledger.
    pub fn is_ambiguous(&self) -> bool {
        matches!(
            self.stage,
            Stage::AmbiguousWrite(..) | Stage::Wants(ReadPurpose::Look(..)) | Stage::Asking(_, ReadPurpose::Look(..))
        )
    }

    /// True while the lane waits for a turn, a permit or an instant, so that a request is still to come.
    pub fn waits(&self) -> bool {
        self.place.is_some()
            || matches!(self.stage, Stage::Waiting(_) | Stage::AmbiguousWrite(..) | Stage::Claiming(..))
    }

    /// True while the lane has a place in the number of lanes that may be prepared ahead of a permit.
    pub fn is_prepared(&self) -> bool {
        matches!(
            self.stage,
            Stage::Claiming(..)
                | Stage::Claimed(_)
                | Stage::Wants(ReadPurpose::Read | ReadPurpose::Discover)
                | Stage::Asking(_, ReadPurpose::Read | ReadPurpose::Discover)
        )
    }

    /// True while an answer of the instance or the ledger is awaited that a drain should wait for.
    pub fn is_finishing(&self) -> bool {
        matches!(
            self.stage,
            Stage::Sending(..) | Stage::Settled(_) | Stage::Settling(..) | Stage::Announcing(..) | Stage::Refusing(..)
        )
    }
}
