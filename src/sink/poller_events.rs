//! Turns events of the poller and the committer into the engine's events, and blocks partitions that cannot be read.

use super::driver::Driver;
use super::route::Error;
use super::status::{BlockedPartition, KafkaError};
use crate::engine::event::{Effect, Event};
use crate::kafka::PollerEvent;
use crate::mapping::map_record;
use crate::runtime::clock;
use crate::runtime::metrics;

impl Driver {
    /// Handles an event of the poller or the committer.
    ///
    /// # Errors
    /// The poller has ended.
    pub fn handle_poller_event(&mut self, event: PollerEvent, effects: &mut Vec<Effect>) -> Result<(), Error> {
        match event {
            PollerEvent::Record { epoch, record } => {
                if !self.awaiting_fetch.contains(&record.partition) {
                    let partition = record.partition;
                    metrics::received(&self.route.name, 1);
                    let record = map_record(&self.route.mapping, record);
                    self.apply(Event::Received { partition, epoch, record }, effects);
                }
            }
            PollerEvent::Fetching { partition, epoch, .. } => {
                if self.epochs.get(&partition) == Some(&epoch) {
                    self.awaiting_fetch.remove(&partition);
                }
            }
            PollerEvent::Committed { partition, epoch, sent_at, offset } => {
                self.apply(Event::Committed { partition, epoch, sent_at, offset }, effects);
            }
            PollerEvent::Assigned { partition, epoch } => {
                tracing::info!(route = %self.route.name, partition, "partition assigned");
                self.epochs.insert(partition, epoch);
                self.awaiting_fetch.insert(partition);
                self.status.update(|s| s.started = true);
                self.apply(Event::Assigned { partition, epoch }, effects);
            }
            PollerEvent::Revoked { partition, epoch } => {
                tracing::info!(route = %self.route.name, partition, "partition revoked");
                self.clear_partition(partition);
                self.apply(Event::Revoked { partition, epoch }, effects);
            }
            PollerEvent::Lost { partition, epoch } => {
                tracing::warn!(route = %self.route.name, partition, "partition lost");
                self.clear_partition(partition);
                self.apply(Event::Lost { partition, epoch }, effects);
            }
            PollerEvent::CommitFailed { partition, error, .. } => {
                tracing::debug!(route = %self.route.name, partition, error, "offset commit failed, retrying");
            }
            PollerEvent::Error { partition, error } => {
                tracing::warn!(route = %self.route.name, partition, error, "Kafka error");
                self.status.update(|s| s.kafka_error = Some(KafkaError { message: error, at: clock::mono() }));
            }
            PollerEvent::OutOfRange { partition, wanted, low, high, .. } => {
                let deleted = low.saturating_sub(wanted);
                let reason = format!(
                    "offset {wanted} of {} is out of range ({deleted} records were deleted before they were read; the \
                     partition contains offsets {low} to {high}); set the group's offset with kafka-consumer-groups and \
                     restart the bridge",
                    self.route.topic
                );
                tracing::error!(route = %self.route.name, partition, reason, "partition blocked");
                self.block_partition(partition, reason);
            }
            PollerEvent::Closed => return Err(Error::Ended("poller")),
        }
        Ok(())
    }

    fn block_partition(&self, partition: i32, reason: String) {
        self.status.update(|s| {
            s.blocked_partitions.insert(partition, BlockedPartition { reason });
        });
    }

    fn clear_partition(&mut self, partition: i32) {
        self.epochs.remove(&partition);
        self.status.update(|s| {
            s.blocked_partitions.remove(&partition);
        });
    }
}
