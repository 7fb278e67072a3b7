//! The partitions that are assigned to this member, and their epochs. The poller thread writes it, everyone reads it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::model::Epoch;

/// Epochs increase over all partitions and all pollers of the process, so each epoch means one assignment.
static NEXT_EPOCH: AtomicU64 = AtomicU64::new(1);

/// The assigned partitions.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    epochs: RwLock<HashMap<i32, Epoch>>,
}

impl Ownership {
    /// Returns the partition's current epoch; `None` if it is not assigned.
    pub(super) fn epoch_of(&self, partition: i32) -> Option<Epoch> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    /// Whether this is the partition's current epoch.
    pub(super) fn is_current(&self, partition: i32, epoch: Epoch) -> bool {
        self.epoch_of(partition) == Some(epoch)
    }

    /// Adds a partition, and returns its new epoch.
    pub(super) fn add(&self, partition: i32) -> Epoch {
        let epoch = Epoch(NEXT_EPOCH.fetch_add(1, Ordering::Relaxed));
        self.epochs.write().unwrap_or_else(PoisonError::into_inner).insert(partition, epoch);
        epoch
    }

    /// Removes a partition, and returns the epoch that ended.
    pub(super) fn remove(&self, partition: i32) -> Option<Epoch> {
        self.epochs.write().unwrap_or_else(PoisonError::into_inner).remove(&partition)
    }
}
