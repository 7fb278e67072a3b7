//! Dead letters tried again, or dropped: what lies in a route's dead-letter topic, which of it is still open, and the
//! way back into the input.
//!
//! A letter is open until a mark says otherwise: a record in a compacted topic, written in one Kafka transaction with
//! what the mark tells of. So a redrive that was cut short goes on where it stopped, and nothing is put back twice.
//! Letters of a key go back together and in their order, into the partition they came from, and behind them the key's
//! release; until the bridge has come to that, it puts newer events of the key on the shelf behind them, and the next
//! round takes those. What may be overtaken is only a letter that never had a key (it could not be read).
//!
//! It decides nothing about delivery: whether a redriven event is written, and whether a key is released, is the
//! engine's.

pub mod redrive;
pub mod selection;
pub mod store;

pub use redrive::{Outcome, Progress, Rounds};
pub use selection::{Filter, Group, Letter, LetterId, Selection, histogram, select};
pub use store::LetterStore;

use crate::kafka;

/// Why dead letters could not be read or put back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The dead-letter topic is not there.
    #[error("the dead-letter topic {0} does not exist yet: nothing was ever refused, or the bridge never ran")]
    NoShelf(String),
    /// A letter came from a partition that the input does not have any more.
    #[error(
        "letter {place} came from partition {partition} of {topic}, which has {partitions}: was the topic made anew? \
         Drop such letters, or publish them by other means"
    )]
    NoPartition {
        /// The letter.
        place: LetterId,
        /// Partition of the original.
        partition: i32,
        /// The input.
        topic: String,
        /// Its partitions.
        partitions: i32,
    },
    /// Kafka did not do what was asked.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The transaction did not commit. What was committed before it stands; run the same command again.
    #[error("could not put letters back; what was put back before is marked, so the same command goes on from there")]
    Transaction(#[from] kafka::TransactionError),
    /// The bridge does not read what was redriven.
    #[error(
        "redrove {letters} letters, but the bridge has read none of them for {seconds} s: check that it runs and that the \
         instance is up. The letters are in the input and will be applied; `dead-letters list` then shows which of them \
         were rejected again"
    )]
    NoProgress {
        /// Letters redriven in the round.
        letters: usize,
        /// How long the bridge made no progress.
        seconds: u64,
    },
    /// Events of the selected keys arrive faster than they are redriven.
    #[error("newer letters still arrive after {rounds} rounds; run the redrive again when fewer events arrive")]
    NewerLetters {
        /// Rounds of the redrive.
        rounds: u32,
    },
    /// A task was cut short.
    #[error("{0} was cut short")]
    Cut(&'static str),
}
