//! What can go wrong on purpose, and when: seeded, counted, changeable while the instance runs.
//!
//! One draw is made per request, so at most one disruptive fault strikes it. Faults strike writes of the Table API
//! (POST, PUT, PATCH, DELETE), rows of import sets and batches as a whole, unless `reads` is set or the fault says otherwise. The sequence of draws is a function
//! of the seed and of the order in which requests arrive; in every hundred draws each fault has its share, give or
//! take one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The faults in force. As JSON it is the body of `POST /simulator/faults`, where fields left out stay as they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fault")]
pub struct Faults {
    /// Seed of the draws; setting it restarts them.
    pub seed: u64,
    /// Let the drawn faults strike reads too.
    pub reads: bool,
    /// Only requests of this table are struck.
    pub table: Option<String>,
    /// The most strikes of a fault, by the fault's name; none: no limit.
    pub limits: BTreeMap<String, u64>,
    /// Probability of: commit, then the connection is cut.
    pub drop_after_commit: f64,
    /// Probability of: the connection is cut and nothing is ever committed.
    pub drop_before_commit: f64,
    /// Probability of: commit, then 500.
    pub error_500_after_commit: f64,
    /// Probability of: 500, nothing committed.
    pub error_500_before_commit: f64,
    /// Probability of: commit, then 502 with an HTML page of the front end.
    pub gateway_502_after_commit: f64,
    /// Probability of: 502, nothing committed.
    pub gateway_502_before_commit: f64,
    /// Probability of: commit, then 503.
    pub gateway_503_after_commit: f64,
    /// Probability of: 503, nothing committed.
    pub gateway_503_before_commit: f64,
    /// Probability of: commit, then 504.
    pub gateway_504_after_commit: f64,
    /// Probability of: 504, nothing committed.
    pub gateway_504_before_commit: f64,
    /// Probability of: the connection is cut or 504 is answered before the commit, and the write commits later.
    pub ghost: f64,
    /// Probability of: as a ghost, but the instance refuses the write in the end.
    pub ghost_refused: f64,
    /// Delay of a ghost's commit, milliseconds: at least, at most.
    pub ghost_ms: [u64; 2],
    /// What the client of a ghost sees.
    pub ghost_answer: GhostAnswer,
    /// Probability of: 202 with an empty body, not executed.
    pub accepted_202: f64,
    /// Probability of: 200 with an HTML login page, not executed.
    pub html_200: f64,
    /// Probability of: the write commits and is answered 200/201 with the body `null`.
    pub null_body: f64,
    /// Probability of: the answer's JSON is cut in the middle (after commit).
    pub cut_json: f64,
    /// Probability of: a list's answer has an error object spliced in (lists only, needs `reads`).
    pub spliced_error: f64,
    /// Probability of: the quota ends a batch at a random item.
    pub batch_quota: f64,
    /// Probability of: a writing item of a batch is answered 500, before its commit or after.
    pub batch_item_500: f64,
    /// The Batch API is closed to this caller: 403 for the call as a whole.
    pub batch_refused: bool,
    /// Probability of: the row of an import set is written, and then answered as an error that names it.
    pub import_error_after_commit: f64,
    /// Probability of: the row of an import set is an error, and nothing is written.
    pub import_error_before_commit: f64,
    /// The caller can't read the staging table: 201 with an empty body.
    pub import_unreadable: bool,
    /// Probability of: one of several events in a request is not taken, which only the count tells.
    pub event_not_taken: f64,
    /// Probability of a slow request, and how slow in milliseconds.
    pub slow: f64,
    /// Extra time of a slow request.
    pub slow_ms: u64,
    /// All routes answer 200 with the hibernation page.
    pub hibernating: bool,
    /// All routes answer 503 with a maintenance page.
    pub maintenance_503: bool,
    /// All credentials and sessions are refused (401) without counting towards a lockout.
    pub unauthorised: bool,
    /// `sys_journal_field` answers 200 with no rows.
    pub journal_acl: bool,
    /// Recurring windows of 429.
    pub throttle: Option<Throttle>,
    /// Extra latency of every Table API request, milliseconds.
    pub latency_ms: u64,
    /// Probability that a written row version becomes visible to list queries late.
    pub late_visible: f64,
    /// How late, milliseconds: at least, at most.
    pub late_ms: [u64; 2],
    /// Let queries by `correlation_id`, `number` or `sys_id` see late rows at once.
    pub late_spares_lookups: bool,
    /// Which resolution codes exist.
    pub close_codes: CloseCodes,
    /// `glide.rest.choice.allow_non_existing_value`.
    pub allow_non_existing_value: bool,
    /// Business rules, in order.
    pub business_rules: Vec<BusinessRule>,
    /// sys_ids of rows that only admins see.
    pub hidden_rows: Vec<String>,
    /// Columns (`table.column`) that only admins read: left out of answers.
    pub hidden_columns: Vec<String>,
    /// Columns (`table.column`) that only admins write: silently ignored.
    pub unwritable_columns: Vec<String>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            seed: 1,
            reads: false,
            table: None,
            limits: BTreeMap::new(),
            drop_after_commit: 0.0,
            drop_before_commit: 0.0,
            error_500_after_commit: 0.0,
            error_500_before_commit: 0.0,
            gateway_502_after_commit: 0.0,
            gateway_502_before_commit: 0.0,
            gateway_503_after_commit: 0.0,
            gateway_503_before_commit: 0.0,
            gateway_504_after_commit: 0.0,
            gateway_504_before_commit: 0.0,
            ghost: 0.0,
            ghost_refused: 0.0,
            ghost_ms: [1_000, 20_000],
            ghost_answer: GhostAnswer::Mixed,
            accepted_202: 0.0,
            html_200: 0.0,
            null_body: 0.0,
            cut_json: 0.0,
            spliced_error: 0.0,
            batch_quota: 0.0,
            batch_item_500: 0.0,
            batch_refused: false,
            import_error_after_commit: 0.0,
            import_error_before_commit: 0.0,
            import_unreadable: false,
            event_not_taken: 0.0,
            slow: 0.0,
            slow_ms: 5_000,
            hibernating: false,
            maintenance_503: false,
            unauthorised: false,
            journal_acl: false,
            throttle: None,
            latency_ms: 0,
            late_visible: 0.0,
            late_ms: [3_000, 30_000],
            late_spares_lookups: false,
            close_codes: CloseCodes::New,
            allow_non_existing_value: false,
            business_rules: Vec::new(),
            hidden_rows: Vec::new(),
            hidden_columns: Vec::new(),
            unwritable_columns: Vec::new(),
        }
    }
}

