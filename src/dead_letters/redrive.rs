//! Rounds of a redrive, discarding, and their outcome.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::{DeadLetter, DeadLetterGroup, DeadLetterId, DeadLetterStore, Error, Filter, Selection, select};
use crate::codec;
use crate::kafka::topics::Topics;
use crate::kafka::{ProduceRequest, TransactionalProducer, table};
use crate::model::record::Header;
use crate::model::{Record, RedriveId};

/// Dead letters per transaction.
const BATCH: usize = 200;

/// Dead letters, and bytes, that are in memory at once. A key with more of them is processed alone, because all its
/// dead letters must be in one transaction.
const MAX_FETCHED: usize = 2_000;
const MAX_FETCHED_BYTES: usize = 16 << 20;

/// How often the progress of the bridge is read.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How a redrive proceeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveProgress {
    /// A round has started.
    Started {
        /// Dead letters of the round.
        letters: usize,
    },
    /// Dead letters redriven, or discarded, so far in this round.
    Redriven(usize),
    /// The bridge is reading the redriven records of the round.
    Waiting {
        /// Records of the input that it has yet to read until the end of the round.
        records: i64,
    },
    /// A round has ended.
    Ended(RoundOutcome),
}

/// Limits of a redrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedriveLimits {
    /// Dead letters per second.
    pub rate: u32,
    /// Keys with a dead letter that was already redriven this many times are left out.
    pub max_redrives: u32,
    /// Rounds, at most.
    pub rounds: u32,
    /// Without progress of the bridge for this long, the redrive fails.
    pub timeout: Duration,
}

/// The outcome of a round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoundOutcome {
    /// Dead letters redriven, or discarded.
    pub letters: usize,
    /// Of them, those without a key.
    pub keyless: usize,
    /// Keys without open dead letters.
    pub released: Vec<String>,
    /// Keys whose dead letters were rejected again, with the reason.
    pub rejected: Vec<(String, String)>,
    /// Keys of which newer events arrived meanwhile: the next round redrives them.
    pub keys_with_newer: Vec<String>,
    /// The open dead letters of those keys.
    pub newer: Vec<DeadLetter>,
}

impl DeadLetterStore {
    /// Redrives the selection, and in further rounds the newer dead letters of its keys. False if dead letters were
    /// rejected again.
    ///
    /// # Errors
    /// The bridge makes no progress, newer dead letters still arrive after the last round, or the cluster does not
    /// answer. Redriven dead letters stay redriven; the same command continues.
    pub async fn redrive(
        &self,
        mut selection: Selection,
        limits: &RedriveLimits,
        report: &mut (dyn FnMut(RedriveProgress) + Send),
    ) -> Result<bool, Error> {
        let mut all_accepted = true;
        for _ in 0..limits.rounds {
            report(RedriveProgress::Started { letters: selection.len() });
            let letters = self.redrive_round(&selection, limits.rate, report).await?;
            if !self.wait_for_bridge(limits.timeout, report).await? {
                return Err(Error::NoProgress { letters, seconds: limits.timeout.as_secs() });
            }
            let outcome = self.outcome(&selection, letters).await?;
            report(RedriveProgress::Ended(outcome.clone()));
            all_accepted &= outcome.rejected.is_empty();
            if outcome.keys_with_newer.is_empty() {
                return Ok(all_accepted);
            }
            selection = select(&outcome.newer, &Filter::default(), limits.max_redrives);
        }
        Err(Error::NewerLetters { rounds: limits.rounds })
    }

    /// Redrives the selected dead letters, at most `rate` per second. Those of each key are followed by the key's
    /// release.
    ///
    /// # Errors
    /// The cluster does not answer. Committed transactions stay committed; the same command continues.
    async fn redrive_round(
        &self,
        selection: &Selection,
        rate: u32,
        report: &mut (dyn FnMut(RedriveProgress) + Send),
    ) -> Result<usize, Error> {
        self.process(selection, Operation::Redrive, rate, report).await
    }

    /// Discards the selected dead letters: they stay in the topic until its retention ends, and no redrive selects
    /// them. Their keys are released.
    ///
    /// # Errors
    /// The cluster does not answer. Committed transactions stay committed; the same command continues.
    pub async fn discard(
        &self,
        selection: &Selection,
        report: &mut (dyn FnMut(RedriveProgress) + Send),
    ) -> Result<usize, Error> {
        self.process(selection, Operation::Discard, u32::MAX, report).await
    }

    async fn process(
        &self,
        selection: &Selection,
        operation: Operation,
        rate: u32,
        report: &mut (dyn FnMut(RedriveProgress) + Send),
    ) -> Result<usize, Error> {
        let partitions = Topics::new(&self.options, self.timeout).partitions(&self.input).await?.unwrap_or(0);
        let producer = TransactionalProducer::init(&self.options, &self.transactional_id, self.timeout * 4).await?;
        let round = Round { store: self, operation, id: RedriveId(fastrand::u64(..)), partitions };
        let max_batch = usize::try_from(rate).unwrap_or(usize::MAX).clamp(1, BATCH);
        let started = Instant::now();
        let mut done = 0;
        let mut groups = selection.groups.as_slice();
        while !groups.is_empty() {
            let (fetched, rest) = groups.split_at(batch_len(groups, MAX_FETCHED, MAX_FETCHED_BYTES));
            groups = rest;
            let ids = fetched.iter().flat_map(|group| group.letters.iter().map(|letter| letter.id));
            let records = self.fetch(ids).await?;
            let mut remaining = fetched;
            while !remaining.is_empty() {
                let (batch, rest) = remaining.split_at(batch_len(remaining, max_batch, usize::MAX));
                remaining = rest;
                let mut requests = Vec::new();
                for group in batch {
                    round.add_requests(group, &records, &mut requests)?;
                    done += group.letters.len();
                }
                producer.send_all(requests).await?;
                report(RedriveProgress::Redriven(done));
                let due = f64::from(u32::try_from(done).unwrap_or(u32::MAX)) / f64::from(rate);
                tokio::time::sleep(Duration::from_secs_f64(due).saturating_sub(started.elapsed())).await;
            }
        }
        Ok(done)
    }

