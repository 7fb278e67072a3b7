//! One batch, one Kafka transaction: the changes, the states of their rows, and the checkpoint, all or nothing.
//!
//! # Starting
//! The transactional id belongs to the route. Initialising it fences whoever used it before and waits until the
//! coordinator has ended that producer's last transaction, one way or the other, on every partition. Only then are the
//! topics read; so a commit whose answer was lost is either there or never will be.
//!
//! The end to read to is asked for as an uncommitted reader sees it, and then committed records are read up to there.
//! Asking as a committed reader would give the *last stable offset*: another route's open transaction in the same
//! partition holds that back, and our last checkpoint may lie behind it; we would begin at an older one and publish
//! again. The price is waiting until the other transaction ends, at most its timeout.
//!
//! Checkpoints are spread over the topic's partitions by the route's name, and all partitions are read: if partitions
//! were added meanwhile, the checkpoint with the highest sequence number counts. Rows are spread by the client's
//! partitioner; where partitions were added, of two states of a row the later version counts.

use std::sync::Arc;
use std::time::Duration;

use super::change;
use super::checkpoint::{Checkpoint, WireError, read_checkpoint, read_memo, write_memo};
use super::feed::Batch;
use super::rows::{Memory, StateRecord};
use super::settings::Settings;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, TableRead, Until};
use crate::kafka::topics::Topics;
use crate::kafka::{self, KafkaOptions, ProduceRequest, TransactionError, TransactionalProducer};
use crate::model::Change;
use crate::model::record::Header;

/// How often a transaction that was aborted cleanly is sent again before the route is loaded anew.
const TRIES: u32 = 5;

/// The topics of a route.
#[derive(Debug, Clone)]
pub struct SourceTopics {
    /// Change events.
    pub changes: String,
    /// Last published state of each row; compacted.
    pub rows: String,
    /// Cursors of all routes; compacted.
    pub checkpoints: String,
}

/// Why a route could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The transactional id.
    #[error("can't start transactions as {id}")]
    Init {
        /// The transactional id.
        id: String,
        /// Why.
        #[source]
        source: TransactionError,
    },
    /// Reading a topic.
    #[error("can't read {topic}")]
    Read {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: kafka::Error,
    },
    /// No such topic.
    #[error("topic {topic} does not exist; `nowbridge topics create` makes it")]
    Missing {
        /// The topic.
        topic: String,
    },
    /// A record that cannot be understood.
    #[error("topic {topic} holds what this release can't use")]
    Stored {
        /// The topic.
        topic: String,
        /// What.
        #[source]
        source: WireError,
    },
    /// The reading thread ended.
    #[error("the thread that reads {topic} ended")]
    Thread {
        /// The topic.
        topic: String,
    },
}

/// Writes a route's transactions.
pub struct Publisher {
    producer: TransactionalProducer,
    settings: Arc<Settings>,
    changes: Arc<str>,
    rows: Arc<str>,
    checkpoints: Arc<str>,
    partition: i32,
}

/// What the topics hold.
pub struct Loaded {
    /// Rows and marks.
    pub memory: Memory,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
}

impl Publisher {
    /// Fences earlier publishers of the route, then loads what they left. `group` is a consumer group's name that this
    /// user may use; none is joined. `patience` bounds each step.
    ///
    /// # Errors
    /// Where the cluster or a topic does not answer, or holds what can't be used.
    pub async fn open(
        options: &KafkaOptions,
        settings: Arc<Settings>,
        topics: &SourceTopics,
        transactional_id: &str,
        group: &str,
        patience: Duration,
    ) -> Result<(Self, Loaded), OpenError> {
        let producer = TransactionalProducer::init(options, transactional_id, patience)
            .await
            .map_err(|source| OpenError::Init { id: transactional_id.into(), source })?;
        let reader = Reader { options: options.clone(), group: group.into(), patience };
        let count = reader.partitions(&topics.checkpoints).await?;
        let partition = partition_of(&settings.route, count);
        let checkpoint = reader.checkpoint(&topics.checkpoints, count, &settings.route).await?;
        let memory = reader.memory(&topics.rows).await?;
        let publisher = Self {
            producer,
            settings,
            changes: topics.changes.as_str().into(),
            rows: topics.rows.as_str().into(),
            checkpoints: topics.checkpoints.as_str().into(),
            partition,
        };
        Ok((publisher, Loaded { memory, checkpoint }))
    }

    /// Commits a batch. A batch without a checkpoint has nothing to commit.
    ///
    /// # Errors
    /// Where the batch may or may not have been committed, or can't be: throw the feed away and open anew.
    pub async fn publish(&self, batch: &Batch) -> Result<(), TransactionError> {
        let Some(checkpoint) = &batch.checkpoint else { return Ok(()) };
        let records = self.records(batch, checkpoint).map_err(|e| TransactionError::Fatal(e.to_string()))?;
        for _ in 1..TRIES {
            match self.producer.send_all(records.clone()).await {
                Err(TransactionError::Retriable(why)) => tracing::info!(route = %self.settings.route, why, "again"),
                done => return done,
            }
        }
        self.producer.send_all(records).await
    }

