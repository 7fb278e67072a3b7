//! What a source route must know of the configuration: plain values, already resolved. Times are seconds where they
//! are compared with the instance's second-precision stamps, and milliseconds where they are waited for.

use std::collections::BTreeSet;

use crate::model::StateModel;

/// Where a route begins when it has no checkpoint yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Every row that exists, oldest first, then what changes.
    All,
    /// Rows and journal entries from this instant on, Unix seconds.
    Since(i64),
    /// Only what changes from now on, by the instance's clock.
    None,
}

/// One source route, for the pure core.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The route's name: key of its checkpoint, part of its transactional id.
    pub route: String,
    /// Name of the instance in the configuration: first part of every key and change id.
    pub instance: String,
    /// The table that is polled; rows of classes that extend it come with it.
    pub table: String,
    /// An encoded query that rows must match, or empty. See [`super::window::check_filter`].
    pub filter: String,
    /// Columns whose values are published and compared.
    pub watched: Vec<String>,
    /// State column and its values.
    pub states: StateModel,
    /// Those of `states.closed` that mean cancelled.
    pub canceled: BTreeSet<String>,
    /// User name the bridge writes as.
    pub bridge_user: String,
    /// User names of other integrations.
    pub integrations: BTreeSet<String>,
    /// Publish our own writes too, marked `bridge`.
    pub publish_echoes: bool,
    /// Where set, a row's `correlation_id` is published as ours only if its `correlation_display` begins with this.
    pub correlation_display: Option<String>,
    /// Poll work notes and comments.
    pub journal: bool,
    /// Poll deletes.
    pub deletes: bool,
    /// Where to begin without a checkpoint.
    pub start: Start,
    /// Seconds before the cursor that every poll reads again: how late a row may become visible.
    pub overlap: i64,
    /// Seconds that the cursor stays behind the instance's clock.
    pub lag: i64,
    /// Rows asked for in one request, 1 to 10,000. Large pages were seen to come damaged; a thousand is safe.
    pub page: u32,
}

impl Settings {
    /// Settings of a route over `table` with everything else at its default.
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
            overlap: 300,
            lag: 10,
            page: 1000,
        }
    }

    /// Columns asked for: the watched ones and those that every decision needs.
    pub fn columns(&self) -> String {
        let mut columns: Vec<&str> = NEEDED.to_vec();
        columns.push(&self.states.column);
        columns.extend(self.watched.iter().map(String::as_str));
        let mut seen = BTreeSet::new();
        columns.retain(|c| seen.insert(*c));
        columns.join(",")
    }
}

/// What is watched on a task table unless the route says otherwise.
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

const NEEDED: &[&str] = &[
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