    /// Waits until the bridge has read the input up to its current end. False if the bridge made no progress for
    /// `timeout`.
    ///
    /// # Errors
    /// The cluster does not answer.
    async fn wait_for_bridge(
        &self,
        timeout: Duration,
        report: &mut (dyn FnMut(RedriveProgress) + Send),
    ) -> Result<bool, Error> {
        let partitions = Topics::new(&self.options, self.timeout).partitions(&self.input).await?.unwrap_or(0);
        let (options, input, group, kafka_timeout) =
            (self.options.clone(), self.input.clone(), self.group.clone(), self.timeout);
        let read_progress = move || table::group_progress(&options, &input, partitions, &group, kafka_timeout);
        let mut ends: Option<Vec<i64>> = None;
        let (mut lowest, mut progressed_at) = (i64::MAX, Instant::now());
        loop {
            let read = tokio::task::spawn_blocking(read_progress.clone()).await;
            let progress = read.map_err(|_| Error::TaskAborted("reading the group's offsets"))??;
            let ends = ends.get_or_insert_with(|| progress.iter().map(|p| p.end).collect());
            // A transaction ends with a marker, which no reader sees and past which no group commits. If another record
            // is the last one of a partition, it is not one of the redrive.
            let remaining =
                progress.iter().zip(ends).map(|(p, end)| (*end - 1 - p.committed.unwrap_or(0)).max(0)).sum();
            report(RedriveProgress::Waiting { records: remaining });
            if remaining == 0 {
                return Ok(true);
            }
            if remaining < lowest {
                (lowest, progressed_at) = (remaining, Instant::now());
            } else if progressed_at.elapsed() > timeout {
                return Ok(false);
            }
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
    }

    /// Returns the outcome of a round that redrove these dead letters, after the bridge has read them.
    ///
    /// # Errors
    /// The cluster does not answer.
    async fn outcome(&self, selection: &Selection, letters: usize) -> Result<RoundOutcome, Error> {
        let mut open: BTreeMap<String, Vec<DeadLetter>> = BTreeMap::new();
        for letter in self.open_letters().await? {
            if let Some(key) = letter.key.clone() {
                open.entry(key).or_default().push(letter);
            }
        }
        let mut outcome = RoundOutcome { letters, keyless: selection.keyless(), ..RoundOutcome::default() };
        for key in selection.keys().map(str::to_owned) {
            let of_key = open.remove(&key).unwrap_or_default();
            match of_key.iter().find(|letter| letter.code != "parked" || letter.redrives > 0) {
                _ if of_key.is_empty() => outcome.released.push(key),
                Some(letter) => outcome.rejected.push((key, letter.reason.clone())),
                None => {
                    outcome.keys_with_newer.push(key);
                    outcome.newer.extend(of_key);
                }
            }
        }
        Ok(outcome)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Redrive,
    Discard,
}

/// A round in progress.
struct Round<'a> {
    store: &'a DeadLetterStore,
    operation: Operation,
    id: RedriveId,
    /// Partitions of the input.
    partitions: i32,
}

impl Round<'_> {
    /// Adds the records to write for the dead letters of a key, redrive markers included. All of them must be in one
    /// transaction.
    fn add_requests(
        &self,
        group: &DeadLetterGroup,
        records: &HashMap<DeadLetterId, Record>,
        out: &mut Vec<ProduceRequest>,
    ) -> Result<(), Error> {
        let now = jiff::Timestamp::now().to_string();
        let status = if self.operation == Operation::Redrive { "redriven" } else { "discarded" };
        let mut last = None;
        for selected in &group.letters {
            let id = selected.id;
            // Retention may have deleted it since it was selected.
            let Some(record) = records.get(&id) else { continue };
            let Some(letter) = self.store.parse(record) else { continue };
            let partition = letter.position.partition;
            if partition >= self.partitions && self.operation == Operation::Redrive {
                let (topic, partitions) = (self.store.input.clone(), self.partitions);
                return Err(Error::NoPartition { id, partition, topic, partitions });
            }
            if self.operation == Operation::Redrive && !selected.is_duplicate {
                let headers = codec::redrive_headers(record, self.id, letter.position);
                out.push(self.to_input(partition, record.key.clone(), record.value.clone(), headers));
            }
            out.push(self.store.redrive_marker(id, status, self.id, &now));
            last = Some((partition, record.key.clone()));
        }
        if let (Some(key), Some((partition, record_key))) = (&group.key, last)
            && partition < self.partitions
        {
            let headers = codec::release_headers(key, self.id, group.newest);
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

/// Returns how many of the first groups fit in a batch of so many dead letters and bytes; at least one.
fn batch_len(groups: &[DeadLetterGroup], max_letters: usize, max_bytes: usize) -> usize {
    let (mut letters, mut bytes) = (0, 0);
    let fits = |group: &&DeadLetterGroup| {
        letters += group.letters.len();
        bytes += group.bytes;
        letters <= max_letters && bytes <= max_bytes
    };
    groups.iter().take_while(fits).count().max(1)
}
