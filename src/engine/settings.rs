//! The engine's settings: plain values, resolved from the configuration.

use std::collections::BTreeSet;

use super::budget::BufferSize;
use super::flap_detection::FlapSettings;
use super::retry::RetryDelays;
use crate::model::{Column, StateModel};

/// The engine's settings. Times are in milliseconds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Raw state values of the table.
    pub states: StateModel,
    /// The user name as which the bridge writes: `sys_updated_by` of its own row versions.
    pub bridge_user: String,
    /// A resolved ticket is reopened by an event that occurred at most this long after its resolution.
    pub reopen_window: u64,
    /// A decision about a ticket rests on a row that was seen at most this long ago; more while permits are scarce
    /// ([`super::freshness`]). At least 1.
    pub max_row_age: u64,
    /// How long a look that will probably change nothing waits for others, to share a request with them.
    pub max_look_delay: u64,
    /// The columns that the mapping may write, sorted: every row that is read shows them.
    pub columns: Vec<Column>,
    /// Total deadline of one request.
    pub request_deadline: u64,
    /// How long the instance may continue with a request whose connection was cut: its transaction quota.
    pub max_transaction_time: u64,
    /// The consumer's `session.timeout.ms`.
    pub session_timeout: u64,
    /// The consumer's `max.poll.interval.ms`.
    pub max_poll_interval: u64,
    /// Subtracted from `max_poll_interval` for the lease.
    pub poll_interval_margin: u64,
    /// How long a revoked partition may take to finish its work.
    pub drain_timeout: u64,
    /// Time between two marks.
    pub mark_interval: u64,
    /// Number of lanes that may hold a claim without a request in flight, beyond the permits that are free: as many as
    /// permits are likely to become free while a claim is produced to the ledger ([`super::claim_window`]).
    pub min_claim_window: usize,
    /// Waiting time that makes up for one step of urgency.
    pub aging_step: u64,
    /// When an alert counts as flapping; `None` disables flap detection.
    pub flapping: Option<FlapSettings>,
    /// Number of rejections in a row that stops the route.
    pub rejection_limit: u32,
    /// Number of failures in a row that opens the breaker.
    pub breaker_threshold: u32,
    /// Delays between attempts.
    pub retry: RetryDelays,
    /// Delays between requests with credentials that were rejected.
    pub auth_retry: RetryDelays,
    /// Maximum number of unresolved events, and of bytes of their records, before fetching pauses.
    pub budget: BufferSize,
    /// Maximum number of characters of work notes in one write. Longer notes are split.
    pub note_limit: usize,
    /// Columns that the bridge overwrites even if a user edited them.
    pub overwrite_columns: BTreeSet<Column>,
    /// True if an opening event without an episode opens a ticket again that a user has resolved or closed.
    pub reopen_after_user: bool,
    /// Each write is self-contained, as an event is: it contains all columns of its fold, always the state column, and
    /// a marker of its attempt, by which an ambiguous write is settled. The state column contains what the mapping says
    /// (a severity), and `states.resolved` if the alert is over. A key has one ticket as long as it has an entry.
    pub full_snapshot: bool,
    /// Prefix of this route's note markers: the input topic.
    pub marker_prefix: String,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            states: StateModel::default(),
            bridge_user: "nowbridge".into(),
            reopen_window: 24 * 3_600_000,
            max_row_age: 5_000,
            max_look_delay: 60_000,
            columns: Vec::new(),
            request_deadline: 70_000,
            max_transaction_time: 60_000,
            session_timeout: 45_000,
            max_poll_interval: 300_000,
            poll_interval_margin: 10_000,
            drain_timeout: 3_000,
            mark_interval: 5_000,
            min_claim_window: 4,
            aging_step: 60_000,
            flapping: None,
            rejection_limit: 20,
            breaker_threshold: 5,
            retry: RetryDelays { first: 1_000, max: 60_000 },
            auth_retry: RetryDelays { first: 60_000, max: 960_000 },
            budget: BufferSize { events: 100_000, bytes: 64 << 20 },
            note_limit: 16_000,
            overwrite_columns: BTreeSet::new(),
            reopen_after_user: true,
            full_snapshot: false,
            marker_prefix: "alerts".into(),
            seed: 0,
        }
    }
}
