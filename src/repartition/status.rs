//! What the stage tells about itself: written by its loop, read by `/readyz` and the console.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The stage's present state. Counts are since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// True once the group has given us a partition, or settled without one for us.
    pub started: bool,
    /// Partitions held, and the offset to go on from, where known.
    pub partitions: BTreeMap<i32, Option<i64>>,
    /// Partitions that are not read, and why.
    pub refused: BTreeMap<i32, String>,
    /// Why nothing goes on at the moment.
    pub trouble: Option<String>,
    /// Records re-keyed.
    pub records: u64,
    /// Alerts in them.
    pub alerts: u64,
    /// Transactions committed.
    pub transactions: u64,
    /// Transactions that failed, and were done again.
    pub failed: u64,
    /// Records of our partitions that are yet to be re-keyed.
    pub lag: i64,
}

impl Status {
    /// Why the stage is not ready; empty where it is.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let refused = self.refused.iter();
        reasons.extend(refused.map(|(partition, why)| format!("re-keying of partition {partition} is held: {why}")));
        reasons.extend(self.trouble.iter().map(|what| format!("re-keying stands still: {what}")));
        reasons
    }
}

/// Shared access to the status.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle(Arc<Mutex<Status>>);

impl StatusHandle {
    /// A copy of the present state.
    pub fn get(&self) -> Status {
        self.lock().clone()
    }

    /// Changes the state.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
