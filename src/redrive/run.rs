//! One round of a redrive or a drop, and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::choice::Fate;
use super::{Choice, Error, Group, Letter, Place, Shelf};
use crate::codec;
use crate::kafka::topics::Topics;
use crate::kafka::{ProduceRequest, TransactionalProducer, table};
use crate::model::record::Header;
use crate::model::{Record, RedriveId};

/// Letters in one transaction.
const BATCH: usize = 200;

/// Letters and bytes whose bodies are held at once. A key whose letters are more goes by itself: all its letters must
/// go in one transaction.
const FETCH: (usize, usize) = (2_000, 16 << 20);

/// Between two looks how far the bridge has come.
const LOOK: Duration = Duration::from_millis(500);

/// How far a round has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many letters are put back, or dropped.
    Done(usize),
    /// The bridge has so many records of the input before it until it has come to the end of the round.
    Waits(i64),
}

/// What came of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Letters put back, or dropped.
    pub letters: usize,
    /// Keys of which nothing is left on the shelf.
    pub released: Vec<String>,
    /// Keys whose letters were refused again, with the reason.
    pub refused: Vec<(String, String)>,
    /// Keys of which newer events came meanwhile: another round takes them.
    pub behind: Vec<String>,
    /// The open letters of those.
    pub newer: Vec<Letter>,
}

impl Shelf {
    /// Puts the chosen letters back, at most `rate` a second, each key's release behind them.
    ///
    /// # Errors
    /// What was committed before it stands; the same command goes on from there.
    pub async fn put_back(
        &self,
        choice: &Choice,
        id: RedriveId,
        rate: u32,
        tell: &mut dyn FnMut(Step),
    ) -> Result<usize, Error> {
        self.go_through(choice, Verb::Redrive, id, rate, tell).await
    }

    /// Drops the chosen letters: they stay in the topic until its retention ends, and no redrive takes them. Their keys
    /// are released.
    ///
    /// # Errors
    /// What was committed before it stands; the same command goes on from there.
    pub async fn drop_letters(
        &self,
        choice: &Choice,
        id: RedriveId,
        tell: &mut dyn FnMut(Step),
    ) -> Result<usize, Error> {
        self.go_through(choice, Verb::Drop, id, u32::MAX, tell).await
    }

    async fn go_through(
        &self,
        choice: &Choice,
        verb: Verb,
        id: RedriveId,
        rate: u32,
        tell: &mut dyn FnMut(Step),
    ) -> Result<usize, Error> {
        let partitions = Topics::new(&self.options, self.timeout).partitions(&self.input).await?.unwrap_or(0);
        let producer = TransactionalProducer::init(&self.options, &self.transactional_id, self.timeout * 4).await?;
        let round = Round { shelf: self, verb, id, partitions };
        let most = usize::try_from(rate).unwrap_or(usize::MAX).clamp(1, BATCH);
        let began = Instant::now();
        let mut done = 0;
        let mut groups = choice.groups.as_slice();
        while !groups.is_empty() {
            let (now, later) = groups.split_at(together(groups, FETCH.0, FETCH.1));
            groups = later;
            let places = now.iter().flat_map(|group| group.letters.iter().map(|(place, _)| *place));
            let records = self.fetch(places).await?;
            let mut left = now;
            while !left.is_empty() {
                let (batch, rest) = left.split_at(together(left, most, usize::MAX));
                left = rest;
                let mut produces = Vec::new();
                for group in batch {
                    round.go(group, &records, &mut produces)?;
                    done += group.letters.len();
                }
                producer.send_all(produces).await?;
                tell(Step::Done(done));
                let due = f64::from(u32::try_from(done).unwrap_or(u32::MAX)) / f64::from(rate);
                tokio::time::sleep(Duration::from_secs_f64(due).saturating_sub(began.elapsed())).await;
            }
        }
        Ok(done)
    }

