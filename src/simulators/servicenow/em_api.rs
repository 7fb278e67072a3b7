//! Inbound events of Event Management (`POST /api/global/em/jsonv2`), and the alerts that come of them.
//!
//! Known: many records in one request are answered with their count alone; no business rule of `em_event` runs; an event
//! without a message key gets one of its source, node, type, resource and metric; events with the same key are one
//! alert, which severity 0 or the resolution state `Closing` closes and never makes, and a later event opens again.
//! An event without a time occurred when it came; one that occurred before the newest of its alert changes nothing there.
//! Simplified: alerts are made at once and in the order of the records, not by a job some seconds later.

use serde_json::{Value, json};

use super::faults::Faults;
use super::history::Via;
use super::instance::{Instance, lock};
use super::reply::Reply;
use super::table_api::{TableRequest, as_text};
use super::time;
use super::world::World;
use super::write::{Op, Write, execute};

/// Where events are sent.
pub(super) const PATH: &str = "/api/global/em/jsonv2";

/// Columns of an event that its alert takes over.
const SHARED: [&str; 8] =
    ["message_key", "source", "node", "resource", "type", "metric_name", "description", "additional_info"];

/// Takes events, and makes alerts of them.
pub(super) fn commit(instance: &Instance, request: &TableRequest, faults: &Faults, via: Via) -> Reply {
    if request.method != "POST" {
        return Reply::error(405, "Method not supported", None);
    }
    if !(request.account.has("evt_mgmt_integration") || request.account.has("itil")) {
        return Reply::error(403, "User Not Authorized", Some("Failed API level ACL Validation"));
    }
    let unreadable = |why: &str| Reply::error(400, "Exception while reading request", Some(why));
    let body: Value = match serde_json::from_slice(&request.body) {
        Ok(body) => body,
        Err(error) => return unreadable(&error.to_string()),
    };
    let Some(records) = body["records"].as_array() else { return unreadable("There are no records.") };
    let mut world = lock(&instance.world);
    let mut taken = 0;
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
            fields.push(("time_of_event".into(), time::format(world.now())));
        }
        // One behind others is lost now and then, and only the count tells; one by itself would be answered with 0.
        if taken > 0 && lock(&instance.strikes).loses_event(faults) {
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
            by_label: false,
            keeps_stamps: false,
            late_ms: None,
        };
        let switches = &instance.options.switches;
        if execute(&mut world, &write(Op::Insert, request.table, fields.clone()), faults, switches).is_err() {
            continue;
        }
        taken += 1;
        if let Some((op, table, fields)) = alert(&world, &fields) {
            // An alert has no rules that could refuse it.
            let _ = execute(&mut world, &write(op, table, fields), faults, switches);
        }
    }
    drop(world);
    instance.count("event_requests");
    let told = json!({"result": {"Default Bulk Endpoint": format!("{taken} events were inserted")}});
    Reply::json(200, told.to_string().into_bytes())
}

type Fields = Vec<(String, String)>;

/// What an event does to the alert of its key.
fn alert(world: &World, event: &Fields) -> Option<(Op, usize, Fields)> {
    let of = |name: &str| event.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    let table = world.schema.table("em_alert")?;
    let (key, state) = (world.schema.column(table, "message_key")?, world.schema.column(table, "state")?);
    let store = &world.stores[world.schema.tables[table].store];
    let known = store.all().find(|(_, row)| *world.raw(row, key) == *of("message_key"));
    let last = world.schema.column(table, "last_event_time")?;
    let newest = known.as_ref().map(|(_, row)| world.raw(row, last).into_owned()).unwrap_or_default();
    // Of this form the later text is the later time.
    if *newest > *of("time_of_event") {
        return None;
    }
    let closes = of("severity") == "0" || of("resolution_state") == "Closing";
    let mut fields: Fields = SHARED
        .iter()
        .filter(|name| !of(name).is_empty())
        .map(|name| ((*name).to_owned(), of(name).to_owned()))
        .collect();
    let stands = known.as_ref().map(|(_, row)| world.raw(row, state).into_owned());
    let next = match (stands.as_deref(), closes) {
        (None, true) => return None,
        (None, false) => "Open",
        (Some(_), true) => "Closed",
        (Some("Closed"), false) => "Reopen",
        (Some(_), false) => stands.as_deref().unwrap_or("Open"),
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
        let answer = bench.send(Method::POST, PATH, &json!({ "records": records })).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.expect("JSON")
    }

    fn alerts(bench: &Bench) -> Vec<(String, String, String)> {
        let rows = bench.running.rows("em_alert", 0, 100);
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let all = rows["rows"].as_array().expect("rows").iter();
        all.map(|row| (text(row, "message_key"), text(row, "state"), text(row, "severity"))).collect()
    }

    #[tokio::test]
    async fn events_of_a_key_are_one_alert_which_is_closed_and_opened_again() {
        let bench = Bench::start(Options::default()).await;
        let event = |key: &str, severity: &str| json!({"message_key": key, "severity": severity, "source": "test"});
        let told = send(&bench, json!([event("a", "1"), event("a", "3"), event("b", "0")])).await;
        assert_eq!(told["result"]["Default Bulk Endpoint"], "3 events were inserted");
        let of_a = |state: &str, severity: &str| vec![("a".to_owned(), state.to_owned(), severity.to_owned())];
        assert_eq!(alerts(&bench), of_a("Open", "3"), "a clear event makes no alert");
        send(&bench, json!([event("a", "0")])).await;
        assert_eq!(alerts(&bench), of_a("Closed", "3"));
        send(&bench, json!([event("a", "2"), event("a", "2")])).await;
        assert_eq!(alerts(&bench), of_a("Reopen", "2"));
        let closing = json!({"message_key": "a", "severity": "2", "resolution_state": "Closing"});
        send(&bench, json!([closing])).await;
        assert_eq!(alerts(&bench), of_a("Closed", "2"));
        assert_eq!(bench.running.rows("em_event", 0, 0)["total"], 7);
        send(&bench, json!([{"source": "s", "node": "n", "severity": "1"}])).await;
        assert_eq!(alerts(&bench)[1].0, "s_n___", "a key is made of what names the event");
        let timed = |severity: &str, at: &str| json!({"message_key": "t", "severity": severity, "time_of_event": at});
        send(&bench, json!([timed("1", "2026-01-02 00:00:00"), timed("4", "2026-01-01 00:00:00")])).await;
        assert_eq!(alerts(&bench)[2].2, "1", "an older event changes nothing");
        send(&bench, json!([timed("2", "2026-01-02 00:00:00")])).await;
        assert_eq!(alerts(&bench)[2].2, "2", "one of the same second does");
        bench.running.set_faults(&json!({"event_not_taken": 1.0})).expect("faults");
        let told = send(&bench, json!([event("l", "1"), event("m", "1")])).await;
        assert_eq!(told["result"]["Default Bulk Endpoint"], "1 events were inserted");
        let broken = bench.send(Method::POST, PATH, &json!({"record": []})).await;
        assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    }
}
