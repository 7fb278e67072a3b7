//! The engine's two languages: what happens to it ([`Event`]) and what it wants done ([`Effect`]).
//!
//! Whoever drives the engine (the sink's loop, or a simulation) performs the effects and feeds what came of them back as
//! events, in any order, with any delay. The engine is right whatever the order, if the driver does what each item says.

use std::sync::Arc;

use super::entries::Entries;
pub use super::request::{MarkedNote, RequestBody};
use crate::model::{
    Answer, Claim, Column, Entry, Epoch, FastMap, HttpMethod, HttpMethods, Intent, Key, Mark, Park, Position,
    PreviousOwner, Record, RecordOrigin, RedriveId, Token,
};

/// Names one ledger or dead-letter produce until its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Names one HTTP request until its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The group gave us a partition. The driver fetches nothing from it until [`Effect::Fetch`].
    Assigned {
        /// The partition.
        partition: i32,
        /// Its new epoch, higher than any before.
        epoch: Epoch,
    },
    /// [`Effect::TakeOver`] is done: the token is taken and the ledger read up to and including it.
    Loaded {
        /// The partition.
        partition: i32,
        /// The epoch it was loaded for.
        epoch: Epoch,
        /// What the ledger says.
        ledger: Box<Loaded>,
    },
    /// A record, decoded and mapped. Offsets of one partition and epoch arrive in rising order.
    Received {
        /// The partition.
        partition: i32,
        /// The epoch it was fetched in.
        epoch: Epoch,
        /// The record.
        record: Received,
    },
    /// The group takes the partition back. Answered by [`Effect::Release`] after at most `Settings::drain`.
    Revoked {
        /// The partition.
        partition: i32,
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// The partition is gone already, without a chance to finish.
    Lost {
        /// The partition.
        partition: i32,
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// The coordinator accepted an offset commit.
    Committed {
        /// The partition.
        partition: i32,
        /// The epoch that was stamped on the commit when it was *sent*.
        epoch: Epoch,
        /// When it was sent, on the mono clock.
        sent_at: u64,
        /// The committed offset.
        offset: i64,
    },
    /// The consumer was polled.
    Polled {
        /// When, on the mono clock.
        at: u64,
    },
    /// A produce has been answered.
    Produced {
        /// Which.
        op: OpId,
        /// How it ended.
        outcome: ProduceOutcome,
    },
    /// One request may be sent: the pace granted a token and a concurrency permit. Given only for what
    /// [`super::Dispatcher::wanted`] says.
    Permit {
        /// Methods that it is not for, because the pace has nothing for them now.
        without: HttpMethods,
    },
    /// So many permits could be had at once. It grants nothing: by it lanes are claimed ahead ([`super::ahead`]).
    AvailablePermits {
        /// How many, at this moment.
        permits: usize,
    },
    /// A request has been answered.
    Answered {
        /// Which.
        request: RequestId,
        /// When it was certainly issued, on the mono clock: read after the bytes were handed over. For requests that
        /// were not sent: any value.
        issued_at: u64,
        /// The instance's clock at the answer (`Date`), Unix seconds, where there was one.
        instance_date: Option<i64>,
        /// The answer.
        answer: Answer,
        /// Another request of the same call has told of its failure already: the instance failed once, not twice.
        told: bool,
    },
    /// The instance's clock, as its `Date` said. Given once before the first record, and whenever it is learned apart
    /// from an answer.
    InstanceTime {
        /// Unix seconds.
        date: i64,
    },
    /// Time passed. Given at least at [`super::Dispatcher::next_wake`].
    Tick,
    /// Stop starting work (SIGTERM). Claims that were not sent are withdrawn; what is in flight is finished.
    Drain,
    /// The credentials changed, or a person asked: try again at once where the route stands still.
    Retry,
}

/// How a produce ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProduceOutcome {
    /// Acknowledged by all in-sync replicas.
    Acked,
    /// Certainly not written.
    Refused,
    /// Timed out: it may still land, even over newer records.
    Unknown,
}

