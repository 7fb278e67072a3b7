//! The status of a route: written by the route's loop, read by `/readyz`, the metrics and the console.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::dispatcher::Snapshot;
use crate::model::{DrainEstimate, QuotaStatus};

/// Why a partition is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedPartition {
    /// The error, and what to do.
    pub reason: String,
}

/// An error that the Kafka client reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaError {
    /// The client's message.
    pub message: String,
    /// When it was reported, mono milliseconds.
    pub at: u64,
}

/// The status of a route.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Counts of the engine.
    pub snapshot: Snapshot,
    /// State of the instance's quota.
    pub quota: QuotaStatus,
    /// The waiting keys, and when they are written.
    pub drain: DrainEstimate,
    /// Why the route is blocked, as text; `None` while it runs.
    pub blocked_by: Option<String>,
    /// Partitions that are not processed until an error is resolved.
    pub blocked_partitions: BTreeMap<i32, BlockedPartition>,
    /// The last error of the Kafka client.
    pub kafka_error: Option<KafkaError>,
    /// Parked keys and why they are parked; at most 100.
    pub parked: Vec<(String, String)>,
    /// Counts since the start, by outcome, and of dead letters.
    pub counts: BTreeMap<&'static str, u64>,
    /// False until the first partition is assigned, or the group is stable without one for this member.
    pub started: bool,
    /// When the route's loop last ran, mono milliseconds; 0 before the first time.
    pub heartbeat: u64,
}

impl Status {
    /// Returns why the route is not ready; empty if it is ready.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.started {
            reasons.push("waiting for the consumer group to assign partitions".into());
        }
        reasons.extend(self.blocked_by.clone());
        let blocked = self.blocked_partitions.iter();
        reasons.extend(
            blocked.map(|(partition, blocked)| format!("partition {partition} is blocked: {}", blocked.reason)),
        );
        if self.snapshot.loading_partitions > 0 {
            reasons.push(format!("{} partitions are loading their ledger", self.snapshot.loading_partitions));
        }
        reasons
    }
}

/// Shared access to a route's status.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle {
    inner: Arc<Mutex<Status>>,
    /// An operator asked to resume the route.
    resume_requested: Arc<AtomicBool>,
}

impl StatusHandle {
    /// Returns a copy of the status.
    pub fn get(&self) -> Status {
        self.lock().clone()
    }

    /// Changes the status.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    /// Adds to a count.
    pub fn count(&self, name: &'static str, by: u64) {
        *self.lock().counts.entry(name).or_default() += by;
    }

    /// Asks the route to resume if it is stopped; its loop does so within its next iteration.
    pub fn request_resume(&self) {
        self.resume_requested.store(true, Ordering::Release);
    }

    /// Whether a resume was requested since the last call.
    pub fn take_resume_request(&self) -> bool {
        self.resume_requested.swap(false, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
