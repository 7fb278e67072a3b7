//! Writes one batch as one Kafka transaction: the changes, the states of their rows, and the checkpoint, all or
//! nothing.
//!
//! # Opening
//! The transactional id belongs to the route. Initializing it fences the previous user of the id, and waits until the
//! coordinator has ended that producer's last transaction, by commit or abort, on every partition. Only then are the
//! topics read. So a commit whose response was lost is either in the topics or never will be.
//!
//! The end offset is requested with `read_uncommitted`, and committed records are then read up to it. With
//! `read_committed` the end would be the *last stable offset*, which another route's open transaction in the same
//! partition holds back. If the last checkpoint were after it, the route would continue from an older one and publish
//! changes again. The cost is to wait until the other transaction ends, at most for its timeout.
//!
//! Checkpoints are distributed over the topic's partitions by the route's name, and all partitions are read: if
//! partitions were added, the checkpoint with the highest sequence number counts. Rows are distributed by the
//! client's partitioner. If partitions were added, the later version of two states of a row counts.

use std::sync::Arc;
use std::time::Duration;

use super::change;
use super::change_detection::Batch;
use super::checkpoint::{Checkpoint, StoredStateError, decode_checkpoint, decode_state_record, encode_state_record};
use super::rows::{PublishedState, StateRecord};
use super::settings::Settings;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, StopAt, TableRead};
use crate::kafka::topics::Topics;
use crate::kafka::{self, KafkaOptions, ProduceRequest, TransactionError, TransactionalProducer};
use crate::model::Change;
use crate::model::record::Header;

/// How often a cleanly aborted transaction is sent before the session ends and the route is loaded again.
const MAX_ATTEMPTS: u32 = 5;

/// The topics of a route.
#[derive(Debug, Clone)]
pub struct SourceTopics {
    /// Change events.
    pub changes: String,
    /// Last published state of each row; compacted.
    pub rows: String,
    /// Checkpoints of all routes; compacted.
    pub checkpoints: String,
}

/// Why a route could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Initializing the transactional id failed.
    #[error("can't initialize transactions with transactional id {id}")]
    Init {
        id: String,
        #[source]
        source: TransactionError,
    },
    #[error("can't read topic {topic}")]
    Read {
        topic: String,
        #[source]
        source: kafka::Error,
    },
    /// The topic does not exist.
    #[error("topic {topic} does not exist; create it with `nowbridge topics create`")]
    Missing { topic: String },
    /// A record cannot be used.
    #[error("topic {topic} contains a record that this release can't use")]
    StoredState {
        topic: String,
        #[source]
        source: StoredStateError,
    },
    /// The reading thread panicked or was canceled.
    #[error("the thread that reads topic {topic} ended unexpectedly")]
    Thread { topic: String },
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

/// The content of the topics.
pub struct LoadedState {
    pub published_state: PublishedState,
    /// The newest checkpoint; `None` if the route never stored one.
    pub checkpoint: Option<Checkpoint>,
}

impl Publisher {
    /// Fences earlier publishers of the route, then loads the content of the topics. `group` is the name of a
    /// consumer group that this user may use; the reader does not join it. `timeout` limits each step.
    ///
    /// # Errors
    /// If the cluster or a topic does not respond, or a record cannot be used.
    pub async fn open(
        options: &KafkaOptions,
        settings: Arc<Settings>,
        topics: &SourceTopics,
        transactional_id: &str,
        group: &str,
        timeout: Duration,
    ) -> Result<(Self, LoadedState), OpenError> {
        let producer = TransactionalProducer::init(options, transactional_id, timeout)
            .await
            .map_err(|source| OpenError::Init { id: transactional_id.into(), source })?;
        let reader = TopicReader { options: options.clone(), group: group.into(), timeout };
        let count = reader.partitions(&topics.checkpoints).await?;
        let partition = checkpoint_partition(&settings.route, count);
        let checkpoint = reader.checkpoint(&topics.checkpoints, count, &settings.route).await?;
        let published_state = reader.published_state(&topics.rows).await?;
        let publisher = Self {
            producer,
            settings,
            changes: topics.changes.as_str().into(),
            rows: topics.rows.as_str().into(),
            checkpoints: topics.checkpoints.as_str().into(),
            partition,
        };
        Ok((publisher, LoadedState { published_state, checkpoint }))
    }

