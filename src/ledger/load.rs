//! Taking a ledger partition over.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::event::Loaded;
use crate::kafka::{self, KafkaOptions, PollerHandle, ProduceError, Producer};

use super::header::Identity;

/// Where a route begins that has neither a committed offset nor a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record that exists.
    Earliest,
    /// Behind the last record.
    Latest,
    /// At the first record that is not older than this Unix time in milliseconds.
    Time(i64),
}

/// What to do where offsets exist, but no ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLost {
    /// Refuse to work.
    #[default]
    Refuse,
    /// Look every unknown key up before a ticket is made.
    LookUp,
}

/// Takes ledger partitions over, for one route.
#[derive(Clone)]
pub struct Loader {
    /// The cluster.
    pub options: KafkaOptions,
    /// Writes the `owner` and `header` records.
    pub producer: Producer,
    /// Knows the group's offsets and the input's ends.
    pub poller: PollerHandle,
    /// The ledger topic.
    pub topic: Arc<str>,
    /// The consumer group, whose name the readers use, too.
    pub group: String,
    /// What the ledger must belong to.
    pub identity: Identity,
    /// Names this process in `owner` records.
    pub member: String,
    /// This host, for people.
    pub host: String,
    /// Where a new route begins.
    pub start: StartAt,
    /// What to do where the ledger is missing.
    pub on_lost: OnLost,
    /// For each call to the cluster; the read itself gives up when nothing came for so long.
    pub timeout: Duration,
}

/// Why a partition could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The cluster did not do what was asked; worth trying again.
    #[error("can't read or write partition {partition} of the ledger {topic}")]
    Kafka {
        /// The ledger topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Why.
        #[source]
        source: kafka::Error,
    },
    /// The `owner` record was not taken; worth trying again.
    #[error("can't write to partition {partition} of the ledger {topic}")]
    Produce {
        /// The ledger topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Why.
        #[source]
        source: ProduceError,
    },
}

impl LoadError {
    /// Whether trying again by itself may help. Else a person must act, and the message names the command.
    pub fn is_transient(&self) -> bool {
        true
    }
}

impl Loader {
    /// Takes the partition over. `progress` is told now and then how many records have been read.
    pub async fn take_over(
        &self,
        partition: i32,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Loaded, LoadError> {
        let _ = progress;
        let source = kafka::Error::Unexpected("not built yet".into());
        Err(LoadError::Kafka { topic: self.topic.to_string(), partition, source })
    }
}
