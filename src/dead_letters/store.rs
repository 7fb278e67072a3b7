//! A route's dead letters as they lie in Kafka, and the marks that say which of them are done with.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Error, Letter, LetterId};
use crate::codec;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, TableRead, Until};
use crate::kafka::topics::Topics;
use crate::kafka::{KafkaOptions, ProduceRequest};
use crate::model::{Record, RedriveId};

/// Whole records on their way from the reading thread.
const AHEAD: usize = 64;

/// The shelf of one route.
#[derive(Debug, Clone)]
pub struct LetterStore {
    /// How Kafka is reached.
    pub options: KafkaOptions,
    /// Name of the sink route.
    pub route: String,
    /// Its input topic.
    pub input: String,
    /// Its consumer group.
    pub group: String,
    /// Its dead-letter topic.
    pub dead_letters: String,
    /// The topic of marks, shared by all routes.
    pub marks: String,
    /// Transactional id of redrives of this route: a second one at the same time ends the first.
    pub transactional_id: String,
    /// For each call to the cluster.
    pub timeout: Duration,
}

impl LetterStore {
    /// The open letters, by partition and offset.
    ///
    /// # Errors
    /// The topic is missing, or the cluster does not answer.
    pub async fn open_letters(&self) -> Result<Vec<Letter>, Error> {
        let marked = self.marked().await?;
        let (mut letters, mut done) = (Vec::new(), HashSet::new());
        for partition in 0..self.partitions().await? {
            let mut records = self.records(partition, None);
            while let Some(record) = records.recv().await {
                let record = record?;
                let Some(letter) = self.letter(&record) else { continue };
                // Around a crash the bridge may write a second letter of an event whose first was put back meanwhile.
                // A topic that was made anew has the same positions, but not the same times.
                let event = (letter.position, record.header("nowbridge-timestamp").map(str::to_owned));
                if marked.contains(&letter.place) {
                    done.insert(event);
                } else {
                    letters.push((event, letter));
                }
            }
        }
        Ok(letters.into_iter().filter(|(event, _)| !done.contains(event)).map(|(_, letter)| letter).collect())
    }

    /// The whole records of these letters, as far as they are there still.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn fetch(&self, places: impl IntoIterator<Item = LetterId>) -> Result<HashMap<LetterId, Record>, Error> {
        let mut wanted: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for place in places {
            wanted.entry(place.partition).or_default().insert(place.offset);
        }
        let partitions = self.partitions().await?;
        let mut found = HashMap::new();
        for (partition, offsets) in wanted.into_iter().filter(|(partition, _)| *partition < partitions) {
            let mut records = self.records(partition, offsets.last().copied());
            while let Some(record) = records.recv().await {
                let record = record?;
                if offsets.contains(&record.offset) {
                    found.insert(LetterId { partition, offset: record.offset }, record);
                }
            }
        }
        Ok(found)
    }

    /// Partitions of the dead-letter topic.
    async fn partitions(&self) -> Result<i32, Error> {
        let found = Topics::new(&self.options, self.timeout).partitions(&self.dead_letters).await?;
        found.ok_or_else(|| Error::NoShelf(self.dead_letters.clone()))
    }

    /// The records of a partition in order, up to and including `until`; else to its end. An error is the last thing
    /// that comes.
    fn records(&self, partition: i32, until: Option<i64>) -> mpsc::Receiver<Result<Record, Error>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (options, what) = (self.options.clone(), self.read(&self.dead_letters, partition, until));
        tokio::task::spawn_blocking(move || {
            // Whoever does not listen any more needs no records.
            let read = table::read_records(&options, &what, &mut |record| drop(sender.blocking_send(Ok(record))));
            if let Err(error) = read {
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        receiver
    }

    /// What is known of a letter; `None` where the record is none of this route.
    pub(super) fn letter(&self, record: &Record) -> Option<Letter> {
        let text = |name: &str| record.header(name).map(str::to_owned);
        if record.header("nowbridge-route") != Some(self.route.as_str()) {
            return None;
        }
        let position = codec::position(record.header("nowbridge-position")?)?;
        Some(Letter {
            place: LetterId { partition: record.partition, offset: record.offset },
            code: text("nowbridge-code")?,
            reason: text("nowbridge-reason").unwrap_or_default(),
            key: text("nowbridge-key"),
            position,
            original: codec::original(record).and_then(codec::position).unwrap_or(position),
            origin: codec::origin(record).map(str::to_owned),
            time: record.timestamp.unwrap_or_default(),
            redrives: codec::times_redriven(record),
            bytes: record.size(),
        })
    }

    /// Places of this route that are done with.
    async fn marked(&self) -> Result<HashSet<LetterId>, Error> {
        if Topics::new(&self.options, self.timeout).partitions(&self.marks).await?.is_none() {
            return Ok(HashSet::new());
        }
        let (options, what) = (self.options.clone(), self.read(&self.marks, 0, None));
        let route = format!("{}:", self.route);
        let read = tokio::task::spawn_blocking(move || {
            let mut marked = HashSet::new();
            table::read(&options, &what, &mut |record| {
                let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
                let Some(place) = key.and_then(|key| key.strip_prefix(&route)?.parse::<LetterId>().ok()) else {
                    return;
                };
                if record.value.is_some() {
                    marked.insert(place)
                } else {
                    marked.remove(&place)
                };
            })?;
            Ok::<_, Error>(marked)
        });
        read.await.map_err(|_| Error::Cut("reading the marks"))?
    }

    /// The mark of a letter.
    pub(super) fn mark(&self, place: LetterId, what: &str, id: RedriveId, now: &str) -> ProduceRequest {
        let value = serde_json::json!({ "what": what, "redrive": id.to_string(), "time": now });
        ProduceRequest {
            topic: self.marks.as_str().into(),
            partition: Some(0),
            key: Some(format!("{}:{place}", self.route).into_bytes()),
            value: Some(value.to_string().into_bytes()),
            headers: Vec::new(),
            tag: 0,
        }
    }

    fn read(&self, topic: &str, partition: i32, until: Option<i64>) -> TableRead {
        TableRead {
            topic: Arc::from(topic),
            partition,
            isolation: Isolation::Committed,
            until: until.map_or(Until::End, Until::Including),
            group: self.group.clone(),
            patience: self.timeout,
        }
    }
}
