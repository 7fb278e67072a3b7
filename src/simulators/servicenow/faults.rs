//! The faults that the simulator can inject: seeded, counted, changeable while the instance runs.
//!
//! Each request gets one draw, so at most one of the faults with a probability disrupts it. Faults apply to writes of
//! the Table API (POST, PUT, PATCH, DELETE), to rows of import sets and to batches as a whole, unless `include_reads`
//! is set or the fault says otherwise. The sequence of draws depends only on the seed and on the order in which
//! requests arrive; in every hundred draws each fault occurs as often as its probability says, give or take one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The active faults. As JSON this is the body of `POST /simulator/faults`, which keeps the fields that it does not
/// name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fault")]
pub struct Faults {
    /// Seed of the draws; setting it restarts them.
    pub seed: u64,
    /// Apply the drawn faults to reads too.
    pub include_reads: bool,
    /// Disrupt only requests of this table. `None`: of all tables.
    pub table: Option<String>,
    /// How often a fault may occur at most, by the fault's name. Faults that are not listed have no limit.
    pub max_occurrences: BTreeMap<String, u64>,
    /// Probability of: commit, then the connection is reset.
    pub drop_after_commit: f64,
    /// Probability of: the connection is reset and nothing is ever committed.
    pub drop_before_commit: f64,
    /// Probability of: commit, then 500.
    pub error_500_after_commit: f64,
    /// Probability of: 500, nothing committed.
    pub error_500_before_commit: f64,
    /// Probability of: commit, then 502 with an HTML page of the load balancer.
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
    /// Probability of a ghost write: the client gets a connection reset or 504 first, the write commits later.
    pub ghost: f64,
    /// Probability of: like a ghost write, but the instance discards the write in the end.
    pub ghost_discarded: f64,
    /// Delay of a ghost write's commit, milliseconds: minimum, maximum.
    pub ghost_delay_ms: [u64; 2],
    pub ghost_response: GhostResponse,
    /// Probability of: 202 with an empty body, not executed.
    pub accepted_202: f64,
    /// Probability of: 200 with an HTML login page, not executed.
    pub html_200: f64,
    /// Probability of: the write commits, and the response is 200 or 201 with the body `null`.
    pub null_body: f64,
    /// Probability of: the response's JSON is cut in the middle, after the commit.
    pub truncated_json: f64,
    /// Probability of: a list response contains an error object (lists only, needs `include_reads`).
    pub spliced_error: f64,
    /// Probability of: the transaction quota ends a batch at a random item.
    pub batch_quota_exceeded: f64,
    /// Probability of: a writing item of a batch returns 500, before its commit or after.
    pub batch_item_500: f64,
    /// The caller may not use the Batch API: 403 for the call as a whole.
    pub batch_forbidden: bool,
    /// Probability of: the row of an import set is written, and the response reports an error that names it.
    pub import_error_after_commit: f64,
    /// Probability of: the row of an import set returns an error, and nothing is written.
    pub import_error_before_commit: f64,
    /// The caller may not read the staging table: 201 with an empty body.
    pub staging_table_unreadable: bool,
    /// Probability of: one of several events in a request is not inserted, which only the returned count shows.
    pub event_not_inserted: f64,
    /// Probability of a slow request.
    pub slow: f64,
    /// Extra time of a slow request, milliseconds.
    pub slow_ms: u64,
    /// All routes return 200 with the hibernation page.
    pub hibernating: bool,
    /// All routes return 503 with a maintenance page.
    pub maintenance_503: bool,
    /// The instance rejects all credentials and sessions (401) without counting towards a lockout.
    pub unauthorized: bool,
    /// `sys_journal_field` returns 200 with no rows.
    pub journal_unreadable: bool,
    /// Recurring windows of 429.
    pub throttle: Option<Throttle>,
    /// Extra latency of every Table API request, milliseconds.
    pub latency_ms: u64,
    /// Probability that list queries see a written row version only after a delay.
    pub delayed_visibility: f64,
    /// That delay, milliseconds: minimum, maximum.
    pub visibility_delay_ms: [u64; 2],
    /// Queries by `correlation_id`, `number` or `sys_id` see delayed row versions at once.
    pub lookups_ignore_delay: bool,
    /// Which resolution codes (`incident.close_code`) exist.
    pub close_codes: CloseCodes,
    /// `glide.rest.choice.allow_non_existing_value`.
    pub allow_non_existing_value: bool,
    /// They run in this order.
    pub business_rules: Vec<BusinessRule>,
    /// sys_ids of rows that only admins see.
    pub hidden_rows: Vec<String>,
    /// Columns (`table.column`) that only admins may read; responses to others leave them out.
    pub hidden_columns: Vec<String>,
    /// Columns (`table.column`) that only admins may write; writes of others ignore them silently.
    pub unwritable_columns: Vec<String>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            seed: 1,
            include_reads: false,
            table: None,
            max_occurrences: BTreeMap::new(),
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
            ghost_discarded: 0.0,
            ghost_delay_ms: [1_000, 20_000],
            ghost_response: GhostResponse::Mixed,
            accepted_202: 0.0,
            html_200: 0.0,
            null_body: 0.0,
            truncated_json: 0.0,
            spliced_error: 0.0,
            batch_quota_exceeded: 0.0,
            batch_item_500: 0.0,
            batch_forbidden: false,
            import_error_after_commit: 0.0,
            import_error_before_commit: 0.0,
            staging_table_unreadable: false,
            event_not_inserted: 0.0,
            slow: 0.0,
            slow_ms: 5_000,
            hibernating: false,
            maintenance_503: false,
            unauthorized: false,
            journal_unreadable: false,
            throttle: None,
            latency_ms: 0,
            delayed_visibility: 0.0,
            visibility_delay_ms: [3_000, 30_000],
            lookups_ignore_delay: false,
            close_codes: CloseCodes::default(),
            allow_non_existing_value: false,
            business_rules: Vec::new(),
            hidden_rows: Vec::new(),
            hidden_columns: Vec::new(),
            unwritable_columns: Vec::new(),
        }
    }
}

