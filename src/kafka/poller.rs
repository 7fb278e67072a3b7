//! The interface of the poller: its settings, its events, and its handle. The thread itself is in `poll_loop`, the
//! thread that commits offsets in `committer`.
//!
//! One operating system thread owns the group's consumer, because a rebalance callback must be able to block: a revoked
//! partition is released only after its work is finished and its last offset is committed, or after the drain deadline.
//!
//! Guarantees: events of a partition are in order; no record of a partition is sent before `fetch`, below the requested
//! offset, or with an epoch other than the partition's. Not guaranteed: that the partition is still assigned when the
//! event is read; [`PollerHandle::epoch_of`] and the lease are for that.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as threads};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::committer::Committer;
use super::event_channel::EventChannel;
use super::ownership::Ownership;
use super::rebalance::{Command, Context, Shared};
use super::{ConsumedOffset, Error, KafkaOptions, lookups, poll_loop};
use crate::model::{Epoch, Record};
use crate::runtime::clock;

/// Settings of a poller.
#[derive(Debug, Clone)]
pub struct PollerSettings {
    pub options: KafkaOptions,
    pub topic: Arc<str>,
    pub group: String,
    /// `group.instance.id` (static membership): a restarted member with this id gets its partitions without a
    /// rebalance.
    pub instance_id: Option<String>,
    /// `session.timeout.ms`.
    pub session_timeout: Duration,
    /// `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
    /// How long the rebalance callback waits until a revoked partition is released; the final commit takes longer.
    pub drain_timeout: Duration,
    /// Unread records in the channel at which fetching pauses.
    pub capacity: usize,
}

impl PollerSettings {
    /// Settings with Kafka's default timeouts and a drain timeout of 3 s.
    pub fn new(options: &KafkaOptions, topic: &str, group: &str) -> Self {
        Self {
            options: options.clone(),
            topic: topic.into(),
            group: group.into(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            max_poll_interval: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(3),
            capacity: 4096,
        }
    }
}

/// An event of the consumer.
#[derive(Debug, Clone, PartialEq)]
pub enum PollerEvent {
    /// A partition was assigned. Nothing is fetched from it until [`PollerHandle::fetch`].
    Assigned {
        partition: i32,
        /// Its new epoch, higher than all earlier epochs of all partitions.
        epoch: Epoch,
    },
    /// A partition is being revoked; the thread waits for [`PollerHandle::release`].
    Revoked {
        partition: i32,
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// A partition was lost: another member may own it already.
    Lost {
        partition: i32,
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// A record. Offsets increase within a partition and epoch, except after another `fetch`.
    Record {
        /// The epoch in which it was fetched.
        epoch: Epoch,
        record: Record,
    },
    /// The following records of this partition belong to the last `fetch`; earlier ones may belong to an older `fetch`.
    Fetching {
        partition: i32,
        epoch: Epoch,
        /// The offset of the `fetch`.
        from: i64,
    },
    /// The coordinator accepted an offset commit of the partition's current epoch.
    Committed {
        partition: i32,
        /// The epoch stamped when it was sent.
        epoch: Epoch,
        /// When it was sent, on the monotonic clock.
        sent_at: u64,
        offset: i64,
    },
    /// An offset commit failed, for another reason than a rebalance. It is retried.
    CommitFailed {
        partition: i32,
        /// The epoch stamped when it was sent.
        epoch: Epoch,
        error: String,
    },
    /// The consumer reported an error. Nothing is lost, and the poller continues.
    Error {
        /// The partition, if the error concerns a single one.
        partition: Option<i32>,
        error: String,
    },
    /// The next offset does not exist any more (retention), or not yet (the topic was recreated). Nothing more is
    /// fetched from this partition until [`PollerHandle::fetch`] is called again.
    OutOfRange {
        partition: i32,
        epoch: Epoch,
        /// The requested offset.
        wanted: i64,
        /// First offset that exists.
        low: i64,
        /// One above the last offset.
        high: i64,
    },
    /// The thread has ended. This is the last event.
    Closed,
}

/// Starts the thread.
pub struct Poller;

impl Poller {
    /// Subscribes to the topic and starts the thread. Returns its handle and its events.
    pub fn spawn(settings: PollerSettings) -> Result<(PollerHandle, mpsc::Receiver<PollerEvent>), Error> {
        check(&settings)?;
        let (channel, events) = EventChannel::new(settings.capacity);
        let (commands, inbox) = threads::channel();
        let mut config =
            settings.options.group_consumer(&settings.group, settings.session_timeout, settings.max_poll_interval);
        if let Some(id) = &settings.instance_id {
            config.set("group.instance.id", id);
        }
        let topic = Arc::clone(&settings.topic);
        let session_timeout = settings.session_timeout;
        let shared = Arc::new(Shared::new(settings, channel));
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context::new(Arc::clone(&shared), inbox))
            .map_err(|error| Error::call(format!("can't create a consumer for {topic}"), error))?;
        let consumer = Arc::new(consumer);
        consumer.subscribe(&[&topic]).map_err(|error| Error::call(format!("can't subscribe to {topic}"), error))?;
        Committer::start(Arc::clone(&consumer), Arc::clone(&shared), session_timeout)?;
        poll_loop::start(Arc::clone(&consumer), Arc::clone(&shared))?;
        Ok((PollerHandle { inner: Arc::new(Inner { consumer, shared, commands, topic }) }, events))
    }
}

/// Rejects combinations that librdkafka accepts and that break a guarantee.
fn check(settings: &PollerSettings) -> Result<(), Error> {
    let invalid = |name: &str, reason: &str| Err(Error::Property { name: name.into(), reason: reason.into() });
    if settings.session_timeout >= settings.max_poll_interval {
        return invalid("session.timeout.ms", "it must be below max.poll.interval.ms");
    }
    if settings.drain_timeout + Duration::from_secs(2) >= settings.max_poll_interval {
        return invalid("max.poll.interval.ms", "it must be more than two seconds above the drain timeout");
    }
    Ok(())
}

/// Controls the thread; cheap to clone. When the last handle is dropped, the thread leaves the group and ends.
#[derive(Clone)]
pub struct PollerHandle {
    inner: Arc<Inner>,
}

struct Inner {
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
    commands: threads::Sender<Command>,
    topic: Arc<str>,
}

impl PollerHandle {
    /// Fetches a partition from an offset on, if the epoch is still current.
    pub fn fetch(&self, partition: i32, epoch: Epoch, from: i64) {
        self.send(Command::Fetch { partition, epoch, from });
    }

