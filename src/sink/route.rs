//! What a sink route is made of: plain values and ready clients, put together by `app`.

use std::sync::Arc;
use std::time::Duration;

use super::BatchSettings;
use crate::engine::Settings;
use crate::kafka::{self, KafkaOptions};
use crate::ledger::{Identity, OnLost, StartAt};
use crate::mapping::RecordMapping;
use crate::quota::Pace;
use crate::servicenow::{Auth, Client};

/// A sink route, ready to run.
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// The Kafka cluster.
    pub kafka: KafkaOptions,
    /// Topic that is read.
    pub topic: Arc<str>,
    /// Consumer group.
    pub group: String,
    /// Consumer's session timeout.
    pub session_timeout: Duration,
    /// Consumer's longest time between polls.
    pub max_poll_interval: Duration,
    /// Ledger topic.
    pub ledger: Arc<str>,
    /// Results topic.
    pub results: Option<Arc<str>>,
    /// Dead-letter topic.
    pub dead_letters: Arc<str>,
    /// Makes of a record what it wants written.
    pub mapping: RecordMapping,
    /// Value of `correlation_display`.
    pub correlation_display: String,
    /// Talks to the instance.
    pub client: Client,
    /// Reads the credentials anew; `None` where they have not changed since the last call.
    pub new_credentials: Arc<dyn Fn() -> Option<Auth> + Send + Sync>,
    /// Requests are sent together, in batches; `None`: each alone.
    pub batch: Option<BatchSettings>,
    /// The instance's quota, shared by all routes of this process.
    pub pace: Arc<Pace>,
    /// The engine's settings.
    pub settings: Settings,
    /// What the ledger must belong to.
    pub identity: Identity,
    /// Where a new route begins.
    pub start: StartAt,
    /// What to do where the ledger is missing.
    pub on_lost: OnLost,
    /// The instance's clock, Unix seconds, as learned at start.
    pub instance_date: Option<i64>,
}

/// Why a route can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Kafka client could not be made.
    #[error("can't start the route's Kafka clients")]
    Kafka(#[source] kafka::Error),
    /// Something that runs as long as the process ended early.
    #[error("the {0} of the route ended; this is a defect of nowbridge, please report it")]
    Ended(&'static str),
}
