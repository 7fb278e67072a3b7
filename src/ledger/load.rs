//! Taking a ledger partition over: an `owner` record whose offset is our token, everything up to it, and where to
//! start reading the input.
//!
//! Guaranteed: every record that an earlier owner had acknowledged before our token is seen; what is found belongs to
//! this route, instance and topic, or the load fails with the command that resolves it. What a frozen member lands
//! after our token is not seen; its lower token makes it harmless.

use std::sync::Arc;
use std::time::Duration;

use super::collect::Collector;
use super::header::{Difference, Header, Identity};
use super::survey::{LedgerPartition, SurveyError};
use super::wire::{self, Owner};
use crate::engine::event::Loaded;
use crate::kafka::{self, KafkaOptions, Outcome, PollerHandle, ProduceError, ProduceRequest, Producer};
use crate::model::Token;

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
    /// A record was not taken; worth trying again.
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
    /// A record was not acknowledged; worth trying again.
    #[error("partition {partition} of the ledger {topic} did not acknowledge the `{key}` record: {why}")]
    NotAcked {
        /// The ledger topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Which record.
        key: &'static str,
        /// What the producer said.
        why: String,
    },
    /// Something stands in the ledger that this release can't read; or it could not be read, which is worth trying again.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// The ledger belongs to something else.
    #[error(
        "the ledger {topic} {difference}: set it back, or resolve it with `{}`",
        .difference.command
    )]
    Mismatch {
        /// The ledger topic.
        topic: String,
        /// In what.
        difference: Difference,
    },
    /// What is said to be done lies behind the input's end: it was made anew, or truncated.
    #[error(
        "partition {partition} of {input} ends at {end}, and records up to {done} count as done: the topic was made \
         anew. Stop all bridges, and resolve it with `nowbridge ledger rebuild --from earliest`"
    )]
    Recreated {
        /// The input topic.
        input: String,
        /// Its partition.
        partition: i32,
        /// Its end.
        end: i64,
        /// What counts as done.
        done: i64,
    },
    /// Records were applied, and the ledger does not know of them.
    #[error(
        "records of {input}/{partition} up to {done} were read, but the ledger {topic} is empty: it was lost. Stop \
         all bridges and begin it anew with `nowbridge ledger rebuild`, or set `on_lost: look_up` on the route: either \
         way every key is looked up in the instance at its next event"
    )]
    Lost {
        /// The ledger topic.
        topic: String,
        /// The input topic.
        input: String,
        /// The partition of both.
        partition: i32,
        /// What the group or the ledger says is done.
        done: i64,
    },
}

impl LoadError {
    /// Whether trying again by itself may help. Else a person must act, and the message names the command.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Kafka { .. } | Self::Survey(SurveyError::Kafka { .. }) | Self::Produce { .. } | Self::NotAcked { .. }
        )
    }
}

/// What the cluster says of a partition.
struct Offsets {
    committed: Option<i64>,
    low: i64,
    high: i64,
}

