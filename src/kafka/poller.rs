//! The poller's outside: its settings, what it tells, and the handle that speaks to it. The thread itself is in
//! `poll_loop`, the committer in `committer`.
//!
//! One operating system thread owns the group's consumer, because a rebalance callback must be able to block: a
//! revoked partition is let go only after its work is finished and its last offset committed, or the drain deadline
//! has passed. Guaranteed: events of one partition come in the order in which they happened; no record of a partition
//! comes before `fetch`, none below the offset asked for, and none with an epoch that is not the partition's own.
//! Not guaranteed: that a partition is still ours when its event is read; that is what [`PollerHandle::epoch_of`] and
//! the lease are for.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as threads};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::committer::Committer;
use super::event_channel::Outlet;
use super::ownership::Ownership;
use super::rebalance::{Command, Context, Shared};
use super::{Error, KafkaOptions, poll_loop};
use crate::model::{Epoch, Record};
use crate::runtime::clock;

/// How to read a topic.
#[derive(Debug, Clone)]
pub struct PollerSettings {
    /// The cluster.
    pub options: KafkaOptions,
    /// The topic.
    pub topic: Arc<str>,
    /// The consumer group.
    pub group: String,
    /// Static membership: a member that comes back under this name gets its partitions back without a rebalance.
    pub instance_id: Option<String>,
    /// `session.timeout.ms`.
    pub session_timeout: Duration,
    /// `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
    /// How long a revoked partition may finish its work; the callback waits a little longer.
    pub drain: Duration,
    /// Records that may wait in the channel before fetching pauses.
    pub capacity: usize,
}

impl PollerSettings {
    /// With Kafka's defaults and a drain of 3 s.
    pub fn new(options: &KafkaOptions, topic: &str, group: &str) -> Self {
        Self {
            options: options.clone(),
            topic: topic.into(),
            group: group.into(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            max_poll_interval: Duration::from_secs(300),
            drain: Duration::from_secs(3),
            capacity: 4096,
        }
    }
}

/// What the consumer went through.
#[derive(Debug, Clone, PartialEq)]
pub enum PollerEvent {
    /// The group gave us a partition. Nothing is fetched from it until [`PollerHandle::fetch`].
    Assigned {
        /// The partition.
        partition: i32,
        /// Its new epoch, higher than any before, of any partition.
        epoch: Epoch,
    },
    /// The group takes a partition back; the thread waits for [`PollerHandle::release`].
    Revoked {
        /// The partition.
        partition: i32,
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// A partition is gone already.
    Lost {
        /// The partition.
        partition: i32,
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// A record, in rising order of offset within a partition and epoch.
    Record {
        /// The epoch it was fetched in.
        epoch: Epoch,
        /// The record.
        record: Record,
    },
    /// From here on, records of this partition come from where the last `fetch` asked; what came before was read
    /// for an older one.
    Fetching {
        /// The partition.
        partition: i32,
        /// Its epoch.
        epoch: Epoch,
        /// Where it asked.
        from: i64,
    },
    /// The coordinator accepted an offset commit of the epoch that still stands.
    Committed {
        /// The partition.
        partition: i32,
        /// The epoch stamped when it was sent.
        epoch: Epoch,
        /// When it was sent, on the mono clock.
        sent_at: u64,
        /// The offset.
        offset: i64,
    },
    /// A commit was refused, for another reason than a rebalance under way. It is repeated.
    CommitFailed {
        /// The partition.
        partition: i32,
        /// The epoch stamped when it was sent.
        epoch: Epoch,
        /// Why.
        what: String,
    },
    /// Something people should know; nothing is lost.
    Trouble {
        /// The partition, where it concerns one.
        partition: Option<i32>,
        /// What.
        what: String,
    },
    /// The next offset no longer exists (retention) or does not exist yet (the topic was made anew). Nothing more is
    /// fetched from this partition until [`PollerHandle::fetch`] is called again.
    OutOfRange {
        /// The partition.
        partition: i32,
        /// Its epoch.
        epoch: Epoch,
        /// The offset that was wanted.
        wanted: i64,
        /// First offset that exists.
        low: i64,
        /// One above the last offset.
        high: i64,
    },
    /// The thread has ended; nothing follows.
    Closed,
}

/// Starts the thread.
pub struct Poller;

impl Poller {
    /// Subscribes, and hands out what comes.
    pub fn spawn(settings: PollerSettings) -> Result<(PollerHandle, mpsc::Receiver<PollerEvent>), Error> {
        check(&settings)?;
        let (outlet, events) = Outlet::new(settings.capacity);
        let (commands, inbox) = threads::channel();
        let mut config =
            settings.options.group_consumer(&settings.group, settings.session_timeout, settings.max_poll_interval);
        if let Some(id) = &settings.instance_id {
            config.set("group.instance.id", id);
        }
        let topic = Arc::clone(&settings.topic);
        let session_timeout = settings.session_timeout;
        let shared = Arc::new(Shared::new(settings, outlet));
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context::new(Arc::clone(&shared), inbox))
            .map_err(|error| Error::call(format!("can't make a consumer for {topic}"), error))?;
        let consumer = Arc::new(consumer);
        consumer.subscribe(&[&topic]).map_err(|error| Error::call(format!("can't subscribe to {topic}"), error))?;
        Committer::start(Arc::clone(&consumer), Arc::clone(&shared), session_timeout)?;
        poll_loop::start(Arc::clone(&consumer), Arc::clone(&shared))?;
        Ok((PollerHandle { inner: Arc::new(Inner { consumer, shared, commands, topic }) }, events))
    }
}

/// Combinations that librdkafka would take, and that break a guarantee.
fn check(settings: &PollerSettings) -> Result<(), Error> {
    let refuse = |name: &str, reason: &str| Err(Error::Property { name: name.into(), reason: reason.into() });
    if settings.session_timeout >= settings.max_poll_interval {
        return refuse("session.timeout.ms", "it must be below max.poll.interval.ms");
    }
    if settings.drain + Duration::from_secs(2) >= settings.max_poll_interval {
        return refuse("max.poll.interval.ms", "it must be more than two seconds above the drain deadline");
    }
    Ok(())
}

/// Speaks to the thread; cheap to clone. When the last one is dropped, the thread leaves the group and ends.
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
    /// Fetch this partition from this offset on, if the epoch is still the present one.
    pub fn fetch(&self, partition: i32, epoch: Epoch, from: i64) {
        self.tell(Command::Fetch { partition, epoch, from });
    }

