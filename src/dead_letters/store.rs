//! A route's dead letters in Kafka, and the redrive markers, which say which of them were redriven or discarded.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{DeadLetter, DeadLetterId, Error};
use crate::codec;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, StopAt, TableRead};
use crate::kafka::topics::Topics;
use crate::kafka::{KafkaOptions, ProduceRequest};
use crate::model::{Record, RedriveId};

/// Records in the channel from the reading thread.
const CAPACITY: usize = 64;

/// The dead letters of a sink route.
#[derive(Debug, Clone)]
pub struct DeadLetterStore {
    pub options: KafkaOptions,
    /// Name of the route.
    pub route: String,
    /// The topic that the sink reads.
    pub input: String,
    /// The consumer group of the sink.
    pub group: String,
    /// The dead-letter topic.
    pub dead_letters: String,
    /// The topic of redrive markers, shared by all routes.
    pub redrives_topic: String,
    /// Transactional id of redrives of this route: a second concurrent redrive fences the first.
    pub transactional_id: String,
    /// For each request to the cluster.
    pub timeout: Duration,
}

impl DeadLetterStore {
    /// Returns the open dead letters, in the order of partition and offset.
    ///
    /// # Errors
    /// The topic is missing, or the cluster does not answer.
    pub async fn open_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        let marked = self.marked_letters().await?;
        let (mut letters, mut done) = (Vec::new(), HashSet::new());
        for partition in 0..self.partitions().await? {
            let mut records = self.records(partition, None);
            while let Some(record) = records.recv().await {
                let record = record?;
                let Some(letter) = self.parse(&record) else { continue };
                // Around a crash, the bridge may write a second dead letter of an event whose first was redriven
                // meanwhile. A recreated topic has the same positions, but not the same timestamps.
                let event = (letter.position, record.header("nowbridge-timestamp").map(str::to_owned));
                if marked.contains(&letter.id) {
                    done.insert(event);
                } else {
                    letters.push((event, letter));
                }
            }
        }
        Ok(letters.into_iter().filter(|(event, _)| !done.contains(event)).map(|(_, letter)| letter).collect())
    }

    /// Returns the records of dead letters, as far as they still exist.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn fetch(
        &self,
        ids: impl IntoIterator<Item = DeadLetterId>,
    ) -> Result<HashMap<DeadLetterId, Record>, Error> {
        let mut wanted: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for id in ids {
            wanted.entry(id.partition).or_default().insert(id.offset);
        }
        let partitions = self.partitions().await?;
        let mut found = HashMap::new();
        for (partition, offsets) in wanted.into_iter().filter(|(partition, _)| *partition < partitions) {
            let mut records = self.records(partition, offsets.last().copied());
            while let Some(record) = records.recv().await {
                let record = record?;
                if offsets.contains(&record.offset) {
                    found.insert(DeadLetterId { partition, offset: record.offset }, record);
                }
            }
        }
        Ok(found)
    }

    /// Returns the number of partitions of the dead-letter topic.
    async fn partitions(&self) -> Result<i32, Error> {
        let found = Topics::new(&self.options, self.timeout).partitions(&self.dead_letters).await?;
        found.ok_or_else(|| Error::NoDeadLetterTopic(self.dead_letters.clone()))
    }

    /// Reads the records of a partition in order, up to and including offset `last`, or to its end. An error is the
    /// last item.
    fn records(&self, partition: i32, last: Option<i64>) -> mpsc::Receiver<Result<Record, Error>> {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let (options, request) = (self.options.clone(), self.table_read(&self.dead_letters, partition, last));
        tokio::task::spawn_blocking(move || {
            // Sending fails if the receiver was dropped, which needs no more records.
            let read = table::read_records(&options, &request, &mut |record| drop(sender.blocking_send(Ok(record))));
            if let Err(error) = read {
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        receiver
    }

    /// Parses the headers of a dead letter; `None` if the record is not a dead letter of this route.
    pub(super) fn parse(&self, record: &Record) -> Option<DeadLetter> {
        let text = |name: &str| record.header(name).map(str::to_owned);
        if record.header("nowbridge-route") != Some(self.route.as_str()) {
            return None;
        }
        let position = codec::parse_position(record.header("nowbridge-position")?)?;
        Some(DeadLetter {
            id: DeadLetterId { partition: record.partition, offset: record.offset },
            code: text("nowbridge-code")?,
            reason: text("nowbridge-reason").unwrap_or_default(),
            key: text("nowbridge-key"),
            position,
            original: codec::original_position(record).and_then(codec::parse_position).unwrap_or(position),
            origin: codec::origin(record).map(str::to_owned),
            time: record.timestamp.unwrap_or_default(),
            redrives: codec::redrive_count(record),
            bytes: record.size(),
        })
    }

    /// Returns the dead letters of this route that have a redrive marker.
    async fn marked_letters(&self) -> Result<HashSet<DeadLetterId>, Error> {
        if Topics::new(&self.options, self.timeout).partitions(&self.redrives_topic).await?.is_none() {
            return Ok(HashSet::new());
        }
        let (options, request) = (self.options.clone(), self.table_read(&self.redrives_topic, 0, None));
        let prefix = format!("{}:", self.route);
        let read = tokio::task::spawn_blocking(move || {
            let mut marked = HashSet::new();
            table::read(&options, &request, &mut |record| {
                let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
                let Some(id) = key.and_then(|key| key.strip_prefix(&prefix)?.parse::<DeadLetterId>().ok()) else {
                    return;
                };
                if record.value.is_some() {
                    marked.insert(id)
                } else {
                    marked.remove(&id)
                };
            })?;
            Ok::<_, Error>(marked)
        });
        read.await.map_err(|_| Error::TaskAborted("reading the redrive markers"))?
    }

    /// Returns the redrive marker of a dead letter. `status` is `redriven` or `discarded`.
    pub(super) fn redrive_marker(&self, id: DeadLetterId, status: &str, run: RedriveId, now: &str) -> ProduceRequest {
        let value = serde_json::json!({ "status": status, "redrive": run.to_string(), "time": now });
        ProduceRequest {
            topic: self.redrives_topic.as_str().into(),
            partition: Some(0),
            key: Some(format!("{}:{id}", self.route).into_bytes()),
            value: Some(value.to_string().into_bytes()),
            headers: Vec::new(),
            tag: 0,
        }
    }

    fn table_read(&self, topic: &str, partition: i32, last: Option<i64>) -> TableRead {
        TableRead {
            topic: Arc::from(topic),
            partition,
            isolation: Isolation::Committed,
            stop_at: last.map_or(StopAt::End, StopAt::Including),
            group: self.group.clone(),
            idle_timeout: self.timeout,
        }
    }
}
