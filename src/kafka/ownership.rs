//! Which partitions are ours, under which epoch: written by the poller's thread, read by everybody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::model::Epoch;

/// Epochs rise over all partitions and all pollers of the process, so that one never means two assignments.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// The partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    epochs: RwLock<HashMap<i32, Epoch>>,
}

impl Ownership {
    /// The partition's present epoch.
    pub(super) fn epoch_of(&self, partition: i32) -> Option<Epoch> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    /// Whether this epoch still stands.
    pub(super) fn stands(&self, partition: i32, epoch: Epoch) -> bool {
        self.epoch_of(partition) == Some(epoch)
    }

    /// Ours from now on.
    pub(super) fn gain(&self, partition: i32) -> Epoch {
        let epoch = Epoch(NEXT_EPOCH.fetch_add(1, Ordering::Relaxed));
        self.epochs.write().unwrap_or_else(PoisonError::into_inner).insert(partition, epoch);
        epoch
    }

    /// No longer ours. Answers the epoch that ended.
    pub(super) fn end(&self, partition: i32) -> Option<Epoch> {
        self.epochs.write().unwrap_or_else(PoisonError::into_inner).remove(&partition)
    }
}