    /// Stop fetching from all partitions.
    pub fn pause(&self) {
        self.tell(Command::Pause(true));
    }

    /// Fetch again.
    pub fn resume(&self) {
        self.tell(Command::Pause(false));
    }

    /// Commits the offset, if one is given, and lets the blocked rebalance go on once every revoked partition has
    /// been released.
    pub fn release(&self, partition: i32, epoch: Epoch, offset: Option<i64>) {
        self.tell(Command::Release { partition, epoch, offset });
    }

    /// Commit this offset soon, and again every quarter of the session timeout, until a newer one comes or the epoch
    /// ends.
    pub fn commit(&self, partition: i32, epoch: Epoch, offset: i64) {
        self.inner.shared.commits.want(partition, epoch, offset);
    }

    /// When the consumer was last polled, on the mono clock.
    pub fn last_poll(&self) -> u64 {
        self.inner.shared.last_poll.load(Ordering::Acquire)
    }

    /// The partition's present epoch; `None` where it is not ours. Cheap enough to ask before every request.
    pub fn epoch_of(&self, partition: i32) -> Option<Epoch> {
        self.ownership().epoch_of(partition)
    }

    /// The group's committed offset; `None` where there is none. Blocks.
    pub fn committed_offset(&self, partition: i32, timeout: Duration) -> Result<Option<i64>, Error> {
        let what = || format!("can't learn the committed offset of {}/{partition}", self.inner.topic);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.inner.topic, partition);
        let found = self.inner.consumer.committed_offsets(list, timeout).map_err(|error| Error::call(what(), error))?;
        let element = found.find_partition(&self.inner.topic, partition).ok_or_else(|| Error::Unexpected(what()))?;
        element.error().map_err(|error| Error::call(what(), error))?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    /// Asks the coordinator whether it knows this member, by committing an offset of partition 0 of `topic`, which must
    /// not be the topic that is read: an offset of that could be set back. Where it does, the partitions are ours for a
    /// session from the answered instant on the mono clock: it gives them to nobody else sooner. Blocks.
    pub fn prove(&self, topic: &str, timeout: Duration) -> Result<u64, Error> {
        let what =
            || format!("the coordinator does not confirm this member of the group that reads {}", self.inner.topic);
        // The end, so that no lag is shown of a topic that this group does not read.
        let end =
            self.inner.consumer.fetch_watermarks(topic, 0, timeout).map_err(|error| Error::call(what(), error))?.1;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, 0, Offset::Offset(end)).map_err(|error| Error::call(what(), error))?;
        let sent_at = clock::mono();
        self.inner.consumer.commit(&list, CommitMode::Sync).map_err(|error| Error::call(what(), error))?;
        Ok(sent_at)
    }

