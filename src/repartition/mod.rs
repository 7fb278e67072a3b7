//! Re-keying: a route's topic that is not keyed by the alert's key is copied, record by record, into an internal topic
//! that is, so that the sink finds all records of an alert in one partition and in their order.
//!
//! Guaranteed: each record of the input is in the internal topic once, to a `read_committed` reader, and records of an
//! alert that shared a partition of the input keep their order. What was consumed is committed in the transaction that
//! writes what came of it; a partition changes hands only between transactions. Not guaranteed: an order among records
//! of an alert that lay in different partitions of the input, for there was none.
//!
//! A route that makes digests has a second stage behind the first, which is keyed by groups then: of the alerts of a group
//! it makes events of the group, with what it must remember in a table that the same transactions write.
//!
//! What is wrong with a record is not decided here: what can't be read goes on, and the sink makes the dead letter.

mod batch;
pub mod grouping;
mod membership;
mod partition_state;
mod partitioner;
mod run;
mod start_offset;
mod status;
mod step;

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::{self, KafkaOptions};
use crate::ledger::StartAt;

pub use partitioner::Spread;
pub use run::run;
pub use status::{Status, StatusHandle};
pub use step::{Digest, Step};

/// A route's re-keying, ready to run.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Name of the route.
    pub name: Arc<str>,
    /// The Kafka cluster.
    pub kafka: KafkaOptions,
    /// The topic that is read: the user's, or the one that the stage before has written.
    pub input: String,
    /// The stage's own consumer group.
    pub group: String,
    /// Consumer's session timeout.
    pub session_timeout: Duration,
    /// Consumer's longest time between polls.
    pub max_poll_interval: Duration,
    /// What is made of its records.
    pub step: Step,
    /// Transactional id of this member, which no other has: its own last transaction is all that it ever settles.
    pub transactional_id: String,
    /// Where a partition begins that was never read.
    pub start: StartAt,
}

/// Why the stage can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The consumer could not be made.
    #[error("can't start the consumer that re-keys {topic}")]
    Kafka {
        /// The user's topic.
        topic: String,
        /// Why.
        #[source]
        source: kafka::Error,
    },
    /// The poller ended although nobody asked it to.
    #[error("the consumer that re-keys {0} ended; this is a defect of nowbridge, please report it")]
    Ended(String),
}

async fn blocking<T: Send + 'static, E: From<kafka::Error> + Send + 'static>(
    call: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let cut = |error| Err(kafka::Error::Unexpected(format!("a look at the cluster was cut short: {error}")).into());
    tokio::task::spawn_blocking(call).await.unwrap_or_else(cut)
}
