//! What the poller and the committer say, turned into the engine's events; partitions that are held back.

use super::driver::Driver;
use super::route::Error;
use super::status::PartitionStatus;
use crate::engine::event::{Effect, Event};
use crate::kafka::PollerEvent;
use crate::mapping::map_record;
use crate::runtime::clock;
use crate::runtime::metrics;

impl Driver {
    /// Something that the poller or the committer says.
    ///
    /// # Errors
    /// The poller has ended.
    pub fn heard(&mut self, event: PollerEvent, effects: &mut Vec<Effect>) -> Result<(), Error> {
        match event {
            PollerEvent::Record { epoch, record } => {
                if !self.unfetched.contains(&record.partition) {
                    let partition = record.partition;
                    metrics::received(&self.route.name, 1);
                    let record = map_record(&self.route.mapping, record);
                    self.apply(Event::Received { partition, epoch, record }, effects);
                }
            }
            PollerEvent::Fetching { partition, epoch, .. } => {
                if self.epochs.get(&partition) == Some(&epoch) {
                    self.unfetched.remove(&partition);
                }
            }
            PollerEvent::Committed { partition, epoch, sent_at, offset } => {
                self.apply(Event::Committed { partition, epoch, sent_at, offset }, effects);
            }
            PollerEvent::Assigned { partition, epoch } => {
                tracing::info!(route = %self.route.name, partition, "was assigned a partition");
                self.epochs.insert(partition, epoch);
                self.unfetched.insert(partition);
                self.status.update(|s| s.started = true);
                self.apply(Event::Assigned { partition, epoch }, effects);
            }
            PollerEvent::Revoked { partition, epoch } => {
                tracing::info!(route = %self.route.name, partition, "gives a partition back");
                self.forget_held(partition);
                self.apply(Event::Revoked { partition, epoch }, effects);
            }
            PollerEvent::Lost { partition, epoch } => {
                tracing::warn!(route = %self.route.name, partition, "lost a partition");
                self.forget_held(partition);
                self.apply(Event::Lost { partition, epoch }, effects);
            }
            PollerEvent::CommitFailed { partition, what, .. } => {
                tracing::debug!(route = %self.route.name, partition, what, "an offset commit has to be repeated");
            }
            PollerEvent::Trouble { partition, what } => {
                tracing::warn!(route = %self.route.name, partition, what, "kafka is in trouble");
                self.status.update(|s| s.trouble = Some((what, clock::mono())));
            }
            PollerEvent::OutOfRange { partition, wanted, low, high, .. } => {
                let gone = low.saturating_sub(wanted);
                let held = format!(
                    "offset {wanted} of {} is not there any more ({gone} records were deleted before they were read; \
                     the partition holds {low} to {high}); set the group's offset with kafka-consumer-groups and \
                     restart",
                    self.route.topic
                );
                tracing::error!(route = %self.route.name, partition, "{held}");
                self.hold(partition, held);
            }
            PollerEvent::Closed => return Err(Error::Ended("poller")),
        }
        Ok(())
    }

    fn hold(&self, partition: i32, held: String) {
        self.status.update(|s| {
            s.held.insert(partition, PartitionStatus { held });
        });
    }

    fn forget_held(&mut self, partition: i32) {
        self.epochs.remove(&partition);
        self.status.update(|s| {
            s.held.remove(&partition);
        });
    }
}