    /// Waits until the bridge has come to the present end of the input, as long as it comes nearer within `patience`.
    /// False where it does not.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn await_bridge(&self, patience: Duration, tell: &mut dyn FnMut(Step)) -> Result<bool, Error> {
        let partitions = Topics::new(&self.options, self.timeout).partitions(&self.input).await?.unwrap_or(0);
        let (options, input, group, timeout) =
            (self.options.clone(), self.input.clone(), self.group.clone(), self.timeout);
        let look = move || table::progress(&options, &input, partitions, &group, timeout);
        let mut ends: Option<Vec<i64>> = None;
        let (mut least, mut nearer) = (i64::MAX, Instant::now());
        loop {
            let look = look.clone();
            let now = tokio::task::spawn_blocking(look).await.map_err(|_| Error::Cut("a look at the group"))??;
            let ends = ends.get_or_insert_with(|| now.iter().map(|p| p.end).collect());
            // A transaction ends in a marker, which no reader sees and no group commits past; whatever else stands last
            // in a partition is none of ours.
            let left = now.iter().zip(ends).map(|(p, end)| (*end - 1 - p.committed.unwrap_or(0)).max(0)).sum();
            tell(Step::Waits(left));
            if left == 0 {
                return Ok(true);
            }
            if left < least {
                (least, nearer) = (left, Instant::now());
            } else if nearer.elapsed() > patience {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What came of a round that put these letters back, now that the bridge has come to its end.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn outcome(&self, choice: &Choice, letters: usize) -> Result<Outcome, Error> {
        let mut open: BTreeMap<String, Vec<Letter>> = BTreeMap::new();
        for letter in self.open_letters().await? {
            if let Some(key) = letter.key.clone() {
                open.entry(key).or_default().push(letter);
            }
        }
        let mut outcome = Outcome { letters, ..Outcome::default() };
        for key in choice.keys().map(str::to_owned) {
            let of_key = open.remove(&key).unwrap_or_default();
            match of_key.iter().find(|letter| letter.code != "parked" || letter.redrives > 0) {
                _ if of_key.is_empty() => outcome.released.push(key),
                Some(letter) => outcome.refused.push((key, letter.reason.clone())),
                None => {
                    outcome.behind.push(key);
                    outcome.newer.extend(of_key);
                }
            }
        }
        Ok(outcome)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Redrive,
    Drop,
}

/// A round under way.
struct Round<'a> {
    shelf: &'a Shelf,
    verb: Verb,
    id: RedriveId,
    /// Partitions of the input.
    partitions: i32,
}

impl Round<'_> {
    /// What is to be produced for the letters of a key, marks included; all of it goes in one transaction.
    fn go(&self, group: &Group, records: &HashMap<Place, Record>, out: &mut Vec<ProduceRequest>) -> Result<(), Error> {
        let now = jiff::Timestamp::now().to_string();
        let what = if self.verb == Verb::Redrive { "redriven" } else { "dropped" };
        let mut last = None;
        for (place, fate) in &group.letters {
            // Retention may have taken it since it was chosen.
            let Some(record) = records.get(place) else { continue };
            let Some(letter) = self.shelf.letter(record) else { continue };
            let partition = letter.position.partition;
            if partition >= self.partitions && self.verb == Verb::Redrive {
                let (place, topic, partitions) = (*place, self.shelf.input.clone(), self.partitions);
                return Err(Error::NoPartition { place, partition, topic, partitions });
            }
            if self.verb == Verb::Redrive && *fate == Fate::Again {
                let headers = codec::redrive_headers(record, self.id, letter.position);
                out.push(self.to_input(partition, record.key.clone(), record.value.clone(), headers));
            }
            out.push(self.shelf.mark(*place, what, self.id, &now));
            last = Some((partition, record.key.clone()));
        }
        if let (Some(key), Some((partition, record_key))) = (&group.key, last)
            && partition < self.partitions
        {
            let headers = codec::release_headers(key, self.id, group.upto);
            out.push(self.to_input(partition, record_key, None, headers));
        }
        Ok(())
    }

    fn to_input(
        &self,
        partition: i32,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Vec<Header>,
    ) -> ProduceRequest {
        let topic = self.shelf.input.as_str().into();
        ProduceRequest { topic, partition: Some(partition), key, value, headers, tag: 0 }
    }
}

/// How many of the first groups go together: at most so many letters and bytes, but one at least.
fn together(groups: &[Group], letters: usize, bytes: usize) -> usize {
    let (mut count, mut size) = (0, 0);
    let fits = |group: &&Group| {
        count += group.letters.len();
        size += group.bytes;
        count <= letters && size <= bytes
    };
    groups.iter().take_while(fits).count().max(1)
}
