//! What a source route is doing, for `/readyz`, the metrics and the console: plain values behind a handle.

use std::sync::{Arc, Mutex, PoisonError};

/// What a route is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum State {
    /// Another instance of the bridge runs it, or none has been given it yet.
    #[default]
    Standby,
    /// Reading its topics.
    Starting,
    /// Polling.
    Polling,
    /// Not getting on; it tries again by itself.
    Waiting {
        /// Why, in plain words.
        reason: String,
        /// Milliseconds until the next try, as of when it began to wait.
        delay: u64,
    },
    /// Ended, with the process or because something needs a person.
    Stopped {
        /// Why; empty where the process ends.
        reason: String,
    },
}

/// Counts since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Polls that came to their end.
    pub polls: u64,
    /// Requests sent.
    pub requests: u64,
    /// Requests that failed, and answers that could not be used.
    pub failures: u64,
    /// Rows, entries and deletes read.
    pub read: u64,
    /// Of these known already.
    pub seen: u64,
    /// Changes published.
    pub published: u64,
    /// Our own writes left out.
    pub echoes: u64,
    /// Versions that no poll saw.
    pub skipped: u64,
    /// Journal entries given up because their row never became visible.
    pub orphans: u64,
    /// Transactions committed.
    pub transactions: u64,
    /// Transactions that did not commit for certain.
    pub failed_transactions: u64,
    /// Times that this process took the route over or loaded it anew.
    pub starts: u64,
}

/// A route's status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Everything before this instant has been published (Unix seconds, the instance's clock).
    pub cursor: Option<i64>,
    /// The instance's clock at the last answer, Unix seconds; less the cursor it is the route's lag.
    pub instance_now: Option<i64>,
    /// Rows remembered.
    pub rows: usize,
    /// Seconds between polls, where the quota stretches the configured interval.
    pub stretched: Option<u64>,
    /// What a person should know, although the route goes on.
    pub findings: Vec<String>,
    /// Counts.
    pub stats: Stats,
}

/// Shares a status; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StatusHandle(Arc<Mutex<Status>>);

impl StatusHandle {
    /// The status now.
    pub fn snapshot(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn state(&self, state: State) {
        self.update(|s| s.state = state);
    }
}
