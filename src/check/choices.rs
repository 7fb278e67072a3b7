//! Checks of choice lists: whether the values that the configuration writes are among the instance's choices.
//!
//! An instance silently drops a value that is not in its list; for a close code, a data policy then rejects the whole
//! write. The values are determined by mapping a sample alert, so a template that takes a value from the alert is
//! checked by its result without that value.

use std::collections::{BTreeMap, BTreeSet};

use super::run::{CheckRun, Verdict, describe};
use super::table::{RouteTable, text};
use crate::config::Sink;
use crate::mapping::MappingError;
use crate::model::{Action, AlertEvent, EventOrder, Intent, Position};
use crate::servicenow::Query;

/// Parent of all ticket tables; choices may be defined for it.
const TASK: &str = "task";

const CLOSE_CODE: &str = "close_code";

/// Choices by column; a table's own choices take precedence over its parent's.
type Lists = BTreeMap<String, BTreeSet<String>>;

/// The intent of a sample alert with this action; `None` if a rule filters it out.
pub fn sample_intent(sink: &Sink, action: Action, key: &str) -> Result<Option<Intent>, MappingError> {
    let title = "nowbridge check: a test ticket, please ignore it";
    let now = crate::runtime::clock::unix();
    let (name, status) = if action == Action::Resolve { ("resolve", "resolved") } else { ("open", "open") };
    let json = serde_json::json!({
        "source": "nowbridge", "key": key, "action": name, "status": status, "title": title,
        "severity": "info", "labels": {},
    });
    let event = AlertEvent {
        system: "nowbridge".into(),
        kind: "alert".into(),
        object_id: key.into(),
        key: key.into(),
        action: Some(action),
        status: status.into(),
        occurred_at: now,
        title: Some(title.into()),
        severity: Some("info".into()),
        json,
        ..AlertEvent::default()
    };
    sink.mapping.map(&std::sync::Arc::new(event), Position::new(0, 0, 0), EventOrder::UNKNOWN)
}

pub async fn check(run: &mut CheckRun<'_>, route_table: &RouteTable<'_>, sink: &Sink) {
    let states = &sink.settings.states;
    let mut written: Vec<(String, String)> = Vec::new();
    let mut unmapped = Vec::new();
    for action in [Action::Open, Action::Resolve] {
        match sample_intent(sink, action, "nowbridge-check") {
            Ok(Some(intent)) => {
                written.extend(intent.fields.iter().chain(&intent.closing).map(|(c, v)| (c.to_string(), v.clone())));
            }
            Ok(None) => {}
            Err(error) => unmapped.push(error.to_string()),
        }
    }
    written.sort();
    written.dedup();
    let mut columns: Vec<String> = written.iter().map(|(column, _)| column.clone()).collect();
    columns.push(states.column.clone());
    columns.push(CLOSE_CODE.into());
    columns.sort();
    columns.dedup();
    let lists = match lists(route_table, &columns).await {
        Ok(lists) => lists,
        Err(verdict) => {
            run.record(route_table.id("choices"), "values are in the choice lists", verdict);
            return;
        }
    };
    let raw = [("new", &states.new), ("in progress", &states.in_progress), ("resolved", &states.resolved)];
    let configured = raw.into_iter().map(|(name, value)| (name, value.as_str()));
    let configured = configured.chain(states.closed.iter().map(|value| ("closed", value.as_str())));
    let verdict = states_verdict(lists.get(&states.column), configured, &states.column);
    run.record(route_table.id("states"), "the configured states exist", verdict);
    let code = written.iter().find(|(column, _)| column == CLOSE_CODE).map(|(_, value)| value.as_str());
    let verdict = close_code_verdict(lists.get(CLOSE_CODE), code, &unmapped);
    run.record(route_table.id("close_code"), "the close code exists", verdict);
    let others = written.iter().filter(|(column, _)| column != CLOSE_CODE);
    let wrong: Vec<String> = others
        .filter(|(column, value)| lists.get(column).is_some_and(|list| !list.contains(value)))
        .map(|(column, value)| format!("{column} {value:?}"))
        .collect();
    let verdict = if wrong.is_empty() {
        let note = if unmapped.is_empty() { String::new() } else { format!(" (not mapped: {})", unmapped.join("; ")) };
        Verdict::pass(format!("checked with a sample alert{note}"))
    } else {
        let remedy = "correct the route's `fields` or `severity`; the instance drops values that are not in the list";
        Verdict::warn(format!("not in the list: {}", wrong.join(", ")), remedy)
    };
    run.record(route_table.id("choices"), "other values are in the choice lists", verdict);
}