/// A record after decoding and mapping.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its offset.
    pub offset: i64,
    /// The original, for a dead letter. Dropped as soon as nothing of it is needed any more.
    pub raw: Arc<Record>,
    /// Where it comes from. A release's content is [`Content::Release`].
    pub origin: RecordOrigin,
    /// What was in it.
    pub content: Content,
}

/// What was in a record.
#[derive(Debug, Clone)]
pub enum Content {
    /// Its alert events, indices rising from 0, some perhaps missing because a rule left them out.
    Intents(Vec<Intent>),
    /// Nothing to do, deliberately (a tombstone, a filtered event).
    Skipped,
    /// The end of a redrive of this key.
    Release(Key),
    /// A redriven event of this key can't be read or mapped still.
    RefusedAgain {
        /// The key.
        key: Key,
        /// Stable code.
        code: &'static str,
        /// What, where and what to do.
        reason: String,
    },
    /// It can never be applied as it is.
    Refused {
        /// Stable code, such as `undecodable`.
        code: &'static str,
        /// What, where and what to do.
        reason: String,
    },
}

/// What loading a ledger partition found. Per kind and key only the record with the highest token counts.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Our token: the offset of our own `owner` record.
    pub token: Token,
    /// Where to start: the later of the group's offset and the mark.
    pub start: i64,
    /// One above the input's last record at that time: whoever had the partition before has seen nothing beyond it.
    pub end: i64,
    /// The highest mark found.
    pub mark: i64,
    /// Entries by key.
    pub entries: Entries,
    /// Claims by key, with the broker's milliseconds from the first record under a higher token to our own (0: none was).
    pub claims: FastMap<Key, (Token, Claim, u64)>,
    /// Parked keys.
    pub parks: FastMap<Key, Park>,
    /// Former owners that the mark names.
    pub former: Vec<PreviousOwner>,
    /// Tokens of former owners of whom anything was seen.
    pub tokens: Vec<Token>,
    /// Records of lower tokens that still stand, to be tombstoned when their kind is next written for the key.
    pub stale: Vec<(LedgerKey, Token)>,
    /// Stands in the markers of notes, where it is not 0: a topic that was made anew has the same positions again.
    pub topic_generation: u32,
    /// The ledger may not know every key (it was lost, or the topic grew): unknown keys are looked up.
    pub incomplete: bool,
}

/// What a ledger record is about, without the token that its Kafka key carries as well.
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
    /// What was done.
    Entry(Key, Box<Entry>),
    /// What is about to be done.
    Claim(Key, Token, Box<Claim>),
    /// A key is parked.
    Park(Key, Park),
    /// The watermark, and who owned the partition before.
    Mark(Token, Mark),
    /// The record of this kind, key and token is void.
    Tombstone(LedgerKey, Token),
}

