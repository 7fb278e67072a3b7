//! The consumer's context: what happens in librdkafka's rebalance callback, and what it shares with the poller's thread.
//!
//! The callback runs inside `poll`, on the poller's thread. An assignment starts nothing; a revocation is a rendezvous
//! that waits for the work to finish, for a bounded time; a loss is only told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as threads};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::committer::Commits;
use super::event_channel::Outlet;
use super::options;
use super::ownership::Ownership;
use super::poller::{PollerEvent, PollerSettings};
use crate::model::Epoch;
use crate::runtime::clock;

/// What the callback waits beyond the drain deadline, for the last commit.
pub(super) const LAST_COMMIT: Duration = Duration::from_millis(1500);
/// How long the callback waits before it looks round again.
const ROUND: Duration = Duration::from_millis(20);

/// What the handle tells the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Fetch { partition: i32, epoch: Epoch, from: i64 },
    Pause(bool),
    Release { partition: i32, epoch: Epoch, offset: Option<i64> },
    Stall(Duration),
    Close,
}

/// What thread, committer and handle share.
pub(super) struct Shared {
    pub(super) settings: PollerSettings,
    pub(super) ownership: Ownership,
    pub(super) outlet: Outlet,
    pub(super) commits: Commits,
    pub(super) last_poll: AtomicU64,
}

impl Shared {
    pub(super) fn new(settings: PollerSettings, outlet: Outlet) -> Self {
        let last_poll = AtomicU64::new(clock::mono());
        Self { settings, ownership: Ownership::default(), outlet, commits: Commits::default(), last_poll }
    }
}

/// How far a partition of ours is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading {
    /// Assigned; nothing is fetched.
    Idle,
    /// To be started.
    Wanted { from: i64, since: Instant },
    /// Records flow; `next` is the lowest offset that may come.
    Flowing { next: i64 },
}

/// librdkafka's way to us. Everything in `inside` is used by the poller's thread only, within `poll` or between polls.
pub(super) struct Context {
    shared: Arc<Shared>,
    inside: Mutex<Inside>,
}

pub(super) struct Inside {
    pub(super) commands: threads::Receiver<Command>,
    /// Commands that came while the callback waited for releases.
    pub(super) deferred: VecDeque<Command>,
    pub(super) readings: HashMap<i32, Reading>,
}

impl Context {
    pub(super) fn new(shared: Arc<Shared>, commands: threads::Receiver<Command>) -> Self {
        let inside = Inside { commands, deferred: VecDeque::new(), readings: HashMap::new() };
        Self { shared, inside: Mutex::new(inside) }
    }

    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing may be fetched before the ledger is read: assigned at an offset and paused at once, then sought and
    /// resumed by `fetch`.
    ///
    /// The offset is a number, because a number is not looked up. For the committed one, where there is none, that
    /// would be an error; for a logical one (the end) librdkafka 2.12.1 asks the broker, takes the answer for outdated
    /// because of the pause, and asks again half a second later, even though a seek has come in between: the partition
    /// then goes on at the end, and everything before it is skipped.
    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let topic = &self.shared.settings.topic;
        let list = list_at(topic, partitions, Offset::Offset(0));
        if let Err(error) = consumer.incremental_assign(&list) {
            return self.trouble(None, format!("can't take the partitions {partitions:?} of {topic}: {error}"));
        }
        if let Err(error) = consumer.pause(&list) {
            self.trouble(None, format!("can't pause the partitions {partitions:?} of {topic}: {error}"));
        }
        for &partition in partitions {
            self.inside().readings.insert(partition, Reading::Idle);
            let epoch = self.shared.ownership.gain(partition);
            self.shared.outlet.tell(PollerEvent::Assigned { partition, epoch });
        }
    }

    fn lost(&self, partitions: &[i32]) {
        for &partition in partitions {
            self.inside().readings.remove(&partition);
            if let Some(epoch) = self.shared.ownership.end(partition) {
                self.shared.outlet.tell(PollerEvent::Lost { partition, epoch });
            }
        }
    }

    /// Waits until each is released or the drain deadline has passed, commits what was released, and lets go.
    fn revoked(&self, partitions: &[i32]) {
        let shared = &self.shared;
        let mut waiting: HashMap<i32, Epoch> = HashMap::new();
        for &partition in partitions {
            self.inside().readings.remove(&partition);
            if let Some(epoch) = shared.ownership.epoch_of(partition) {
                waiting.insert(partition, epoch);
                shared.outlet.tell(PollerEvent::Revoked { partition, epoch });
            }
        }
        let deadline = Instant::now() + shared.settings.drain;
        let last = self.await_releases(&mut waiting, deadline);
        if !waiting.is_empty() {
            let mut late: Vec<_> = waiting.into_keys().collect();
            late.sort_unstable();
            self.trouble(None, format!("partitions {late:?} were not released in time; what is in flight is in doubt"));
        }
        if !last.is_empty() && !shared.commits.finish(&last, Instant::now() + LAST_COMMIT) {
            self.trouble(None, "the last offsets were not committed in time; the ledger's mark stands".into());
        }
        for &partition in partitions {
            shared.ownership.end(partition);
        }
    }

    fn await_releases(&self, waiting: &mut HashMap<i32, Epoch>, deadline: Instant) -> Vec<(i32, Epoch, i64)> {
        let mut last = Vec::new();
        while !waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now()).min(ROUND);
            let command = self.inside().commands.recv_timeout(left);
            self.shared.outlet.flush();
            match command {
                Ok(Command::Release { partition, epoch, offset }) => {
                    if waiting.get(&partition) == Some(&epoch) {
                        waiting.remove(&partition);
                        last.extend(offset.map(|offset| (partition, epoch, offset)));
                    }
                }
                Ok(other) => self.inside().deferred.push_back(other),
                Err(threads::RecvTimeoutError::Disconnected) => break,
                Err(threads::RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= deadline || self.shared.outlet.is_abandoned() {
                break;
            }
        }
        last
    }

    pub(super) fn trouble(&self, partition: Option<i32>, what: String) {
        tracing::warn!(partition, "{what}");
        self.shared.outlet.offer(PollerEvent::Trouble { partition, what });
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        options::log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble(None, format!("{error}: {reason}"));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> =
            list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect();
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            return self.assigned(consumer, &partitions);
        }
        if consumer.assignment_lost() {
            self.lost(&partitions);
        } else {
            self.revoked(&partitions);
        }
        if let Err(error) = consumer.incremental_unassign(list) {
            self.trouble(None, format!("can't let the partitions {partitions:?} go: {error}"));
        }
    }
}

/// These partitions, each at this offset.
pub(super) fn list_at(topic: &str, partitions: &[i32], offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        // Fails only for offsets that can't be expressed, which these can.
        let _ = list.add_partition_offset(topic, partition, offset);
    }
    list
}