/// The response to a ghost write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GhostResponse {
    ConnectionReset,
    /// 504 of the load balancer.
    GatewayTimeout,
    /// Either of the two, by draw.
    Mixed,
}

/// Windows in which Table API requests return 429. The first begins with the instance's start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Milliseconds from the start of one window to the start of the next.
    pub every_ms: u64,
    /// Length of a window, milliseconds.
    pub for_ms: u64,
    /// Seconds in `Retry-After`, sent with the rate-limit headers. `None`: the 429 has neither.
    #[serde(default)]
    pub retry_after: Option<u64>,
    #[serde(default)]
    pub writes_only: bool,
}

/// A set of resolution codes (`incident.close_code`). A write with a code outside the set loses its code silently, as
/// with any unknown choice, and the data policy then rejects the resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseCodes {
    /// Only the codes of fresh installations since San Diego, such as `Solution provided`.
    New,
    /// Only the codes of older releases, such as `Solved (Permanently)`.
    Old,
    /// The codes of both, as an upgraded instance has them.
    #[default]
    Both,
}

/// A customer's business rule of type "before".
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusinessRule {
    /// Shown in the error message of an abort.
    pub name: String,
    /// Default `incident`.
    #[serde(default = "incident")]
    pub table: String,
    /// The column whose new value the rule compares. `None`: the rule matches every write.
    #[serde(default)]
    pub column: Option<String>,
    /// The text that the column's value must contain, ignoring case.
    #[serde(default)]
    pub contains: String,
    /// Columns that the rule sets, with their values.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// The rule calls `setAbortAction(true)`.
    #[serde(default)]
    pub abort: bool,
    /// The rule runs only for writes through REST.
    #[serde(default)]
    pub rest_only: bool,
}

fn incident() -> String {
    "incident".into()
}