/// Something to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Produce an `owner` record, take its offset as token, read the ledger, find the start; then [`Event::Loaded`].
    /// Where it fails, try again, or report the partition as held; the engine waits.
    TakeOver {
        /// The partition.
        partition: i32,
        /// The epoch to answer with.
        epoch: Epoch,
    },
    /// Fetch records from this offset on. Records of the partition that were fetched before this are not given any more.
    Fetch {
        /// The partition.
        partition: i32,
        /// The epoch.
        epoch: Epoch,
        /// First offset.
        from: i64,
    },
    /// Produce to the ledger partition of the same number. Produces of one partition keep their order.
    Produce {
        /// Answer with this id.
        op: OpId,
        /// Ledger partition.
        partition: i32,
        /// What.
        write: LedgerWrite,
    },
    /// Produce to the dead-letter topic.
    DeadLetter {
        /// Answer with this id.
        op: OpId,
        /// What.
        letter: Box<DeadLetter>,
    },
    /// Produce to the results topic; nobody waits for it.
    Result(Box<Report>),
    /// Send one request, unless the lease has ended: the driver compares its clock with `lease_until` immediately
    /// before sending and answers [`Answer::NotSent`] instead; so too where the partition was taken over anew
    /// ([`Effect::TakeOver`]) since. Answered exactly once.
    Request {
        /// Answer with this id.
        id: RequestId,
        /// Partition whose lease counts.
        partition: i32,
        /// Epoch whose lease counts.
        epoch: Epoch,
        /// The lease's end on the mono clock; looks and reads carry `u64::MAX`, they change nothing.
        lease_until: u64,
        /// What to send.
        body: RequestBody,
    },
    /// Commit this offset when next convenient; also renews the lease. Only the newest per partition matters.
    Commit {
        /// The partition.
        partition: i32,
        /// The epoch to stamp when it is sent.
        epoch: Epoch,
        /// The watermark.
        offset: i64,
    },
    /// Stop fetching from every partition: too much is unresolved.
    Pause,
    /// Fetch again.
    Resume,
    /// The partition has let go as far as it can: commit the offset and return from the rebalance callback.
    Release {
        /// The partition.
        partition: i32,
        /// The epoch that ends.
        epoch: Epoch,
        /// Last watermark, if one is known.
        offset: Option<i64>,
    },
    /// Something for people: logs and metrics.
    Observe(Observation),
}

/// A record that could not be applied.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The original.
    pub raw: Arc<Record>,
    /// Which of its events.
    pub position: Position,
    /// The key, where known.
    pub key: Option<Key>,
    /// Stable code: `undecodable`, `rejected`, `parked`, `is_ambiguous`…
    pub code: String,
    /// What the instance or the decoder said.
    pub reason: String,
    /// Records whose values it superseded.
    pub superseded: Vec<Position>,
}

/// How an intent ended, for the results topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The key.
    pub key: Key,
    /// created, updated, noted, resolved, reopened, unchanged, skipped, verified.
    pub outcome: &'static str,
    /// The ticket.
    pub sys_id: String,
    /// Its number.
    pub number: String,
    /// Positions that it resolved.
    pub positions: Vec<Position>,
    /// Columns written.
    pub fields: Vec<(Column, String)>,
    /// Notes written.
    pub notes: usize,
    /// Requests it took, looks and reads included.
    pub attempts: u32,
    /// Milliseconds from the receipt of its first record to the answer.
    pub latency: u64,
    /// Differences between what was sent and what stands.
    pub warnings: Vec<String>,
}

/// Something that people may want to know. The driver turns it into a log line and a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// A doubt began for this key.
    WriteAmbiguous(Key, String),
    /// A doubt was settled: the write was found (true) or not (false).
    AmbiguitySettled(Key, bool),
    /// A row showed a value that a person had put there; it was kept.
    UserEditPreserved(Key, Column),
    /// An event was left out: a repeated id, older than what stands, no ticket to apply it to.
    Skipped(Key, &'static str),
    /// A write was not needed.
    Unchanged(Key),
    /// An entry was forgotten after the reopen window.
    Expired(Key),
    /// A key was parked.
    Parked(Key, String),
    /// A key was released.
    Unparked(Key),
    /// A redrive of this key came to its end and did not release it, for this reason.
    StillParked(Key, RedriveId, &'static str),
    /// The route stands still for this reason, or goes on (`None`).
    Blocked(Option<BlockReason>),
    /// More than one row carried the key where one was expected.
    DuplicateTickets(Key, usize),
    /// The ticket is gone (deleted or hidden).
    Gone(Key, String),
    /// A ledger write had an unknown outcome, so a new token is taken.
    TokenRenewed(i32),
}

/// Why a route stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockReason {
    /// The instance is down; one probe at a time.
    Unavailable(String),
    /// The credentials do not work.
    Unauthorised(String),
    /// The instance asked to wait with requests of this method until this instant on the mono clock.
    Throttled(HttpMethod, u64),
    /// Too many refusals in a row: a person must look.
    Braked(String),
    /// Shutting down.
    Draining,
}
