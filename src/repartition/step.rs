//! What a stage does with its records: copies them to the partitions of their alerts, or makes events of groups.
//!
//! A step returns the records to write, and changes only the memory of the partition. The memory is ahead of the
//! committed state by the batch, which is retried until it is committed, or dropped together with the memory.

use std::sync::Arc;
use std::time::Duration;

use super::Partitioner;
use super::start_offset::StartError;
use crate::codec;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, StopAt, TableRead};
use crate::kafka::{KafkaOptions, ProduceRequest};
use crate::model::record::Header;
use crate::model::{AlertEvent, Record};
use crate::repartition::grouping::{Groups, Output};
use crate::systems::Decoder;

/// Idle timeout of a read of the state topic. It is short, because the loop handles no events meanwhile. If the
/// transaction of a killed member stays open for longer, the read is retried.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a stage does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Copies records to the partitions of their alerts.
    Repartition(Box<Partitioner>),
    /// Makes events of groups from the events of their alerts.
    Grouping(Grouping),
}

/// The configuration of the grouping step.
#[derive(Debug, Clone)]
pub struct Grouping {
    pub decoder: Decoder,
    /// The topic that is written, which the sink reads.
    pub topic: Arc<str>,
    /// The compacted topic with the state of the groups.
    pub state_topic: Arc<str>,
    /// Partitions of both, and of the topic that is read.
    pub partitions: i32,
    /// The template by which the alerts were grouped.
    pub group_by: Arc<str>,
    /// How many alerts a ticket lists.
    pub max_listed: usize,
}

/// An event of an alert.
struct Alert {
    /// Index of the event in its record.
    index: u32,
    event: AlertEvent,
    /// The key of its group.
    group: Option<String>,
}

/// What a step remembers of a partition.
#[derive(Debug, Default)]
pub struct Memory(Groups);

impl Step {
    /// Returns the name of the stage, for metrics, logs and transactional ids.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Repartition(_) => "repartition",
            Self::Grouping(_) => "grouping",
        }
    }

    /// Returns the topic that is written.
    pub fn topic(&self) -> &Arc<str> {
        match self {
            Self::Repartition(partitioner) => &partitioner.topic,
            Self::Grouping(grouping) => &grouping.topic,
        }
    }

    /// Returns the number of partitions of the topic that is written.
    pub fn partitions(&self) -> i32 {
        match self {
            Self::Repartition(partitioner) => partitioner.partitions,
            Self::Grouping(grouping) => grouping.partitions,
        }
    }

    /// Loads the memory of a partition, and waits for open transactions. `route` is for logs. Blocks.
    pub fn load(&self, route: &str, options: &KafkaOptions, group: &str, partition: i32) -> Result<Memory, StartError> {
        let Self::Grouping(grouping) = self else { return Ok(Memory::default()) };
        let request = TableRead {
            topic: Arc::clone(&grouping.state_topic),
            partition,
            isolation: Isolation::Committed,
            stop_at: StopAt::End,
            group: group.to_owned(),
            idle_timeout: IDLE_TIMEOUT,
        };
        let (mut groups, mut row_error) = (Groups::default(), None);
        table::read(options, &request, &mut |row| {
            if let Some(key) = row.key
                && let Err(error) = groups.load(key, row.value)
            {
                row_error.get_or_insert(error);
            }
        })?;
        if let Some(error) = row_error {
            return Err(StartError::UnreadableState(grouping.state_topic.to_string(), error));
        }
        if let Some(old_rule) = groups.rule().filter(|rule| *rule != &*grouping.group_by) {
            return Err(StartError::RuleChanged {
                state_topic: grouping.state_topic.to_string(),
                old_rule: old_rule.to_owned(),
                new_rule: grouping.group_by.to_string(),
            });
        }
        tracing::info!(route, partition, groups = groups.len(), "group state loaded");
        Ok(Memory(groups))
    }

    /// Adds the output of an input record to `out`. Returns the number of alerts in the record.
    pub fn apply(&self, memory: &mut Memory, record: &Record, out: &mut Vec<ProduceRequest>) -> usize {
        match self {
            Self::Repartition(partitioner) => partitioner.repartition(record, out),
            Self::Grouping(grouping) => grouping.apply(&mut memory.0, record, out),
        }
    }

    /// Adds what must follow all records of a transaction.
    pub fn finish(&self, memory: &mut Memory, partition: i32, out: &mut Vec<ProduceRequest>) {
        let Self::Grouping(grouping) = self else { return };
        let mut outputs = Vec::new();
        memory.0.finish(&grouping.group_by, grouping.max_listed, &mut outputs);
        let headers = codec::group_event_headers(None);
        out.extend(outputs.into_iter().map(|output| grouping.request(output, partition, &headers)));
    }
}

impl Grouping {
    fn apply(&self, groups: &mut Groups, record: &Record, out: &mut Vec<ProduceRequest>) -> usize {
        // The sink makes a dead letter of a record that cannot be decoded.
        let Some((alerts, written_at)) = self.decode(record) else {
            out.push(self.copy(record, record.headers.clone()));
            return 0;
        };
        let headers = codec::group_event_headers(Some(record));
        let (mut outputs, mut ungrouped) = (Vec::new(), Vec::new());
        let count = alerts.len();
        for alert in alerts {
            match alert.group {
                Some(group) => groups.apply(&group, &alert.event, written_at, self.max_listed, &mut outputs),
                None => ungrouped.push(alert.index),
            }
        }
        out.extend(outputs.into_iter().map(|output| self.request(output, record.partition, &headers)));
        if !ungrouped.is_empty() {
            out.push(self.copy(record, codec::ungrouped_headers(record, &ungrouped)));
        }
        count
    }

    /// Returns the alerts that count in the record's partition, and when the original was written.
    fn decode(&self, record: &Record) -> Option<(Vec<Alert>, Option<i64>)> {
        let (included, groups) = (codec::included_events(record).ok()??, codec::group_keys(record).ok()??);
        let timestamp = codec::original_timestamp(record).ok()?.or(record.timestamp);
        let original = Record { timestamp, ..record.clone() };
        let events = self.decoder.decode(&original).ok()?;
        let events: Vec<(u32, AlertEvent)> = (0..).zip(events).filter(|(index, _)| included.contains(index)).collect();
        let alert = |((index, event), group)| Alert { index, event, group };
        (events.len() == groups.len()).then(|| (events.into_iter().zip(groups).map(alert).collect(), timestamp))
    }

    /// Copies a record to the topic that the sink reads.
    fn copy(&self, record: &Record, headers: Vec<Header>) -> ProduceRequest {
        ProduceRequest {
            topic: Arc::clone(&self.topic),
            partition: Some(record.partition),
            key: record.key.clone(),
            value: record.value.clone(),
            headers,
            tag: 0,
        }
    }

    fn request(&self, output: Output, partition: i32, headers: &[Header]) -> ProduceRequest {
        let (topic, key, value, headers) = match output {
            Output::Event(body) => (&self.topic, None, Some(body), headers.to_vec()),
            Output::Row(key, value) => (&self.state_topic, Some(key), value, Vec::new()),
        };
        ProduceRequest { topic: Arc::clone(topic), partition: Some(partition), key, value, headers, tag: 0 }
    }
}
