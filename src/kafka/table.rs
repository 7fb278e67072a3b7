//! Reads one partition of a topic from its start to its end, quickly: a compacted table, or a shelf of records.
//!
//! The end is found by the broker's word (end of partition), never by counting: compaction leaves gaps, and the last
//! offsets may be a transaction's markers, which no reader sees. Guaranteed: every record that stood below the end
//! when the read began, and that its isolation level shows, has been handed out. A record may be handed out twice
//! where the log start moves meanwhile; the reader of a table doesn't care.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::options::{Isolation, Logging};
use super::poll_loop::owned;
use super::{Error, KafkaOptions};
use crate::model::Record;

/// Where to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the partition's end as of the call, open transactions included: a reader of committed records waits until
    /// those are settled.
    End,
    /// Behind this offset.
    Including(i64),
}

/// What to read.
#[derive(Debug, Clone)]
pub struct TableRead {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Which records of transactions are seen.
    pub isolation: Isolation,
    /// Where to stop.
    pub until: Until,
    /// Name of a consumer group that this user may use; none is joined.
    pub group: String,
    /// Give up when nothing has come for so long.
    pub patience: Duration,
}

/// A record, borrowed while it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct TableRecord<'a> {
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Offset.
    pub offset: i64,
    /// Unix milliseconds.
    pub timestamp: Option<i64>,
}

/// How far a read came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEnd {
    /// Records seen.
    pub records: u64,
    /// One above the last offset that was looked at or skipped.
    pub next: i64,
}

/// Reads, and calls `each` for every record in order. Blocks: call it from `spawn_blocking`.
pub fn read(
    options: &KafkaOptions,
    what: &TableRead,
    each: &mut dyn FnMut(TableRecord<'_>),
) -> Result<TableEnd, Error> {
    read_messages(options, what, &mut |message| {
        each(TableRecord {
            key: message.key(),
            value: message.payload(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
        });
    })
}

/// As [`read`], for whoever wants whole records, headers included. Blocks.
pub fn read_records(options: &KafkaOptions, what: &TableRead, each: &mut dyn FnMut(Record)) -> Result<TableEnd, Error> {
    read_messages(options, what, &mut |message| each(owned(&what.topic, message)))
}

fn read_messages(
    options: &KafkaOptions,
    what: &TableRead,
    each: &mut dyn FnMut(&BorrowedMessage<'_>),
) -> Result<TableEnd, Error> {
    let mut reader = Reader::open(options, what)?;
    reader.run(each)?;
    Ok(TableEnd { records: reader.records, next: reader.target.max(reader.next) })
}

/// How far a consumer group has come in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The group's committed offset; none where it never committed, or it was forgotten.
    pub committed: Option<i64>,
    /// One above the partition's last offset.
    pub end: i64,
}

/// How far a group has come in each partition of a topic, asked without joining it. Blocks.
pub fn progress(
    options: &KafkaOptions,
    topic: &str,
    partitions: i32,
    group: &str,
    timeout: Duration,
) -> Result<Vec<Progress>, Error> {
    let fail = |error| Error::call(format!("can't learn how far the group {group} has come in {topic}"), error);
    let config = options.table_reader(group, Isolation::Uncommitted);
    let consumer: BaseConsumer<Logging> = config.create_with_context(Logging).map_err(fail)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let deadline = Instant::now() + timeout;
    let committed = loop {
        match consumer.committed_offsets(list.clone(), timeout) {
            Ok(committed) => break committed,
            // A cluster that never had a group makes the topic of their offsets at the first question about one.
            Err(error) if is_coordinator_late(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return Err(fail(error)),
        }
    };
    let mut all = Vec::new();
    for partition in 0..partitions {
        let (_, end) = consumer.fetch_watermarks(topic, partition, timeout).map_err(fail)?;
        let committed = committed.find_partition(topic, partition).and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
        all.push(Progress { committed, end });
    }
    Ok(all)
}

/// The first offset that exists in a partition. Blocks.
pub fn low(options: &KafkaOptions, topic: &str, partition: i32, timeout: Duration) -> Result<i64, Error> {
    let fail = |error| Error::call(format!("can't learn the ends of {topic}/{partition}"), error);
    let lookup: BaseConsumer<Logging> = options.lookup().create_with_context(Logging).map_err(fail)?;
    lookup.fetch_watermarks(topic, partition, timeout).map(|(low, _)| low).map_err(fail)
}

/// The first offset whose record is not older than this Unix time in milliseconds; the partition's end where all are
/// older. Blocks.
pub fn offset_for_time(
    options: &KafkaOptions,
    topic: &str,
    partition: i32,
    time: i64,
    timeout: Duration,
) -> Result<i64, Error> {
    let fail = |error| Error::call(format!("can't find the offset of that time in {topic}/{partition}"), error);
    let lookup: BaseConsumer<Logging> = options.lookup().create_with_context(Logging).map_err(fail)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(time)).map_err(fail)?;
    let found = lookup.offsets_for_times(list, timeout).map_err(fail)?;
    match found.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Ok(offset),
        _ => lookup.fetch_watermarks(topic, partition, timeout).map(|(_, high)| high).map_err(fail),
    }
}

struct Reader<'a> {
    what: &'a TableRead,
    consumer: BaseConsumer<Logging>,
    /// One above the last offset wanted.
    target: i64,
    /// One above the last offset handed out.
    next: i64,
    records: u64,
    /// Whether everything below `target` is visible at this isolation level.
    settled: bool,
}