    /// Pauses fetching from all partitions.
    pub fn pause(&self) {
        self.send(Command::Pause(true));
    }

    /// Resumes fetching.
    pub fn resume(&self) {
        self.send(Command::Pause(false));
    }

    /// Releases a revoked partition, and commits the offset, if there is one. The rebalance continues when all revoked
    /// partitions are released.
    pub fn release(&self, partition: i32, epoch: Epoch, offset: Option<i64>) {
        self.send(Command::Release { partition, epoch, offset });
    }

    /// Commits an offset soon, and again every quarter of the session timeout, until there is a higher one or the epoch
    /// ends.
    pub fn commit(&self, partition: i32, epoch: Epoch, offset: i64) {
        self.inner.shared.commits.request(partition, epoch, offset);
    }

    /// Returns when the consumer was last polled, on the monotonic clock.
    pub fn last_poll(&self) -> u64 {
        self.inner.shared.last_poll.load(Ordering::Acquire)
    }

    /// Returns the partition's current epoch; `None` if it is not assigned. Cheap enough to be called before every
    /// request.
    pub fn epoch_of(&self, partition: i32) -> Option<Epoch> {
        self.ownership().epoch_of(partition)
    }

    /// Returns the group's committed offset; `None` if there is none. Blocks.
    pub fn committed_offset(&self, partition: i32, timeout: Duration) -> Result<Option<i64>, Error> {
        let action = || format!("can't read the committed offset of {}/{partition}", self.inner.topic);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.inner.topic, partition);
        let found = lookups::committed_offsets(&self.inner.consumer, &list, timeout)
            .map_err(|error| Error::call(action(), error))?;
        let element = found.find_partition(&self.inner.topic, partition).ok_or_else(|| Error::Unexpected(action()))?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    /// Verifies that the coordinator knows this member, by committing an offset of partition 0 of `topic`. That must
    /// not be the topic that is read, because the commit could set an offset of it back. Returns an instant on the
    /// monotonic clock. For one session timeout from then on, the coordinator assigns the member's partitions to no
    /// other member. Blocks.
    pub fn confirm_membership(&self, topic: &str, timeout: Duration) -> Result<u64, Error> {
        let action =
            || format!("the coordinator does not confirm this member of the group that reads {}", self.inner.topic);
        // The end of the partition, so that monitoring shows no lag for a topic that the group does not read.
        let (_, end) = lookups::watermarks(&self.inner.consumer, topic, 0, timeout)
            .map_err(|error| Error::call(action(), error))?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, 0, Offset::Offset(end)).map_err(|error| Error::call(action(), error))?;
        let sent_at = clock::mono();
        self.inner.consumer.commit(&list, CommitMode::Sync).map_err(|error| Error::call(action(), error))?;
        Ok(sent_at)
    }

