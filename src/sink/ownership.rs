//! Tenures: the times between one take-over of a partition and the next, within one assignment too.
//!
//! After a ledger write of unknown outcome the engine takes a new token while epoch and lease stand as before. What it
//! wanted sent before that may still wait for an access token, and must not be sent any more: by its claim the engine
//! counts it as sent already, and waits no longer than for a write that was.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The present tenure of each partition; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Tenures(Arc<Mutex<HashMap<i32, u64>>>);

impl Tenures {
    /// The number of the present tenure; 0 before the first.
    pub fn of(&self, partition: i32) -> u64 {
        self.lock().get(&partition).copied().unwrap_or(0)
    }

    /// A new tenure begins.
    pub fn begin(&self, partition: i32) {
        *self.lock().entry(partition).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
