//! Import sets over real sockets: an instance that answers as scripted.

use serde_json::{Value, json};

use super::tests::{Act, ID, Instance, create, failure, result, row, say, update};
use super::*;
use crate::model::{Answer, Class, HttpMethod};

const OTHER: &str = "ffffffffffffffffffffffffffffffff";

fn client(instance: &Instance) -> Client {
    let mut connection = instance.client().connection().clone();
    connection.import = Some(ImportSet { staging: "u_stage".into(), prefix: "u_".into(), coalesce: "u_sys_id".into() });
    Client::new(connection, || 1).expect("a client")
}

/// The answer to a staged row of which these became.
fn staged(of: &Value) -> Act {
    say("201 Created", json!({"import_set": "ISET1", "staging_table": "u_stage", "result": of}).to_string())
}

fn one(status: &str, id: &str) -> Value {
    let link = if id.is_empty() { String::new() } else { format!("https://x/api/now/table/incident/{id}") };
    json!([{"table": "incident", "status": status, "record_link": link, "error_message": "why not"}])
}

/// A request whose row became this, with the ticket then shown like this.
async fn perform(request: Request, of: Value, shown: impl Fn(&str) -> Act + Send + Sync + 'static) -> Answer {
    let instance =
        Instance::start(move |seen, _| if seen.line.starts_with("POST") { staged(&of) } else { shown(&seen.line) })
            .await;
    client(&instance).perform(0, request).await.answer
}

