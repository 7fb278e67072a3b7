//! Reads one partition of a topic from its start to its end, as fast as possible: of a compacted topic (a table), or of
//! the dead-letter topic.
//!
//! The broker reports the end of the partition. Counting offsets would not work, because compaction leaves gaps, and
//! the last offsets may be transaction markers, which no reader sees. Guaranteed: every record that was below the end
//! when the read began, and that is visible at the isolation level, has been passed to the caller. A record may be
//! passed twice if the log start offset changes meanwhile, which does not matter to the reader of a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::options::{Isolation, Logging};
use super::poll_loop::to_record;
use super::{Error, KafkaOptions, lookups};
use crate::model::Record;

/// Where a read stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAt {
    /// At the partition's end at the time of the call, including open transactions: a reader of committed records waits
    /// until they are committed or aborted.
    End,
    /// After this offset.
    Including(i64),
}

/// A partition to read.
#[derive(Debug, Clone)]
pub struct TableRead {
    pub topic: Arc<str>,
    pub partition: i32,
    pub isolation: Isolation,
    pub stop_at: StopAt,
    /// A consumer group that the ACLs allow. It is not joined.
    pub group: String,
    /// The read fails if no record arrives for this long. It also limits each look-up.
    pub idle_timeout: Duration,
}

/// A borrowed record.
#[derive(Debug, Clone, Copy)]
pub struct TableRecord<'a> {
    pub key: Option<&'a [u8]>,
    /// `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    pub offset: i64,
    /// Unix milliseconds.
    pub timestamp: Option<i64>,
}

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableReadResult {
    /// Number of records.
    pub records: u64,
    /// One above the last offset that was read or skipped.
    pub next: i64,
}

