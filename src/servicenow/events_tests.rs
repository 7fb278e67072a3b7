//! Tests of events over real sockets, against an instance with scripted responses.

use serde_json::{Value, json};

use super::tests::{Action, Instance, failure, respond, result};
use super::*;
use crate::model::answer::Journal;
use crate::model::{Answer, FailureClass};

const OTHER: &str = "ffffffffffffffffffffffffffffffff";

fn client(instance: &Instance) -> Client {
    let mut connection = instance.client().connection().clone();
    connection.table = "em_event".into();
    connection.state_column = "severity".into();
    connection.correlation_column = "message_key".into();
    connection.events = Some(Events { source: "nowbridge".into(), class: "incidents".into() });
    Client::new(connection, || 1).expect("a client")
}

fn event(key: &str, ticket: Option<&str>, severity: &str) -> Request {
    let fields = [("severity", severity), ("description", "disk full"), ("additional_info.team", "sre")];
    let note = |text: &str, marker: &str| Note { text: text.into(), marker: marker.into() };
    Request::SendEvent {
        correlation: key.into(),
        ticket: ticket.map(str::to_owned),
        fields: fields.map(|(column, value)| (column.into(), value.to_owned())).to_vec(),
        notes: vec![note("looked", "[t/0/1.0]"), note("", "[t/0 7.1 5]")],
    }
}

fn inserted(count: usize) -> String {
    result(&json!({"Default Bulk Endpoint": format!("{count} events were inserted")}).to_string())
}

/// Sends three events in one request, with this response.
async fn send(answer: impl Fn() -> Action + Send + Sync + 'static) -> (BatchResult, Instance) {
    let instance = Instance::start(move |_, _| answer()).await;
    let requests = [event("a", None, "1"), event("b", Some(OTHER), "0"), event("c", None, "3")];
    let batch = client(&instance).perform_batch(0, &requests, |_| Ok(())).await;
    (batch, instance)
}

fn classes(batch: &BatchResult) -> Vec<FailureClass> {
    batch.results.iter().map(|result| failure(&result.answer).0).collect()
}

