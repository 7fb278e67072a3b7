//! What happens to the engine ([`Event`]) and what the engine orders ([`Effect`]).
//!
//! The driver (the sink's loop, or the simulation) performs the effects and reports their results as events. The events
//! may arrive in any order, with any delay: the engine is correct as long as the driver does what each item says.

use std::sync::Arc;

use super::entries::Entries;
pub use super::request::{InstanceRequest, MarkedNote};
use crate::model::{
    Action, Answer, Claim, Column, Entry, Epoch, FastMap, HttpMethod, HttpMethodSet, Intent, Key, Mark, Park, Position,
    PreviousOwner, Record, RecordOrigin, RedriveId, RowVersion, Token,
};

/// Identifies one ledger or dead-letter produce until [`Event::ProduceCompleted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProduceId(pub u64);

/// Identifies one HTTP request until [`Event::RequestCompleted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Input of the engine: something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The consumer group assigned a partition. The driver fetches nothing from it until [`Effect::StartFetching`].
    Assigned {
        partition: i32,
        /// Higher than every earlier epoch of the partition.
        epoch: Epoch,
    },
    /// [`Effect::TakeOverPartition`] is complete: the token is taken, and the ledger is read up to and including it.
    LedgerLoaded {
        partition: i32,
        /// The epoch for which the ledger was loaded.
        epoch: Epoch,
        ledger: Box<LedgerState>,
    },
    /// A record was decoded and mapped. Offsets of one partition and epoch arrive in ascending order.
    Received {
        partition: i32,
        /// The epoch in which the record was fetched.
        epoch: Epoch,
        record: MappedRecord,
    },
    /// The group revokes the partition. The engine responds with [`Effect::ReleasePartition`] after at most
    /// `Settings::drain_timeout`.
    Revoked {
        partition: i32,
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// The partition was lost: it was taken away without a chance to finish its work.
    Lost {
        partition: i32,
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// The group coordinator accepted an offset commit.
    Committed {
        partition: i32,
        /// The epoch that was stamped on the commit when it was *sent*.
        epoch: Epoch,
        /// When the commit was sent, on the mono clock.
        sent_at: u64,
        /// The committed offset.
        offset: i64,
    },
    /// The consumer was polled.
    Polled {
        /// When, on the mono clock.
        at: u64,
    },
    /// A produce was acknowledged, failed, or timed out.
    ProduceCompleted { produce_id: ProduceId, outcome: ProduceOutcome },
    /// One request may be sent: the rate limiter granted a token and a concurrency permit. The driver grants a permit
    /// only for a request that [`super::Dispatcher::next_request`] returned.
    PermitGranted {
        /// Methods for which the permit is not valid, because the rate limiter has nothing left for them now.
        without: HttpMethodSet,
    },
    /// The number of permits that are free. It grants none; it determines how many lanes are claimed in advance
    /// ([`super::claim_window`]).
    AvailablePermits { permits: usize },
    /// A request has its answer.
    RequestCompleted {
        request: RequestId,
        /// An instant on the mono clock by which the request was certainly issued: read after the bytes were handed
        /// over. Any value for a request that was not sent.
        issued_at: u64,
        /// The instance's clock in the response (`Date` header), Unix seconds; `None` where there was no response.
        instance_date: Option<i64>,
        answer: Answer,
        /// True if another request of the same batch call has already reported this failure, so that the breaker counts
        /// one failure of the instance, not several.
        already_counted: bool,
    },
    /// The instance's clock, from a `Date` header. Sent once before the first record, and whenever the driver learns
    /// the time other than from an answer.
    InstanceTime {
        /// Unix seconds.
        date: i64,
    },
    /// Another route of this process has seen these versions of rows.
    RowVersionsSeen { versions: Arc<[RowVersion]> },
    /// Time passed. The driver sends it at [`super::Dispatcher::next_wake`] at the latest.
    Tick,
    /// The process is shutting down (SIGTERM). The engine starts no new work, withdraws claims whose write was not
    /// sent, and finishes what is in flight.
    Drain,
    /// The credentials changed, or a user asked to resume: a stopped route retries at once.
    ResumeRequested,
}

/// How a produce ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProduceOutcome {
    /// Acknowledged by all in-sync replicas.
    Acked,
    /// Certainly not written.
    NotWritten,
    /// Timed out: the record may still land, even over newer records.
    Unknown,
}

/// A record after decoding and mapping.
#[derive(Debug, Clone)]
pub struct MappedRecord {
    pub offset: i64,
    /// The original record, for a dead letter. Dropped as soon as no event of it can become a dead letter any more.
    pub raw: Arc<Record>,
    /// Who put the record into the input. A release has the content [`RecordContent::Release`].
    pub origin: RecordOrigin,
    pub content: RecordContent,
}

