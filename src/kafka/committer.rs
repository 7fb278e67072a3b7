//! The thread that commits offsets. It is not the poller thread, because commits must work while a rebalance callback
//! blocks that one.
//!
//! It commits when an offset has changed, at most every [`COMMIT_INTERVAL`]. It also repeats each partition's commit
//! every quarter of the session timeout, because an accepted commit is the lease. Every commit is stamped with the
//! epoch and the time *before* it is sent, and is reported only if that epoch is still current when the response
//! arrives. Errors such as `RebalanceInProgress` are only a reason to retry: the coordinator returns them for up to a
//! second while other members join or leave.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::Error;
use super::ownership::Ownership;
use super::poller::PollerEvent;
use super::rebalance::{Context, Shared};
use crate::model::Epoch;
use crate::runtime::clock;

/// Shortest time between two commits of changed offsets. Records that a restart therefore reads again are recognized by
/// the ledger, which contains the watermark, too. Each commit costs the coordinator a write, and wakes four threads.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// Delay before a failed commit is retried.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The requested commits. The thread shares it with those who request commits.
#[derive(Default)]
pub(super) struct Commits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: HashMap<i32, CommitRequest>,
    /// Commit without an interval, because someone waits.
    is_urgent: bool,
    is_stopped: bool,
}

struct CommitRequest {
    epoch: Epoch,
    offset: i64,
    /// The last offset that the coordinator accepted in this epoch.
    committed: Option<i64>,
    /// When the last accepted commit was sent; before the first one, when the commit was requested.
    committed_at: Instant,
    attempted_at: Option<Instant>,
}

impl CommitRequest {
    /// Whether the offset is not committed yet.
    fn is_pending(&self) -> bool {
        self.committed != Some(self.offset)
    }
}

/// The commit of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartitionCommit {
    pub(super) partition: i32,
    pub(super) epoch: Epoch,
    pub(super) offset: i64,
}

impl Commits {
    /// Requests a commit. Within an epoch the highest offset counts.
    pub(super) fn request(&self, partition: i32, epoch: Epoch, offset: i64) {
        if self.state().request(PartitionCommit { partition, epoch, offset }) {
            self.changed.notify_all();
        }
    }

