//! A ledger partition as it stands, for commands: read only, nothing is taken over, no token is taken.
//!
//! What is read is what the next owner would find, but for records that come meanwhile; the entries are packed as they
//! come, so that a million keys take a hundred megabytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::collect::Collector;
use super::header::Header;
use super::wire::{self, WireError, WireKey, WireValue};
use crate::engine::event::Loaded;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, TableRead, TableRecord, Until};
use crate::kafka::{self, KafkaOptions};
use crate::model::Token;

/// Where a partition is read.
#[derive(Clone)]
pub struct LedgerPartition {
    /// The cluster.
    pub options: KafkaOptions,
    /// The ledger topic.
    pub topic: Arc<str>,
    /// A consumer group that may be used; none is joined.
    pub group: String,
    /// The partition.
    pub partition: i32,
    /// Give up when nothing has come for so long.
    pub timeout: Duration,
}

/// What stands in a partition.
pub struct Survey {
    /// What it belongs to; `None` where nothing says so.
    pub header: Option<Header>,
    /// Every input offset below is done, where anything says so.
    pub mark: Option<i64>,
    /// What the next owner would find.
    pub loaded: Loaded,
}

/// What is left of a partition that begins anew.
#[derive(Default)]
pub struct Remains {
    /// What it belongs to; `None` where nothing says so.
    pub header: Option<Header>,
    /// The keys of all records that stand, headers and owners left out.
    pub keys: BTreeSet<Vec<u8>>,
    /// The broker's time of the newest record, whatever it is, Unix milliseconds.
    pub newest: Option<i64>,
}

/// Why a partition can't be surveyed.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The cluster did not do what was asked.
    #[error("can't read partition {partition} of the ledger {topic}")]
    Kafka {
        /// The ledger topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Why.
        #[source]
        source: kafka::Error,
    },
    /// Something stands in it that this release can't read.
    #[error("partition {partition} of the ledger {topic} can't be read at offset {offset}")]
    Unreadable {
        /// The ledger topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Where.
        offset: i64,
        /// Why.
        #[source]
        source: WireError,
    },
}

impl LedgerPartition {
    pub(super) fn reading(&self) -> TableRead {
        TableRead {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            isolation: Isolation::Uncommitted,
            until: Until::End,
            group: self.group.clone(),
            patience: self.timeout,
        }
    }

    fn kafka(&self, source: kafka::Error) -> SurveyError {
        SurveyError::Kafka { topic: self.topic.to_string(), partition: self.partition, source }
    }

    /// Reads it; `progress` is told now and then how many records have been read. Blocks.
    ///
    /// # Errors
    /// The cluster does not answer, or a record can't be read.
    pub fn survey(&self, progress: &mut dyn FnMut(u64)) -> Result<Survey, SurveyError> {
        let collector = self.collect(progress)?;
        let (header, mark) = (collector.header().cloned(), collector.mark());
        Ok(Survey { header, mark, loaded: collector.finish(Token(i64::MAX)) })
    }

    /// What its records add up to. Blocks.
    pub(super) fn collect(&self, progress: &mut dyn FnMut(u64)) -> Result<Collector, SurveyError> {
        let mut collector = Collector::default();
        let (mut count, mut broken) = (0, None);
        table::read(&self.options, &self.reading(), &mut |record| {
            count += 1;
            if count % 10_000 == 0 {
                progress(count);
            }
            let (key, time) = (record.key.unwrap_or_default(), record.timestamp.unwrap_or(0));
            if let Err(source) = collector.take(key, record.value, record.offset, time) {
                broken.get_or_insert((record.offset, source));
            }
        })
        .map_err(|source| self.kafka(source))?;
        progress(count);
        if let Some((offset, source)) = broken {
            let (topic, partition) = (self.topic.to_string(), self.partition);
            return Err(SurveyError::Unreadable { topic, partition, offset, source });
        }
        Ok(collector)
    }

    /// What it belongs to; `None` where nothing says so. It may stand anywhere, since commands write it anew. Blocks.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn header(&self) -> Result<Option<Header>, kafka::Error> {
        let mut found = None;
        table::read(&self.options, &self.reading(), &mut |record| found = header(&record).or(found.take()))?;
        Ok(found)
    }

    /// What stands in it, whatever this release can read of it. Blocks.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn remains(&self) -> Result<Remains, kafka::Error> {
        let mut remains = Remains::default();
        table::read(&self.options, &self.reading(), &mut |record| {
            remains.newest = remains.newest.max(record.timestamp);
            remains.header = header(&record).or(remains.header.take());
            let Some(key) = record.key.filter(|key| !is_of_the_partition(key)) else { return };
            if record.value.is_some() {
                remains.keys.insert(key.to_vec());
            } else {
                remains.keys.remove(key);
            }
        })?;
        Ok(remains)
    }
}

/// The header that this record is.
fn header(record: &TableRecord<'_>) -> Option<Header> {
    let value = record.value.filter(|_| record.key == Some(b"header"))?;
    match wire::decode_value(&WireKey::Header, value) {
        Ok(WireValue::Header(header)) => Some(header),
        _ => None,
    }
}

/// Whether it is about the partition as a whole, and is replaced rather than removed.
fn is_of_the_partition(key: &[u8]) -> bool {
    matches!(wire::decode_key(key), Ok(WireKey::Header | WireKey::Owner))
}