    /// Who this member is in its group, for a transaction that commits offsets.
    pub(super) fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.inner.consumer.group_metadata()
    }

    pub(super) fn offsets(&self, offsets: &[(i32, i64)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for &(partition, offset) in offsets {
            // Fails only for offsets that can't be expressed; those of records can.
            let _ = list.add_partition_offset(&self.inner.topic, partition, Offset::Offset(offset));
        }
        list
    }

    /// First offset, and one above the last one. Blocks.
    pub fn watermarks(&self, partition: i32, timeout: Duration) -> Result<(i64, i64), Error> {
        self.inner
            .consumer
            .fetch_watermarks(&self.inner.topic, partition, timeout)
            .map_err(|error| Error::call(format!("can't learn the ends of {}/{partition}", self.inner.topic), error))
    }

    /// First offset whose record is not older than this Unix time in milliseconds; the partition's end where all are
    /// older. Blocks.
    pub fn offset_for_time(&self, partition: i32, time: i64, timeout: Duration) -> Result<i64, Error> {
        let what = || format!("can't find the offset of that time in {}/{partition}", self.inner.topic);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.inner.topic, partition, Offset::Offset(time))
            .map_err(|error| Error::call(what(), error))?;
        let found = self.inner.consumer.offsets_for_times(list, timeout).map_err(|error| Error::call(what(), error))?;
        let element = found.find_partition(&self.inner.topic, partition).ok_or_else(|| Error::Unexpected(what()))?;
        element.error().map_err(|error| Error::call(what(), error))?;
        match element.offset() {
            Offset::Offset(offset) => Ok(offset),
            _ => Ok(self.watermarks(partition, timeout)?.1),
        }
    }

    /// Partitions of the topic. Blocks.
    pub fn partition_count(&self, timeout: Duration) -> Result<i32, Error> {
        let what = || format!("can't learn the partitions of {}", self.inner.topic);
        let metadata = self
            .inner
            .consumer
            .fetch_metadata(Some(&self.inner.topic), timeout)
            .map_err(|error| Error::call(what(), error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == &*self.inner.topic);
        match topic.map(|topic| topic.partitions().len()) {
            Some(count) if count > 0 => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
            _ => Err(Error::Unexpected(format!("{}: there is no such topic", what()))),
        }
    }

    /// Leaves the group and ends the thread. Revoked partitions are waited for as in a rebalance; [`PollerEvent::Closed`]
    /// follows. Takes at most the drain time and a few seconds.
    pub fn close(&self) {
        self.tell(Command::Close);
    }

    /// Closes, and lets go of what is taken back, so that the others need not wait for the session to end. False where
    /// that took longer than `patience`: then the session ends by itself.
    pub async fn leave(&self, mut events: mpsc::Receiver<PollerEvent>, patience: Duration) -> bool {
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
        tokio::time::timeout(patience, closed).await.is_ok()
    }

    #[doc(hidden)]
    /// Stops polling for so long, as a thread that the machine does not run. For tests of what the group does then.
    pub fn stall(&self, time: Duration) {
        self.tell(Command::Stall(time));
    }

    fn ownership(&self) -> &Ownership {
        &self.inner.shared.ownership
    }

    /// A thread that has ended needs no commands.
    fn tell(&self, command: Command) {
        let _ = self.inner.commands.send(command);
    }
}
