//! Tests of import sets over real sockets, against an instance with scripted responses.

use serde_json::{Value, json};

use super::tests::{Action, ID, Instance, create, failure, respond, result, row, update};
use super::*;
use crate::model::{Answer, FailureClass, HttpMethod};

const OTHER: &str = "ffffffffffffffffffffffffffffffff";

fn client(instance: &Instance) -> Client {
    let mut connection = instance.client().connection().clone();
    connection.import_set =
        Some(ImportSet { staging: "u_stage".into(), prefix: "u_".into(), coalesce: "u_sys_id".into() });
    Client::new(connection, || 1).expect("a client")
}

/// The response to a staged row with these transform results.
fn staged(results: &Value) -> Action {
    respond("201 Created", json!({"import_set": "ISET1", "staging_table": "u_stage", "result": results}).to_string())
}

fn result_of(status: &str, id: &str) -> Value {
    let link = if id.is_empty() { String::new() } else { format!("https://x/api/now/table/incident/{id}") };
    json!([{"table": "incident", "status": status, "record_link": link, "error_message": "why not"}])
}

/// Performs a request whose row is transformed with these results; `ticket` responds to reads.
async fn perform(request: Request, results: Value, ticket: impl Fn(&str) -> Action + Send + Sync + 'static) -> Answer {
    let instance =
        Instance::start(
            move |received, _| {
                if received.line.starts_with("POST") { staged(&results) } else { ticket(&received.line) }
            },
        )
        .await;
    client(&instance).perform(0, request).await.answer
}

