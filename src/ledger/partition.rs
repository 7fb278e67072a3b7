//! Reads a ledger partition without taking it over (no token): for commands, and as the first part of a load.
//!
//! The result is what the next owner would find, except for records written meanwhile. Entries are packed as they are
//! read, so a million keys take about a hundred megabytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::collect::Collector;
use super::header::Header;
use super::wire::{self, WireError, WireKey, WireValue};
use crate::engine::event::LedgerState;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, StopAt, TableRead, TableRecord};
use crate::kafka::{self, KafkaOptions};
use crate::model::Token;

/// A ledger partition and how to read it.
#[derive(Clone)]
pub struct LedgerPartition {
    /// The cluster.
    pub options: KafkaOptions,
    /// The ledger topic.
    pub topic: Arc<str>,
    /// Group name of the reading consumer, for its authorization. The consumer does not join the group.
    pub group: String,
    /// Number of the partition.
    pub partition: i32,
    /// Reading fails after so long without a record.
    pub timeout: Duration,
}

/// The content of a ledger partition.
pub struct LedgerContent {
    /// `None` if the partition has no header.
    pub header: Option<Header>,
    /// The highest watermark of all marks; `None` without a mark.
    pub watermark: Option<i64>,
    /// The state that the next owner would load.
    pub state: LedgerState,
}

/// The keys in a ledger partition, including records that this release cannot read.
#[derive(Default)]
pub struct LedgerKeys {
    /// `None` if the partition has no readable header.
    pub header: Option<Header>,
    /// The keys of all records except `header` and `owner`.
    pub keys: BTreeSet<Vec<u8>>,
    /// Broker time of the newest record of any kind, Unix milliseconds.
    pub newest_timestamp: Option<i64>,
}

/// Why a ledger partition cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cluster failed the request.
    #[error("can't read partition {partition} of the ledger {topic}")]
    Kafka {
        topic: String,
        partition: i32,
        #[source]
        source: kafka::Error,
    },
    /// The partition contains a record that this release cannot read.
    #[error("can't read the record at offset {offset} of partition {partition} of the ledger {topic}")]
    Unreadable {
        topic: String,
        partition: i32,
        offset: i64,
        #[source]
        source: WireError,
    },
}

impl LedgerPartition {
    pub(super) fn table_read(&self) -> TableRead {
        TableRead {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            isolation: Isolation::Uncommitted,
            stop_at: StopAt::End,
            group: self.group.clone(),
            idle_timeout: self.timeout,
        }
    }

    fn kafka(&self, source: kafka::Error) -> ReadError {
        ReadError::Kafka { topic: self.topic.to_string(), partition: self.partition, source }
    }

    /// Reads the partition. Calls `progress` every 10,000 records and at the end, with the number of records read.
    /// Blocks.
    ///
    /// # Errors
    /// The cluster does not respond, or a record cannot be read.
    pub fn read(&self, progress: &mut dyn FnMut(u64)) -> Result<LedgerContent, ReadError> {
        let collector = self.collect(progress)?;
        let (header, watermark) = (collector.header().cloned(), collector.watermark());
        Ok(LedgerContent { header, watermark, state: collector.finish(Token(i64::MAX)) })
    }

    /// Reads all records into a collector. Calls `progress` as [`LedgerPartition::read`] does. Blocks.
    pub(super) fn collect(&self, progress: &mut dyn FnMut(u64)) -> Result<Collector, ReadError> {
        let mut collector = Collector::default();
        let (mut count, mut unreadable) = (0, None);
        table::read(&self.options, &self.table_read(), &mut |record| {
            count += 1;
            if count % 10_000 == 0 {
                progress(count);
            }
            let (key, time) = (record.key.unwrap_or_default(), record.timestamp.unwrap_or(0));
            if let Err(source) = collector.add(key, record.value, record.offset, time) {
                unreadable.get_or_insert((record.offset, source));
            }
        })
        .map_err(|source| self.kafka(source))?;
        progress(count);
        if let Some((offset, source)) = unreadable {
            let (topic, partition) = (self.topic.to_string(), self.partition);
            return Err(ReadError::Unreadable { topic, partition, offset, source });
        }
        Ok(collector)
    }

    /// Returns the header; `None` if there is none. Reads the whole partition, because commands may have rewritten the
    /// header at any offset. Blocks.
    ///
    /// # Errors
    /// The cluster does not respond.
    pub fn read_header(&self) -> Result<Option<Header>, kafka::Error> {
        let mut found = None;
        table::read(&self.options, &self.table_read(), &mut |record| found = header_of(&record).or(found.take()))?;
        Ok(found)
    }

    /// Reads the keys, even those of records that this release cannot read. Blocks.
    ///
    /// # Errors
    /// The cluster does not respond.
    pub fn read_keys(&self) -> Result<LedgerKeys, kafka::Error> {
        let mut keys = LedgerKeys::default();
        table::read(&self.options, &self.table_read(), &mut |record| {
            keys.newest_timestamp = keys.newest_timestamp.max(record.timestamp);
            keys.header = header_of(&record).or(keys.header.take());
            let Some(key) = record.key.filter(|key| !describes_partition(key)) else { return };
            if record.value.is_some() {
                keys.keys.insert(key.to_vec());
            } else {
                keys.keys.remove(key);
            }
        })?;
        Ok(keys)
    }
}

/// Returns the header if this record is one and can be read.
fn header_of(record: &TableRecord<'_>) -> Option<Header> {
    let value = record.value.filter(|_| record.key == Some(b"header"))?;
    match wire::decode_value(&WireKey::Header, value) {
        Ok(WireValue::Header(header)) => Some(header),
        _ => None,
    }
}

/// Whether the record describes the whole partition. Such a record is replaced, never removed.
fn describes_partition(key: &[u8]) -> bool {
    matches!(wire::decode_key(key), Ok(WireKey::Header | WireKey::Owner))
}
