//! Events over real sockets: an instance that answers as scripted.

use serde_json::{Value, json};

use super::tests::{Act, Instance, failure, result, say};
use super::*;
use crate::model::answer::Journal;
use crate::model::{Answer, Class};

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
    Request::Event {
        correlation: key.into(),
        ticket: ticket.map(str::to_owned),
        fields: fields.map(|(column, value)| (column.into(), value.to_owned())).to_vec(),
        notes: vec![note("looked", "[t/0/1.0]"), note("", "[t/0 7.1 5]")],
    }
}

fn took(count: usize) -> String {
    result(&json!({"Default Bulk Endpoint": format!("{count} events were inserted")}).to_string())
}

/// Three events in one request that is answered so.
async fn send(answer: impl Fn() -> Act + Send + Sync + 'static) -> (Replies, Instance) {
    let instance = Instance::start(move |_, _| answer()).await;
    let requests = [event("a", None, "1"), event("b", Some(OTHER), "0"), event("c", None, "3")];
    let replies = client(&instance).perform_together(0, &requests, |_| Ok(())).await;
    (replies, instance)
}

fn class(replies: &Replies) -> Vec<Class> {
    replies.each.iter().map(|reply| failure(&reply.answer).0).collect()
}

#[tokio::test]
async fn events_go_together_and_name_their_attempt_and_their_ticket() {
    let (replies, instance) = send(|| say("200 OK\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT", took(3))).await;
    let rows = replies.each.iter().map(|reply| match &reply.answer {
        Answer::Applied { row, .. } => (**row).clone(),
        other => panic!("{other:?}"),
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!([&*rows[0].state, &rows[1].state, &rows[2].state], ["1", "0", "3"]);
    assert_eq!((&*rows[1].sys_id, rows[1].updated_on), (OTHER, 1_795_428_000));
    assert!(rows[0].sys_id.len() == 32 && rows[0].sys_id != rows[2].sys_id, "a new ticket each: {rows:?}");
    let seen = instance.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].line.starts_with("POST /api/global/em/jsonv2 "), "{}", seen[0].line);
    let body: Value = serde_json::from_str(&seen[0].body).unwrap();
    let record = &body["records"][0];
    let info = json!({"nowbridge_attempt": "[t/0 7.1 5]", "nowbridge_ticket": rows[0].sys_id, "team": "sre",
        "note": "looked\n[t/0/1.0]"});
    assert_eq!(serde_json::from_str::<Value>(record["additional_info"].as_str().unwrap()).unwrap(), info);
    assert_eq!((&record["source"], &record["event_class"]), (&json!("nowbridge"), &json!("incidents")));
    assert_eq!((&record["message_key"], &record["severity"]), (&json!("a"), &json!("1")));
    assert_eq!(record["description"], "disk full");
}