/// What a record contains.
#[derive(Debug, Clone)]
pub enum RecordContent {
    /// Alert events, with indices ascending from 0. Indices are missing where a mapping rule dropped the event.
    Intents(Vec<Intent>),
    /// Deliberately nothing to do (a tombstone, a filtered event).
    Skipped,
    /// The end of a redrive of this key.
    Release(Key),
    /// A redriven event that still cannot be decoded or mapped.
    InvalidRedriven {
        key: Key,
        /// Stable code.
        code: &'static str,
        /// What failed, where, and what to do.
        reason: String,
    },
    /// A record that cannot be decoded or mapped.
    Invalid {
        /// Stable code, such as `undecodable`.
        code: &'static str,
        /// What failed, where, and what to do.
        reason: String,
    },
}

/// The contents of a ledger partition. Per kind and key only the record with the highest token counts.
#[derive(Debug, Clone, Default)]
pub struct LedgerState {
    /// Our token: the offset of our own `owner` record.
    pub token: Token,
    /// Where fetching starts: the later of the group's offset and the mark.
    pub start_offset: i64,
    /// The input's end offset at load. A previous owner has seen no record from here on.
    pub end_offset: i64,
    /// The highest watermark of all marks.
    pub mark_watermark: i64,
    pub entries: Entries,
    /// Unsettled claims.
    pub claims: FastMap<Key, LoadedClaim>,
    pub parks: FastMap<Key, Park>,
    /// The previous owners that the mark names.
    pub previous_owners: Vec<PreviousOwner>,
    /// Tokens of all previous owners of which the load found a record.
    pub seen_tokens: Vec<Token>,
    /// Records of lower tokens that still exist. They are tombstoned when their kind is next written for the key.
    pub stale: Vec<(LedgerKey, Token)>,
    /// Part of the note markers unless it is 0: a recreated topic has the same positions again.
    pub topic_generation: u32,
    /// True if the ledger may lack keys (it was lost, or the topic got more partitions): unknown keys are looked up in
    /// the instance.
    pub incomplete: bool,
}

/// A claim that the ledger does not show as settled.
#[derive(Debug, Clone)]
pub struct LoadedClaim {
    /// The token in the claim's ledger key.
    pub token: Token,
    pub claim: Claim,
    /// Milliseconds, by the broker's time, from the first record that a higher token *wrote* to our own `owner` record;
    /// 0 if there is no such record. If the write was sent, it was sent at least this long ago.
    pub age: u64,
}

/// Kind and key of a ledger record, without the token that its Kafka key also contains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LedgerKey {
    /// `entry:K`
    Entry(Key),
    /// `claim:K`
    Claim(Key),
    /// `park:K`
    Park(Key),
    /// `mark`
    Mark,
}

/// A ledger record to produce.
#[derive(Debug, Clone, PartialEq)]
pub enum LedgerWrite {
    /// What was done for the key.
    Entry(Key, Box<Entry>),
    /// What is about to be written for the key.
    Claim(Key, Token, Box<Claim>),
    /// A record of the key was rejected.
    Park(Key, Park),
    /// The watermark and the previous owners.
    Mark(Token, Mark),
    /// Removes the record of this kind, key and token.
    Tombstone(LedgerKey, Token),
}

/// Output of the engine: something for the driver to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Produce an `owner` record, take its offset as the token, read the ledger, find the start offset; then send
    /// [`Event::LedgerLoaded`]. On failure the driver retries, or reports the partition as blocked; the engine waits.
    TakeOverPartition {
        partition: i32,
        /// To be returned in [`Event::LedgerLoaded`].
        epoch: Epoch,
    },
    /// Fetch records from this offset on. The driver discards records of the partition that it fetched earlier.
    StartFetching { partition: i32, epoch: Epoch, start_offset: i64 },
    /// Produce to the ledger partition of the same number. Produces to one partition keep their order. Completed by
    /// [`Event::ProduceCompleted`].
    ProduceLedgerRecord { produce_id: ProduceId, partition: i32, write: LedgerWrite },
    /// Produce to the dead-letter topic. Completed by [`Event::ProduceCompleted`].
    ProduceDeadLetter { produce_id: ProduceId, dead_letter: Box<DeadLetter> },
    /// Produce to the results topic. The engine does not wait for it.
    ProduceResult(Box<WriteResult>),
    /// Send one request, unless the lease has ended: immediately before sending, the driver compares its clock with
    /// `lease_until`, and answers [`Answer::NotSent`] instead. It does the same if the partition was taken over again
    /// ([`Effect::TakeOverPartition`]) since. Completed exactly once, by [`Event::RequestCompleted`].
    SendRequest {
        id: RequestId,
        /// The partition whose lease is checked.
        partition: i32,
        /// The epoch whose lease is checked.
        epoch: Epoch,
        /// End of the lease on the mono clock, or the instant from which the row on which the write was decided is too
        /// old, if that is earlier; `u64::MAX` for reads and verifications, which change nothing.
        lease_until: u64,
        body: InstanceRequest,
    },
    /// Commit this offset at the next opportunity, which also renews the lease. Only the newest one per partition
    /// matters.
    CommitOffset {
        partition: i32,
        /// The epoch to stamp on the commit when it is sent.
        epoch: Epoch,
        /// The watermark.
        offset: i64,
    },
    /// Stop fetching from all partitions: too many events are unresolved.
    PauseFetching,
    /// Fetch from all partitions again.
    ResumeFetching,
    /// The partition is released: commit the offset and return from the rebalance callback.
    ReleasePartition {
        partition: i32,
        /// The epoch that ends.
        epoch: Epoch,
        /// The last watermark; `None` if the partition was not loaded.
        offset: Option<i64>,
    },
    /// For logs and metrics.
    Observe(Observation),
}

