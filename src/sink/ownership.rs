//! Load generations: each take-over of a partition begins a new one, also within one assignment.
//!
//! After a ledger write of unknown outcome the engine takes a new token, while epoch and lease stay the same. A write
//! that it sent out before may still wait for an access token, and must not reach the instance any more: by its claim
//! the engine treats it as sent already, and waits no longer than for a write that was (protocol rule 1c).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The current load generation of each partition; clones share it.
#[derive(Debug, Clone, Default)]
pub struct LoadGenerations(Arc<Mutex<HashMap<i32, u64>>>);

impl LoadGenerations {
    /// Returns the current load generation; 0 before the first load.
    pub fn current(&self, partition: i32) -> u64 {
        self.lock().get(&partition).copied().unwrap_or(0)
    }

    /// Begins a new load generation.
    pub fn advance(&self, partition: i32) {
        *self.lock().entry(partition).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