/// What the client of a ghost write sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GhostAnswer {
    /// The connection is cut.
    Cut,
    /// 504 of the front end.
    Gateway,
    /// Either, by draw.
    Mixed,
}

/// Windows in which Table API requests are answered 429, measured from the instance's start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// A window begins every so many milliseconds.
    pub every_ms: u64,
    /// And lasts so many.
    pub for_ms: u64,
    /// Seconds in `Retry-After`, with the rate headers; without it the 429 is bare.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// Only writes are throttled.
    #[serde(default)]
    pub writes_only: bool,
}

/// Which resolution codes of `incident` exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseCodes {
    /// Fresh installations since San Diego.
    New,
    /// Before.
    Old,
    /// An upgraded instance.
    Both,
}

/// A customer's business rule, before a write.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusinessRule {
    /// Its name, shown in the text of an abort.
    pub name: String,
    /// The table; default `incident`.
    #[serde(default = "incident")]
    pub table: String,
    /// The column it looks at (the value after the write); without it the rule matches every write.
    #[serde(default)]
    pub when: Option<String>,
    /// The column's value must contain this, ignoring case.
    #[serde(default)]
    pub contains: String,
    /// Columns it sets.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// `setAbortAction(true)`.
    #[serde(default)]
    pub abort: bool,
    /// Only for writes that come through REST.
    #[serde(default)]
    pub rest_only: bool,
}

fn incident() -> String {
    "incident".into()
}