/// Responds to reads with a ticket in this state, whose journal contains the note.
fn ticket(state: &'static str, note: &'static str) -> impl Fn(&str) -> Action + Send + Sync + 'static {
    move |line: &str| {
        if line.contains("sys_journal_field") {
            let entry = |text: &str| json!({"element_id": ID, "element": "work_notes", "value": text});
            let entries: Vec<Value> = ["an older note", note].map(entry).to_vec();
            respond("200 OK", result(&json!(entries).to_string()))
        } else if line.contains("display_value=all") {
            let text = json!({"display_value": note, "value": ""});
            respond(
                "200 OK",
                result(&json!({"sys_id": {"value": ID, "display_value": ID}, "work_notes": text}).to_string()),
            )
        } else {
            respond("200 OK", result(&row(state, r#","impact":"1","short_description":"disk full""#)))
        }
    }
}

fn gone(_: &str) -> Action {
    respond("404 Not Found", r#"{"error":{"message":"No Record found","detail":null},"status":"failure"}"#)
}

#[tokio::test]
async fn a_row_is_staged_and_its_ticket_is_read_back() {
    let instance = Instance::start(|received, _| {
        if received.line.starts_with("POST") {
            staged(&result_of("inserted", ID))
        } else {
            respond("200 OK", result(&row("1", r#","impact":"2""#)))
        }
    })
    .await;
    let client = client(&instance);
    let answer = client.perform(0, create()).await.answer;
    let Answer::Applied { row, warnings } = &answer else { panic!("{answer:?}") };
    assert_eq!((row.sys_id.as_str(), row.number.as_str(), row.mod_count), (ID, "INC0010001", 3));
    assert_eq!(warnings, &[r#"impact: sent "1", stored "2""#]);
    let received = instance.received();
    assert_eq!(received.len(), 2);
    assert!(received[0].line.starts_with("POST /api/now/import/u_stage "), "{}", received[0].line);
    assert_eq!(received[0].body, r#"{"u_correlation_id":"Key","u_correlation_display":"bridge","u_impact":"1"}"#);
    assert!(received[1].line.starts_with(&format!("GET /api/now/table/incident/{ID}?")), "{}", received[1].line);
    assert_eq!(client.take_feedback(0).requests, 2);
    assert_eq!(client.rate_limit_scope(HttpMethod::Patch), ("u_stage", HttpMethod::Post));
    assert_eq!(client.rate_limit_scope(HttpMethod::Get), ("incident", HttpMethod::Get));
    client.perform(0, update()).await;
    let body: Value = serde_json::from_str(&instance.received()[2].body).expect("JSON");
    assert_eq!((&body["u_sys_id"], &body["u_state"]), (&json!(ID), &json!("2")));
    assert_eq!(body["u_work_notes"], "first\n[alerts/3/1.0]\n\nsecond\n[alerts/3/2.0]");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(4), "an update contains its ticket but no correlation");
}

#[tokio::test]
async fn a_create_that_updated_an_existing_ticket_is_a_failure() {
    let answer = perform(create(), result_of("updated", ID), ticket("1", "")).await;
    assert_eq!(failure(&answer), (FailureClass::Rejected, "import_coalesced"));
    let answer = perform(create(), result_of("inserted", ""), ticket("1", "")).await;
    assert_eq!(failure(&answer), (FailureClass::Ambiguous { transaction_ended: true }, "import_unnamed"));
    let answer = perform(create(), result_of("inserted", ID), gone).await;
    assert_eq!(failure(&answer), (FailureClass::Ambiguous { transaction_ended: true }, "import_unread"));
    let answer = perform(create(), result_of("ignored", ""), gone).await;
    assert_eq!(failure(&answer), (FailureClass::Rejected, "import_ignored"));
    let answer = perform(update(), result_of("inserted", OTHER), ticket("2", "")).await;
    assert_eq!(failure(&answer), (FailureClass::Gone, "import_recreated"));
    let answer = perform(update(), result_of("updated", OTHER), ticket("2", "")).await;
    assert_eq!(failure(&answer), (FailureClass::Ambiguous { transaction_ended: true }, "import_row_differs"));
}

#[tokio::test]
async fn an_ignored_update_is_gone_applied_or_rejected() {
    let plain = || match update() {
        Request::Update { sys_id, fields, .. } => Request::Update { sys_id, fields, notes: Vec::new() },
        other => other,
    };
    assert_eq!(failure(&perform(update(), result_of("ignored", ""), gone).await).0, FailureClass::Gone);
    assert!(matches!(perform(plain(), result_of("ignored", ID), ticket("2", "")).await, Answer::Applied { .. }));
    let differs = perform(plain(), result_of("ignored", ID), ticket("1", "")).await;
    assert_eq!(failure(&differs), (FailureClass::Rejected, "import_ignored"));
    let with_notes = perform(update(), result_of("skipped", ID), ticket("2", "")).await;
    assert_eq!(failure(&with_notes), (FailureClass::Rejected, "import_ignored"), "an ignored row writes no note");
}

#[tokio::test]
async fn a_row_in_error_is_classified_by_its_ticket() {
    assert_eq!(
        failure(&perform(create(), result_of("error", ""), gone).await),
        (FailureClass::Rejected, "import_error")
    );
    assert_eq!(
        failure(&perform(create(), result_of("error", ID), gone).await),
        (FailureClass::Rejected, "import_error")
    );
    let created = perform(create(), result_of("error", ID), ticket("1", "")).await;
    assert_eq!(failure(&created), (FailureClass::Ambiguous { transaction_ended: true }, "import_error"));
    let unread = perform(create(), result_of("error", ID), |_| respond("503 Service Unavailable", "")).await;
    assert_eq!(failure(&unread), (FailureClass::Ambiguous { transaction_ended: true }, "import_unread"));
    let duplicate = json!([{"table": "incident", "status": "error", "error_message": "Unique Key violation detected"}]);
    assert_eq!(failure(&perform(create(), duplicate, gone).await), (FailureClass::Conflict, "unique_key"));
    let with_note =
        perform(update(), result_of("error", ID), ticket("2", "first\n[alerts/3/1.0]\n\nsecond\n[alerts/3/2.0]")).await;
    assert!(matches!(&with_note, Answer::Applied { warnings, .. } if warnings.len() == 1), "{with_note:?}");
    let without_note = perform(update(), result_of("error", ID), ticket("2", "")).await;
    assert_eq!(
        failure(&without_note),
        (FailureClass::Rejected, "import_error"),
        "the ticket has the values, but not the note"
    );
    assert_eq!(failure(&perform(update(), result_of("error", ID), gone).await).0, FailureClass::Gone);
}

#[tokio::test]
async fn results_that_name_no_single_ticket_are_failures() {
    let elsewhere = json!([{"table": "problem", "status": "inserted", "sys_id": ID}]);
    for results in [json!([]), elsewhere] {
        assert_eq!(failure(&perform(create(), results, gone).await), (FailureClass::Rejected, "import_no_map"));
    }
    let twice = json!([result_of("inserted", ID)[0], result_of("inserted", OTHER)[0]]);
    let answer = perform(create(), twice, ticket("1", "")).await;
    assert_eq!(failure(&answer), (FailureClass::Ambiguous { transaction_ended: true }, "import_many_maps"));
    let pending = perform(create(), result_of("pending", ""), gone).await;
    assert_eq!(failure(&pending), (FailureClass::Ambiguous { transaction_ended: false }, "import_status"));
    let instance = Instance::start(|_, _| respond("201 Created", "")).await;
    let answer = client(&instance).perform(0, create()).await.answer;
    assert_eq!(failure(&answer), (FailureClass::Ambiguous { transaction_ended: true }, "import_unreadable"));
    let instance = Instance::start(|_, _| Action::Disconnect).await;
    let answer = client(&instance).perform(0, create()).await.answer;
    assert_eq!(failure(&answer), (FailureClass::Ambiguous { transaction_ended: false }, "connection_lost"));
}
