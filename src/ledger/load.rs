//! Takes a ledger partition over: writes an `owner` record, whose offset is the token, reads the partition, and
//! determines where to start reading the input.
//!
//! Guarantees: the load sees every record that a previous owner had acknowledged before the token. The state belongs to
//! this route, instance and topic; otherwise the load fails and names the command that resolves the mismatch. A record
//! that a frozen member lands later is not seen; its lower token makes it harmless.

use std::sync::Arc;
use std::time::Duration;

use super::collect::Collector;
use super::header::{Header, Identity, IdentityMismatch};
use super::partition::{LedgerPartition, ReadError};
use super::wire::{self, Owner};
use crate::engine::event::LedgerState;
use crate::kafka::{self, KafkaOptions, Outcome, PollerHandle, ProduceError, ProduceRequest, Producer};
use crate::model::Token;

/// Where a route without a committed offset and without a mark starts to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record in the topic.
    Earliest,
    /// After the last record.
    Latest,
    /// At the first record whose timestamp is not before this one, Unix milliseconds.
    Time(i64),
}

/// What to do if the group has offsets but the ledger is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMissingLedger {
    /// Fail the load.
    #[default]
    Refuse,
    /// Look every unknown key up in the instance before creating a ticket.
    LookUp,
}

/// Takes over ledger partitions of one route.
#[derive(Clone)]
pub struct Loader {
    /// The cluster.
    pub options: KafkaOptions,
    /// Writes the `owner` and `header` records.
    pub producer: Producer,
    /// Reports the group's offsets and the ends of the input's partitions.
    pub poller: PollerHandle,
    /// The ledger topic.
    pub topic: Arc<str>,
    /// The route's consumer group; the readers use its name too.
    pub group: String,
    /// What the ledger must belong to.
    pub identity: Identity,
    /// Names this process in `owner` records.
    pub member: String,
    /// This host, for `owner` records.
    pub host: String,
    /// Where a new route starts to read.
    pub start: StartAt,
    /// What to do if the ledger is missing.
    pub on_missing_ledger: OnMissingLedger,
    /// Limit of each call to the cluster. Reading the ledger fails after so long without a record.
    pub timeout: Duration,
}

/// Why a partition could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The cluster failed a request. Transient.
    #[error("can't read or write partition {partition} of the ledger {topic}")]
    Kafka {
        topic: String,
        partition: i32,
        #[source]
        source: kafka::Error,
    },
    /// The producer did not accept a record. Transient.
    #[error("can't write to partition {partition} of the ledger {topic}")]
    Produce {
        topic: String,
        partition: i32,
        #[source]
        source: ProduceError,
    },
    /// A record was not acknowledged. Transient.
    #[error("partition {partition} of the ledger {topic} did not acknowledge the `{key}` record: {reason}")]
    NotAcked {
        topic: String,
        partition: i32,
        /// Key of the record.
        key: &'static str,
        /// The producer's error.
        reason: String,
    },
    /// The ledger could not be read (transient), or contains a record that this release cannot read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger belongs to another route, instance, table or topic.
    #[error(
        "the ledger {topic} {mismatch}: undo that change, or run `{}`",
        .mismatch.command
    )]
    Mismatch { topic: String, mismatch: IdentityMismatch },
    /// The watermark or the group's offset is above the end of the input: the topic was recreated, or truncated.
    #[error(
        "partition {partition} of {input} ends at offset {end}, but records up to offset {resolved} are resolved: the \
         topic was recreated. Stop all bridges of the route, and run `nowbridge ledger rebuild --from earliest`"
    )]
    InputRecreated {
        input: String,
        partition: i32,
        /// End of the input partition.
        end: i64,
        /// The offset below which every record is resolved, by the ledger or the group.
        resolved: i64,
    },
    /// Records were read, but the ledger is empty.
    #[error(
        "records of {input}/{partition} up to offset {resolved} were read, but the ledger {topic} is empty: it was lost. \
         Stop all bridges of the route and run `nowbridge ledger rebuild`, or set `on_missing_ledger: look_up` on the \
         route: either way the bridge looks every key up in the instance at the next event of the key"
    )]
    MissingLedger {
        topic: String,
        input: String,
        partition: i32,
        /// The offset below which every record is resolved, by the ledger or the group.
        resolved: i64,
    },
}

impl LoadError {
    /// Whether a retry may succeed. Otherwise an operator must act, and the message names the command.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Kafka { .. } | Self::Read(ReadError::Kafka { .. }) | Self::Produce { .. } | Self::NotAcked { .. }
        )
    }
}

/// Offsets of an input partition.
struct Offsets {
    /// The group's committed offset.
    committed: Option<i64>,
    /// First offset in the log.
    low: i64,
    /// End of the log.
    high: i64,
}

