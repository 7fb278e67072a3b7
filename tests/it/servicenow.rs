//! Tests of the ServiceNow client against the simulator, which shares no code with it.

use std::time::Duration;

use nowbridge::model::answer::Journal;
use nowbridge::model::{Answer, FailureClass, Row};
use nowbridge::servicenow::{Auth, Client, Connection, Note, Request};
use nowbridge::simulators::servicenow::{Faults, Options, RunningSimulator, Simulator};
use secrecy::SecretString;

async fn instance(faults: Faults) -> (RunningSimulator, Client) {
    let running = Simulator::start(Options { faults, ..Options::default() }).await.expect("the simulator starts");
    let auth = Auth::Basic { user: "nowbridge".into(), password: SecretString::from("nowbridge") };
    let client = client(&running, auth);
    (running, client)
}

fn client(running: &RunningSimulator, auth: Auth) -> Client {
    let mut connection = Connection::new(running.url(), "incident", auth);
    connection.deadline = Duration::from_secs(20);
    Client::new(connection, nowbridge::runtime::clock::mono).expect("a client")
}

fn create(correlation: &str) -> Request {
    Request::Create {
        correlation: correlation.into(),
        correlation_display: "nowbridge".into(),
        fields: vec![
            ("impact".into(), "1".into()),
            ("priority".into(), "5".into()),
            ("short_description".into(), "disk full".into()),
        ],
        notes: vec![note("opened", "[alerts/0/1.0]")],
    }
}

fn note(text: &str, marker: &str) -> Note {
    Note { text: text.into(), marker: marker.into() }
}

fn applied(answer: Answer) -> (Row, Vec<String>) {
    match answer {
        Answer::Applied { row, warnings } => (*row, warnings),
        other => panic!("not applied: {other:?}"),
    }
}

fn rows(answer: Answer) -> (Vec<Row>, Option<Journal>) {
    match answer {
        Answer::Rows { rows, journal } => (rows, journal),
        other => panic!("no rows: {other:?}"),
    }
}

fn class(answer: &Answer) -> FailureClass {
    match answer {
        Answer::Failed(failure) => failure.class,
        other => panic!("no failure: {other:?}"),
    }
}

async fn found(client: &Client, correlation: &str) -> Vec<Row> {
    rows(client.perform(0, Request::Find { correlation: correlation.into(), columns: Vec::new() }).await.answer).0
}

fn read(sys_id: &str, markers: &[&str]) -> Request {
    let markers = markers.iter().map(|m| (*m).to_owned()).collect();
    Request::Read { sys_id: sys_id.into(), columns: vec!["impact".into()], markers }
}

#[tokio::test]
async fn a_ticket_is_created_updated_found_and_read() {
    let (_running, client) = instance(Faults::default()).await;
    let result = client.perform(0, create("alertmanager:alert:1")).await;
    assert!(result.instance_date.is_some());
    let (row, warnings) = applied(result.answer);
    assert_eq!(row.updated_by, "nowbridge");
    assert!(row.number.starts_with("INC"), "{}", row.number);
    assert!(
        warnings.iter().any(|w| w.starts_with("priority: sent \"5\"")),
        "the instance computes the priority: {warnings:?}"
    );

    let update = Request::Update {
        sys_id: row.sys_id.clone(),
        fields: vec![("state".into(), "2".into())],
        notes: vec![note("seen", "[alerts/0/2.0]"), note("seen", "[alerts/0/3.0]")],
    };
    let (updated, _) = applied(client.perform(1, update).await.answer);
    assert_eq!((updated.state.as_str(), updated.sys_id.as_str()), ("2", row.sys_id.as_str()));
    assert!(updated.mod_count > row.mod_count);

    applied(client.perform(0, create("ALERTMANAGER:alert:1")).await.answer);
    let tickets = found(&client, "alertmanager:alert:1").await;
    assert_eq!(
        tickets.iter().map(|r| &r.sys_id).collect::<Vec<_>>(),
        [&row.sys_id],
        "the other correlation differs by case"
    );
    assert!(found(&client, "alertmanager:alert:2").await.is_empty());

    let (read_rows, journal) = rows(
        client.perform(2, read(&row.sys_id, &["[alerts/0/1.0]", "[alerts/0/3.0]", "[alerts/0/4.0]"])).await.answer,
    );
    assert_eq!(read_rows[0].values.get("impact").map(String::as_str), Some("1"));
    let Some(Journal::Read(mut markers)) = journal else { panic!("{journal:?}") };
    markers.sort();
    assert_eq!(markers, ["[alerts/0/1.0]", "[alerts/0/3.0]"]);

    assert_eq!(class(&client.perform(0, read(&"0".repeat(32), &[])).await.answer), FailureClass::Gone);
}

