//! Repartitioning: copies an input topic whose partitions do not follow the alert's key to an internal topic whose
//! partitions do, so that the sink finds all records of an alert in one partition and in order.
//!
//! Guarantees: each record of the input is in the internal topic once, for a `read_committed` reader. Records of an
//! alert that shared a partition of the input keep their order. The transaction that writes the copies also commits the
//! consumed offsets, and a partition changes its owner only between two transactions. Not guaranteed: an order of
//! records of an alert that were in different partitions of the input, because they had none.
//!
//! A route with a grouping has a second stage, which reads the topic of the first. The first stage then partitions by
//! group. The second stage makes events of groups from the events of their alerts, and writes its state to a compacted
//! topic in the same transactions.
//!
//! Records that cannot be decoded are copied, and the sink makes dead letters of them.

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

pub use partitioner::Partitioner;
pub use run::run;
pub use status::{Status, StatusHandle};
pub use step::{Grouping, Step};

/// The configuration of a stage.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Name of the route.
    pub name: Arc<str>,
    pub kafka: KafkaOptions,
    /// The topic that is read: the user's, or the one that the previous stage writes.
    pub input: String,
    /// The consumer group of the stage.
    pub group: String,
    pub session_timeout: Duration,
    pub max_poll_interval: Duration,
    pub step: Step,
    /// Unique to this member, so that it settles only its own last transaction.
    pub transactional_id: String,
    /// Where a partition starts that was never read.
    pub start: StartAt,
}

/// The stage cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't start the consumer that repartitions {topic}")]
    Kafka {
        topic: String,
        #[source]
        source: kafka::Error,
    },
    /// The poller ended without a request to end.
    #[error("the consumer that repartitions {0} ended unexpectedly; this is a bug in nowbridge, please report it")]
    Ended(String),
}

/// Runs a blocking call to the cluster.
async fn blocking<T: Send + 'static, E: From<kafka::Error> + Send + 'static>(
    call: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let aborted =
        |error| Err(kafka::Error::Unexpected(format!("a request to the cluster was aborted: {error}")).into());
    tokio::task::spawn_blocking(call).await.unwrap_or_else(aborted)
}
