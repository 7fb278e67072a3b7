//! The content of the next transaction, separate for each input partition: if a partition is revoked, its part is
//! dropped, because its next owner reads the same records again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kafka::{ConsumedOffset, ProduceRequest};
use crate::model::{Epoch, Record};

/// Input records per transaction.
const MAX_RECORDS: usize = 2_000;

/// Approximate output bytes per transaction.
const MAX_BYTES: usize = 4 << 20;

/// How long a record waits for others. A transaction takes a few round trips, whatever its size.
const LINGER: Duration = Duration::from_millis(50);

/// The next transaction.
#[derive(Debug, Default)]
pub struct Batch {
    partitions: BTreeMap<i32, PartitionBatch>,
    /// When the first record was added.
    since: Option<Instant>,
}

#[derive(Debug)]
struct PartitionBatch {
    epoch: Epoch,
    /// One above the last input offset.
    next: i64,
    records: usize,
    alerts: usize,
    bytes: usize,
    requests: Vec<ProduceRequest>,
}

/// The content of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The records to write.
    pub requests: Vec<ProduceRequest>,
    pub offsets: Vec<ConsumedOffset>,
    /// Number of input records.
    pub records: u64,
    /// Number of alerts in the input records.
    pub alerts: u64,
}

impl Batch {
    /// Adds an input record. `step` adds its output records and returns its number of alerts.
    pub fn add(
        &mut self,
        epoch: Epoch,
        record: &Record,
        step: impl FnOnce(&Record, &mut Vec<ProduceRequest>) -> usize,
    ) {
        let empty =
            || PartitionBatch { epoch, next: record.offset, records: 0, alerts: 0, bytes: 0, requests: Vec::new() };
        let part = self.partitions.entry(record.partition).or_insert_with(empty);
        if part.epoch != epoch {
            *part = empty();
        }
        let before = part.requests.len();
        part.alerts += step(record, &mut part.requests);
        part.bytes += (part.requests.len() - before).max(1) * record.size();
        part.records += 1;
        part.next = record.offset + 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Lets `finish` add output records after those of each partition.
    pub fn finish(&mut self, mut finish: impl FnMut(i32, &mut Vec<ProduceRequest>)) {
        for (partition, part) in &mut self.partitions {
            finish(*partition, &mut part.requests);
        }
    }

    /// Removes the partitions of which `current_epoch` is not the epoch in which they were read.
    pub fn retain(&mut self, current_epoch: impl Fn(i32) -> Option<Epoch>) {
        self.partitions.retain(|partition, part| current_epoch(*partition) == Some(part.epoch));
        if self.partitions.is_empty() {
            self.since = None;
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.partitions.clear();
        self.since = None;
    }

    /// Whether no more records should be added.
    pub fn is_full(&self) -> bool {
        let sum = |of: fn(&PartitionBatch) -> usize| self.partitions.values().map(of).sum::<usize>();
        sum(|part| part.records) >= MAX_RECORDS || sum(|part| part.bytes) >= MAX_BYTES
    }

    /// Returns how long the batch may still wait for more records; `None` if it is empty.
    pub fn remaining_wait(&self) -> Option<Duration> {
        let since = self.since?;
        Some(if self.is_full() { Duration::ZERO } else { LINGER.saturating_sub(since.elapsed()) })
    }

    /// Returns a copy of the content, for one attempt.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for (&partition, part) in &self.partitions {
            contents.requests.extend(part.requests.iter().cloned());
            contents.offsets.push(ConsumedOffset { partition, epoch: part.epoch, next: part.next });
            contents.records += part.records as u64;
            contents.alerts += part.alerts as u64;
        }
        contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repartition::Partitioner;
    use crate::systems::Decoder;

    fn record(partition: i32, offset: i64) -> Record {
        Record {
            topic: "alerts".into(),
            partition,
            offset,
            key: None,
            value: Some(br#"{"source":"x","key":"k","action":"resolve"}"#.to_vec()),
            headers: Vec::new(),
            timestamp: None,
        }
    }

    fn repartition(record: &Record, out: &mut Vec<ProduceRequest>) -> usize {
        let partitioner =
            Partitioner { decoder: Decoder::Canonical, topic: "inner".into(), partitions: 4, group_by: None };
        partitioner.repartition(record, out)
    }

    fn offset(partition: i32, epoch: u64, next: i64) -> ConsumedOffset {
        ConsumedOffset { partition, epoch: Epoch(epoch), next }
    }

    #[test]
    fn a_revoked_partition_is_dropped_from_the_batch() {
        let mut batch = Batch::default();
        assert_eq!(batch.remaining_wait(), None);
        batch.add(Epoch(1), &record(0, 4), repartition);
        batch.add(Epoch(2), &record(1, 9), repartition);
        batch.add(Epoch(1), &record(0, 7), repartition);
        let contents = batch.contents();
        assert_eq!(contents.offsets, [offset(0, 1, 8), offset(1, 2, 10)]);
        assert_eq!((contents.requests.len(), contents.records, contents.alerts), (3, 3, 3));
        batch.retain(|partition| (partition == 1).then_some(Epoch(2)));
        assert_eq!(batch.contents().offsets, [offset(1, 2, 10)]);
        batch.retain(|_| Some(Epoch(3)));
        assert_eq!((batch.contents(), batch.remaining_wait()), (Contents::default(), None));
    }

    #[test]
    fn records_and_bytes_are_limited() {
        let mut batch = Batch::default();
        for offset in 0..2_000 {
            assert!(!batch.is_full());
            batch.add(Epoch(1), &record(0, offset), repartition);
        }
        assert!(batch.is_full());
        assert_eq!(batch.remaining_wait(), Some(Duration::ZERO));
        batch.clear();
        let big = Record { value: Some(vec![b' '; 5 << 20]), ..record(0, 0) };
        batch.add(Epoch(1), &big, repartition);
        assert!(batch.is_full(), "a record of any size is accepted");
    }
}
