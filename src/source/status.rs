//! The status of a source route for `/readyz`, the metrics and the console: plain values in a shared handle.

use std::sync::{Arc, Mutex, PoisonError};

/// The state of a source route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Another process runs the route, or the group has not assigned it yet.
    #[default]
    Standby,
    /// Loading the route's topics.
    Starting,
    Polling,
    /// Waiting after an error; the route retries by itself.
    Waiting {
        /// The error.
        reason: String,
        /// Milliseconds until the next attempt, counted from the start of the wait.
        delay_ms: u64,
    },
    /// Stopped, because the process ends or because a user must act.
    Stopped {
        /// Empty if the process ends.
        reason: String,
    },
}

/// Counts since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Completed polls.
    pub polls: u64,
    pub requests: u64,
    /// Failed requests, and responses that could not be used.
    pub failures: u64,
    /// Rows, journal entries and deletes.
    pub read: u64,
    /// Of those read: published before.
    pub already_seen: u64,
    /// Changes.
    pub published: u64,
    /// The bridge's own writes, which are not published.
    pub own_changes_skipped: u64,
    /// Versions that no poll saw.
    pub versions_skipped: u64,
    /// Journal entries that were dropped because their row never became visible.
    pub orphaned_entries: u64,
    /// Committed transactions.
    pub transactions: u64,
    /// Transactions that were not committed for certain.
    pub failed_transactions: u64,
    /// Sessions: how often this process took the route over or loaded it again.
    pub starts: u64,
}

/// A route's status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    pub state: State,
    /// The instant up to which everything was published, in Unix seconds of the instance's clock.
    pub cursor: Option<i64>,
    /// The instance's clock at the last response, in Unix seconds. The difference to the cursor is the route's lag.
    pub instance_now: Option<i64>,
    /// Rows whose last published state is known.
    pub rows: usize,
    /// Seconds between polls if the quota requires more than the configured interval.
    pub effective_interval: Option<u64>,
    /// Problems that do not stop the route and that a user should know.
    pub findings: Vec<String>,
    pub stats: Stats,
}

/// A shared status; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle(Arc<Mutex<Status>>);

impl StatusHandle {
    /// Returns a copy of the status.
    pub fn get(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn set_state(&self, state: State) {
        self.update(|s| s.state = state);
    }
}