impl<'a> Reader<'a> {
    fn open(options: &KafkaOptions, what: &'a TableRead) -> Result<Self, Error> {
        let fail = |error| Error::call(format!("can't read {}/{}", what.topic, what.partition), error);
        let lookup: BaseConsumer<Logging> = options.lookup().create_with_context(Logging).map_err(fail)?;
        let (low, high) = lookup.fetch_watermarks(&what.topic, what.partition, what.patience).map_err(fail)?;
        let target = match what.until {
            Until::End => high,
            Until::Including(offset) => offset.saturating_add(1),
        };
        let config = options.table_reader(&what.group, what.isolation);
        let consumer = config.create_with_context(Logging).map_err(fail)?;
        let settled = what.isolation == Isolation::Uncommitted;
        let mut reader = Self { what, consumer, target, next: low, records: 0, settled };
        reader.settled = settled || reader.is_settled()?;
        Ok(reader)
    }

    fn run(&mut self, each: &mut dyn FnMut(&BorrowedMessage<'_>)) -> Result<(), Error> {
        if self.next >= self.target {
            return Ok(());
        }
        self.assign()?;
        let mut heard = Instant::now();
        loop {
            // A settled partition that has told its end is done; an unsettled one is asked again.
            let mut ended = false;
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.offset() >= self.target {
                        return Ok(());
                    }
                    if message.offset() < self.next {
                        continue;
                    }
                    self.next = message.offset() + 1;
                    self.records += 1;
                    each(&message);
                    if self.next >= self.target {
                        return Ok(());
                    }
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => ended = true,
                Some(Err(error)) if is_hopeless(&error) => return Err(self.failed(error)),
                Some(Err(error)) => tracing::debug!(%error, topic = &*self.what.topic, "a table read goes on"),
                None => {}
            }
            if ended && self.settled {
                return Ok(());
            }
            if !self.settled && self.is_settled()? {
                // Records may have become visible behind the end that was told: only a new end counts.
                self.settled = true;
                self.assign()?;
            }
            if heard.elapsed() > self.what.patience {
                return Err(self.stuck());
            }
        }
    }

    fn assign(&self) -> Result<(), Error> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.what.topic, self.what.partition, Offset::Offset(self.next))
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| self.failed(error))
    }

    /// A consumer of committed records is told the last stable offset as the end.
    fn is_settled(&self) -> Result<bool, Error> {
        let what = self.what;
        let ends = self.consumer.fetch_watermarks(&what.topic, what.partition, what.patience);
        ends.map(|(_, stable)| stable >= self.target).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: KafkaError) -> Error {
        Error::call(format!("can't read {}/{} from {}", self.what.topic, self.what.partition, self.next), error)
    }

    fn stuck(&self) -> Error {
        let TableRead { topic, partition, patience, .. } = self.what;
        let why = if self.settled { "the broker sends nothing" } else { "an open transaction holds the rest back" };
        let (next, target) = (self.next, self.target);
        Error::Unexpected(format!("{topic}/{partition}: no record from {next} to {target} for {patience:?}: {why}"))
    }
}

/// The group has no coordinator yet, or another one than a moment ago.
fn is_coordinator_late(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let late = [Code::NotCoordinator, Code::CoordinatorNotAvailable, Code::CoordinatorLoadInProgress];
    error.rdkafka_error_code().is_some_and(|code| late.contains(&code))
}

/// Errors that waiting does not help.
fn is_hopeless(error: &KafkaError) -> bool {
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