impl Loader {
    /// Takes the partition over. `progress` is told now and then how many records have been read.
    pub async fn take_over(
        &self,
        partition: i32,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Loaded, LoadError> {
        let owner = Owner {
            member: self.member.clone(),
            host: self.host.clone(),
            route: self.identity.route.clone(),
            at: crate::runtime::clock::unix(),
        };
        let token = Token(self.write(partition, "owner", wire::encode_owner(&owner)).await?);
        let collector = self.collect(partition, token, progress).await?;
        let offsets = self.offsets(partition).await?;
        let incomplete = self.compare(partition, &collector, &offsets).await?;
        let start = self.start(partition, &collector, &offsets).await?;
        let topic_generation = collector.header().map_or(0, |header| header.identity.topic_generation);
        let mut loaded = collector.finish(token);
        loaded.start = start;
        loaded.end = offsets.high;
        loaded.incomplete = incomplete;
        loaded.topic_generation = topic_generation;
        Ok(loaded)
    }

    /// Produces one record and answers its offset.
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
            Ok(Outcome::Refused(why) | Outcome::Unknown(why)) => {
                Err(LoadError::NotAcked { topic, partition, key, why })
            }
            Err(source) => Err(LoadError::Produce { topic, partition, source }),
        }
    }

    /// Reads the partition to its end, not only to our own `owner` record: a late record of a former owner behind it
    /// may have let compaction remove an older one of the same key before it.
    async fn collect(
        &self,
        partition: i32,
        token: Token,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Collector, LoadError> {
        let place = self.place(partition);
        let loader = self.clone();
        self.blocking(partition, move || {
            let collector = place.collect(&mut |count| progress(count))?;
            // Another owner's `owner` record replaces ours when the log is compacted: then we are the owner no more.
            if collector.knows_owner(token) {
                return Ok(collector);
            }
            let what = format!("our `owner` record at {} is gone: another member has taken over", token.0);
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

    /// Whether the ledger is ours; answers whether it is unproven. Writes the header where there is none yet.
    async fn compare(&self, partition: i32, found: &Collector, offsets: &Offsets) -> Result<bool, LoadError> {
        let done = found.mark().max(offsets.committed);
        if let Some(header) = found.header() {
            if let Some(difference) = header.differs_from(&self.identity) {
                return Err(LoadError::Mismatch { topic: self.topic.to_string(), difference });
            }
            self.check_end(partition, done, offsets)?;
            return Ok(header.may_lack_keys(&self.identity));
        }
        self.check_end(partition, done, offsets)?;
        let lost = done.is_some() || found.knows_something();
        if lost && self.on_lost == OnLost::Refuse {
            let (topic, input) = (self.topic.to_string(), self.identity.topic.clone());
            return Err(LoadError::Lost { topic, input, partition, done: done.unwrap_or(0) });
        }
        let incomplete = lost || self.topic_has_grown(partition).await?;
        let header = Header { identity: self.identity.clone(), incomplete };
        self.write(partition, "header", wire::encode_header(&header)).await?;
        Ok(incomplete)
    }

    /// A partition without a ledger may be one that was added to the input: then its keys were another's before. The
    /// header of partition 0 knows.
    async fn topic_has_grown(&self, partition: i32) -> Result<bool, LoadError> {
        if partition == 0 {
            return Ok(false);
        }
        let loader = self.clone();
        self.blocking(partition, move || {
            let found = loader.place(0).header().map_err(|source| loader.kafka(partition, source))?;
            Ok(found.is_some_and(|header| header.has_grown(&loader.identity)))
        })
        .await
    }

    fn place(&self, partition: i32) -> LedgerPartition {
        LedgerPartition {
            options: self.options.clone(),
            topic: Arc::clone(&self.topic),
            group: self.group.clone(),
            partition,
            timeout: self.timeout,
        }
    }

    fn check_end(&self, partition: i32, done: Option<i64>, offsets: &Offsets) -> Result<(), LoadError> {
        match done {
            Some(done) if done > offsets.high => {
                let input = self.identity.topic.clone();
                Err(LoadError::Recreated { input, partition, end: offsets.high, done })
            }
            _ => Ok(()),
        }
    }

    /// The later of the group's offset and the mark; for a new route what the configuration says, as a number.
    async fn start(&self, partition: i32, found: &Collector, offsets: &Offsets) -> Result<i64, LoadError> {
        if let Some(done) = found.mark().max(offsets.committed) {
            return Ok(done);
        }
        match self.start {
            StartAt::Earliest => Ok(offsets.low),
            StartAt::Latest => Ok(offsets.high),
            StartAt::Time(time) => {
                let loader = self.clone();
                let look = move || {
                    let found = loader.poller.offset_for_time(partition, time, loader.timeout);
                    found.map_err(|source| loader.kafka(partition, source))
                };
                self.blocking(partition, look).await
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        partition: i32,
        call: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, LoadError> {
        tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| {
            Err(self.kafka(partition, kafka::Error::Unexpected(format!("the load was cut short: {error}"))))
        })
    }

    fn kafka(&self, partition: i32, source: kafka::Error) -> LoadError {
        LoadError::Kafka { topic: self.topic.to_string(), partition, source }
    }
}