/// A record that could not be applied.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The original record.
    pub raw: Arc<Record>,
    /// Names the event within the record.
    pub position: Position,
    /// `None` if the record could not be decoded.
    pub key: Option<Key>,
    /// Stable code: `undecodable`, `rejected`, `parked`, `ambiguous_note`…
    pub code: String,
    /// The message of the instance or the decoder.
    pub reason: String,
    /// Events whose values this one superseded.
    pub superseded: Vec<Position>,
}

/// Outcome of a lane's write, for the results topic.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteResult {
    pub key: Key,
    /// created, updated, noted, resolved, reopened, unchanged, skipped, verified.
    pub outcome: &'static str,
    /// The ticket's `sys_id`.
    pub sys_id: String,
    /// The ticket's number.
    pub number: String,
    /// Positions that the write resolved.
    pub positions: Vec<Position>,
    /// Columns written.
    pub fields: Vec<(Column, String)>,
    /// Number of notes written.
    pub notes: usize,
    /// Number of requests, reads and verifications included.
    pub requests: u32,
    /// Milliseconds from the receipt of the first record to the answer.
    pub latency_ms: u64,
    /// Differences between the values that were sent and those in the record afterwards.
    pub warnings: Vec<String>,
}

/// Something to log and to count. The driver turns it into a log line and a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The outcome of a write is unknown, for this reason.
    WriteAmbiguous(Key, String),
    /// An ambiguous write was settled.
    AmbiguitySettled {
        key: Key,
        /// True if the write was found in the instance.
        applied: bool,
    },
    /// A write was applied, and its ticket is not what it should be: its state is not the one that was sent, or it lacks
    /// the correlation. With what was sent and what the row has.
    WriteIneffective(Key, String),
    /// A change of state was not applied to the open ticket, because a newer one was before.
    OutdatedStateChange(Key, Action),
    /// An event is dated after its receipt, by so many milliseconds: it counts as having happened at its receipt.
    FutureTime(Key, i64),
    /// A row contained a value that a user had set; the value was kept.
    UserEditPreserved(Key, Column),
    /// An event was skipped, for this reason: a repeated id, older than the applied state, no ticket to apply it to.
    Skipped(Key, &'static str),
    /// No write was needed: the ticket is already up to date.
    Unchanged(Key),
    /// An entry was removed after the reopen window.
    Expired(Key),
    /// A key was parked, for this reason.
    Parked(Key, String),
    /// A parked key was released.
    Unparked(Key),
    /// A redrive of this key ended and did not release it, for this reason.
    StillParked(Key, RedriveId, &'static str),
    /// The route is blocked for this reason, or resumed (`None`).
    Blocked(Option<BlockReason>),
    /// So many rows have the correlation of the key, where one was expected.
    DuplicateTickets(Key, usize),
    /// The ticket with this `sys_id` is missing (deleted, or not visible any more).
    TicketMissing(Key, String),
    /// A ledger write of this partition had an unknown outcome, so a new token is taken.
    TokenRenewed(i32),
}

/// Why a route is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockReason {
    /// The instance is unavailable. One request at a time probes it.
    Unavailable(String),
    /// The instance rejects the credentials.
    Unauthorized(String),
    /// The instance throttles requests of this method.
    Throttled {
        method: HttpMethod,
        /// When requests may be sent again, on the mono clock.
        until: u64,
    },
    /// Too many rejections in a row. The route waits until a user resumes it.
    RejectionLimit(String),
    /// The process is shutting down.
    Draining,
}