    fn records(&self, batch: &Batch, checkpoint: &Checkpoint) -> Result<Vec<ProduceRequest>, serde_json::Error> {
        let mut records = Vec::with_capacity(batch.changes.len() + batch.memos.len() + 1);
        for change in &batch.changes {
            records.push(ProduceRequest {
                topic: Arc::clone(&self.changes),
                partition: None,
                key: Some(change::key(&self.settings, &change.sys_id).into_bytes()),
                value: Some(serde_json::to_vec(change)?),
                headers: headers(change),
                tag: 0,
            });
        }
        for memo in &batch.memos {
            let (key, value) = write_memo(memo)?;
            records.push(plain(&self.rows, None, key, value));
        }
        let route = self.settings.route.clone();
        records.push(plain(&self.checkpoints, Some(self.partition), route, Some(serde_json::to_vec(checkpoint)?)));
        Ok(records)
    }
}

fn plain(topic: &Arc<str>, partition: Option<i32>, key: String, value: Option<Vec<u8>>) -> ProduceRequest {
    let key = Some(key.into_bytes());
    ProduceRequest { topic: Arc::clone(topic), partition, key, value, headers: Vec::new(), tag: 0 }
}

/// CloudEvents attributes in the binary mode of its Kafka binding.
fn headers(change: &Change) -> Vec<Header> {
    [
        ("ce_specversion", "1.0".to_string()),
        ("ce_id", change.change_id.clone()),
        ("ce_type", "nowbridge.servicenow-change.v1".into()),
        ("ce_source", format!("/servicenow/{}/{}", change.instance, change.table)),
        ("ce_subject", change.sys_id.clone()),
        ("ce_time", change.occurred_at.clone()),
        ("content-type", "application/json".into()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), Some(value.into_bytes())))
    .collect()
}

/// Where a route's checkpoint is written. FNV-1a: must stay the same over releases.
fn partition_of(route: &str, count: i32) -> i32 {
    let hash = route.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    i32::try_from(hash % u32::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0)
}

struct Reader {
    options: KafkaOptions,
    group: String,
    patience: Duration,
}

impl Reader {
    async fn partitions(&self, topic: &str) -> Result<i32, OpenError> {
        let found = Topics::new(&self.options, self.patience).partitions(topic).await;
        let found = found.map_err(|source| OpenError::Read { topic: topic.into(), source })?;
        found.ok_or_else(|| OpenError::Missing { topic: topic.into() })
    }

    async fn checkpoint(&self, topic: &str, count: i32, route: &str) -> Result<Option<Checkpoint>, OpenError> {
        let wanted = route.to_string();
        let mut best: Option<Checkpoint> = None;
        for partition in 0..count {
            let route = wanted.clone();
            let found = self
                .read(topic, partition, move |latest: &mut Option<Vec<u8>>, key, value| {
                    if key == route.as_bytes() {
                        *latest = value.map(<[u8]>::to_vec);
                    }
                    Ok(())
                })
                .await?;
            let Some(value) = found else { continue };
            let found =
                read_checkpoint(&wanted, &value).map_err(|source| OpenError::Stored { topic: topic.into(), source })?;
            if best.as_ref().is_none_or(|b| b.seq < found.seq) {
                best = Some(found);
            }
        }
        Ok(best)
    }

    async fn memory(&self, topic: &str) -> Result<Memory, OpenError> {
        let mut memory = Memory::default();
        for partition in 0..self.partitions(topic).await? {
            let part = self
                .read(topic, partition, |part: &mut Memory, key, value| {
                    if let Some(memo) = read_memo(key, value)? {
                        part.apply(memo);
                    }
                    Ok(())
                })
                .await?;
            memory.merge(part);
        }
        Ok(memory)
    }

    async fn read<T: Default + Send + 'static>(
        &self,
        topic: &str,
        partition: i32,
        mut each: impl FnMut(&mut T, &[u8], Option<&[u8]>) -> Result<(), WireError> + Send + 'static,
    ) -> Result<T, OpenError> {
        let what = TableRead {
            topic: topic.into(),
            partition,
            isolation: Isolation::Committed,
            until: Until::End,
            group: self.group.clone(),
            patience: self.patience,
        };
        let options = self.options.clone();
        let (read, trouble, got) = tokio::task::spawn_blocking(move || {
            let (mut got, mut trouble) = (T::default(), None);
            let read = table::read(&options, &what, &mut |record| {
                if let (Some(key), None) = (record.key, &trouble) {
                    trouble = each(&mut got, key, record.value).err();
                }
            });
            (read, trouble, got)
        })
        .await
        .map_err(|_| OpenError::Thread { topic: topic.into() })?;
        read.map_err(|source| OpenError::Read { topic: topic.into(), source })?;
        match trouble {
            Some(source) => Err(OpenError::Stored { topic: topic.into(), source }),
            None => Ok(got),
        }
    }
}

impl Memory {
    /// Takes in what another partition of the rows topic held.
    fn merge(&mut self, part: Memory) {
        for memo in part.into_memos() {
            match &memo {
                StateRecord::Row(sys_id, Some(state))
                    if self.row(sys_id).is_some_and(|have| {
                        (have.updated_on, have.mod_count) >= (state.updated_on, state.mod_count)
                    }) => {}
                _ => self.apply(memo),
            }
        }
    }
}
