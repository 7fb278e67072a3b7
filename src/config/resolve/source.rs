//! Routes from ServiceNow to Kafka.

use std::sync::Arc;
use std::time::Duration;

use super::super::raw::RawSource;
use super::super::resolved::{Instance, Source, SourceStart, Topics};
use super::super::validate::join;
use super::Context;

/// Watched columns of tables that extend `task`.
const TASK_COLUMNS: [&str; 16] = [
    "state",
    "priority",
    "impact",
    "urgency",
    "short_description",
    "description",
    "category",
    "subcategory",
    "assignment_group",
    "assigned_to",
    "cmdb_ci",
    "business_service",
    "hold_reason",
    "close_code",
    "close_notes",
    "active",
];

/// Tables that extend `task`.
const TASK_TABLES: [&str; 9] = [
    "task",
    "incident",
    "incident_task",
    "problem",
    "problem_task",
    "change_request",
    "sc_req_item",
    "sc_task",
    "sn_si_incident",
];

pub(super) fn resolve(
    name: String,
    raw: RawSource,
    at: &str,
    instance: Arc<Instance>,
    topics: &Topics,
    context: &mut Context<'_>,
) -> Source {
    let key = |key| join(at, key);
    let table = raw.table.unwrap_or_default();
    if context.has(&key("table")) {
        context.check_column_name(&key("table"), &table);
    }
    let fields = match raw.fields {
        Some(fields) => fields,
        None if TASK_TABLES.contains(&table.as_str()) => TASK_COLUMNS.map(String::from).to_vec(),
        None => {
            if !table.is_empty() {
                context.error(at, &format!("`fields` is missing: the table `{table}` has no default list"));
            }
            Vec::new()
        }
    };
    for (index, field) in fields.iter().enumerate() {
        let at = format!("{}[{index}]", key("fields"));
        context.check_column_name(&at, field);
        if matches!(field.as_str(), "work_notes" | "comments") {
            context.error(&at, "`work_notes` and `comments` can't be watched columns; use `journal: true`");
        }
    }
    let filter = raw.filter.unwrap_or_default();
    check_filter(&filter, &key("filter"), context);
    let seconds = Duration::from_secs;
    let interval = context.duration_in(&key("interval"), raw.interval.as_deref(), seconds(10), ("100ms", "24h"));
    let lookback = context.duration_in(&key("lookback"), raw.lookback.as_deref(), seconds(120), ("0", "24h"));
    let safety_lag = context.duration_in(&key("safety_lag"), raw.safety_lag.as_deref(), seconds(5), ("0", "1h"));
    let start = start(raw.start.as_deref(), &key("start"), context);
    let topic = raw.topic.unwrap_or_else(|| format!("{}.{name}.changes", topics.prefix));
    context.check_topic_name(&key("topic"), &topic);
    let rows = raw.rows.unwrap_or_else(|| format!("{}.{name}.rows", topics.prefix));
    context.check_topic_name(&key("rows"), &rows);
    Source {
        instance,
        table,
        filter,
        fields,
        interval,
        lookback,
        safety_lag,
        page_size: raw.page_size.unwrap_or(500) as usize,
        start,
        topic,
        rows,
        integration_users: raw.integration_users.unwrap_or_default(),
        include_echoes: raw.include_echoes.unwrap_or(false),
        journal: raw.journal.unwrap_or(true),
        name,
    }
}

/// Checks the filter. The bridge appends its own conditions and order, which the filter must not defeat.
fn check_filter(filter: &str, at: &str, context: &mut Context<'_>) {
    if filter.contains("^NQ") {
        context.error(at, "`^NQ` starts a new query, to which the bridge's own conditions would not apply; use `^OR`");
    }
    if filter.contains("ORDERBY") || filter.contains("GROUPBY") {
        context.error(at, "remove ORDERBY and GROUPBY: the bridge sorts the rows itself");
    }
    if filter.chars().any(char::is_control) {
        context.error(at, "an encoded query must be a single line");
    }
}

fn start(text: Option<&str>, at: &str, context: &mut Context<'_>) -> SourceStart {
    match text {
        None | Some("none") => SourceStart::None,
        Some("all") => SourceStart::All,
        Some(text) => text.parse::<jiff::Timestamp>().map_or_else(
            |_| {
                let message = format!("`{text}` is neither `all`, `none` nor a time such as `2026-01-31T00:00:00Z`");
                context.error(at, &message);
                SourceStart::None
            },
            |time| SourceStart::Since(time.as_millisecond()),
        ),
    }
}
