//! The thread that commits offsets, apart from the poller's, because a commit must work while a rebalance callback
//! blocks that one.
//!
//! It commits when an offset moved, at most every [`SPACING`], and renews each partition's commit every quarter of
//! the session timeout even where nothing moved: an accepted commit is the lease. Every commit is stamped with the
//! epoch and the time *before* it is sent, and is told only if that epoch still stands when the answer comes.
//! `RebalanceInProgress` and its kin are no loss, only a reason to wait: the coordinator answers so for up to a second
//! while other members come and go.

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

/// Between two commits because an offset moved. What a restart reads again for it is recognised by the ledger, where the
/// watermark stands too, and each commit costs the coordinator a write, and four threads a wake-up.
const SPACING: Duration = Duration::from_millis(200);
/// Before a refused commit is repeated.
const PATIENCE: Duration = Duration::from_millis(100);

/// What is to be committed; shared with those who want something committed.
#[derive(Default)]
pub(super) struct Commits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: HashMap<i32, Wanted>,
    /// Someone waits: no spacing.
    urgent: bool,
    stopped: bool,
}

struct Wanted {
    epoch: Epoch,
    offset: i64,
    /// What the coordinator has accepted in this epoch.
    committed: Option<i64>,
    /// When that was sent.
    accepted: Instant,
    /// When it was last tried.
    tried: Option<Instant>,
}

impl Wanted {
    /// Whether something of it is yet to be accepted.
    fn has_moved(&self) -> bool {
        self.committed != Some(self.offset)
    }
}

/// One partition's part of a commit.
#[derive(Clone, Copy)]
struct Stamp {
    partition: i32,
    epoch: Epoch,
    offset: i64,
}

impl Commits {
    /// Commit this when next convenient. Within an epoch the highest offset wins.
    pub(super) fn want(&self, partition: i32, epoch: Epoch, offset: i64) {
        if self.state().want(partition, epoch, offset) {
            self.changed.notify_all();
        }
    }

    /// Commit these now; true when all of them were accepted before the deadline. Blocks.
    pub(super) fn finish(&self, last: &[(i32, Epoch, i64)], deadline: Instant) -> bool {
        let mut state = self.state();
        for &(partition, epoch, offset) in last {
            state.want(partition, epoch, offset);
        }
        state.urgent = true;
        self.changed.notify_all();
        loop {
            let pending =
                last.iter().any(|(partition, epoch, offset)| !state.has_committed(*partition, *epoch, *offset));
            let left = deadline.saturating_duration_since(Instant::now());
            if !pending || left.is_zero() || state.stopped {
                state.urgent = false;
                return !pending;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The thread ends after the commit it is in.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// True: a commit may be due earlier than before.
    fn want(&mut self, partition: i32, epoch: Epoch, offset: i64) -> bool {
        match self.wanted.get_mut(&partition) {
            Some(wanted) if wanted.epoch == epoch => {
                let moved = wanted.has_moved();
                wanted.offset = wanted.offset.max(offset);
                !moved && wanted.has_moved()
            }
            Some(wanted) if wanted.epoch > epoch => false,
            _ => {
                let wanted = Wanted { epoch, offset, committed: None, accepted: Instant::now(), tried: None };
                self.wanted.insert(partition, wanted);
                true
            }
        }
    }

    fn has_committed(&self, partition: i32, epoch: Epoch, offset: i64) -> bool {
        let wanted = self.wanted.get(&partition).filter(|wanted| wanted.epoch == epoch);
        wanted.and_then(|wanted| wanted.committed).is_some_and(|committed| committed >= offset)
    }

    /// When the next commit is due.
    fn due(&self, renew: Duration) -> Option<Instant> {
        let spacing = if self.urgent { Duration::ZERO } else { SPACING };
        let each = |wanted: &Wanted| match wanted.tried {
            None => Instant::now(),
            Some(tried) if wanted.has_moved() => tried + spacing,
            Some(tried) => tried.max(wanted.accepted + renew),
        };
        self.wanted.values().map(each).min()
    }

    /// What a commit sent now should carry: everything that moved, and what would be due for renewal soon.
    fn batch(&mut self, ownership: &Ownership, renew: Duration) -> Vec<Stamp> {
        let now = Instant::now();
        self.wanted.retain(|partition, wanted| ownership.stands(*partition, wanted.epoch));
        let mut batch = Vec::new();
        for (&partition, wanted) in &mut self.wanted {
            if wanted.has_moved() || now.saturating_duration_since(wanted.accepted) >= renew / 2 {
                wanted.tried = Some(now);
                batch.push(Stamp { partition, epoch: wanted.epoch, offset: wanted.offset });
            }
        }
        batch
    }

    fn accepted(&mut self, stamp: Stamp, sent: Instant) {
        if let Some(wanted) = self.wanted.get_mut(&stamp.partition).filter(|wanted| wanted.epoch == stamp.epoch) {
            wanted.committed = Some(stamp.offset);
            wanted.accepted = sent;
        }
    }
}

/// The thread.
pub(super) struct Committer {
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
    renew: Duration,
    complained: Option<Instant>,
}

impl Committer {
    pub(super) fn start(
        consumer: Arc<BaseConsumer<Context>>,
        shared: Arc<Shared>,
        session_timeout: Duration,
    ) -> Result<(), Error> {
        let committer = Self { consumer, shared, renew: session_timeout / 4, complained: None };
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
            let answer = self.send(&batch);
            match answer {
                Ok(()) => self.accept(&batch, sent_at, sent),
                Err(error) => self.refused(&batch, &error),
            }
        }
    }

    /// Waits until a commit is due; `None` when it is time to end.
    fn next_batch(&self) -> Option<Vec<Stamp>> {
        let commits = &self.shared.commits;
        let mut state = commits.state();
        loop {
            if state.stopped {
                return None;
            }
            let wait = match state.due(self.renew) {
                Some(due) => due.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if wait.is_zero() {
                return Some(state.batch(&self.shared.ownership, self.renew));
            }
            state = commits.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn send(&self, batch: &[Stamp]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(batch.len());
        for stamp in batch {
            list.add_partition_offset(&self.shared.settings.topic, stamp.partition, Offset::Offset(stamp.offset))?;
        }
        self.consumer.commit(&list, CommitMode::Sync)
    }

    fn accept(&mut self, batch: &[Stamp], sent_at: u64, sent: Instant) {
        self.complained = None;
        let mut state = self.shared.commits.state();
        for &stamp in batch {
            let Stamp { partition, epoch, offset } = stamp;
            if self.shared.ownership.stands(partition, epoch) {
                state.accepted(stamp, sent);
                self.shared.outlet.offer(PollerEvent::Committed { partition, epoch, sent_at, offset });
            }
        }
        drop(state);
        self.shared.commits.changed.notify_all();
    }

    fn refused(&mut self, batch: &[Stamp], error: &KafkaError) {
        if !is_wait(error) && self.complained.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
            self.complained = Some(Instant::now());
            for stamp in batch {
                let Stamp { partition, epoch, .. } = *stamp;
                self.shared.outlet.offer(PollerEvent::CommitFailed { partition, epoch, what: error.to_string() });
            }
        }
        tracing::debug!(%error, partitions = batch.len(), "an offset commit was refused; it is repeated");
        std::thread::sleep(PATIENCE);
    }
}

/// Refusals that pass by themselves, or are followed by a rebalance callback.
fn is_wait(error: &KafkaError) -> bool {
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