#[tokio::test]
async fn a_hidden_journal_is_read_on_the_row_or_is_inconclusive() {
    let (_running, client) = instance(Faults { journal_unreadable: true, ..Faults::default() }).await;
    let (row, _) = applied(client.perform(0, create("k")).await.answer);
    let (_, journal) = rows(client.perform(0, read(&row.sys_id, &["[alerts/0/1.0]", "[x]"])).await.answer);
    assert_eq!(journal, Some(Journal::Read(vec!["[alerts/0/1.0]".into()])));

    let hidden = vec!["incident.work_notes".to_owned()];
    let (_running, client) =
        instance(Faults { journal_unreadable: true, hidden_columns: hidden, ..Faults::default() }).await;
    let (row, _) = applied(client.perform(0, create("k")).await.answer);
    let (_, journal) = rows(client.perform(0, read(&row.sys_id, &["[alerts/0/1.0]"])).await.answer);
    assert_eq!(journal, Some(Journal::Inconclusive));
}

#[tokio::test]
async fn lost_responses_are_ambiguous_and_tell_whether_the_transaction_ended() {
    let open = FailureClass::Ambiguous { transaction_ended: false };
    let ended = FailureClass::Ambiguous { transaction_ended: true };
    let none = Faults::default;
    for (faults, expected, is_stored) in [
        (Faults { drop_after_commit: 1.0, ..none() }, open, Some(true)),
        (Faults { drop_before_commit: 1.0, ..none() }, open, Some(false)),
        (Faults { gateway_502_after_commit: 1.0, ..none() }, open, Some(true)),
        (Faults { gateway_504_before_commit: 1.0, ..none() }, open, Some(false)),
        (Faults { error_500_after_commit: 1.0, ..none() }, ended, Some(true)),
        (Faults { error_500_before_commit: 1.0, ..none() }, ended, Some(false)),
        (Faults { accepted_202: 1.0, ..none() }, ended, Some(false)),
        (Faults { html_200: 1.0, ..none() }, open, Some(false)),
        (Faults { null_body: 1.0, ..none() }, open, Some(true)),
        (Faults { truncated_json: 1.0, ..none() }, open, Some(true)),
        (Faults { ghost: 1.0, ghost_delay_ms: [60_000, 60_000], ..none() }, open, Some(false)),
        (Faults { hibernating: true, ..none() }, open, None),
        (Faults { maintenance_503: true, ..none() }, open, None),
        (Faults { unauthorized: true, ..none() }, FailureClass::Unauthorized, None),
    ] {
        let (_running, client) = instance(faults.clone()).await;
        let answer = client.perform(0, create("k")).await.answer;
        assert_eq!(class(&answer), expected, "{answer:?} under {faults:?}");
        if let Some(is_stored) = is_stored {
            assert_eq!(!found(&client, "k").await.is_empty(), is_stored, "{faults:?}");
        } else if expected == open {
            let find = client.perform(0, Request::Find { correlation: "k".into(), columns: Vec::new() }).await.answer;
            assert_eq!(class(&find), FailureClass::Unavailable);
        }
    }
}

#[tokio::test]
async fn a_rejection_contains_the_instances_message() {
    let (_running, client) = instance(Faults::default()).await;
    let (row, _) = applied(client.perform(0, create("k")).await.answer);
    let resolve = Request::Update { sys_id: row.sys_id, fields: vec![("state".into(), "6".into())], notes: Vec::new() };
    let Answer::Failed(failure) = client.perform(0, resolve).await.answer else {
        panic!("resolved without a close code")
    };
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Rejected, "data_policy"));
    assert!(failure.message.contains("mandatory"), "{}", failure.message);
}

#[tokio::test]
async fn oauth_client_credentials_work_and_a_wrong_secret_is_unauthorized() {
    let (running, _) = instance(Faults::default()).await;
    let oauth = |secret: &str| Auth::ClientCredentials {
        client_id: "nowbridge-client".into(),
        client_secret: SecretString::from(secret),
        token_url: None,
    };
    applied(client(&running, oauth("nowbridge-secret")).perform(0, create("k")).await.answer);
    let answer = client(&running, oauth("wrong")).perform(0, create("k")).await.answer;
    assert_eq!(class(&answer), FailureClass::Unauthorized);
}
