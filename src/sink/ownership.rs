//! Taking a partition over, and load generations: each take-over begins a new one, also within one assignment.
//!
//! After a ledger write of unknown outcome the engine takes a new token, while epoch and lease stay the same. A write
//! that it sent out before may still wait for an access token, and must not reach the instance any more: by its claim
//! the engine treats it as sent already, and waits no longer than for a write that was (protocol rule 1c).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::driver::Driver;
use super::status::BlockedPartition;
use crate::engine::event::Event;
use crate::model::Epoch;
use crate::runtime::error_chain;

/// Delay between two attempts to take a partition over.
const TAKE_OVER_RETRY: Duration = Duration::from_secs(1);

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

impl Driver {
    /// Loads the ledger of a partition, until that succeeds or the partition is taken away.
    pub(super) fn take_over(&self, partition: i32, epoch: Epoch) {
        let (loader, poller, events) = (self.loader.clone(), self.poller.clone(), self.events.clone());
        let (status, name) = (self.status.clone(), Arc::clone(&self.route.name));
        tokio::spawn(async move {
            let route = Arc::clone(&name);
            let progress = Arc::new(
                move |records: u64| tracing::info!(route = %route, partition, records_read = records, "loading ledger"),
            );
            while poller.epoch_of(partition) == Some(epoch) {
                match loader.take_over(partition, progress.clone()).await {
                    Ok(ledger) => {
                        status.update(|s| {
                            s.blocked_partitions.remove(&partition);
                        });
                        let _ = events.send(Event::LedgerLoaded { partition, epoch, ledger: Box::new(ledger) });
                        return;
                    }
                    Err(error) => {
                        let reason = error_chain::chain(&error);
                        if error.is_transient() {
                            tracing::warn!(route = %name, partition, error = reason, "partition takeover failed, retrying");
                        } else {
                            tracing::error!(route = %name, partition, error = reason, "partition blocked");
                        }
                        status.update(|s| {
                            s.blocked_partitions.insert(partition, BlockedPartition { reason });
                        });
                        let delay = if error.is_transient() { TAKE_OVER_RETRY } else { TAKE_OVER_RETRY * 10 };
                        tokio::time::sleep(delay).await;
                    }
                }
            }
        });
    }
}
