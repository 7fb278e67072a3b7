//! The consumer's context: librdkafka's rebalance callback, and the state that it shares with the poller thread.
//!
//! The callback runs within `poll`, on the poller thread. After an assignment, fetching does not start yet. A
//! revocation waits for the work on the partitions to finish, for a limited time. A loss is only reported.

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

use super::committer::{Commits, PartitionCommit};
use super::event_channel::EventChannel;
use super::options;
use super::ownership::Ownership;
use super::poller::{PollerEvent, PollerSettings};
use crate::model::Epoch;
use crate::runtime::clock;

/// How long the callback waits for the final commit, after the drain timeout.
pub(super) const FINAL_COMMIT_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long the callback waits for a command before it checks the deadline again.
const COMMAND_WAIT: Duration = Duration::from_millis(20);

/// A command of the handle to the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Fetch { partition: i32, epoch: Epoch, from: i64 },
    Pause(bool),
    Release { partition: i32, epoch: Epoch, offset: Option<i64> },
    Stall(Duration),
    Close,
}

/// State that the poller thread, the committer and the handle share.
pub(super) struct Shared {
    pub(super) settings: PollerSettings,
    pub(super) ownership: Ownership,
    pub(super) events: EventChannel,
    pub(super) commits: Commits,
    /// On the monotonic clock.
    pub(super) last_poll: AtomicU64,
}

impl Shared {
    pub(super) fn new(settings: PollerSettings, events: EventChannel) -> Self {
        let last_poll = AtomicU64::new(clock::mono());
        Self { settings, ownership: Ownership::default(), events, commits: Commits::default(), last_poll }
    }
}

/// The state of an assigned partition.
#[derive(Debug, Clone, Copy)]
pub(super) enum FetchState {
    /// Nothing is fetched.
    Idle,
    /// Fetching was requested, and has not started yet.
    Requested { from: i64, since: Instant },
    /// Records below `next` are dropped.
    Fetching { next: i64 },
}

/// The consumer's context. Only the poller thread uses `state`, within `poll` or between polls.
pub(super) struct Context {
    shared: Arc<Shared>,
    state: Mutex<PollerState>,
}

/// State of the poller thread.
pub(super) struct PollerState {
    pub(super) commands: threads::Receiver<Command>,
    /// Commands that arrived while the callback waited for releases.
    pub(super) deferred: VecDeque<Command>,
    pub(super) fetch_states: HashMap<i32, FetchState>,
}

impl Context {
    pub(super) fn new(shared: Arc<Shared>, commands: threads::Receiver<Command>) -> Self {
        let state = PollerState { commands, deferred: VecDeque::new(), fetch_states: HashMap::new() };
        Self { shared, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PollerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Assigns the partitions at an offset and pauses them at once, because nothing may be fetched before the ledger is
    /// loaded. `fetch` then seeks and resumes.
    ///
    /// The offset is a number, because a number needs no look-up. The committed offset would be an error if there is
    /// none. For a logical offset (the end) librdkafka 2.12.1 asks the broker, considers the response outdated because
    /// of the pause, and asks again half a second later, even if there was a seek in between: the partition then
    /// continues at the end, and everything before it is skipped.
    fn on_assigned(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let topic = &self.shared.settings.topic;
        let list = offset_list(topic, partitions, Offset::Offset(0));
        if let Err(error) = consumer.incremental_assign(&list) {
            return self.report_error(None, format!("can't assign the partitions {partitions:?} of {topic}: {error}"));
        }
        if let Err(error) = consumer.pause(&list) {
            self.report_error(None, format!("can't pause the partitions {partitions:?} of {topic}: {error}"));
        }
        for &partition in partitions {
            self.state().fetch_states.insert(partition, FetchState::Idle);
            let epoch = self.shared.ownership.add(partition);
            self.shared.events.send(PollerEvent::Assigned { partition, epoch });
        }
    }

    fn on_lost(&self, partitions: &[i32]) {
        for &partition in partitions {
            self.state().fetch_states.remove(&partition);
            if let Some(epoch) = self.shared.ownership.remove(partition) {
                self.shared.events.send(PollerEvent::Lost { partition, epoch });
            }
        }
    }

    /// Waits until each partition is released or the drain deadline has passed, and commits the offsets of the
    /// releases.
    fn on_revoked(&self, partitions: &[i32]) {
        let shared = &self.shared;
        let mut unreleased: HashMap<i32, Epoch> = HashMap::new();
        for &partition in partitions {
            self.state().fetch_states.remove(&partition);
            if let Some(epoch) = shared.ownership.epoch_of(partition) {
                unreleased.insert(partition, epoch);
                shared.events.send(PollerEvent::Revoked { partition, epoch });
            }
        }
        let deadline = Instant::now() + shared.settings.drain_timeout;
        let final_commits = self.wait_for_releases(&mut unreleased, deadline);
        if !unreleased.is_empty() {
            let mut late: Vec<_> = unreleased.into_keys().collect();
            late.sort_unstable();
            let message = format!("partitions {late:?} were not released in time; writes in flight are ambiguous");
            self.report_error(None, message);
        }
        let deadline = Instant::now() + FINAL_COMMIT_TIMEOUT;
        if !final_commits.is_empty() && !shared.commits.commit_now(&final_commits, deadline) {
            let message = "the final offsets were not committed in time; the ledger's mark contains them";
            self.report_error(None, message.into());
        }
        for &partition in partitions {
            shared.ownership.remove(partition);
        }
    }

    /// Returns the offsets to commit; what remains in `unreleased` was not released in time.
    fn wait_for_releases(&self, unreleased: &mut HashMap<i32, Epoch>, deadline: Instant) -> Vec<PartitionCommit> {
        let mut commits = Vec::new();
        while !unreleased.is_empty() {
            let wait = deadline.saturating_duration_since(Instant::now()).min(COMMAND_WAIT);
            let command = self.state().commands.recv_timeout(wait);
            self.shared.events.flush();
            match command {
                Ok(Command::Release { partition, epoch, offset }) => {
                    if unreleased.get(&partition) == Some(&epoch) {
                        unreleased.remove(&partition);
                        commits.extend(offset.map(|offset| PartitionCommit { partition, epoch, offset }));
                    }
                }
                Ok(other) => self.state().deferred.push_back(other),
                Err(threads::RecvTimeoutError::Disconnected) => break,
                Err(threads::RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= deadline || self.shared.events.is_closed() {
                break;
            }
        }
        commits
    }

    /// Logs an error and sends it as an event.
    pub(super) fn report_error(&self, partition: Option<i32>, error: String) {
        tracing::warn!(partition, "{error}");
        self.shared.events.try_send(PollerEvent::Error { partition, error });
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        options::log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.report_error(None, format!("{error}: {reason}"));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> =
            list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect();
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            return self.on_assigned(consumer, &partitions);
        }
        if consumer.assignment_lost() {
            self.on_lost(&partitions);
        } else {
            self.on_revoked(&partitions);
        }
        if let Err(error) = consumer.incremental_unassign(list) {
            self.report_error(None, format!("can't release the partitions {partitions:?}: {error}"));
        }
    }
}

/// Returns a list of partitions, all with the same offset.
pub(super) fn offset_list(topic: &str, partitions: &[i32], offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        // Fails only for invalid offsets; the callers' offsets are valid.
        let _ = list.add_partition_offset(topic, partition, offset);
    }
    list
}
