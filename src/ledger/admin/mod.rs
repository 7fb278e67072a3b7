//! The commands on a route's ledger: list its keys, delete a key, adopt the ledger for the instance's new address,
//! migrate it to the route's new name, rebuild it if it was lost or no longer matches, reprocess past events, and
//! resync the values of open tickets.
//!
//! A command that changes the ledger acts like a member that has taken the partitions over. So it fails while the
//! route's groups have members, and the operator must start none meanwhile: that is checked once, not prevented. Every
//! change can be interrupted anywhere and repeated. A resync does not change the ledger: it writes records to the input
//! of a running bridge. No command contacts ServiceNow.

pub mod delete;
pub mod headers;
pub mod list;
pub mod rename;
pub mod reprocess;
pub mod resync;

pub use delete::{KeyRecords, delete, find_key_records};
pub use headers::{RebuildFrom, adopt, mismatches, rebuild};
pub use list::{KeyFilter, KeyState, ListedKey, Summary, list_keys};
pub use rename::{OldNames, rename};
pub use reprocess::{ReprocessScope, ReprocessedPartition, preview_reprocess, reprocess};
pub use resync::{ResyncCounts, StaleTicket, find_stale, write_events};

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::{self, KafkaOptions, Outcome, ProduceError, ProduceRequest, Producer, groups};
use crate::ledger::header::IdentityMismatch;
use crate::ledger::{Header, Identity, LedgerContent, LedgerPartition, ReadError};
use crate::model::StateModel;

/// Maximum number of records in flight to Kafka.
const MAX_IN_FLIGHT: usize = 500;

/// The ledger of a route, and what it must belong to.
#[derive(Clone)]
pub struct RouteLedger {
    /// The cluster.
    pub options: KafkaOptions,
    /// Writes the ledger.
    pub producer: Producer,
    /// The ledger topic; it exists.
    pub topic: Arc<str>,
    /// Number of partitions of the ledger and of the input.
    pub partitions: i32,
    /// The topic that the sink consumes.
    pub input: String,
    /// The route's consumer group.
    pub group: String,
    /// What the ledger must belong to.
    pub identity: Identity,
    /// State values of the route's table.
    pub states: StateModel,
    /// Limit of each call to the cluster.
    pub timeout: Duration,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bridges of the route are running.
    #[error(
        "the group {group} has members ({members}): stop all bridges of this route, and start none until the command has \
         finished"
    )]
    GroupActive {
        group: String,
        /// The members as `client id at host`, separated by commas.
        members: String,
    },
    /// The ledger differs from the route in a property that this command does not resolve.
    #[error("the ledger {topic} {mismatch}: run `{}`", .mismatch.command)]
    Mismatch { topic: String, mismatch: IdentityMismatch },
    /// A partition has no header.
    #[error(
        "partition {partition} of the ledger {topic} has no header: no bridge has ever owned it, or the header was lost. \
         Run `nowbridge ledger rebuild`"
    )]
    NoHeader { topic: String, partition: i32 },
    /// The offset at which reading continues is unknown.
    #[error(
        "{input}/{partition} contains offsets {low} to {high}, and the group {group} {committed}: choose where reading \
         continues with `--from earliest`, `--from latest` or `--from 2026-01-31T00:00:00Z`"
    )]
    UnknownStart {
        input: String,
        partition: i32,
        /// First offset in the log.
        low: i64,
        /// End of the log.
        high: i64,
        group: String,
        /// State of the group's offset, in words.
        committed: String,
    },
    /// The ledger has ambiguous writes, which the command cannot copy.
    #[error(
        "{count} writes are ambiguous, such as that of key {key}: start the bridge with its previous configuration, wait \
         until `/readyz` reports ready, stop it with SIGTERM, and run the command again"
    )]
    AmbiguousWrites {
        count: usize,
        /// The key of one of them.
        key: String,
    },
    /// Keys are parked. Their rejected events would be applied twice: by their redrive, and by being read again.
    #[error(
        "{count} keys are parked, such as {key}: redrive or discard their dead letters first (`nowbridge dead-letters \
         redrive`), or their events would be applied twice"
    )]
    ParkedKeys {
        count: usize,
        /// One of them.
        key: String,
    },
    /// The target ledger already has records.
    #[error(
        "the ledger {0} is not empty: a bridge has already run under the new name. Choose a name that was never used, or \
         delete that ledger if its content is not needed"
    )]
    NotEmpty(String),
    /// The two ledgers have different numbers of partitions.
    #[error("the ledger {from} has {old} partitions, but {to} has {new}: both must have as many as the input")]
    PartitionCount { from: String, old: i32, to: String, new: i32 },
    /// The old ledger does not exist.
    #[error("the topic {0} does not exist; set `--from-ledger` if the old ledger has another name")]
    NoLedger(String),
    /// The ledger could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The cluster failed a request.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The producer did not accept a record.
    #[error("can't write to {topic}/{partition}; the records written so far are kept, run the command again")]
    Produce {
        topic: String,
        partition: i32,
        #[source]
        source: ProduceError,
    },
    /// A record was not acknowledged.
    #[error("{topic}/{partition} did not acknowledge a record: {reason}; run the command again")]
    NotAcked {
        topic: String,
        partition: i32,
        /// The producer's error.
        reason: String,
    },
    /// A task was interrupted.
    #[error("{0} was interrupted")]
    Interrupted(&'static str),
}

