//! The status of a stage: written by its loop, read by `/readyz` and the console.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The current status. Counters count since the start of the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// True once a partition was assigned.
    pub started: bool,
    /// The assigned partitions, and the next offset to commit, if known.
    pub partitions: BTreeMap<i32, Option<i64>>,
    /// Partitions that are not read, and the reason. A user must act.
    pub blocked: BTreeMap<i32, String>,
    /// Why the stage makes no progress at the moment.
    pub waiting_reason: Option<String>,
    /// Committed input records.
    pub records: u64,
    /// Alerts in these records.
    pub alerts: u64,
    /// Committed transactions.
    pub transactions: u64,
    /// Failed transactions. They are retried.
    pub failed_transactions: u64,
    /// Uncommitted input records of the assigned partitions.
    pub lag: i64,
}

impl Status {
    /// Returns why the stage is not ready; empty if it is.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let blocked = self.blocked.iter();
        reasons.extend(
            blocked.map(|(partition, reason)| format!("repartitioning of partition {partition} is blocked: {reason}")),
        );
        reasons.extend(self.waiting_reason.iter().map(|reason| format!("repartitioning is waiting: {reason}")));
        reasons
    }
}

/// Shared access to the status.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle(Arc<Mutex<Status>>);

impl StatusHandle {
    /// Returns a copy of the status.
    pub fn get(&self) -> Status {
        self.lock().clone()
    }

    /// Changes the status.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
