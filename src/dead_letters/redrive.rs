//! One round of a redrive or a drop, and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::selection::Fate;
use super::{Error, Filter, Group, Letter, LetterId, LetterStore, Selection, select};
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

/// How a redrive proceeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A round has begun.
    Started {
        /// Letters of the round.
        letters: usize,
    },
    /// Letters redriven, or discarded, so far in this round.
    Redriven(usize),
    /// The bridge is reading what the round redrove.
    Waiting {
        /// Records of the input that it has yet to read until the end of the round.
        records: i64,
    },
    /// A round has ended.
    Ended(Outcome),
}

/// Limits of a redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// Letters per second.
    pub rate: u32,
    /// Keys of which a letter was redriven this often already are left out.
    pub max_redrives: u32,
    /// Rounds, at most.
    pub rounds: u32,
    /// Without progress of the bridge for this long, the redrive fails.
    pub timeout: Duration,
}

/// Result of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Letters redriven, or discarded.
    pub letters: usize,
    /// Of them, letters without a key.
    pub keyless: usize,
    /// Keys without open letters.
    pub released: Vec<String>,
    /// Keys whose letters were rejected again, with the reason.
    pub refused: Vec<(String, String)>,
    /// Keys of which newer events arrived meanwhile: the next round redrives them.
    pub behind: Vec<String>,
    /// The open letters of those keys.
    pub newer: Vec<Letter>,
}

impl LetterStore {
    /// Redrives the selection, and in further rounds the newer letters of its keys. False where letters were rejected
    /// again.
    ///
    /// # Errors
    /// The bridge makes no progress, newer letters still arrive after the last round, or the cluster does not answer.
    /// Letters that were redriven stay redriven; the same command continues.
    pub async fn redrive(
        &self,
        mut selection: Selection,
        limits: &Rounds,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<bool, Error> {
        let mut well = true;
        for _ in 0..limits.rounds {
            report(Progress::Started { letters: selection.len() });
            let id = RedriveId(fastrand::u64(..));
            let letters = self.put_back(&selection, id, limits.rate, report).await?;
            if !self.await_bridge(limits.timeout, report).await? {
                return Err(Error::NoProgress { letters, seconds: limits.timeout.as_secs() });
            }
            let outcome = self.outcome(&selection, letters).await?;
            report(Progress::Ended(outcome.clone()));
            well &= outcome.refused.is_empty();
            if outcome.behind.is_empty() {
                return Ok(well);
            }
            selection = select(&outcome.newer, &Filter::default(), limits.max_redrives);
        }
        Err(Error::NewerLetters { rounds: limits.rounds })
    }

    /// Puts the chosen letters back, at most `rate` a second, each key's release behind them.
    ///
    /// # Errors
    /// What was committed before it stands; the same command goes on from there.
    async fn put_back(
        &self,
        selection: &Selection,
        id: RedriveId,
        rate: u32,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<usize, Error> {
        self.go_through(selection, HttpMethod::Redrive, id, rate, report).await
    }

    /// Drops the chosen letters: they stay in the topic until its retention ends, and no redrive takes them. Their keys
    /// are released.
    ///
    /// # Errors
    /// What was committed before it stands; the same command goes on from there.
    pub async fn discard(
        &self,
        selection: &Selection,
        id: RedriveId,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<usize, Error> {
        self.go_through(selection, HttpMethod::Discard, id, u32::MAX, report).await
    }

    async fn go_through(
        &self,
        selection: &Selection,
        verb: HttpMethod,
        id: RedriveId,
        rate: u32,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<usize, Error> {
        let partitions = Topics::new(&self.options, self.timeout).partitions(&self.input).await?.unwrap_or(0);
        let producer = TransactionalProducer::init(&self.options, &self.transactional_id, self.timeout * 4).await?;
        let round = Round { store: self, verb, id, partitions };
        let most = usize::try_from(rate).unwrap_or(usize::MAX).clamp(1, BATCH);
        let began = Instant::now();
        let mut done = 0;
        let mut groups = selection.groups.as_slice();
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
                report(Progress::Redriven(done));
                let due = f64::from(u32::try_from(done).unwrap_or(u32::MAX)) / f64::from(rate);
                tokio::time::sleep(Duration::from_secs_f64(due).saturating_sub(began.elapsed())).await;
            }
        }
        Ok(done)
    }

    /// Waits until the bridge has come to the present end of the input, as long as it comes nearer within `timeout_of_bridge`.
    /// False where it does not.
    ///
    /// # Errors
    /// The cluster does not answer.
    async fn await_bridge(
        &self,
        timeout_of_bridge: Duration,
        report: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<bool, Error> {
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
            report(Progress::Waiting { records: left });
            if left == 0 {
                return Ok(true);
            }
            if left < least {
                (least, nearer) = (left, Instant::now());
            } else if nearer.elapsed() > timeout_of_bridge {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What came of a round that put these letters back, now that the bridge has come to its end.
    ///
    /// # Errors
    /// The cluster does not answer.
    async fn outcome(&self, selection: &Selection, letters: usize) -> Result<Outcome, Error> {
        let mut open: BTreeMap<String, Vec<Letter>> = BTreeMap::new();
        for letter in self.open_letters().await? {
            if let Some(key) = letter.key.clone() {
                open.entry(key).or_default().push(letter);
            }
        }
        let keyless = selection.groups.len() - selection.keys().count();
        let mut outcome = Outcome { letters, keyless, ..Outcome::default() };
        for key in selection.keys().map(str::to_owned) {
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
enum HttpMethod {
    Redrive,
    Discard,
}

/// A round under way.
struct Round<'a> {
    store: &'a LetterStore,
    verb: HttpMethod,
    id: RedriveId,
    /// Partitions of the input.
    partitions: i32,
}

impl Round<'_> {
    /// What is to be produced for the letters of a key, marks included; all of it goes in one transaction.
    fn go(
        &self,
        group: &Group,
        records: &HashMap<LetterId, Record>,
        out: &mut Vec<ProduceRequest>,
    ) -> Result<(), Error> {
        let now = jiff::Timestamp::now().to_string();
        let what = if self.verb == HttpMethod::Redrive { "redriven" } else { "dropped" };
        let mut last = None;
        for (place, fate) in &group.letters {
            // Retention may have taken it since it was chosen.
            let Some(record) = records.get(place) else { continue };
            let Some(letter) = self.store.letter(record) else { continue };
            let partition = letter.position.partition;
            if partition >= self.partitions && self.verb == HttpMethod::Redrive {
                let (place, topic, partitions) = (*place, self.store.input.clone(), self.partitions);
                return Err(Error::NoPartition { place, partition, topic, partitions });
            }
            if self.verb == HttpMethod::Redrive && *fate == Fate::Again {
                let headers = codec::redrive_headers(record, self.id, letter.position);
                out.push(self.to_input(partition, record.key.clone(), record.value.clone(), headers));
            }
            out.push(self.store.mark(*place, what, self.id, &now));
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
        let topic = self.store.input.as_str().into();
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
