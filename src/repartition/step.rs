//! What a stage makes of its records: copies in the partitions of their alerts, or events of groups.
//!
//! A step answers with what is to be written, and changes nothing but the partition's memory that it is given. The memory
//! runs ahead of what is committed by the batch, which is tried until it is committed or thrown away together with it.

use std::sync::Arc;
use std::time::Duration;

use super::Spread;
use super::start_offset::Refusal;
use crate::codec;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, TableRead, Until};
use crate::kafka::{KafkaOptions, ProduceRequest};
use crate::model::record::Header;
use crate::model::{AlertEvent, Record};
use crate::repartition::grouping::{Groups, Output};
use crate::systems::Decoder;

/// How long the table may be silent while it is read. It is short, since nothing else is heard meanwhile; where a killed
/// member's transaction is open for longer it is tried again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a stage does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Each record goes where its alerts belong.
    Spread(Box<Spread>),
    /// The alerts of a group become events of the group.
    Digest(Digest),
}

/// How digests are made.
#[derive(Debug, Clone)]
pub struct Digest {
    /// Reads records.
    pub decoder: Decoder,
    /// The topic that the sink reads.
    pub topic: Arc<str>,
    /// The compacted table of what is remembered.
    pub table: Arc<str>,
    /// Partitions of both, and of the topic that is read.
    pub partitions: i32,
    /// The rule by which alerts were put together.
    pub group_by: Arc<str>,
    /// How many alerts a ticket names.
    pub list: usize,
}

/// An event of an alert, and where it belongs.
struct Alert {
    /// Which of the record's.
    index: u32,
    event: AlertEvent,
    /// The key of its group.
    group: Option<String>,
}

/// What a step knows of a partition.
#[derive(Debug, Default)]
pub struct Memory(Groups);

impl Step {
    /// In metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Spread(_) => "rekey",
            Self::Digest(_) => "digest",
        }
    }

    /// The topic that is written.
    pub fn topic(&self) -> &Arc<str> {
        match self {
            Self::Spread(spread) => &spread.topic,
            Self::Digest(digest) => &digest.topic,
        }
    }

    /// Its partitions.
    pub fn partitions(&self) -> i32 {
        match self {
            Self::Spread(spread) => spread.partitions,
            Self::Digest(digest) => digest.partitions,
        }
    }

    /// Reads what was remembered of a partition; transactions that are open are waited for. Blocks.
    pub fn load(&self, options: &KafkaOptions, group: &str, partition: i32) -> Result<Memory, Refusal> {
        let Self::Digest(digest) = self else { return Ok(Memory::default()) };
        let what = TableRead {
            topic: Arc::clone(&digest.table),
            partition,
            isolation: Isolation::Committed,
            until: Until::End,
            group: group.to_owned(),
            patience: PATIENCE,
        };
        let (mut groups, mut wrong) = (Groups::default(), None);
        table::read(options, &what, &mut |row| {
            if let Some(key) = row.key
                && let Err(error) = groups.load(key, row.value)
            {
                wrong.get_or_insert(error);
            }
        })?;
        if let Some(error) = wrong {
            return Err(Refusal::Unreadable(digest.table.to_string(), error));
        }
        if let Some(before) = groups.rule().filter(|rule| *rule != &*digest.group_by) {
            let (table, before, now) = (digest.table.to_string(), before.to_owned(), digest.group_by.to_string());
            return Err(Refusal::Regrouped { table, before, now });
        }
        tracing::info!(partition, groups = groups.len(), "read what the groups of alerts are");
        Ok(Memory(groups))
    }

    /// Adds what a record becomes to `out`; answers how many alerts were in it.
    pub fn apply(&self, memory: &mut Memory, record: &Record, out: &mut Vec<ProduceRequest>) -> usize {
        match self {
            Self::Spread(spread) => spread.spread(record, out),
            Self::Digest(digest) => digest.apply(&mut memory.0, record, out),
        }
    }

    /// Adds what belongs behind all records of a transaction.
    pub fn close(&self, memory: &mut Memory, partition: i32, out: &mut Vec<ProduceRequest>) {
        let Self::Digest(digest) = self else { return };
        let mut made = Vec::new();
        memory.0.finish(&digest.group_by, digest.list, &mut made);
        let headers = codec::digest_headers(None);
        out.extend(made.into_iter().map(|output| digest.request(output, partition, &headers)));
    }
}

impl Digest {
    fn apply(&self, groups: &mut Groups, record: &Record, out: &mut Vec<ProduceRequest>) -> usize {
        // The sink makes a dead letter of what can't be read.
        let Some((alerts, written)) = self.read(record) else {
            out.push(self.onward(record, record.headers.clone()));
            return 0;
        };
        let headers = codec::digest_headers(Some(record));
        let (mut made, mut alone) = (Vec::new(), Vec::new());
        let count = alerts.len();
        for alert in alerts {
            match alert.group {
                Some(group) => groups.apply(&group, &alert.event, written, self.list, &mut made),
                None => alone.push(alert.index),
            }
        }
        out.extend(made.into_iter().map(|output| self.request(output, record.partition, &headers)));
        if !alone.is_empty() {
            out.push(self.onward(record, codec::ungrouped_headers(record, &alone)));
        }
        count
    }

    /// The alerts that are meant where the record lies, and when it was first written.
    fn read(&self, record: &Record) -> Option<(Vec<Alert>, Option<i64>)> {
        let (meant, belong) = (codec::events_meant(record).ok()??, codec::groups(record).ok()??);
        let timestamp = codec::original_timestamp(record).ok()?.or(record.timestamp);
        let dated = Record { timestamp, ..record.clone() };
        let events = self.decoder.decode(&dated).ok()?;
        let alerts: Vec<(u32, AlertEvent)> = (0..).zip(events).filter(|(index, _)| meant.contains(index)).collect();
        let alert = |((index, event), group)| Alert { index, event, group };
        (alerts.len() == belong.len()).then(|| (alerts.into_iter().zip(belong).map(alert).collect(), timestamp))
    }

    fn onward(&self, record: &Record, headers: Vec<Header>) -> ProduceRequest {
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
            Output::Row(key, value) => (&self.table, Some(key), value, Vec::new()),
        };
        ProduceRequest { topic: Arc::clone(topic), partition: Some(partition), key, value, headers, tag: 0 }
    }
}
