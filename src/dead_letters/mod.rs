//! Dead letters: reads them from a route's dead-letter topic, selects the open ones, and redrives or discards them.
//!
//! A dead letter is open until it has a redrive marker: a record in a compacted topic that is written in one Kafka
//! transaction with the redriven record. So an interrupted redrive can be continued, and nothing is redriven twice. The
//! dead letters of a key are redriven together and in order, into the partition that they came from, followed by the
//! key's release. Until the bridge has read the release, it dead-letters newer events of the key, and the next round
//! redrives those. Newer events may overtake only a dead letter without a key (one that could not be decoded).
//!
//! This module decides nothing about delivery: the engine decides whether a redriven event is written, and whether a
//! key is released.

pub mod redrive;
pub mod selection;
pub mod store;

pub use redrive::{RedriveLimits, RedriveProgress, RoundOutcome};
pub use selection::{DeadLetter, DeadLetterGroup, DeadLetterId, Filter, SelectedLetter, Selection, histogram, select};
pub use store::DeadLetterStore;

use crate::kafka;

/// Dead letters could not be read, redriven or discarded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the dead-letter topic {0} does not exist: no record was rejected yet, or the bridge has never run")]
    NoDeadLetterTopic(String),
    #[error(
        "the dead letter {id} came from partition {partition} of {topic}, which has {partitions} partitions: was the \
         topic recreated? Discard such dead letters, or publish their events again"
    )]
    NoPartition {
        id: DeadLetterId,
        /// Partition of the original.
        partition: i32,
        topic: String,
        partitions: i32,
    },
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The transaction was not committed. Earlier transactions were.
    #[error("can't redrive the dead letters; those redriven before are marked, so the same command continues")]
    Transaction(#[from] kafka::TransactionError),
    /// The bridge does not read the redriven records.
    #[error(
        "put back {letters} letters, but the bridge has read none of them for {seconds} s: check that it runs and that \
         the instance is up. The letters are in the input and will be applied; `dead-letters list` then shows which of \
         them were rejected again"
    )]
    NoProgress {
        /// Dead letters redriven in the round.
        letters: usize,
        /// How long the bridge made no progress.
        seconds: u64,
    },
    /// Events of the selected keys arrive faster than they are redriven.
    #[error("newer letters still arrive after {rounds} rounds; run the redrive again when fewer events arrive")]
    NewerLetters { rounds: u32 },
    #[error("{0} was aborted")]
    TaskAborted(&'static str),
}
