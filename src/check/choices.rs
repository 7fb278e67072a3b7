//! Choice lists: are the values that the configuration writes among those of the instance?
//!
//! An instance drops a value that is not in its list, without a word; for a close code a data policy then refuses the
//! whole write. What will be written is found by mapping a made-up alert, so a template that takes a value from the
//! alert is judged by what it gives without one.

use std::collections::{BTreeMap, BTreeSet};

use super::rounds::{Rounds, Verdict, in_words};
use super::table::{Visit, text};
use crate::config::Sink;
use crate::mapping::MappingError;
use crate::model::{Action, AlertEvent, Intent, Position};
use crate::servicenow::Query;

/// Parent of all tables that have tickets: choices may stand under its name.
const TASK: &str = "task";

const CLOSE_CODE: &str = "close_code";

/// Values by column, those of the table itself before its parent's.
type Lists = BTreeMap<String, BTreeSet<String>>;

/// What a made-up alert would write with this action; `None` where a rule leaves it out.
pub fn sample(sink: &Sink, action: Action, key: &str) -> Result<Option<Intent>, MappingError> {
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
    sink.mapping.map(&std::sync::Arc::new(event), Position::new(0, 0, 0))
}

pub async fn check(rounds: &mut Rounds<'_>, visit: &Visit<'_>, sink: &Sink) {
    let states = &sink.settings.states;
    let mut written: Vec<(String, String)> = Vec::new();
    let mut unknown = Vec::new();
    for action in [Action::Open, Action::Resolve] {
        match sample(sink, action, "nowbridge-check") {
            Ok(Some(intent)) => {
                written.extend(intent.fields.iter().chain(&intent.closing).map(|(c, v)| (c.to_string(), v.clone())));
            }
            Ok(None) => {}
            Err(error) => unknown.push(error.to_string()),
        }
    }
    written.sort();
    written.dedup();
    let mut columns: Vec<String> = written.iter().map(|(column, _)| column.clone()).collect();
    columns.push(states.column.clone());
    columns.push(CLOSE_CODE.into());
    columns.sort();
    columns.dedup();
    let lists = match lists(visit, &columns).await {
        Ok(lists) => lists,
        Err(verdict) => {
            rounds.note(visit.id("choices"), "values are in the choice lists", verdict);
            return;
        }
    };
    let raw = [("new", &states.new), ("in progress", &states.in_progress), ("resolved", &states.resolved)];
    let named = raw.into_iter().map(|(what, value)| (what, value.as_str()));
    let named = named.chain(states.closed.iter().map(|value| ("closed", value.as_str())));
    let verdict = of_states(lists.get(&states.column), named, &states.column);
    rounds.note(visit.id("states"), "the configured states exist", verdict);
    let code = written.iter().find(|(column, _)| column == CLOSE_CODE).map(|(_, value)| value.as_str());
    rounds.note(visit.id("close_code"), "the close code exists", of_code(lists.get(CLOSE_CODE), code, &unknown));
    let others = written.iter().filter(|(column, _)| column != CLOSE_CODE);
    let wrong: Vec<String> = others
        .filter(|(column, value)| lists.get(column).is_some_and(|list| !list.contains(value)))
        .map(|(column, value)| format!("{column} {value:?}"))
        .collect();
    let verdict = if wrong.is_empty() {
        let blind = if unknown.is_empty() { String::new() } else { format!(" (not mapped: {})", unknown.join("; ")) };
        Verdict::pass(format!("of a made-up alert{blind}"))
    } else {
        let remedy = "correct the route's `fields` or `severity`; the instance drops what is not in the list";
        Verdict::warn(format!("not in the list: {}", wrong.join(", ")), remedy)
    };
    rounds.note(visit.id("choices"), "other values are in the choice lists", verdict);
}

fn of_states<'a>(
    list: Option<&BTreeSet<String>>,
    wanted: impl Iterator<Item = (&'a str, &'a str)>,
    column: &str,
) -> Verdict {
    let Some(list) = list else {
        return Verdict::warn(format!("no choices of {column} were found"), "check the route's `states` by hand");
    };
    let missing: Vec<String> =
        wanted.filter(|(_, value)| !list.contains(*value)).map(|(what, value)| format!("{what} ({value})")).collect();
    if missing.is_empty() {
        return Verdict::pass(format!("{column} has {}", joined(list)));
    }
    let detail = format!("not among the choices of {column}: {}; there are {}", missing.join(", "), joined(list));
    Verdict::warn(detail, "set the route's `states` to this instance's values")
}

fn of_code(list: Option<&BTreeSet<String>>, code: Option<&str>, unknown: &[String]) -> Verdict {
    match (list, code) {
        (_, None) if !unknown.is_empty() => Verdict::skipped(unknown.join("; ")),
        (_, None) => Verdict::skipped("the route writes none"),
        (None, Some(code)) => Verdict::skipped(format!("{code:?}; the table has no list of close codes")),
        (Some(list), Some(code)) if list.contains(code) => Verdict::pass(format!("{code:?}")),
        (Some(list), Some(code)) => Verdict::fail(
            format!("{code:?} is not among them: every resolve would be refused; there are {}", joined(list)),
            "set the route's `closing: { close_code: … }` to one of them",
        ),
    }
}

fn joined(list: &BTreeSet<String>) -> String {
    list.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")
}

/// The choices of these columns. Inactive ones are left out here: not every instance has the column to ask by.
async fn lists(visit: &Visit<'_>, columns: &[String]) -> Result<Lists, Verdict> {
    let query = Query::new()
        .in_list("name", &[visit.table, TASK])
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
    let role = "give the bridge's user the role `personalize_choices`, or check states and close codes by hand";
    let page = match visit.client.get(0, "/api/now/table/sys_choice", &parameters).await {
        Ok(page) => page,
        Err(failure) => return Err(Verdict::warn(in_words(&failure).0, role)),
    };
    let mut own = Lists::new();
    let mut parents = Lists::new();
    for row in &page.rows {
        let (name, element) = (text(row, "name"), text(row, "element"));
        if text(row, "inactive") == "true" || !columns.iter().any(|column| column == element) {
            continue;
        }
        let lists = match name {
            name if name == visit.table => &mut own,
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
