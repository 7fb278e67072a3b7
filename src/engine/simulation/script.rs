//! What can be done to the world, and at which moments. Random histories and hand-written traces use the same words.

use crate::model::Key;

/// Something that strikes. Durations are milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Directive {
    /// The process is killed; a new one starts after so long.
    Crash { member: Who, down: u64 },
    /// The process gets SIGSTOP, and SIGCONT after so long.
    Freeze { member: Who, length: u64 },
    /// The poller's thread is stuck, the rest of the process works.
    Stall { member: Who, length: u64 },
    /// Nothing passes between the member and Kafka.
    Cut { member: Who, length: u64 },
    /// The coordinator deals the partitions anew.
    Rebalance,
    /// The coordinator gives every partition to this member.
    GiveTo(usize),
    /// SIGTERM, exit after so long, a new process later.
    Terminate { member: Who, drain: u64, down: u64 },
    /// The ledger is compacted.
    Compact,
    /// No connection to the instance can be made.
    Outage(u64),
    /// The instance answers 429.
    Throttle(u64),
    /// The instance answers 401.
    Lockout(u64),
    /// A person does something to the newest ticket of a key.
    Person(usize, Deed),
    /// The next writes end like this, in this order.
    Plan(Vec<Fate>),
    /// The next ledger produces of this kind end like this.
    PlanProduce(Moment, Landing),
    /// An operator puts the letters of a key back.
    Redrive(usize),
    /// An operator looks at the newest event of a key's ticket, to have its values written anew; what was looked at before
    /// is put into the input.
    Resync(usize),
    /// No permits for so long.
    HoldPermits(u64),
    /// The next commit of this member is stamped now and leaves after so long.
    HoldCommit { member: Who, length: u64 },
}

/// Whom it strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Who {
    /// This member.
    Is(usize),
    /// The member at which the moment came; at a set time, the owner of partition 0.
    Here,
    /// The owner of partition 0.
    Owner,
}

/// What people do to tickets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Deed {
    /// Overwrites a column.
    Edit,
    /// Adds a work note.
    Note,
    /// Takes it into work.
    Work,
    /// Resolves it.
    Resolve,
    /// Closes it.
    Close,
    /// Cancels it.
    Cancel,
    /// Deletes the row.
    Delete,
}

/// How a write ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Committed and answered.
    Applied,
    /// Committed, and the answer takes so long.
    Slow(u64),
    /// Committed, the answer is lost.
    LostAfter,
    /// Never committed, the connection is cut.
    LostBefore,
    /// The connection is cut, and the write commits so long after it was sent; `u64::MAX`: at the span's very end.
    Ghost(u64),
    /// The application answers an error of its own after the commit.
    EndedApplied,
    /// The application answers an error of its own, nothing is written.
    EndedNot,
    /// 429.
    Throttled,
    /// 401.
    Unauthorised,
    /// No connection.
    NotConnected,
    /// A unique key refuses it, because the same write had been committed before (a proxy that repeats).
    ConflictAfter,
}

/// How a ledger produce ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landing {
    /// Answered as unknown, and never lands.
    Never,
    /// Answered as unknown, although it landed.
    AckLost,
    /// Answered as unknown, and lands so long after it was handed over.
    Late(u64),
    /// Refused.
    Refused,
}

/// Moments of the delivery at which something may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Moment {
    /// A claim was handed to the producer.
    ClaimHanded,
    /// A claim stands in the ledger, its ack is on the way.
    ClaimLanded,
    /// A claim's ack was seen.
    ClaimAcked,
    /// A write passed its check and has not left the process.
    CheckPassed,
    /// A write arrived at the instance.
    WriteArrived,
    /// A write was committed.
    WriteCommitted,
    /// A write's answer was seen.
    WriteAnswered,
    /// A look's answer was seen.
    LookAnswered,
    /// An entry was handed to the producer.
    EntryHanded,
    /// An entry stands in the ledger, its ack is on the way.
    EntryLanded,
    /// An entry's ack was seen.
    EntryAcked,
    /// A mark was handed to the producer.
    MarkHanded,
    /// A tombstone was handed to the producer.
    TombstoneHanded,
    /// A commit was stamped, and has not left the process.
    CommitStamped,
    /// A commit's answer was seen.
    CommitAnswered,
    /// An owner record was handed over.
    OwnerHanded,
    /// An owner record stands in the ledger.
    OwnerLanded,
    /// The engine has its ledger.
    Loaded,
    /// The rebalance callback blocks.
    RevokeSeen,
    /// The engine let go.
    Released,
    /// An entry was forgotten.
    Expired,
    /// A record was handed to the engine.
    Received,
    /// A dead letter was handed over.
    DeadLetterHanded,
    /// A doubt was opened.
    WriteAmbiguous,
    /// A commit set the group's offset back.
    WentBack,
    /// A frozen member goes on.
    Thawed,
    /// The coordinator accepted a commit, its answer is on the way.
    CommitAccepted,
}

impl Moment {
    /// How many there are.
    pub(super) const COUNT: usize = Moment::CommitAccepted as usize + 1;

    /// Those a random fault may hang on.
    pub(super) const ALL: [Moment; Self::COUNT] = [
        Moment::ClaimHanded,
        Moment::ClaimLanded,
        Moment::ClaimAcked,
        Moment::CheckPassed,
        Moment::WriteArrived,
        Moment::WriteCommitted,
        Moment::WriteAnswered,
        Moment::LookAnswered,
        Moment::EntryHanded,
        Moment::EntryLanded,
        Moment::EntryAcked,
        Moment::MarkHanded,
        Moment::TombstoneHanded,
        Moment::CommitStamped,
        Moment::CommitAnswered,
        Moment::OwnerHanded,
        Moment::OwnerLanded,
        Moment::Loaded,
        Moment::RevokeSeen,
        Moment::Released,
        Moment::Expired,
        Moment::Received,
        Moment::DeadLetterHanded,
        Moment::WriteAmbiguous,
        Moment::WentBack,
        Moment::Thawed,
        Moment::CommitAccepted,
    ];
}

/// The key of that number.
pub(super) fn key_name(index: usize) -> Key {
    thread_local! {
        static KEYS: [Key; 3] = ["k0".into(), "k1".into(), "k2".into()];
    }
    KEYS.with(|keys| keys[index].clone())
}

/// The number of a key that [`key_name`] made.
pub(super) fn key_index(key: &str) -> usize {
    usize::from(key.as_bytes()[1] - b'0')
}