/// Reads a partition, and calls `on_record` for every record in order. Blocks: call it from `spawn_blocking`.
pub fn read(
    options: &KafkaOptions,
    request: &TableRead,
    on_record: &mut dyn FnMut(TableRecord<'_>),
) -> Result<TableReadResult, Error> {
    read_messages(options, request, &mut |message| {
        on_record(TableRecord {
            key: message.key(),
            value: message.payload(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
        });
    })
}

/// Like [`read`], with owned records that include headers. Blocks.
pub fn read_records(
    options: &KafkaOptions,
    request: &TableRead,
    on_record: &mut dyn FnMut(Record),
) -> Result<TableReadResult, Error> {
    read_messages(options, request, &mut |message| on_record(to_record(&request.topic, message)))
}

fn read_messages(
    options: &KafkaOptions,
    request: &TableRead,
    on_message: &mut dyn FnMut(&BorrowedMessage<'_>),
) -> Result<TableReadResult, Error> {
    let mut reader = Reader::open(options, request)?;
    reader.run(on_message)?;
    Ok(TableReadResult { records: reader.records, next: reader.target.max(reader.next) })
}

/// The progress of a consumer group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupProgress {
    /// The group's committed offset; `None` if it never committed one, or it has expired.
    pub committed: Option<i64>,
    /// One above the partition's last offset.
    pub end: i64,
}

/// Returns the progress of a group in each partition of a topic, without joining the group. Blocks.
pub fn group_progress(
    options: &KafkaOptions,
    topic: &str,
    partitions: i32,
    group: &str,
    timeout: Duration,
) -> Result<Vec<GroupProgress>, Error> {
    let fail = |error| Error::call(format!("can't read the offsets of the group {group} in {topic}"), error);
    let config = options.table_reader(group, Isolation::Uncommitted);
    let consumer: BaseConsumer<Logging> = config.create_with_context(Logging).map_err(fail)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let committed = lookups::committed_offsets(&consumer, &list, timeout).map_err(fail)?;
    let mut progress = Vec::new();
    for partition in 0..partitions {
        let (_, end) = lookups::watermarks(&consumer, topic, partition, timeout).map_err(fail)?;
        let committed = committed.find_partition(topic, partition).and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
        progress.push(GroupProgress { committed, end });
    }
    Ok(progress)
}

/// Returns the first offset that exists in a partition. Blocks.
pub fn log_start_offset(options: &KafkaOptions, topic: &str, partition: i32, timeout: Duration) -> Result<i64, Error> {
    let fail = |error| Error::call(format!("can't read the first and last offset of {topic}/{partition}"), error);
    let lookup: BaseConsumer<Logging> = options.lookup().create_with_context(Logging).map_err(fail)?;
    lookups::watermarks(&lookup, topic, partition, timeout).map(|(low, _)| low).map_err(fail)
}

/// Returns the first offset whose record is not older than a Unix time in milliseconds; the partition's end if all are
/// older. Blocks.
pub fn offset_for_time(
    options: &KafkaOptions,
    topic: &str,
    partition: i32,
    time: i64,
    timeout: Duration,
) -> Result<i64, Error> {
    let fail = |error| Error::call(format!("can't find the offset of a time in {topic}/{partition}"), error);
    let lookup: BaseConsumer<Logging> = options.lookup().create_with_context(Logging).map_err(fail)?;
    lookups::offset_for_time(&lookup, topic, partition, time, timeout).map_err(fail)
}

struct Reader<'a> {
    request: &'a TableRead,
    consumer: BaseConsumer<Logging>,
    /// One above the last offset to read.
    target: i64,
    /// One above the last offset that was passed on.
    next: i64,
    records: u64,
    /// Whether all records below `target` are visible at this isolation level.
    is_stable: bool,
}

impl<'a> Reader<'a> {
    fn open(options: &KafkaOptions, request: &'a TableRead) -> Result<Self, Error> {
        let fail = |error| Error::call(format!("can't read {}/{}", request.topic, request.partition), error);
        let lookup: BaseConsumer<Logging> = options.lookup().create_with_context(Logging).map_err(fail)?;
        let (low, high) =
            lookups::watermarks(&lookup, &request.topic, request.partition, request.idle_timeout).map_err(fail)?;
        let target = match request.stop_at {
            StopAt::End => high,
            StopAt::Including(offset) => offset.saturating_add(1),
        };
        let config = options.table_reader(&request.group, request.isolation);
        let consumer = config.create_with_context(Logging).map_err(fail)?;
        let is_stable = request.isolation == Isolation::Uncommitted;
        let mut reader = Self { request, consumer, target, next: low, records: 0, is_stable };
        reader.is_stable = is_stable || reader.check_stable()?;
        Ok(reader)
    }

    fn run(&mut self, on_message: &mut dyn FnMut(&BorrowedMessage<'_>)) -> Result<(), Error> {
        if self.next >= self.target {
            return Ok(());
        }
        self.assign()?;
        let mut last_message = Instant::now();
        loop {
            // The end of the partition ends the read only if all records below the target are visible.
            let mut is_at_end = false;
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last_message = Instant::now();
                    if message.offset() >= self.target {
                        return Ok(());
                    }
                    if message.offset() < self.next {
                        continue;
                    }
                    self.next = message.offset() + 1;
                    self.records += 1;
                    on_message(&message);
                    if self.next >= self.target {
                        return Ok(());
                    }
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => is_at_end = true,
                Some(Err(error)) if is_permanent(&error) => return Err(self.read_error(error)),
                Some(Err(error)) => {
                    tracing::debug!(%error, topic = &*self.request.topic, "error while reading a table, continuing");
                }
                None => {}
            }
            if is_at_end && self.is_stable {
                return Ok(());
            }
            if !self.is_stable && self.check_stable()? {
                // Records after the reported end may have become visible, so only a new report counts.
                self.is_stable = true;
                self.assign()?;
            }
            if last_message.elapsed() > self.request.idle_timeout {
                return Err(self.timeout_error());
            }
        }
    }

    fn assign(&self) -> Result<(), Error> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.request.topic, self.request.partition, Offset::Offset(self.next))
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| self.read_error(error))
    }

    /// Whether all records below the target are visible. For a consumer of committed records, the high watermark is the
    /// last stable offset.
    fn check_stable(&self) -> Result<bool, Error> {
        let TableRead { topic, partition, idle_timeout, .. } = self.request;
        let watermarks = lookups::watermarks(&self.consumer, topic, *partition, *idle_timeout);
        watermarks.map(|(_, stable)| stable >= self.target).map_err(|error| self.read_error(error))
    }

    fn read_error(&self, error: KafkaError) -> Error {
        let TableRead { topic, partition, .. } = self.request;
        Error::call(format!("can't read {topic}/{partition} from offset {}", self.next), error)
    }

    fn timeout_error(&self) -> Error {
        let TableRead { topic, partition, idle_timeout, .. } = self.request;
        let reason = if self.is_stable { "the broker sends no records" } else { "a transaction is still open" };
        let (next, target) = (self.next, self.target);
        Error::Unexpected(format!(
            "{topic}/{partition}: no record from offset {next} to {target} for {idle_timeout:?}: {reason}"
        ))
    }
}

/// Whether waiting does not resolve the error.
fn is_permanent(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    match error {
        KafkaError::MessageConsumptionFatal(_) => true,
        KafkaError::MessageConsumption(code) => matches!(
            code,
            Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed
        ),
        _ => false,
    }
}