#[tokio::test]
async fn events_are_batched_and_contain_their_attempt_and_ticket() {
    let (batch, instance) = send(|| respond("200 OK\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT", inserted(3))).await;
    let rows = batch.results.iter().map(|result| match &result.answer {
        Answer::Applied { row, .. } => (**row).clone(),
        other => panic!("{other:?}"),
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!([&*rows[0].state, &rows[1].state, &rows[2].state], ["1", "0", "3"]);
    assert_eq!((&*rows[1].sys_id, rows[1].updated_on), (OTHER, 1_795_428_000));
    assert!(rows[0].sys_id.len() == 32 && rows[0].sys_id != rows[2].sys_id, "each has a new ticket: {rows:?}");
    let received = instance.received();
    assert_eq!(received.len(), 1);
    assert!(received[0].line.starts_with("POST /api/global/em/jsonv2 "), "{}", received[0].line);
    let body: Value = serde_json::from_str(&received[0].body).unwrap();
    let record = &body["records"][0];
    let info = json!({"nowbridge_attempt": "[t/0 7.1 5]", "nowbridge_ticket": rows[0].sys_id, "team": "sre",
        "note": "looked\n[t/0/1.0]"});
    assert_eq!(serde_json::from_str::<Value>(record["additional_info"].as_str().unwrap()).unwrap(), info);
    assert_eq!((&record["source"], &record["event_class"]), (&json!("nowbridge"), &json!("incidents")));
    assert_eq!((&record["message_key"], &record["severity"]), (&json!("a"), &json!("1")));
    assert_eq!(record["description"], "disk full");
}

#[tokio::test]
async fn a_lower_count_leaves_all_events_ambiguous_and_a_count_of_zero_is_certain() {
    let (some, _) = send(|| respond("200 OK", inserted(2))).await;
    assert_eq!(classes(&some), vec![FailureClass::Ambiguous { transaction_ended: true }; 3]);
    assert!(some.unbatch_reason.is_some(), "sent unbatched next time, so that each event gets its own response");
    let (none, _) = send(|| respond("200 OK", inserted(0))).await;
    assert_eq!(classes(&none), vec![FailureClass::Rejected; 3]);
    let (odd, _) = send(|| respond("200 OK", result(r#"{"x":"done"}"#))).await;
    assert_eq!(classes(&odd), vec![FailureClass::Ambiguous { transaction_ended: true }; 3]);
    let (lost, _) = send(|| Action::Disconnect).await;
    assert_eq!(classes(&lost), vec![FailureClass::Ambiguous { transaction_ended: false }; 3]);
    let denied =
        r#"{"error":{"message":"User Not Authorized","detail":"Failed API level ACL Validation"},"status":"failure"}"#;
    let (rejected, instance) = send(move || respond("403 Forbidden", denied)).await;
    assert!(rejected.results.iter().all(|result| matches!(result.answer, Answer::NotSent { .. })), "{rejected:?}");
    let single = client(&instance).perform(0, event("a", None, "1")).await.answer;
    assert_eq!(failure(&single), (FailureClass::Rejected, "api_acl"), "a single event gets the rejection");
}

#[tokio::test]
async fn an_event_with_an_invalid_severity_is_not_sent() {
    let instance = Instance::start(|_, _| respond("200 OK", inserted(1))).await;
    let batch =
        client(&instance).perform_batch(0, &[event("a", None, "critical"), event("b", None, "1")], |_| Ok(())).await;
    assert_eq!(failure(&batch.results[0].answer), (FailureClass::Rejected, "event_severity"));
    assert!(matches!(batch.results[1].answer, Answer::Applied { .. }));
}

fn stored(key: &str, at: &str, severity: &str, info: &str) -> Value {
    json!({"sys_id": OTHER, "message_key": key, "sys_created_on": at, "severity": severity, "additional_info": info})
}

async fn find(ticket: Option<&str>, markers: &[&str], events: Vec<Value>) -> Answer {
    let instance = Instance::start(move |_, _| respond("200 OK", result(&json!(events).to_string()))).await;
    let markers = markers.iter().map(|marker| (*marker).to_owned()).collect();
    let find = Request::FindEvents { correlation: "k".into(), ticket: ticket.map(str::to_owned), markers };
    client(&instance).perform(0, find).await.answer
}

#[tokio::test]
async fn an_ambiguous_event_is_verified_by_its_marker() {
    let ticket = "0123456789abcdef0123456789abcdef";
    let info = |ticket: &str, mark: &str| format!(r#"{{"nowbridge_attempt":"{mark}","nowbridge_ticket":"{ticket}"}}"#);
    let events = vec![
        stored("k", "2026-11-23 10:00:05", "2", &info(ticket, "[t/0 7.2 9]")),
        stored("k", "2026-11-23 10:00:05", "0", &info(ticket, "[t/0 7.3 9]")),
        stored("K", "2026-11-23 10:00:09", "1", &info(OTHER, "[t/0 7.9 9]")),
        stored("k", "2026-11-23 10:00:01", "1", &info(ticket, "[t/0 7.1 5]")),
        stored("k", "2026-11-22 10:00:00", "5", &info(OTHER, "[t/0 3.1 5]")),
        // Truncated by the instance.
        stored("k", "2026-11-21 10:00:00", "4", &info("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "[t/0 2.1 5]")[..80]),
        stored("k", "2026-11-20 10:00:00", "4", "of somebody else"),
    ];
    let Answer::Rows { rows, journal } = find(Some(ticket), &["[t/0 7.3 9]", "[t/0/8.0]"], events.clone()).await else {
        panic!("no rows")
    };
    assert_eq!(journal, Some(Journal::Read(vec!["[t/0 7.3 9]".into()])));
    assert_eq!((&*rows[0].sys_id, &*rows[0].state), (ticket, "0"), "the event with the marker counts as the latest");
    let Answer::Rows { rows, journal } = find(Some(ticket), &["[t/0 7.4 9]"], events.clone()).await else {
        panic!("no rows")
    };
    assert_eq!((rows.len(), journal), (1, Some(Journal::Read(Vec::new()))));
    let Answer::Rows { rows, .. } = find(None, &[], events).await else { panic!("no rows") };
    let tickets: Vec<_> = rows.iter().map(|row| (&*row.sys_id, &*row.state)).collect();
    assert_eq!(tickets, [(OTHER, "5"), (ticket, "2")], "oldest first");
    assert_eq!(rows[1].updated_on - rows[1].created_on, 4);
    let Answer::Rows { rows, journal } = find(Some(ticket), &["[t/0 7.4 9]"], Vec::new()).await else {
        panic!("no rows")
    };
    assert_eq!((rows.len(), journal), (0, Some(Journal::Read(Vec::new()))), "its events were deleted");
}

#[tokio::test]
async fn a_search_without_readable_columns_proves_nothing() {
    let hidden = json!({"message_key": "k", "sys_created_on": "2026-11-23 10:00:00", "severity": "1"});
    assert_eq!(failure(&find(Some(OTHER), &["m"], vec![hidden]).await), (FailureClass::Transient, "events_unreadable"));
}
