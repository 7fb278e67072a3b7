//! The poller: one operating system thread owns the group's consumer, because a rebalance callback must be able to
//! block.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Error, KafkaOptions};
use crate::model::{Epoch, Record};

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
            capacity: 1024,
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
        let _ = settings;
        Err(Error::Unexpected("not built yet".into()))
    }
}

/// Speaks to the thread; cheap to clone.
#[derive(Clone)]
pub struct PollerHandle {
    _private: (),
}

impl PollerHandle {
    /// Fetch this partition from this offset on, if the epoch is still the present one.
    pub fn fetch(&self, partition: i32, epoch: Epoch, from: i64) {
        let _ = (partition, epoch, from);
    }

    /// Stop fetching from all partitions.
    pub fn pause(&self) {}

    /// Fetch again.
    pub fn resume(&self) {}

    /// Commits the offset, if one is given, and lets the blocked rebalance go on once every revoked partition has
    /// been released.
    pub fn release(&self, partition: i32, epoch: Epoch, offset: Option<i64>) {
        let _ = (partition, epoch, offset);
    }

    /// Commit this offset soon, and again every quarter of the session timeout, until a newer one comes or the epoch
    /// ends.
    pub fn commit(&self, partition: i32, epoch: Epoch, offset: i64) {
        let _ = (partition, epoch, offset);
    }

    /// When the consumer was last polled, on the mono clock.
    pub fn last_poll(&self) -> u64 {
        0
    }

    /// The partition's present epoch; `None` where it is not ours. Cheap enough to ask before every request.
    pub fn epoch_of(&self, partition: i32) -> Option<Epoch> {
        let _ = partition;
        None
    }

    /// The group's committed offset; `None` where there is none. Blocks.
    pub fn committed_offset(&self, partition: i32, timeout: Duration) -> Result<Option<i64>, Error> {
        let _ = (partition, timeout);
        Err(Error::Unexpected("not built yet".into()))
    }

    /// First offset, and one above the last one. Blocks.
    pub fn watermarks(&self, partition: i32, timeout: Duration) -> Result<(i64, i64), Error> {
        let _ = (partition, timeout);
        Err(Error::Unexpected("not built yet".into()))
    }

    /// First offset whose record is not older than this Unix time in milliseconds; the partition's end where all are
    /// older. Blocks.
    pub fn offset_for_time(&self, partition: i32, time: i64, timeout: Duration) -> Result<i64, Error> {
        let _ = (partition, time, timeout);
        Err(Error::Unexpected("not built yet".into()))
    }

    /// Leaves the group and ends the thread. Revoked partitions are waited for as in a rebalance; [`PollerEvent::Closed`]
    /// follows. Takes at most the drain time and a few seconds.
    pub fn close(&self) {}
}
