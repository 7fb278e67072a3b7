//! The Kafka clients: client options, the poller thread that owns the consumer of a consumer group, the idempotent
//! producer, the transactional producer, topics and their settings, and fast reads of compacted topics.
//!
//! Guarantees: librdkafka's callbacks never run in async code; records that leave this module are owned; the properties
//! on which the delivery guarantees depend cannot be overridden. This module does not decide what is written where; the
//! engine and the ledger do.

mod committer;
mod event_channel;
pub mod groups;
mod lookups;
pub mod options;
mod ownership;
mod poll_loop;
pub mod poller;
mod polling_producer;
pub mod probe;
pub mod producer;
mod rebalance;
pub mod table;
mod topic_checks;
pub mod topics;
pub mod transactions;

pub use options::KafkaOptions;
pub use poller::{Poller, PollerEvent, PollerHandle, PollerSettings};
pub use producer::{Delivery, Outcome, ProduceError, ProduceRequest, Producer};
pub use transactions::{ConsumedOffset, ConsumedOffsets, TransactionError, TransactionalProducer};

use rdkafka::error::KafkaError;

/// A Kafka call failed. `Display` names the call, `source()` is the error of librdkafka.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A librdkafka property is protected, or has an invalid value.
    #[error("Kafka property `{name}` can't be set: {reason}")]
    Property {
        name: String,
        /// Why, and what to set instead.
        reason: String,
    },
    #[error("{action}")]
    Call {
        /// What failed, and on what: "can't ...".
        action: String,
        #[source]
        source: Box<KafkaError>,
    },
    /// A response is missing or invalid; the text says of what.
    #[error("{0}")]
    Unexpected(String),
    #[error("can't start the thread {name}")]
    Thread {
        name: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn call(action: impl Into<String>, source: KafkaError) -> Self {
        Self::Call { action: action.into(), source: Box::new(source) }
    }
}