    /// Requests commits and waits for them; true if all were accepted before the deadline. Blocks.
    pub(super) fn commit_now(&self, commits: &[PartitionCommit], deadline: Instant) -> bool {
        let mut state = self.state();
        for &commit in commits {
            state.request(commit);
        }
        state.is_urgent = true;
        self.changed.notify_all();
        loop {
            let pending = commits.iter().any(|commit| !state.has_committed(*commit));
            let remaining = deadline.saturating_duration_since(Instant::now());
            if !pending || remaining.is_zero() || state.is_stopped {
                state.is_urgent = false;
                return !pending;
            }
            state = self.changed.wait_timeout(state, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the thread after its current commit.
    pub(super) fn stop(&self) {
        self.state().is_stopped = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// True if the next commit may be due earlier than before.
    fn request(&mut self, commit: PartitionCommit) -> bool {
        let PartitionCommit { partition, epoch, offset } = commit;
        match self.requests.get_mut(&partition) {
            Some(request) if request.epoch == epoch => {
                let was_pending = request.is_pending();
                request.offset = request.offset.max(offset);
                !was_pending && request.is_pending()
            }
            Some(request) if request.epoch > epoch => false,
            _ => {
                let committed_at = Instant::now();
                let request = CommitRequest { epoch, offset, committed: None, committed_at, attempted_at: None };
                self.requests.insert(partition, request);
                true
            }
        }
    }

    fn has_committed(&self, commit: PartitionCommit) -> bool {
        let request = self.requests.get(&commit.partition).filter(|request| request.epoch == commit.epoch);
        request.and_then(|request| request.committed).is_some_and(|committed| committed >= commit.offset)
    }

    /// When the next commit is due.
    fn due(&self, renew_interval: Duration) -> Option<Instant> {
        let interval = if self.is_urgent { Duration::ZERO } else { COMMIT_INTERVAL };
        let due = |request: &CommitRequest| match request.attempted_at {
            None => Instant::now(),
            Some(attempted_at) if request.is_pending() => attempted_at + interval,
            Some(attempted_at) => attempted_at.max(request.committed_at + renew_interval),
        };
        self.requests.values().map(due).min()
    }

    /// Returns the commits to send now: all pending ones, and those that would have to be renewed soon.
    fn batch(&mut self, ownership: &Ownership, renew_interval: Duration) -> Vec<PartitionCommit> {
        let now = Instant::now();
        self.requests.retain(|partition, request| ownership.is_current(*partition, request.epoch));
        let mut batch = Vec::new();
        for (&partition, request) in &mut self.requests {
            let age = now.saturating_duration_since(request.committed_at);
            if request.is_pending() || age >= renew_interval / 2 {
                request.attempted_at = Some(now);
                batch.push(PartitionCommit { partition, epoch: request.epoch, offset: request.offset });
            }
        }
        batch
    }

    fn set_committed(&mut self, commit: PartitionCommit, sent: Instant) {
        let request = self.requests.get_mut(&commit.partition).filter(|request| request.epoch == commit.epoch);
        if let Some(request) = request {
            request.committed = Some(commit.offset);
            request.committed_at = sent;
        }
    }
}

/// The thread.
pub(super) struct Committer {
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
    renew_interval: Duration,
    /// When an error was last reported; `None` after a success.
    error_reported_at: Option<Instant>,
}

impl Committer {
    pub(super) fn start(
        consumer: Arc<BaseConsumer<Context>>,
        shared: Arc<Shared>,
        session_timeout: Duration,
    ) -> Result<(), Error> {
        let committer = Self { consumer, shared, renew_interval: session_timeout / 4, error_reported_at: None };
        let name = "kafka-committer";
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || committer.run());
        thread.map(drop).map_err(|source| Error::Thread { name, source })
    }

    fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            if batch.is_empty() {
                continue;
            }
            let (sent_at, sent) = (clock::mono(), Instant::now());
            let result = self.send(&batch);
            match result {
                Ok(()) => self.handle_success(&batch, sent_at, sent),
                Err(error) => self.handle_error(&batch, &error),
            }
        }
    }

    /// Waits until a commit is due; `None` if the thread must end.
    fn next_batch(&self) -> Option<Vec<PartitionCommit>> {
        let commits = &self.shared.commits;
        let mut state = commits.state();
        loop {
            if state.is_stopped {
                return None;
            }
            let wait = match state.due(self.renew_interval) {
                Some(due) => due.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if wait.is_zero() {
                return Some(state.batch(&self.shared.ownership, self.renew_interval));
            }
            state = commits.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn send(&self, batch: &[PartitionCommit]) -> Result<(), KafkaError> {
        let topic = &self.shared.settings.topic;
        let mut list = TopicPartitionList::with_capacity(batch.len());
        for commit in batch {
            list.add_partition_offset(topic, commit.partition, Offset::Offset(commit.offset))?;
        }
        self.consumer.commit(&list, CommitMode::Sync)
    }

    fn handle_success(&mut self, batch: &[PartitionCommit], sent_at: u64, sent: Instant) {
        self.error_reported_at = None;
        let mut state = self.shared.commits.state();
        for &commit in batch {
            let PartitionCommit { partition, epoch, offset } = commit;
            if self.shared.ownership.is_current(partition, epoch) {
                state.set_committed(commit, sent);
                self.shared.events.try_send(PollerEvent::Committed { partition, epoch, sent_at, offset });
            }
        }
        drop(state);
        self.shared.commits.changed.notify_all();
    }

    fn handle_error(&mut self, batch: &[PartitionCommit], error: &KafkaError) {
        if !is_transient(error) && self.error_reported_at.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
            self.error_reported_at = Some(Instant::now());
            for commit in batch {
                let PartitionCommit { partition, epoch, .. } = *commit;
                self.shared.events.try_send(PollerEvent::CommitFailed { partition, epoch, error: error.to_string() });
            }
        }
        tracing::debug!(%error, partitions = batch.len(), "offset commit failed, retrying");
        std::thread::sleep(RETRY_DELAY);
    }
}

/// Errors that pass by themselves, or are followed by a rebalance callback.
fn is_transient(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let KafkaError::ConsumerCommit(code) = error else { return false };
    matches!(
        code,
        Code::RebalanceInProgress
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::WaitingForCoordinator
    )
}
