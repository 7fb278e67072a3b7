//! Inbound events of Event Management (`POST /api/global/em/jsonv2`), and the alerts that they create.
//!
//! Known: the response to several records contains only their count; no business rule of `em_event` runs; an event
//! without a message key gets one from source, node, type, resource and metric; events with the same key belong to one
//! alert. Severity 0 or the resolution state `Closing` closes an alert and never creates one; a later event reopens it.
//! The time of an event without one is its arrival. An event that is older than the newest of its alert does not change
//! the alert.
//! Simplified: alerts are created at once and in the order of the records, not by a job some seconds later.

use serde_json::{Value, json};

use super::database::Database;
use super::faults::Faults;
use super::instance::{Instance, lock};
use super::reply::Reply;
use super::table_api::{TableRequest, as_text};
use super::time;
use super::write::{Op, Write, execute};
use super::write_log::Via;

/// Path of the interface.
pub(super) const PATH: &str = "/api/global/em/jsonv2";

/// Columns that an alert copies from its event.
const SHARED: [&str; 8] =
    ["message_key", "source", "node", "resource", "type", "metric_name", "description", "additional_info"];

/// Inserts events, and creates, updates or closes their alerts.
pub(super) fn commit(instance: &Instance, request: &TableRequest, faults: &Faults, via: Via) -> Reply {
    if request.method != "POST" {
        return Reply::error(405, "Method not supported", None);
    }
    if !(request.account.has_role("evt_mgmt_integration") || request.account.has_role("itil")) {
        return Reply::error(403, "User Not Authorized", Some("Failed API level ACL Validation"));
    }
    let invalid = |reason: &str| Reply::error(400, "Exception while reading request", Some(reason));
    let body: Value = match serde_json::from_slice(&request.body) {
        Ok(body) => body,
        Err(error) => return invalid(&error.to_string()),
    };
    let Some(records) = body["records"].as_array() else { return invalid("There are no records.") };
    let mut database = lock(&instance.database);
    let mut inserted = 0;
    for record in records.iter().filter_map(Value::as_object) {
        let mut fields: Vec<(String, String)> =
            record.iter().map(|(name, value)| (name.clone(), as_text(value.clone()))).collect();
        let of = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if of("message_key").is_empty() {
            let key = ["source", "node", "type", "resource", "metric_name"].map(of).join("_");
            fields.push(("message_key".into(), key));
        }
        if of("time_of_event").is_empty() {
            fields.retain(|(name, _)| name != "time_of_event");
            fields.push(("time_of_event".into(), time::format(database.now())));
        }
        // The fault affects only events after the first, where nothing but the count shows it.
        if inserted > 0 && lock(&instance.fault_injector).drops_event(faults) {
            continue;
        }
        let write = |op, table, fields| Write {
            op,
            method: "POST",
            table,
            fields,
            actor: request.account.actor,
            admin: false,
            via,
            zone: request.account.zone.clone(),
            input_display_value: false,
            suppress_auto_sys_fields: false,
            visibility_delay_ms: None,
        };
        let settings = &instance.options.settings;
        if execute(&mut database, &write(Op::Insert, request.table, fields.clone()), faults, settings).is_err() {
            continue;
        }
        inserted += 1;
        if let Some((op, table, fields)) = alert(&database, &fields) {
            // No rule can reject a write of an alert.
            let _ = execute(&mut database, &write(op, table, fields), faults, settings);
        }
    }
    drop(database);
    instance.count("event_requests");
    let response = json!({"result": {"Default Bulk Endpoint": format!("{inserted} events were inserted")}});
    Reply::json(200, response.to_string().into_bytes())
}

type Fields = Vec<(String, String)>;

