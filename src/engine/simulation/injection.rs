//! The faults and actions that can be injected into the world, and the points of the delivery at which they can be.
//! Random histories and hand-written traces use the same ones.

use crate::model::Key;

/// A fault, or an action of a user, an operator or the coordinator. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Injection {
    /// The process is killed. A new one starts after `down`.
    Crash { target: Target, down: u64 },
    /// The process gets SIGSTOP, and SIGCONT after `length`.
    Freeze { target: Target, length: u64 },
    /// The poller's thread is stuck; the rest of the process continues.
    StallPoller { target: Target, length: u64 },
    /// The network between the member and Kafka is cut.
    Disconnect { target: Target, length: u64 },
    /// The coordinator reassigns the partitions.
    Rebalance,
    /// The coordinator assigns every partition to this member.
    AssignAllTo(usize),
    /// The process gets SIGTERM and exits after `drain`. A new one starts after `down`.
    Terminate { target: Target, drain: u64, down: u64 },
    /// The ledger is compacted.
    Compact,
    /// No connection to the instance is possible.
    Outage(u64),
    /// The instance answers 429.
    Throttle(u64),
    /// The instance answers 401.
    Unauthorized(u64),
    /// A user does something to the newest ticket of a key.
    UserAction(usize, UserAction),
    /// The outcomes of the next writes, in this order.
    WriteOutcomes(Vec<WriteOutcome>),
    /// The fault of the next ledger produce that reaches this point.
    ProduceFault(InjectionPoint, ProduceFault),
    /// An operator redrives the dead letters of a key.
    Redrive(usize),
    /// An operator's resync reads the newest event of a key's ticket. The event that the resync before it read is
    /// appended to the input.
    Resync(usize),
    /// No permits are granted.
    DelayPermits(u64),
    /// The next commit of this member is stamped now and sent after `length`.
    DelayCommit { target: Target, length: u64 },
}

/// The member that an injection affects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    Member(usize),
    /// The member at which the injection point was reached. At a set time: the owner of partition 0.
    Triggering,
    /// The owner of partition 0.
    Owner,
}

/// The action of a user on a ticket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum UserAction {
    /// Overwrites a column.
    Edit,
    /// Adds a work note.
    Note,
    /// Sets the state to in progress.
    StartWork,
    Resolve,
    /// Opens a resolved ticket again.
    Reopen,
    Close,
    Cancel,
    /// Deletes the row.
    Delete,
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteOutcome {
    /// Committed, and the response arrives.
    Applied,
    /// Committed, and the response arrives after so many milliseconds.
    Slow(u64),
    /// Committed, and the response is lost.
    AppliedResponseLost,
    /// Never committed, and the connection is cut.
    NotAppliedResponseLost,
    /// The connection is cut, and the write is committed so many milliseconds after it was sent. `u64::MAX`: at the
    /// very end of the span.
    Ghost(u64),
    /// Committed, and the application returns an error.
    AppliedErrorReturned,
    /// Nothing is written, and the application returns an error.
    NotAppliedErrorReturned,
    /// 429.
    Throttled,
    /// 401.
    Unauthorized,
    /// No connection.
    NotConnected,
    /// A unique key rejects the write because the same write was committed before (a proxy that repeats requests).
    AppliedConflictReturned,
}

/// The fault of a ledger produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProduceFault {
    /// The outcome is `Unknown`, and the record never reaches the log.
    Never,
    /// The outcome is `Unknown`, although the record is in the log.
    AckLost,
    /// The outcome is `Unknown`, and the record reaches the log so many milliseconds after the delivery timeout.
    Late(u64),
    /// The outcome is `NotWritten`.
    NotWritten,
}

/// The points of the delivery at which a fault can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum InjectionPoint {
    /// A claim was enqueued in the producer.
    ClaimEnqueued,
    /// A claim is in the ledger; its ack is on the way.
    ClaimLanded,
    /// The ack of a claim arrived.
    ClaimAcked,
    /// A write passed its check and has not left the process.
    CheckPassed,
    /// A write arrived at the instance.
    WriteArrived,
    /// The instance committed a write.
    WriteCommitted,
    /// The response to a write arrived.
    WriteAnswered,
    /// The response to a read arrived.
    ReadAnswered,
    /// An entry was enqueued in the producer.
    EntryEnqueued,
    /// An entry is in the ledger; its ack is on the way.
    EntryLanded,
    /// The ack of an entry arrived.
    EntryAcked,
    /// A mark was enqueued in the producer.
    MarkEnqueued,
    /// A tombstone was enqueued in the producer.
    TombstoneEnqueued,
    /// A commit was stamped, and has not left the process.
    CommitStamped,
    /// The response to a commit arrived.
    CommitAnswered,
    /// An owner record was enqueued in the producer.
    OwnerEnqueued,
    /// An owner record is in the ledger.
    OwnerLanded,
    /// The engine received the state of the ledger.
    LedgerRead,
    /// The rebalance callback blocks.
    PartitionRevoked,
    /// The engine released the partition.
    PartitionReleased,
    /// An entry expired.
    EntryExpired,
    /// A record was given to the engine.
    RecordReceived,
    /// A dead letter was enqueued in the producer.
    DeadLetterEnqueued,
    /// A write became ambiguous.
    WriteAmbiguous,
    /// A commit set the group's offset back.
    OffsetSetBack,
    /// A frozen member resumed.
    MemberResumed,
    /// The coordinator accepted a commit; its response is on the way.
    CommitAccepted,
}

impl InjectionPoint {
    /// Number of injection points.
    pub(super) const COUNT: usize = InjectionPoint::CommitAccepted as usize + 1;

    /// All injection points; a random injection waits for one of them.
    pub(super) const ALL: [InjectionPoint; Self::COUNT] = [
        InjectionPoint::ClaimEnqueued,
        InjectionPoint::ClaimLanded,
        InjectionPoint::ClaimAcked,
        InjectionPoint::CheckPassed,
        InjectionPoint::WriteArrived,
        InjectionPoint::WriteCommitted,
        InjectionPoint::WriteAnswered,
        InjectionPoint::ReadAnswered,
        InjectionPoint::EntryEnqueued,
        InjectionPoint::EntryLanded,
        InjectionPoint::EntryAcked,
        InjectionPoint::MarkEnqueued,
        InjectionPoint::TombstoneEnqueued,
        InjectionPoint::CommitStamped,
        InjectionPoint::CommitAnswered,
        InjectionPoint::OwnerEnqueued,
        InjectionPoint::OwnerLanded,
        InjectionPoint::LedgerRead,
        InjectionPoint::PartitionRevoked,
        InjectionPoint::PartitionReleased,
        InjectionPoint::EntryExpired,
        InjectionPoint::RecordReceived,
        InjectionPoint::DeadLetterEnqueued,
        InjectionPoint::WriteAmbiguous,
        InjectionPoint::OffsetSetBack,
        InjectionPoint::MemberResumed,
        InjectionPoint::CommitAccepted,
    ];
}

/// The key with this index.
pub(super) fn key_name(index: usize) -> Key {
    thread_local! {
        static KEYS: [Key; 3] = ["k0".into(), "k1".into(), "k2".into()];
    }
    KEYS.with(|keys| keys[index].clone())
}

/// The index of a key that [`key_name`] returned.
pub(super) fn key_index(key: &str) -> usize {
    usize::from(key.as_bytes()[1] - b'0')
}