#[tokio::test]
async fn a_count_that_is_not_the_number_sent_leaves_all_in_doubt_and_none_is_none() {
    let (some, _) = send(|| say("200 OK", took(2))).await;
    assert_eq!(class(&some), vec![Class::Ambiguous { ended: true }; 3]);
    assert!(some.refused.is_some(), "the next time each gets an answer of its own");
    let (none, _) = send(|| say("200 OK", took(0))).await;
    assert_eq!(class(&none), vec![Class::Rejected; 3]);
    let (odd, _) = send(|| say("200 OK", result(r#"{"x":"done"}"#))).await;
    assert_eq!(class(&odd), vec![Class::Ambiguous { ended: true }; 3]);
    let (lost, _) = send(|| Act::Cut).await;
    assert_eq!(class(&lost), vec![Class::Ambiguous { ended: false }; 3]);
    let denied =
        r#"{"error":{"message":"User Not Authorized","detail":"Failed API level ACL Validation"},"status":"failure"}"#;
    let (refused, instance) = send(move || say("403 Forbidden", denied)).await;
    assert!(refused.each.iter().all(|reply| matches!(reply.answer, Answer::NotSent { .. })), "{refused:?}");
    let alone = client(&instance).perform(0, event("a", None, "1")).await.answer;
    assert_eq!(failure(&alone), (Class::Rejected, "api_acl"), "alone it has the answer");
}

#[tokio::test]
async fn an_event_without_a_severity_of_the_scale_is_not_sent() {
    let instance = Instance::start(|_, _| say("200 OK", took(1))).await;
    let replies =
        client(&instance).perform_together(0, &[event("a", None, "critical"), event("b", None, "1")], |_| Ok(())).await;
    assert_eq!(failure(&replies.each[0].answer), (Class::Rejected, "event_severity"));
    assert!(matches!(replies.each[1].answer, Answer::Applied { .. }));
}

fn stands(key: &str, at: &str, severity: &str, info: &str) -> Value {
    json!({"sys_id": OTHER, "message_key": key, "sys_created_on": at, "severity": severity, "additional_info": info})
}

async fn look(ticket: Option<&str>, markers: &[&str], events: Vec<Value>) -> Answer {
    let instance = Instance::start(move |_, _| say("200 OK", result(&json!(events).to_string()))).await;
    let markers = markers.iter().map(|marker| (*marker).to_owned()).collect();
    let look = Request::Events { correlation: "k".into(), ticket: ticket.map(str::to_owned), markers };
    client(&instance).perform(0, look).await.answer
}

#[tokio::test]
async fn a_doubt_is_settled_by_the_marker_in_the_events_of_the_key() {
    let ticket = "0123456789abcdef0123456789abcdef";
    let info = |ticket: &str, mark: &str| format!(r#"{{"nowbridge_attempt":"{mark}","nowbridge_ticket":"{ticket}"}}"#);
    let events = vec![
        stands("k", "2026-11-23 10:00:05", "2", &info(ticket, "[t/0 7.2 9]")),
        stands("k", "2026-11-23 10:00:05", "0", &info(ticket, "[t/0 7.3 9]")),
        stands("K", "2026-11-23 10:00:09", "1", &info(OTHER, "[t/0 7.9 9]")),
        stands("k", "2026-11-23 10:00:01", "1", &info(ticket, "[t/0 7.1 5]")),
        stands("k", "2026-11-22 10:00:00", "5", &info(OTHER, "[t/0 3.1 5]")),
        // Cut short by the instance.
        stands("k", "2026-11-21 10:00:00", "4", &info("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "[t/0 2.1 5]")[..80]),
        stands("k", "2026-11-20 10:00:00", "4", "of somebody else"),
    ];
    let Answer::Rows { rows, journal } = look(Some(ticket), &["[t/0 7.3 9]", "[t/0/8.0]"], events.clone()).await else {
        panic!("no rows")
    };
    assert_eq!(journal, Some(Journal::Read(vec!["[t/0 7.3 9]".into()])));
    assert_eq!((&*rows[0].sys_id, &*rows[0].state), (ticket, "0"), "the one in question is the latest");
    let Answer::Rows { rows, journal } = look(Some(ticket), &["[t/0 7.4 9]"], events.clone()).await else {
        panic!("no rows")
    };
    assert_eq!((rows.len(), journal), (1, Some(Journal::Read(Vec::new()))));
    let Answer::Rows { rows, .. } = look(None, &[], events).await else { panic!("no rows") };
    let tickets: Vec<_> = rows.iter().map(|row| (&*row.sys_id, &*row.state)).collect();
    assert_eq!(tickets, [(OTHER, "5"), (ticket, "2")], "oldest first");
    assert_eq!(rows[1].updated_on - rows[1].created_on, 4);
    let Answer::Rows { rows, journal } = look(Some(ticket), &["[t/0 7.4 9]"], Vec::new()).await else {
        panic!("no rows")
    };
    assert_eq!((rows.len(), journal), (0, Some(Journal::Read(Vec::new()))), "its events are gone");
}

#[tokio::test]
async fn a_look_that_may_not_see_what_events_say_proves_nothing() {
    let hidden = json!({"message_key": "k", "sys_created_on": "2026-11-23 10:00:00", "severity": "1"});
    assert_eq!(failure(&look(Some(OTHER), &["m"], vec![hidden]).await), (Class::Transient, "events_unreadable"));
}