    /// Commits a batch. A batch without a checkpoint has nothing to commit.
    ///
    /// # Errors
    /// If it is unknown whether the batch was committed, or if it cannot be committed: drop the detector and open
    /// again.
    pub async fn publish(&self, batch: &Batch) -> Result<(), TransactionError> {
        let Some(checkpoint) = &batch.checkpoint else { return Ok(()) };
        let records = self.records(batch, checkpoint).map_err(|e| TransactionError::Fatal(e.to_string()))?;
        for _ in 1..MAX_ATTEMPTS {
            match self.producer.send_all(records.clone()).await {
                Err(TransactionError::Retriable(reason)) => {
                    tracing::info!(route = %self.settings.route, reason, "transaction aborted, retrying");
                }
                done => return done,
            }
        }
        self.producer.send_all(records).await
    }

    fn records(&self, batch: &Batch, checkpoint: &Checkpoint) -> Result<Vec<ProduceRequest>, serde_json::Error> {
        let mut records = Vec::with_capacity(batch.changes.len() + batch.state_records.len() + 1);
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
        for record in &batch.state_records {
            let (key, value) = encode_state_record(record)?;
            records.push(produce_request(&self.rows, None, key, value));
        }
        let route = self.settings.route.clone();
        records.push(produce_request(
            &self.checkpoints,
            Some(self.partition),
            route,
            Some(serde_json::to_vec(checkpoint)?),
        ));
        Ok(records)
    }
}

fn produce_request(topic: &Arc<str>, partition: Option<i32>, key: String, value: Option<Vec<u8>>) -> ProduceRequest {
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

/// The partition of a route's checkpoint (FNV-1a). It must not change between releases.
fn checkpoint_partition(route: &str, count: i32) -> i32 {
    let hash = route.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    i32::try_from(hash % u32::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0)
}

struct TopicReader {
    options: KafkaOptions,
    group: String,
    timeout: Duration,
}

impl TopicReader {
    async fn partitions(&self, topic: &str) -> Result<i32, OpenError> {
        let found = Topics::new(&self.options, self.timeout).partitions(topic).await;
        let found = found.map_err(|source| OpenError::Read { topic: topic.into(), source })?;
        found.ok_or_else(|| OpenError::Missing { topic: topic.into() })
    }

    async fn checkpoint(&self, topic: &str, count: i32, route: &str) -> Result<Option<Checkpoint>, OpenError> {
        let wanted = route.to_string();
        let mut newest: Option<Checkpoint> = None;
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
            let found = decode_checkpoint(&wanted, &value)
                .map_err(|source| OpenError::StoredState { topic: topic.into(), source })?;
            if newest.as_ref().is_none_or(|b| b.seq < found.seq) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    async fn published_state(&self, topic: &str) -> Result<PublishedState, OpenError> {
        let mut published_state = PublishedState::default();
        for partition in 0..self.partitions(topic).await? {
            let partition_state = self
                .read(topic, partition, |partition_state: &mut PublishedState, key, value| {
                    if let Some(record) = decode_state_record(key, value)? {
                        partition_state.apply(record);
                    }
                    Ok(())
                })
                .await?;
            published_state.merge(partition_state);
        }
        Ok(published_state)
    }

    async fn read<T: Default + Send + 'static>(
        &self,
        topic: &str,
        partition: i32,
        mut apply_record: impl FnMut(&mut T, &[u8], Option<&[u8]>) -> Result<(), StoredStateError> + Send + 'static,
    ) -> Result<T, OpenError> {
        let table_read = TableRead {
            topic: topic.into(),
            partition,
            isolation: Isolation::Committed,
            stop_at: StopAt::End,
            group: self.group.clone(),
            idle_timeout: self.timeout,
        };
        let options = self.options.clone();
        let (read, decode_error, state) = tokio::task::spawn_blocking(move || {
            let (mut state, mut decode_error) = (T::default(), None);
            let read = table::read(&options, &table_read, &mut |record| {
                if let (Some(key), None) = (record.key, &decode_error) {
                    decode_error = apply_record(&mut state, key, record.value).err();
                }
            });
            (read, decode_error, state)
        })
        .await
        .map_err(|_| OpenError::Thread { topic: topic.into() })?;
        read.map_err(|source| OpenError::Read { topic: topic.into(), source })?;
        match decode_error {
            Some(source) => Err(OpenError::StoredState { topic: topic.into(), source }),
            None => Ok(state),
        }
    }
}

impl PublishedState {
    /// Adds the content of another partition of the rows topic.
    fn merge(&mut self, partition_state: PublishedState) {
        for record in partition_state.into_records() {
            match &record {
                StateRecord::Row(sys_id, Some(state))
                    if self.row(sys_id).is_some_and(|have| {
                        (have.updated_on, have.mod_count) >= (state.updated_on, state.mod_count)
                    }) => {}
                _ => self.apply(record),
            }
        }
    }
}