fn states_verdict<'a>(
    list: Option<&BTreeSet<String>>,
    configured: impl Iterator<Item = (&'a str, &'a str)>,
    column: &str,
) -> Verdict {
    let Some(list) = list else {
        return Verdict::warn(format!("no choices of {column} were found"), "check the route's `states` manually");
    };
    let missing = configured.filter(|(_, value)| !list.contains(*value));
    let missing: Vec<String> = missing.map(|(name, value)| format!("{name} ({value})")).collect();
    if missing.is_empty() {
        return Verdict::pass(format!("{column} has {}", quoted(list)));
    }
    let detail = format!("not among the choices of {column}: {}; the choices are {}", missing.join(", "), quoted(list));
    Verdict::warn(detail, "set the route's `states` to this instance's values")
}

fn close_code_verdict(list: Option<&BTreeSet<String>>, code: Option<&str>, unmapped: &[String]) -> Verdict {
    match (list, code) {
        (_, None) if !unmapped.is_empty() => Verdict::skipped(unmapped.join("; ")),
        (_, None) => Verdict::skipped("the route writes no close code"),
        (None, Some(code)) => Verdict::skipped(format!("{code:?}; the table has no list of close codes")),
        (Some(list), Some(code)) if list.contains(code) => Verdict::pass(format!("{code:?}")),
        (Some(list), Some(code)) => Verdict::fail(
            format!("{code:?} is not a choice: every resolve would be rejected; the choices are {}", quoted(list)),
            "set the route's `closing: { close_code: … }` to one of the choices",
        ),
    }
}

fn quoted(list: &BTreeSet<String>) -> String {
    list.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")
}

/// The choices of these columns. Inactive ones are filtered out here: not every instance has the column to query by.
async fn lists(route_table: &RouteTable<'_>, columns: &[String]) -> Result<Lists, Verdict> {
    let query = Query::new()
        .in_list("name", &[route_table.table, TASK])
        .in_list("element", columns)
        .encoded()
        .map_err(|error| Verdict::skipped(error.to_string()))?;
    let parameters = [
        ("sysparm_query", query),
        ("sysparm_fields", "name,element,value,inactive".to_owned()),
        ("sysparm_limit", "2000".to_owned()),
        ("sysparm_no_count", "true".to_owned()),
        ("sysparm_exclude_reference_link", "true".to_owned()),
    ];
    let role = "give the bridge's user the role `personalize_choices`, or check states and close codes manually";
    let page = match route_table.client.get(0, "/api/now/table/sys_choice", &parameters).await {
        Ok(page) => page,
        Err(failure) => return Err(Verdict::warn(describe(&failure).0, role)),
    };
    let mut own = Lists::new();
    let mut parents = Lists::new();
    for row in &page.rows {
        let (name, element) = (text(row, "name"), text(row, "element"));
        if text(row, "inactive") == "true" || !columns.iter().any(|column| column == element) {
            continue;
        }
        let lists = match name {
            name if name == route_table.table => &mut own,
            TASK => &mut parents,
            _ => continue,
        };
        lists.entry(element.to_owned()).or_default().insert(text(row, "value").to_owned());
    }
    for (element, list) in parents {
        own.entry(element).or_insert(list);
    }
    if own.is_empty() {
        return Err(Verdict::warn("sys_choice shows no choices to this user", role));
    }
    Ok(own)
}