/// Returns the write of the alert that an event causes; `None` if it causes none.
fn alert(database: &Database, event: &Fields) -> Option<(Op, usize, Fields)> {
    let of = |name: &str| event.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    let table = database.schema.table("em_alert")?;
    let (key, state) = (database.schema.column(table, "message_key")?, database.schema.column(table, "state")?);
    let store = &database.stores[database.schema.tables[table].store];
    let known = store.all().find(|(_, row)| *database.raw(row, key) == *of("message_key"));
    let last = database.schema.column(table, "last_event_time")?;
    let newest = known.as_ref().map(|(_, row)| database.raw(row, last).into_owned()).unwrap_or_default();
    // In this format, text order is time order.
    if *newest > *of("time_of_event") {
        return None;
    }
    let closes = of("severity") == "0" || of("resolution_state") == "Closing";
    let mut fields: Fields = SHARED
        .iter()
        .filter(|name| !of(name).is_empty())
        .map(|name| ((*name).to_owned(), of(name).to_owned()))
        .collect();
    let current = known.as_ref().map(|(_, row)| database.raw(row, state).into_owned());
    let next = match (current.as_deref(), closes) {
        (None, true) => return None,
        (None, false) => "Open",
        (Some(_), true) => "Closed",
        (Some("Closed"), false) => "Reopen",
        (Some(_), false) => current.as_deref().unwrap_or("Open"),
    };
    fields.push(("state".into(), next.to_owned()));
    fields.push(("last_event_time".into(), of("time_of_event").to_owned()));
    if !closes {
        fields.push(("severity".into(), of("severity").to_owned()));
    }
    Some((known.map_or(Op::Insert, |(_, row)| Op::Update(row.sys_id)), table, fields))
}

#[cfg(test)]
mod tests {
    use reqwest::{Method, StatusCode};

    use super::super::tests::Bench;
    use super::super::*;
    use super::*;

    async fn send(bench: &Bench, records: Value) -> Value {
        let response = bench.send(Method::POST, PATH, &json!({ "records": records })).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.expect("JSON")
    }

    fn alerts(bench: &Bench) -> Vec<(String, String, String)> {
        let rows = bench.running.rows("em_alert", 0, 100);
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let all = rows["rows"].as_array().expect("rows").iter();
        all.map(|row| (text(row, "message_key"), text(row, "state"), text(row, "severity"))).collect()
    }

    #[tokio::test]
    async fn events_of_a_key_open_close_and_reopen_one_alert() {
        let bench = Bench::start(Options::default()).await;
        let event = |key: &str, severity: &str| json!({"message_key": key, "severity": severity, "source": "test"});
        let response = send(&bench, json!([event("a", "1"), event("a", "3"), event("b", "0")])).await;
        assert_eq!(response["result"]["Default Bulk Endpoint"], "3 events were inserted");
        let of_a = |state: &str, severity: &str| vec![("a".to_owned(), state.to_owned(), severity.to_owned())];
        assert_eq!(alerts(&bench), of_a("Open", "3"), "a clear event creates no alert");
        send(&bench, json!([event("a", "0")])).await;
        assert_eq!(alerts(&bench), of_a("Closed", "3"));
        send(&bench, json!([event("a", "2"), event("a", "2")])).await;
        assert_eq!(alerts(&bench), of_a("Reopen", "2"));
        let closing = json!({"message_key": "a", "severity": "2", "resolution_state": "Closing"});
        send(&bench, json!([closing])).await;
        assert_eq!(alerts(&bench), of_a("Closed", "2"));
        assert_eq!(bench.running.rows("em_event", 0, 0)["total"], 7);
        send(&bench, json!([{"source": "s", "node": "n", "severity": "1"}])).await;
        assert_eq!(alerts(&bench)[1].0, "s_n___", "the key consists of source, node, type, resource and metric");
        let timed = |severity: &str, at: &str| json!({"message_key": "t", "severity": severity, "time_of_event": at});
        send(&bench, json!([timed("1", "2026-01-02 00:00:00"), timed("4", "2026-01-01 00:00:00")])).await;
        assert_eq!(alerts(&bench)[2].2, "1", "an older event changes nothing");
        send(&bench, json!([timed("2", "2026-01-02 00:00:00")])).await;
        assert_eq!(alerts(&bench)[2].2, "2", "an event of the same second does");
        bench.running.set_faults(&json!({"event_not_inserted": 1.0})).expect("faults");
        let response = send(&bench, json!([event("l", "1"), event("m", "1")])).await;
        assert_eq!(response["result"]["Default Bulk Endpoint"], "1 events were inserted");
        let broken = bench.send(Method::POST, PATH, &json!({"record": []})).await;
        assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    }
}
