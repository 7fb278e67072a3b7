//! What the engine must know of the configuration: plain values, already resolved.

use std::collections::BTreeSet;

use super::flap_detection::Flapping;
use crate::model::{Column, StateModel};

/// The engine's settings. Times are milliseconds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Raw state values of the table.
    pub states: StateModel,
    /// User name the bridge writes as: `sys_updated_by` of our own versions.
    pub bridge_user: String,
    /// A resolved ticket is reopened by an event that occurred at most this long after its resolution.
    pub reopen_window: u64,
    /// Rows last seen longer ago are read before they are written; 0 = always.
    pub row_freshness: u64,
    /// Total deadline of one request.
    pub request_deadline: u64,
    /// How long the instance may go on with a request whose connection is gone; its transaction quota.
    pub settle_time: u64,
    /// The consumer's `session.timeout.ms`.
    pub session_timeout: u64,
    /// The consumer's `max.poll.interval.ms`.
    pub max_poll_interval: u64,
    /// Taken off `max_poll_interval` for the lease.
    pub poll_margin: u64,
    /// How long a revoked partition may finish its work.
    pub drain: u64,
    /// Between two marks.
    pub mark_every: u64,
    /// Lanes that may always hold a claim without a request in flight, beyond the permits that are free: as many as
    /// are likely to come free while a claim is on its way to the ledger ([`super::ahead`]).
    pub claims_ahead: usize,
    /// Waiting that makes up for one step of urgency.
    pub ageing: u64,
    /// When an alert flaps; `None`: its state is never held.
    pub flapping: Option<Flapping>,
    /// Refusals in a row that stop the route.
    pub brake: u32,
    /// Failures in a row that open the breaker.
    pub breaker: u32,
    /// First and longest delay between tries.
    pub retry: (u64, u64),
    /// First and longest delay between probes with credentials that failed.
    pub auth_retry: (u64, u64),
    /// Most unresolved events, and most bytes of their records, before fetching pauses.
    pub budget: (usize, usize),
    /// Most characters of work notes in one write; longer notes are split.
    pub note_limit: usize,
    /// Columns that the bridge overwrites even where a person changed them.
    pub overwrite: BTreeSet<Column>,
    /// Each write stands for itself, as an event does: it carries all columns of its fold, the state in each, and a marker
    /// of its attempt by which a doubt about it is settled. The state column then holds what the mapping says (a
    /// severity), and `states.resolved` where the alert is over; one ticket stands for a key as long as it is remembered.
    pub whole: bool,
    /// What names this route's notes: the input topic.
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
            row_freshness: 300_000,
            request_deadline: 70_000,
            settle_time: 60_000,
            session_timeout: 45_000,
            max_poll_interval: 300_000,
            poll_margin: 10_000,
            drain: 3_000,
            mark_every: 5_000,
            claims_ahead: 4,
            ageing: 60_000,
            flapping: None,
            brake: 20,
            breaker: 5,
            retry: (1_000, 60_000),
            auth_retry: (60_000, 960_000),
            budget: (100_000, 64 << 20),
            note_limit: 16_000,
            overwrite: BTreeSet::new(),
            whole: false,
            marker_prefix: "alerts".into(),
            seed: 0,
        }
    }
}
