//! The offset at which a stage starts a partition: the group's offset, and never another one without a user's decision.
//!
//! A partition without an offset is new, and starts as the configuration says. But if the group has no offsets at all
//! although the internal topic has been written to, its offsets were lost: a new start would repartition everything
//! twice, or skip it. The internal topic is read before the offsets, because a member commits the first offset of a
//! partition before it writes.

use std::time::Duration;

use crate::kafka::{self, KafkaOptions, PollerHandle, table};
use crate::ledger::StartAt;

/// Finds the start offsets of a stage.
#[derive(Clone)]
pub struct StartOffsetLookup {
    pub options: KafkaOptions,
    /// The member of the group.
    pub consumer: PollerHandle,
    /// The topic that is read.
    pub input: String,
    /// The consumer group.
    pub group: String,
    /// The internal topic.
    pub topic: String,
    /// Partitions of the internal topic.
    pub partitions: i32,
    /// Where a new partition starts.
    pub start: StartAt,
    /// For each request.
    pub timeout: Duration,
}

/// Where a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// The group's committed offset.
    Committed(i64),
    /// The partition was never read. The offset must be committed before the first record is read.
    New(i64),
}

/// A partition cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cluster did not answer. Worth a retry.
    #[error("can't determine the start offset")]
    Kafka(#[from] kafka::Error),
    #[error(
        "the group {group} has no offset in {input}, although {topic} has been written to: its offsets were lost (they \
         expire after a week without members). Stop all bridges, set its offsets to the last repartitioned records \
         (the header nowbridge-origin of the last records of {topic} contains them) with `kafka-consumer-groups \
         --group {group} --topic {input} --reset-offsets`, and start again"
    )]
    OffsetsLost { group: String, input: String, topic: String },
    /// The state of the groups was written with another rule.
    #[error(
        "the groups in {state_topic} were made by `group_by: {old_rule}`, but the route has `{new_rule}`: open alerts \
         would be in two groups, and the tickets of the old groups would stay open. Restore the rule, or give the \
         route a new name (and so its own topics) at a time when few alerts are open"
    )]
    RuleChanged { state_topic: String, old_rule: String, new_rule: String },
    #[error("can't read the route's group state in {0}: a newer version or another application wrote it")]
    UnreadableState(String, #[source] crate::repartition::grouping::RowError),
    /// The next record to read does not exist.
    #[error(
        "the next offset of group {group} in {input}/{partition} is {wanted}, which does not exist: the partition \
         contains {low} to {high}, {reason}. Stop all bridges, set the group's offset with `kafka-consumer-groups \
         --group {group} --topic {input}:{partition} --reset-offsets`, and start again"
    )]
    OutOfRange {
        group: String,
        input: String,
        partition: i32,
        /// The group's offset.
        wanted: i64,
        /// First offset that exists.
        low: i64,
        /// One above the last offset.
        high: i64,
        reason: &'static str,
    },
}

impl StartOffsetLookup {
    /// Returns where an assigned partition starts. Blocks.
    pub fn find(&self, partition: i32) -> Result<StartOffset, StartError> {
        let written = table::group_progress(&self.options, &self.topic, self.partitions, &self.group, self.timeout)?;
        // Waits for open transactions that commit it.
        let committed = self.consumer.committed_offset(partition, self.timeout)?;
        let (low, high) = self.consumer.watermarks(partition, self.timeout)?;
        if let Some(wanted) = committed {
            return self.check_range(partition, wanted, low, high).map(StartOffset::Committed);
        }
        if written.iter().any(|progress| progress.end > 0) && !self.group_has_offsets()? {
            let (group, input, topic) = (self.group.clone(), self.input.clone(), self.topic.clone());
            return Err(StartError::OffsetsLost { group, input, topic });
        }
        Ok(StartOffset::New(match self.start {
            StartAt::Earliest => low,
            StartAt::Latest => high,
            StartAt::Time(time) => self.consumer.offset_for_time(partition, time, self.timeout)?,
        }))
    }

    fn group_has_offsets(&self) -> Result<bool, kafka::Error> {
        let partitions = self.consumer.partition_count(self.timeout)?;
        let progress = table::group_progress(&self.options, &self.input, partitions, &self.group, self.timeout)?;
        Ok(progress.iter().any(|progress| progress.committed.is_some()))
    }

    /// Returns `wanted` if it exists or is the end of the partition, else [`StartError::OutOfRange`].
    pub fn check_range(&self, partition: i32, wanted: i64, low: i64, high: i64) -> Result<i64, StartError> {
        if (low..=high).contains(&wanted) {
            return Ok(wanted);
        }
        let reason = if wanted < low {
            "so retention deleted records before they were repartitioned"
        } else {
            "so the topic was recreated"
        };
        let (group, input) = (self.group.clone(), self.input.clone());
        Err(StartError::OutOfRange { group, input, partition, wanted, low, high, reason })
    }
}
