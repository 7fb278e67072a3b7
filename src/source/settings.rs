//! The settings of a source route: plain values, already resolved from the configuration. Times are in seconds if
//! they are compared with the instance's timestamps, which have a precision of seconds, and in milliseconds if they
//! are delays.

use std::collections::BTreeSet;

use crate::model::StateModel;

/// Where a route without a checkpoint starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// All existing rows, oldest first, then changes.
    All,
    /// Rows and journal entries from this instant on, in Unix seconds.
    Since(i64),
    /// Only changes from now on, by the instance's clock.
    None,
}

/// The settings of one source route that the change detection needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the route: the key of its checkpoint and a part of its transactional id.
    pub route: String,
    /// Name of the instance in the configuration: the first part of every record key and change id.
    pub instance: String,
    /// The polled table. Rows of classes that extend it are included.
    pub table: String,
    /// An encoded query that rows must match; may be empty. See [`super::window::check_filter`].
    pub filter: String,
    /// Columns whose values are published and compared.
    pub watched: Vec<String>,
    /// The state column and its values.
    pub states: StateModel,
    /// The values of `states.closed` that mean canceled.
    pub canceled: BTreeSet<String>,
    /// User name as which the bridge writes.
    pub bridge_user: String,
    /// User names of other integrations.
    pub integrations: BTreeSet<String>,
    /// Publish the bridge's own writes too, marked `bridge`.
    pub publish_echoes: bool,
    /// If set, a row's `correlation_id` is published only if its `correlation_display` begins with this.
    pub correlation_display: Option<String>,
    /// Publish work notes and comments.
    pub journal: bool,
    /// Publish deletes.
    pub deletes: bool,
    /// Where to start without a checkpoint.
    pub start: Start,
    /// Seconds before the cursor that every poll reads again: how late a row may become visible.
    pub lookback: i64,
    /// Seconds by which the cursor lags the instance's clock.
    pub safety_lag: i64,
    /// Rows per request, 1 to 10,000. Responses with large pages were seen damaged; a thousand is safe.
    pub page_size: u32,
}

impl Settings {
    /// The default settings of a route over `table`.
    pub fn new(route: &str, instance: &str, table: &str, bridge_user: &str) -> Self {
        Self {
            route: route.into(),
            instance: instance.into(),
            table: table.into(),
            filter: String::new(),
            watched: DEFAULT_WATCHED.iter().map(ToString::to_string).collect(),
            states: StateModel::default(),
            canceled: BTreeSet::from(["8".to_string()]),
            bridge_user: bridge_user.into(),
            integrations: BTreeSet::new(),
            publish_echoes: false,
            correlation_display: None,
            journal: true,
            deletes: true,
            start: Start::None,
            lookback: 300,
            safety_lag: 10,
            page_size: 1000,
        }
    }

    /// The columns to read: the watched ones and those that every decision needs.
    pub fn columns(&self) -> String {
        let mut columns: Vec<&str> = REQUIRED_COLUMNS.to_vec();
        columns.push(&self.states.column);
        columns.extend(self.watched.iter().map(String::as_str));
        let mut seen = BTreeSet::new();
        columns.retain(|c| seen.insert(*c));
        columns.join(",")
    }
}

/// The watched columns of a task table if the route does not configure any.
pub const DEFAULT_WATCHED: &[&str] = &[
    "state",
    "priority",
    "impact",
    "urgency",
    "assignment_group",
    "assigned_to",
    "short_description",
    "hold_reason",
    "close_code",
    "close_notes",
    "cmdb_ci",
];

const REQUIRED_COLUMNS: &[&str] = &[
    "sys_id",
    "number",
    "sys_class_name",
    "sys_mod_count",
    "sys_created_on",
    "sys_updated_on",
    "sys_updated_by",
    "correlation_id",
    "correlation_display",
];
