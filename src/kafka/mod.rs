//! Everything that speaks to Kafka: client options, the poller thread that owns the consumer group's consumer, the
//! idempotent producer, the transactional producer, topics and their settings, and quick reads of
//! compacted topics.
//!
//! Guarantees: librdkafka's callbacks never reach the async world; records are owned when they leave this module; the
//! properties on which delivery rests can't be overridden. It decides nothing about what is written where: that is
//! the engine's and the ledger's.

mod committer;
mod event_channel;
pub mod groups;
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
pub use transactions::{Consumed, TransactionError, TransactionalProducer};

use rdkafka::error::KafkaError;

/// Why something about Kafka did not work. `Display` says what was tried, `source()` what librdkafka said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A property may not be passed through, or has a value that can't work.
    #[error("Kafka property `{name}` can't be set: {reason}")]
    Property {
        /// The property.
        name: String,
        /// Why, and what to set instead.
        reason: String,
    },
    /// A call failed.
    #[error("{what}")]
    Call {
        /// What was tried, and on what.
        what: String,
        /// What librdkafka said.
        #[source]
        source: Box<KafkaError>,
    },
    /// An answer made no sense or is missing; says what and where.
    #[error("{0}")]
    Unexpected(String),
    /// An operating system thread could not be started.
    #[error("can't start the thread {name}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn call(what: impl Into<String>, source: KafkaError) -> Self {
        Self::Call { what: what.into(), source: Box::new(source) }
    }
}
