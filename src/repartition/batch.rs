//! What goes into the next transaction, kept apart by input partition: a partition that is taken from us takes its part
//! of the batch along, for its next owner reads the same records again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kafka::ProduceRequest;
use crate::model::{Epoch, Record};

/// Records of the input in one transaction.
const RECORDS: usize = 2_000;

/// Bytes of what is written in one transaction, about.
const BYTES: usize = 4 << 20;

/// How long a record waits for others. A transaction costs a few round trips whatever is in it.
const LINGER: Duration = Duration::from_millis(50);

/// The next transaction.
#[derive(Debug, Default)]
pub struct Batch {
    parts: BTreeMap<i32, PartitionBatch>,
    since: Option<Instant>,
}

#[derive(Debug)]
struct PartitionBatch {
    epoch: Epoch,
    next: i64,
    records: usize,
    alerts: usize,
    bytes: usize,
    requests: Vec<ProduceRequest>,
}

/// What a transaction holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// What is written.
    pub requests: Vec<ProduceRequest>,
    /// Partition, epoch, and the offset to go on from.
    pub offsets: Vec<(i32, Epoch, i64)>,
    /// Records read.
    pub records: u64,
    /// Alerts in them.
    pub alerts: u64,
}

impl Batch {
    /// Adds a record; `step` says what becomes of it, and answers how many alerts were in it.
    pub fn add(
        &mut self,
        epoch: Epoch,
        record: &Record,
        step: impl FnOnce(&Record, &mut Vec<ProduceRequest>) -> usize,
    ) {
        let fresh =
            || PartitionBatch { epoch, next: record.offset, records: 0, alerts: 0, bytes: 0, requests: Vec::new() };
        let part = self.parts.entry(record.partition).or_insert_with(fresh);
        if part.epoch != epoch {
            *part = fresh();
        }
        let before = part.requests.len();
        part.alerts += step(record, &mut part.requests);
        part.bytes += (part.requests.len() - before).max(1) * record.size();
        part.records += 1;
        part.next = record.offset + 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Lets `close` add to each partition's part what belongs behind all of its records.
    pub fn close(&mut self, mut close: impl FnMut(i32, &mut Vec<ProduceRequest>)) {
        for (partition, part) in &mut self.parts {
            close(*partition, &mut part.requests);
        }
    }

    /// Takes out what was read in another epoch than the present one of its partition.
    pub fn retain(&mut self, present: impl Fn(i32) -> Option<Epoch>) {
        self.parts.retain(|partition, part| present(*partition) == Some(part.epoch));
        if self.parts.is_empty() {
            self.since = None;
        }
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.since = None;
    }

    /// Whether no more should go in.
    pub fn is_full(&self) -> bool {
        let sum = |of: fn(&PartitionBatch) -> usize| self.parts.values().map(of).sum::<usize>();
        sum(|part| part.records) >= RECORDS || sum(|part| part.bytes) >= BYTES
    }

    /// How long it may wait; `None` where it is empty.
    pub fn waits(&self) -> Option<Duration> {
        let since = self.since?;
        Some(if self.is_full() { Duration::ZERO } else { LINGER.saturating_sub(since.elapsed()) })
    }

    /// A copy of it, for one try.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for (&partition, part) in &self.parts {
            contents.requests.extend(part.requests.iter().cloned());
            contents.offsets.push((partition, part.epoch, part.next));
            contents.records += part.records as u64;
            contents.alerts += part.alerts as u64;
        }
        contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repartition::Spread;
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

    fn spread(record: &Record, out: &mut Vec<ProduceRequest>) -> usize {
        Spread { decoder: Decoder::Canonical, topic: "inner".into(), partitions: 4, group_by: None }.spread(record, out)
    }

    #[test]
    fn a_partition_that_goes_takes_its_part_along() {
        let mut batch = Batch::default();
        assert_eq!(batch.waits(), None);
        batch.add(Epoch(1), &record(0, 4), spread);
        batch.add(Epoch(2), &record(1, 9), spread);
        batch.add(Epoch(1), &record(0, 7), spread);
        let contents = batch.contents();
        assert_eq!(contents.offsets, [(0, Epoch(1), 8), (1, Epoch(2), 10)]);
        assert_eq!((contents.requests.len(), contents.records, contents.alerts), (3, 3, 3));
        batch.retain(|partition| (partition == 1).then_some(Epoch(2)));
        assert_eq!(batch.contents().offsets, [(1, Epoch(2), 10)]);
        batch.retain(|_| Some(Epoch(3)));
        assert_eq!((batch.contents(), batch.waits()), (Contents::default(), None));
    }

    #[test]
    fn it_is_bounded_by_number_and_bytes() {
        let mut batch = Batch::default();
        for offset in 0..2_000 {
            assert!(!batch.is_full());
            batch.add(Epoch(1), &record(0, offset), spread);
        }
        assert!(batch.is_full());
        assert_eq!(batch.waits(), Some(Duration::ZERO));
        batch.clear();
        let big = Record { value: Some(vec![b' '; 5 << 20]), ..record(0, 0) };
        batch.add(Epoch(1), &big, spread);
        assert!(batch.is_full(), "a single record always fits");
    }
}