    /// Returns the member's group metadata, for a transaction that commits offsets.
    pub(super) fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.inner.consumer.group_metadata()
    }

    /// Returns the offsets as librdkafka expects them.
    pub(super) fn offset_list(&self, offsets: &[ConsumedOffset]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for offset in offsets {
            // Fails only for invalid offsets; those of records are valid.
            let _ = list.add_partition_offset(&self.inner.topic, offset.partition, Offset::Offset(offset.next));
        }
        list
    }

    /// Returns the first offset, and one above the last offset. Blocks.
    pub fn watermarks(&self, partition: i32, timeout: Duration) -> Result<(i64, i64), Error> {
        lookups::watermarks(&self.inner.consumer, &self.inner.topic, partition, timeout).map_err(|error| {
            Error::call(format!("can't read the first and last offset of {}/{partition}", self.inner.topic), error)
        })
    }

    /// Returns the first offset whose record is not older than a Unix time in milliseconds; the partition's end if all
    /// are older. Blocks.
    pub fn offset_for_time(&self, partition: i32, time: i64, timeout: Duration) -> Result<i64, Error> {
        lookups::offset_for_time(&self.inner.consumer, &self.inner.topic, partition, time, timeout).map_err(|error| {
            Error::call(format!("can't find the offset of a time in {}/{partition}", self.inner.topic), error)
        })
    }

    /// Returns the number of the topic's partitions. Blocks.
    pub fn partition_count(&self, timeout: Duration) -> Result<i32, Error> {
        let action = || format!("can't read the partitions of {}", self.inner.topic);
        let metadata = self
            .inner
            .consumer
            .fetch_metadata(Some(&self.inner.topic), timeout)
            .map_err(|error| Error::call(action(), error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == &*self.inner.topic);
        match topic.map(|topic| topic.partitions().len()) {
            Some(count) if count > 0 => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
            _ => Err(Error::Unexpected(format!("{}: the topic does not exist", action()))),
        }
    }

    /// Leaves the group and ends the thread, which waits for revoked partitions as in a rebalance and then sends
    /// [`PollerEvent::Closed`]. Takes at most the drain timeout and a few seconds.
    pub fn close(&self) {
        self.send(Command::Close);
    }

    /// Closes and releases the revoked partitions, so that other members need not wait for the session timeout. False
    /// if it took longer than `timeout`; the coordinator then removes the member after the session timeout.
    pub async fn leave(&self, mut events: mpsc::Receiver<PollerEvent>, timeout: Duration) -> bool {
        self.close();
        let closed = async {
            while let Some(event) = events.recv().await {
                match event {
                    PollerEvent::Revoked { partition, epoch } => self.release(partition, epoch, None),
                    PollerEvent::Closed => break,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(timeout, closed).await.is_ok()
    }

    #[doc(hidden)]
    /// Stops polling for a time, as if the thread were not scheduled. For tests of the group's reaction.
    pub fn stall(&self, time: Duration) {
        self.send(Command::Stall(time));
    }

    fn ownership(&self) -> &Ownership {
        &self.inner.shared.ownership
    }

    /// Sends a command; ignored if the thread has ended.
    fn send(&self, command: Command) {
        let _ = self.inner.commands.send(command);
    }
}
