//! Where the re-keying of a partition goes on: at the group's offset, and never anywhere else by itself.
//!
//! A partition without an offset is new, and begins where the configuration says, unless nothing of the group is left
//! while the internal topic has been written to: then its offsets were lost, and beginning anew would re-key everything
//! twice, or skip it. The internal topic is looked at before the offsets, since a member that begins commits where before
//! it writes.

use std::time::Duration;

use crate::kafka::{self, KafkaOptions, PollerHandle, table};
use crate::ledger::StartAt;

/// What is asked.
#[derive(Clone)]
pub struct Look {
    /// The cluster.
    pub options: KafkaOptions,
    /// The group's member.
    pub by: PollerHandle,
    /// The user's topic.
    pub input: String,
    /// The group.
    pub group: String,
    /// The internal topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Where a new partition begins.
    pub start: StartAt,
    /// For each call.
    pub timeout: Duration,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Where the group has come to.
    At(i64),
    /// For the first time, here: to be committed before anything is read.
    New(i64),
}

/// Why a partition is not begun.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The cluster did not answer; worth trying again.
    #[error("can't learn where to begin")]
    Kafka(#[from] kafka::Error),
    /// The group's offsets are gone.
    #[error(
        "the group {group} has no offset in {input}, and {topic} has been written to: its offsets were lost (they expire \
         when a group rests for a week). Stop all bridges, set its offsets to what was re-keyed last (the header \
         nowbridge-origin of the last records of {topic} tells) with `kafka-consumer-groups --group {group} --topic \
         {input} --reset-offsets`, and start again"
    )]
    Lost {
        /// The group.
        group: String,
        /// The user's topic.
        input: String,
        /// The internal topic.
        topic: String,
    },
    /// What is remembered was grouped by another rule.
    #[error(
        "the groups in {table} were made by `group_by: {before}`, and the route says `{now}`: open alerts would be in two \
         groups, and the tickets of the old ones stay open for ever. Take the rule back, or give the route a new name (and \
         with it topics of its own) at a time when few alerts are open"
    )]
    Regrouped {
        /// The table.
        table: String,
        /// The rule of the rows.
        before: String,
        /// The rule of the configuration.
        now: String,
    },
    /// What is remembered can't be read.
    #[error("the table {0} of the route's groups can't be read: a later version has written it, or somebody else")]
    Unreadable(String, #[source] crate::repartition::grouping::RowError),
    /// What is to be read next is not there.
    #[error(
        "offset {wanted} of {input}/{partition}, which the group {group} is to read next, is not there: the partition \
         holds {low} to {high}, {why}. Stop all bridges, set the group's offset with `kafka-consumer-groups --group \
         {group} --topic {input}:{partition} --reset-offsets`, and start again"
    )]
    OutOfRange {
        /// The group.
        group: String,
        /// The user's topic.
        input: String,
        /// The partition.
        partition: i32,
        /// The group's offset.
        wanted: i64,
        /// First offset that exists.
        low: i64,
        /// One above the last.
        high: i64,
        /// What has happened.
        why: &'static str,
    },
}

impl Look {
    /// Where to begin with a partition that is ours. Blocks.
    pub fn begin(&self, partition: i32) -> Result<Begin, Refusal> {
        let written = table::progress(&self.options, &self.topic, self.partitions, &self.group, self.timeout)?;
        // Waits until transactions that commit it are settled.
        let committed = self.by.committed_offset(partition, self.timeout)?;
        let (low, high) = self.by.watermarks(partition, self.timeout)?;
        if let Some(wanted) = committed {
            return self.judge(partition, wanted, low, high).map(Begin::At);
        }
        if written.iter().any(|one| one.end > 0) && !self.group_is_known()? {
            let (group, input, topic) = (self.group.clone(), self.input.clone(), self.topic.clone());
            return Err(Refusal::Lost { group, input, topic });
        }
        Ok(Begin::New(match self.start {
            StartAt::Earliest => low,
            StartAt::Latest => high,
            StartAt::Time(time) => self.by.offset_for_time(partition, time, self.timeout)?,
        }))
    }

    fn group_is_known(&self) -> Result<bool, kafka::Error> {
        let count = self.by.partition_count(self.timeout)?;
        let all = table::progress(&self.options, &self.input, count, &self.group, self.timeout)?;
        Ok(all.iter().any(|one| one.committed.is_some()))
    }

    /// The offset to go on from, if it is there; else why not.
    pub fn judge(&self, partition: i32, wanted: i64, low: i64, high: i64) -> Result<i64, Refusal> {
        if (low..=high).contains(&wanted) {
            return Ok(wanted);
        }
        let why = if wanted < low {
            "so records were deleted by age or size before they were re-keyed"
        } else {
            "so the topic was made anew"
        };
        let (group, input) = (self.group.clone(), self.input.clone());
        Err(Refusal::OutOfRange { group, input, partition, wanted, low, high, why })
    }
}
