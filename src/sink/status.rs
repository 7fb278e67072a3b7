//! What a route tells about itself: read by `/readyz`, the metrics and the console, written by the route's loop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::dispatcher::Snapshot;
use crate::model::{DrainEstimate, QuotaStatus};

/// A partition that is held back, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// What is the matter and what to do.
    pub held: String,
}

/// A route's present state.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Numbers of the engine.
    pub snapshot: Snapshot,
    /// How the quota is spent.
    pub plan: QuotaStatus,
    /// What waits.
    pub backlog: DrainEstimate,
    /// Why the route stands still, in words; `None` while it works.
    pub blocked_by: Option<String>,
    /// Partitions that are held back.
    pub held: BTreeMap<i32, PartitionStatus>,
    /// The last trouble that Kafka told of, and when it was told (mono milliseconds).
    pub trouble: Option<(String, u64)>,
    /// Keys that are parked, with the reason; at most 100.
    pub parked: Vec<(String, String)>,
    /// Counts since the start, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// False until the first partition was assigned or the group settled without one for us.
    pub started: bool,
    /// When the route's loop last turned (mono milliseconds); 0 before its first turn.
    pub pulse: u64,
}

impl Status {
    /// Why this route is not ready; empty where it is.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.started {
            reasons.push("waits for the consumer group to assign partitions".into());
        }
        reasons.extend(self.blocked_by.clone());
        reasons.extend(self.held.iter().map(|(p, s)| format!("partition {p} is held: {}", s.held)));
        if self.snapshot.partitions.1 > 0 {
            reasons.push(format!("{} partitions are reading their ledger", self.snapshot.partitions.1));
        }
        reasons
    }
}

/// Shared access to a route's status.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle {
    inner: Arc<Mutex<Status>>,
    /// A person asked the route to go on.
    resume: Arc<AtomicBool>,
}

impl StatusHandle {
    /// A copy of the present state.
    pub fn get(&self) -> Status {
        self.lock().clone()
    }

    /// Changes the state.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    /// Counts something.
    pub fn count(&self, name: &'static str, by: u64) {
        *self.lock().counts.entry(name).or_default() += by;
    }

    /// Asks the route to go on where it stands still; its loop hears it at its next turn.
    pub fn resume(&self) {
        self.resume.store(true, Ordering::Release);
    }

    /// Whether that was asked since the last call.
    pub fn take_resume(&self) -> bool {
        self.resume.swap(false, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