/// The ticket in this state, with its journal.
fn ticket(state: &'static str, note: &'static str) -> impl Fn(&str) -> Act + Send + Sync + 'static {
    move |line: &str| {
        if line.contains("sys_journal_field") {
            let entry = |text: &str| json!({"element_id": ID, "element": "work_notes", "value": text});
            let entries: Vec<Value> = ["an older note", note].map(entry).to_vec();
            say("200 OK", result(&json!(entries).to_string()))
        } else if line.contains("display_value=all") {
            let text = json!({"display_value": note, "value": ""});
            say(
                "200 OK",
                result(&json!({"sys_id": {"value": ID, "display_value": ID}, "work_notes": text}).to_string()),
            )
        } else {
            say("200 OK", result(&row(state, r#","impact":"1","short_description":"disk full""#)))
        }
    }
}

fn gone(_: &str) -> Act {
    say("404 Not Found", r#"{"error":{"message":"No Record found","detail":null},"status":"failure"}"#)
}

#[tokio::test]
async fn a_row_is_staged_and_its_ticket_read_before_it_is_called_applied() {
    let instance = Instance::start(|seen, _| {
        if seen.line.starts_with("POST") {
            staged(&one("inserted", ID))
        } else {
            say("200 OK", result(&row("1", r#","impact":"2""#)))
        }
    })
    .await;
    let client = client(&instance);
    let answer = client.perform(0, create()).await.answer;
    let Answer::Applied { row, warnings } = &answer else { panic!("{answer:?}") };
    assert_eq!((row.sys_id.as_str(), row.number.as_str(), row.mod_count), (ID, "INC0010001", 3));
    assert_eq!(warnings, &[r#"impact: sent "1", stands "2""#]);
    let seen = instance.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].line.starts_with("POST /api/now/import/u_stage "), "{}", seen[0].line);
    assert_eq!(seen[0].body, r#"{"u_correlation_id":"Key","u_correlation_display":"bridge","u_impact":"1"}"#);
    assert!(seen[1].line.starts_with(&format!("GET /api/now/table/incident/{ID}?")), "{}", seen[1].line);
    assert_eq!(client.take_feedback(0).requests, 2);
    assert_eq!(client.counted_as(HttpMethod::Patch), ("u_stage", HttpMethod::Post));
    assert_eq!(client.counted_as(HttpMethod::Get), ("incident", HttpMethod::Get));
    client.perform(0, update()).await;
    let body: Value = serde_json::from_str(&instance.seen()[2].body).expect("JSON");
    assert_eq!((&body["u_sys_id"], &body["u_state"]), (&json!(ID), &json!("2")));
    assert_eq!(body["u_work_notes"], "first\n[alerts/3/1.0]\n\nsecond\n[alerts/3/2.0]");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(4), "an update names its ticket, and no correlation");
}

#[tokio::test]
async fn a_create_that_wrote_to_an_existing_ticket_is_no_success() {
    let answer = perform(create(), one("updated", ID), ticket("1", "")).await;
    assert_eq!(failure(&answer), (Class::Rejected, "import_coalesced"));
    let answer = perform(create(), one("inserted", ""), ticket("1", "")).await;
    assert_eq!(failure(&answer), (Class::Ambiguous { ended: true }, "import_unnamed"));
    let answer = perform(create(), one("inserted", ID), gone).await;
    assert_eq!(failure(&answer), (Class::Ambiguous { ended: true }, "import_unread"));
    let answer = perform(create(), one("ignored", ""), gone).await;
    assert_eq!(failure(&answer), (Class::Rejected, "import_ignored"));
    let answer = perform(update(), one("inserted", OTHER), ticket("2", "")).await;
    assert_eq!(failure(&answer), (Class::Gone, "import_made_anew"));
    let answer = perform(update(), one("updated", OTHER), ticket("2", "")).await;
    assert_eq!(failure(&answer), (Class::Ambiguous { ended: true }, "import_row_differs"));
}

#[tokio::test]
async fn an_ignored_update_is_gone_or_stands_or_is_refused() {
    let plain = || match update() {
        Request::Update { sys_id, fields, .. } => Request::Update { sys_id, fields, notes: Vec::new() },
        other => other,
    };
    assert_eq!(failure(&perform(update(), one("ignored", ""), gone).await).0, Class::Gone);
    assert!(matches!(perform(plain(), one("ignored", ID), ticket("2", "")).await, Answer::Applied { .. }));
    let stands_otherwise = perform(plain(), one("ignored", ID), ticket("1", "")).await;
    assert_eq!(failure(&stands_otherwise), (Class::Rejected, "import_ignored"));
    let with_notes = perform(update(), one("skipped", ID), ticket("2", "")).await;
    assert_eq!(failure(&with_notes), (Class::Rejected, "import_ignored"), "an ignored row has written no note");
}

#[tokio::test]
async fn a_row_in_error_is_judged_by_what_stands() {
    assert_eq!(failure(&perform(create(), one("error", ""), gone).await), (Class::Rejected, "import_error"));
    assert_eq!(failure(&perform(create(), one("error", ID), gone).await), (Class::Rejected, "import_error"));
    let made = perform(create(), one("error", ID), ticket("1", "")).await;
    assert_eq!(failure(&made), (Class::Ambiguous { ended: true }, "import_error"));
    let unread = perform(create(), one("error", ID), |_| say("503 Service Unavailable", "")).await;
    assert_eq!(failure(&unread), (Class::Ambiguous { ended: true }, "import_unread"));
    let taken = json!([{"table": "incident", "status": "error", "error_message": "Unique Key violation detected"}]);
    assert_eq!(failure(&perform(create(), taken, gone).await), (Class::Conflict, "unique_key"));
    let noted =
        perform(update(), one("error", ID), ticket("2", "first\n[alerts/3/1.0]\n\nsecond\n[alerts/3/2.0]")).await;
    assert!(matches!(&noted, Answer::Applied { warnings, .. } if warnings.len() == 1), "{noted:?}");
    let not_noted = perform(update(), one("error", ID), ticket("2", "")).await;
    assert_eq!(failure(&not_noted), (Class::Rejected, "import_error"), "its values stood before, its notes don't");
    assert_eq!(failure(&perform(update(), one("error", ID), gone).await).0, Class::Gone);
}

#[tokio::test]
async fn what_names_no_single_ticket_of_the_table_decides_as_little_as_it_says() {
    let elsewhere = json!([{"table": "problem", "status": "inserted", "sys_id": ID}]);
    for of in [json!([]), elsewhere] {
        assert_eq!(failure(&perform(create(), of, gone).await), (Class::Rejected, "import_no_map"));
    }
    let twice = json!([one("inserted", ID)[0], one("inserted", OTHER)[0]]);
    let answer = perform(create(), twice, ticket("1", "")).await;
    assert_eq!(failure(&answer), (Class::Ambiguous { ended: true }, "import_many_maps"));
    let later = perform(create(), one("pending", ""), gone).await;
    assert_eq!(failure(&later), (Class::Ambiguous { ended: false }, "import_status"));
    let instance = Instance::start(|_, _| say("201 Created", "")).await;
    let answer = client(&instance).perform(0, create()).await.answer;
    assert_eq!(failure(&answer), (Class::Ambiguous { ended: true }, "import_unreadable"));
    let instance = Instance::start(|_, _| Act::Cut).await;
    let answer = client(&instance).perform(0, create()).await.answer;
    assert_eq!(failure(&answer), (Class::Ambiguous { ended: false }, "connection_lost"));
}