impl RouteLedger {
    /// Fails while any of these groups has members.
    ///
    /// # Errors
    /// A group has members, or the cluster does not respond.
    pub async fn require_no_members(&self, groups: &[String]) -> Result<(), Error> {
        let (options, timeout, names) = (self.options.clone(), self.timeout, groups.to_vec());
        let look_up = move || {
            for group in names {
                let members = groups::members(&options, &group, timeout)?;
                if !members.is_empty() {
                    return Err(Error::GroupActive { group, members: members.join(", ") });
                }
            }
            Ok(())
        };
        blocking("reading the consumer groups", look_up).await
    }

    /// Returns the reader of a partition.
    pub fn partition(&self, partition: i32) -> LedgerPartition {
        LedgerPartition {
            options: self.options.clone(),
            topic: Arc::clone(&self.topic),
            group: self.group.clone(),
            partition,
            timeout: self.timeout,
        }
    }

    /// Reads a partition. Calls `progress` with the number of records read.
    ///
    /// # Errors
    /// The partition cannot be read.
    pub async fn read_partition(
        &self,
        partition: i32,
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<LedgerContent, Error> {
        let reader = self.partition(partition);
        blocking("reading the ledger", move || Ok(reader.read(&mut progress)?)).await
    }

    /// Returns the header of a partition, provided that it matches the route except in properties that the command
    /// `resolves` resolves.
    fn matching_header(
        &self,
        partition: i32,
        content: &LedgerContent,
        resolves: Option<&str>,
    ) -> Result<Header, Error> {
        let Some(header) = content.header.clone() else {
            return Err(Error::NoHeader { topic: self.topic.to_string(), partition });
        };
        match header.mismatches(&self.identity).into_iter().find(|mismatch| Some(mismatch.command) != resolves) {
            Some(mismatch) => Err(Error::Mismatch { topic: self.topic.to_string(), mismatch }),
            None => Ok(header),
        }
    }

    /// Produces records to a partition, in any order, and waits for their acks. Returns the highest offset.
    async fn write(
        &self,
        topic: &Arc<str>,
        partition: i32,
        records: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<Option<i64>, Error> {
        let requests = records.into_iter().map(|(key, value)| ProduceRequest {
            topic: Arc::clone(topic),
            partition: Some(partition),
            key: Some(key),
            value,
            headers: Vec::new(),
            tag: 0,
        });
        self.send(requests).await
    }

    /// As [`RouteLedger::write`], for complete produce requests.
    async fn send(&self, requests: impl IntoIterator<Item = ProduceRequest>) -> Result<Option<i64>, Error> {
        let mut requests = requests.into_iter().peekable();
        let mut last = None;
        while requests.peek().is_some() {
            let mut pending = tokio::task::JoinSet::new();
            for request in requests.by_ref().take(MAX_IN_FLIGHT) {
                let producer = self.producer.clone();
                let target = (request.topic.to_string(), request.partition.unwrap_or_default());
                pending.spawn(async move { (target, producer.produce_and_wait(request).await) });
            }
            while let Some(joined) = pending.join_next().await {
                let ((topic, partition), outcome) = joined.map_err(|_| Error::Interrupted("writing"))?;
                match outcome {
                    Ok(Outcome::Acked { offset, .. }) => last = last.max(Some(offset)),
                    Ok(Outcome::Rejected(reason) | Outcome::Unknown(reason)) => {
                        return Err(Error::NotAcked { topic, partition, reason });
                    }
                    Err(source) => return Err(Error::Produce { topic, partition, source }),
                }
            }
        }
        Ok(last)
    }
}

/// Fails if the partition has ambiguous writes.
fn require_no_ambiguous_writes(content: &LedgerContent) -> Result<(), Error> {
    let claims = &content.state.claims;
    match claims.keys().next() {
        Some(key) => Err(Error::AmbiguousWrites { count: claims.len(), key: key.to_string() }),
        None => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    task: &'static str,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(call).await.unwrap_or(Err(Error::Interrupted(task)))
}
