//! The parts of a sink route: plain values and clients, assembled by `bridge`.

use std::sync::Arc;
use std::time::Duration;

use super::BatchSettings;
use crate::engine::Settings;
use crate::kafka::{self, KafkaOptions};
use crate::ledger::{Identity, OnMissingLedger, StartAt};
use crate::mapping::RecordMapping;
use crate::quota::RequestLimiter;
use crate::servicenow::{Auth, Client, RowVersions};

/// A sink route, ready to run.
pub struct Route {
    /// Name of the route.
    pub name: Arc<str>,
    /// The Kafka cluster.
    pub kafka: KafkaOptions,
    /// Input topic.
    pub topic: Arc<str>,
    /// Consumer group.
    pub group: String,
    /// Session timeout of the consumer.
    pub session_timeout: Duration,
    /// Longest time between two polls of the consumer.
    pub max_poll_interval: Duration,
    /// Ledger topic.
    pub ledger: Arc<str>,
    /// Results topic; `None` if results are not published.
    pub results: Option<Arc<str>>,
    /// Dead-letter topic.
    pub dead_letters: Arc<str>,
    /// Decodes and maps records.
    pub mapping: RecordMapping,
    /// Value of `correlation_display`.
    pub correlation_display: String,
    /// Client of the instance.
    pub client: Client,
    /// Reloads the credentials; returns `None` if they have not changed since the last call.
    pub new_credentials: Arc<dyn Fn() -> Option<Auth> + Send + Sync>,
    /// Batch settings; `None` if requests are sent unbatched.
    pub batch: Option<BatchSettings>,
    /// Rate limiter of the instance, shared by all its routes in this process.
    pub limiter: Arc<RequestLimiter>,
    /// Versions of the instance's rows that other routes of this process see.
    pub row_versions: RowVersions,
    /// Settings of the engine.
    pub settings: Settings,
    /// What the ledger must belong to.
    pub identity: Identity,
    /// Where a new route starts to read.
    pub start: StartAt,
    /// What to do if the ledger is missing.
    pub on_missing_ledger: OnMissingLedger,
    /// The instance's clock when the process started, Unix seconds; `None` if unknown.
    pub instance_date: Option<i64>,
}

/// Why a route ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Kafka client could not be created.
    #[error("can't start the route's Kafka clients")]
    Kafka(#[source] kafka::Error),
    /// A task that runs as long as the process ended early.
    #[error("the {0} task of the route ended unexpectedly; this is a bug in nowbridge, please report it")]
    Ended(&'static str),
}