impl Loader {
    /// Takes the partition over. Calls `progress` with the number of records read, every 10,000 records and at the end.
    pub async fn take_over(
        &self,
        partition: i32,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<LedgerState, LoadError> {
        let owner = Owner {
            member: self.member.clone(),
            host: self.host.clone(),
            route: self.identity.route.clone(),
            at: crate::runtime::clock::unix(),
        };
        let token = Token(self.write(partition, "owner", wire::encode_owner(&owner)).await?);
        let collector = self.collect(partition, token, progress).await?;
        let offsets = self.offsets(partition).await?;
        let incomplete = self.check_identity(partition, &collector, &offsets).await?;
        let start = self.start(partition, &collector, &offsets).await?;
        let topic_generation = collector.header().map_or(0, |header| header.identity.topic_generation);
        let mut loaded = collector.finish(token);
        loaded.start_offset = start;
        loaded.end_offset = offsets.high;
        loaded.incomplete = incomplete;
        loaded.topic_generation = topic_generation;
        Ok(loaded)
    }

    /// Produces one record and returns its offset.
    async fn write(&self, partition: i32, key: &'static str, value: Vec<u8>) -> Result<i64, LoadError> {
        let request = ProduceRequest {
            topic: Arc::clone(&self.topic),
            partition: Some(partition),
            key: Some(key.into()),
            value: Some(value),
            headers: Vec::new(),
            tag: 0,
        };
        let topic = self.topic.to_string();
        match self.producer.produce_and_wait(request).await {
            Ok(Outcome::Acked { offset, .. }) => Ok(offset),
            Ok(Outcome::Rejected(reason) | Outcome::Unknown(reason)) => {
                Err(LoadError::NotAcked { topic, partition, key, reason })
            }
            Err(source) => Err(LoadError::Produce { topic, partition, source }),
        }
    }

    /// Reads the partition to its end, not only up to our `owner` record: a late record of a previous owner after it
    /// may have let compaction remove an older record of the same key before it.
    async fn collect(
        &self,
        partition: i32,
        token: Token,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Collector, LoadError> {
        let reader = self.ledger_partition(partition);
        let loader = self.clone();
        self.blocking(partition, move || {
            let collector = reader.collect(&mut |count| progress(count))?;
            // When the log is compacted, the `owner` record of another member replaces ours: then it owns the
            // partition.
            if collector.has_owner_record(token) {
                return Ok(collector);
            }
            let what = format!(
                "the `owner` record at offset {} is gone: another member has taken the partition over",
                token.0
            );
            Err(loader.kafka(partition, kafka::Error::Unexpected(what)))
        })
        .await
    }

    async fn offsets(&self, partition: i32) -> Result<Offsets, LoadError> {
        let loader = self.clone();
        self.blocking(partition, move || {
            let fail = |source| loader.kafka(partition, source);
            let committed = loader.poller.committed_offset(partition, loader.timeout).map_err(fail)?;
            let (low, high) = loader.poller.watermarks(partition, loader.timeout).map_err(fail)?;
            Ok(Offsets { committed, low, high })
        })
        .await
    }

    /// Checks that the ledger belongs to this route, and returns whether it may lack keys. Writes the header if there
    /// is none.
    async fn check_identity(
        &self,
        partition: i32,
        collector: &Collector,
        offsets: &Offsets,
    ) -> Result<bool, LoadError> {
        let resolved = collector.watermark().max(offsets.committed);
        if let Some(header) = collector.header() {
            if let Some(mismatch) = header.first_mismatch(&self.identity) {
                return Err(LoadError::Mismatch { topic: self.topic.to_string(), mismatch });
            }
            self.check_end(partition, resolved, offsets)?;
            return Ok(header.may_lack_keys(&self.identity));
        }
        self.check_end(partition, resolved, offsets)?;
        let lost = resolved.is_some() || collector.has_state();
        if lost && self.on_missing_ledger == OnMissingLedger::Refuse {
            let (topic, input) = (self.topic.to_string(), self.identity.topic.clone());
            return Err(LoadError::MissingLedger { topic, input, partition, resolved: resolved.unwrap_or(0) });
        }
        let incomplete = lost || self.partitions_were_added(partition).await?;
        let header = Header { identity: self.identity.clone(), incomplete };
        self.write(partition, "header", wire::encode_header(&header)).await?;
        Ok(incomplete)
    }

    /// Whether the input got more partitions since the header of partition 0 was written. A partition without a ledger
    /// may be one of the new ones; then another partition had its keys before.
    async fn partitions_were_added(&self, partition: i32) -> Result<bool, LoadError> {
        if partition == 0 {
            return Ok(false);
        }
        let loader = self.clone();
        self.blocking(partition, move || {
            let header = loader.ledger_partition(0).read_header().map_err(|source| loader.kafka(partition, source))?;
            Ok(header.is_some_and(|header| header.has_new_partitions(&loader.identity)))
        })
        .await
    }

    fn ledger_partition(&self, partition: i32) -> LedgerPartition {
        LedgerPartition {
            options: self.options.clone(),
            topic: Arc::clone(&self.topic),
            group: self.group.clone(),
            partition,
            timeout: self.timeout,
        }
    }

    fn check_end(&self, partition: i32, resolved: Option<i64>, offsets: &Offsets) -> Result<(), LoadError> {
        match resolved {
            Some(resolved) if resolved > offsets.high => {
                let input = self.identity.topic.clone();
                Err(LoadError::InputRecreated { input, partition, end: offsets.high, resolved })
            }
            _ => Ok(()),
        }
    }

    /// Returns the offset to start at: the later of the group's offset and the watermark; for a new route the
    /// configured start.
    async fn start(&self, partition: i32, collector: &Collector, offsets: &Offsets) -> Result<i64, LoadError> {
        if let Some(resolved) = collector.watermark().max(offsets.committed) {
            return Ok(resolved);
        }
        match self.start {
            StartAt::Earliest => Ok(offsets.low),
            StartAt::Latest => Ok(offsets.high),
            StartAt::Time(time) => {
                let loader = self.clone();
                let look_up = move || {
                    let offset = loader.poller.offset_for_time(partition, time, loader.timeout);
                    offset.map_err(|source| loader.kafka(partition, source))
                };
                self.blocking(partition, look_up).await
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        partition: i32,
        call: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, LoadError> {
        tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| {
            Err(self.kafka(partition, kafka::Error::Unexpected(format!("the load was interrupted: {error}"))))
        })
    }

    fn kafka(&self, partition: i32, source: kafka::Error) -> LoadError {
        LoadError::Kafka { topic: self.topic.to_string(), partition, source }
    }
}
