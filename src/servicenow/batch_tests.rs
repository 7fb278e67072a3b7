//! Tests of batches over real sockets, against an instance with scripted responses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::tests::{Action, ID, Instance, create, failure, respond, result, row, update};
use super::*;
use crate::model::{Answer, FailureClass};

fn serviced(id: usize, status: u16, body: &str) -> Value {
    json!({"id": id.to_string(), "status_code": status, "body": BASE64.encode(body), "headers": []})
}

fn applied(id: usize) -> Value {
    serviced(id, 201, &result(&row("1", r#","impact":"1""#)))
}

/// Sends five creates; the response contains these serviced items and these ids of unserviced ones.
async fn send(items: &[Value], unserviced: &[usize]) -> BatchResult {
    let unserviced: Vec<String> = unserviced.iter().map(usize::to_string).collect();
    let body =
        json!({"batch_request_id": "1", "serviced_requests": items, "unserviced_requests": unserviced}).to_string();
    let instance = Instance::start(move |_, _| respond("200 OK", body.clone())).await;
    let requests: Vec<Request> = (0..5).map(|_| create()).collect();
    instance.client().perform_batch(0, &requests, |_| Ok(())).await
}

/// Applied, not sent, ambiguous with its transaction ended (`d`) or open (`o`), failed otherwise; `r` for rows.
fn outcome(batch: &BatchResult) -> String {
    let letter = |result: &RequestResult| match &result.answer {
        Answer::Applied { .. } | Answer::WithoutCorrelation { .. } => 'a',
        Answer::NotSent { .. } => 'n',
        Answer::Failed(failure) => match failure.class {
            FailureClass::Ambiguous { transaction_ended: true } => 'd',
            FailureClass::Ambiguous { transaction_ended: false } => 'o',
            _ => 'f',
        },
        Answer::Rows { .. } => 'r',
    };
    batch.results.iter().map(letter).collect()
}

#[tokio::test]
async fn each_item_is_encoded_like_a_single_request_and_answered_separately() {
    let instance = Instance::start(|_, _| {
        let rejection =
            r#"{"error":{"message":"Operation Failed","detail":"Data Policy Exception: x"},"status":"failure"}"#;
        let items = [
            serviced(3, 200, &result(&format!("[{}]", row("1", "")))),
            serviced(1, 403, rejection),
            serviced(2, 200, &result(&row("2", ""))),
            serviced(0, 201, &result(&row("1", r#","impact":"2""#))),
        ];
        let body = json!({"serviced_requests": items, "unserviced_requests": []});
        respond("200 OK\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT", body.to_string())
    })
    .await;
    let read = Request::Read { sys_id: ID.into(), columns: Vec::new(), markers: Vec::new() };
    let find = Request::Find { correlation: "Key".into(), columns: Vec::new() };
    let batch = instance.client().perform_batch(0, &[create(), update(), read, find], |_| Ok(())).await;
    let Answer::Applied { warnings, .. } = &batch.results[0].answer else { panic!("{batch:?}") };
    assert_eq!(warnings, &[r#"impact: sent "1", stored "2""#], "classified as a plain answer is");
    assert_eq!(failure(&batch.results[1].answer), (FailureClass::Rejected, "data_policy"));
    for read in &batch.results[2..] {
        assert!(matches!(&read.answer, Answer::Rows { rows, .. } if rows.len() == 1), "{read:?}");
    }
    assert!(batch.results.iter().all(|result| result.instance_date == Some(1_795_428_000)) && !batch.call_failed);
    let received = instance.received();
    assert_eq!(received.len(), 1);
    assert!(received[0].line.starts_with("POST /api/now/v1/batch "), "{}", received[0].line);
    let body: Value = serde_json::from_str(&received[0].body).unwrap();
    let items = body["rest_requests"].as_array().unwrap();
    let methods: Vec<_> = items.iter().map(|item| item["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["POST", "PATCH", "GET", "GET"]);
    assert!(items[0]["url"].as_str().unwrap().starts_with("/api/now/table/incident?sysparm_display_value=false&"));
    assert!(items[1]["url"].as_str().unwrap().starts_with(&format!("/api/now/table/incident/{ID}?")));
    let first = BASE64.decode(items[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(first, br#"{"correlation_id":"Key","correlation_display":"bridge","impact":"1"}"#);
}

#[tokio::test]
async fn when_the_quota_ends_a_batch_only_the_request_that_may_have_run_is_ambiguous() {
    let cancelled = r#"{"error":{"message":"Transaction cancelled","detail":null},"status":"failure"}"#;
    // All others are listed as unserviced: the first of them may have been running.
    assert_eq!(outcome(&send(&[applied(0), applied(1)], &[2, 3, 4]).await), "aadnn");
    assert_eq!(outcome(&send(&[], &[0, 1, 2, 3, 4]).await), "dnnnn");
    // One is neither serviced nor listed: it was running.
    assert_eq!(outcome(&send(&[applied(0), applied(1)], &[3, 4]).await), "aadnn");
    // The one that was running has a response.
    assert_eq!(outcome(&send(&[applied(0), serviced(1, 500, cancelled)], &[2, 3, 4]).await), "adnnn");
    // The last one was running.
    assert_eq!(outcome(&send(&[applied(0), applied(1), applied(2), applied(3)], &[]).await), "aaaad");
    // One item is listed and serviced, another is serviced twice, and there are unknown ids.
    let odd = [applied(0), applied(1), applied(1), applied(2), applied(3), applied(4), applied(77)];
    assert_eq!(outcome(&send(&odd, &[0, 99]).await), "adaaa");
}

#[tokio::test]
async fn an_unreadable_item_response_leaves_only_that_item_ambiguous() {
    let broken = json!({"id": "1", "status_code": 201, "body": "%%%"});
    let empty = json!({"id": 2, "status_code": 202});
    assert_eq!(outcome(&send(&[applied(0), broken, empty, applied(3), applied(4)], &[]).await), "aodaa");
    let throttled = json!({
        "id": "0", "status_code": 429, "headers": [{"name": "Retry-After", "value": "7"}],
        "body": BASE64.encode(r#"{"error":{"message":"Rate limit exceeded","detail":null},"status":"failure"}"#),
    });
    let batch = send(&[throttled, applied(1), applied(2), applied(3), applied(4)], &[]).await;
    assert_eq!(failure(&batch.results[0].answer).0, FailureClass::Throttled { retry_after: Some(7_000) });
}

#[tokio::test]
async fn a_failed_call_is_one_failure_and_leaves_every_write_ambiguous() {
    let spliced = r#"{"serviced_requests":[],"error":{"message":"Transaction cancelled"},"status":"failure"}"#;
    let error = r#"{"error":{"message":"Transaction cancelled","detail":null},"status":"failure"}"#;
    type Script = fn() -> Action;
    let actions: [(Script, &str); 5] = [
        (|| Action::Disconnect, "oof"),
        (|| respond("502 Bad Gateway", "<html>"), "oof"),
        (|| respond("200 OK", "null"), "oof"),
        (|| respond("200 OK", r#"{"serviced_requests":[{"id":"0","status_"#), "oof"),
        (|| respond("202 Accepted", ""), "ddf"),
    ];
    let requests = || [create(), update(), Request::Find { correlation: "Key".into(), columns: Vec::new() }];
    for (action, expected) in actions {
        let instance = Instance::start(move |_, _| action()).await;
        let batch = instance.client().perform_batch(0, &requests(), |_| Ok(())).await;
        assert_eq!((outcome(&batch).as_str(), batch.call_failed), (expected, true));
        assert_eq!(failure(&batch.results[2].answer).0, FailureClass::Transient, "a read changes nothing");
    }
    for (status, body, expected) in [("200 OK", spliced, "oof"), ("500 Server Error", error, "ddf")] {
        let instance = Instance::start(move |_, _| respond(status, body)).await;
        let batch = instance.client().perform_batch(0, &requests(), |_| Ok(())).await;
        assert_eq!(outcome(&batch), expected);
    }
}

#[tokio::test]
async fn a_rejected_call_executes_nothing_and_its_requests_are_not_sent() {
    for (status, body) in [
        (
            "400 Bad Request",
            r#"{"error":{"message":"Exception while reading request","detail":"Rejected large REST payload"},"status":"failure"}"#,
        ),
        (
            "403 Forbidden",
            r#"{"error":{"message":"User Not Authorized","detail":"Failed API level ACL Validation"},"status":"failure"}"#,
        ),
    ] {
        let instance = Instance::start(move |_, _| respond(status, body)).await;
        let batch = instance.client().perform_batch(0, &[create(), update()], |_| Ok(())).await;
        assert_eq!(outcome(&batch), "nn");
        assert!(batch.unbatch_reason.is_some());
    }
}

#[tokio::test]
async fn a_request_whose_final_check_fails_is_omitted_from_the_batch() {
    let instance = Instance::start(|_, _| {
        let body = json!({"serviced_requests": [applied(0), applied(2)], "unserviced_requests": []});
        respond("200 OK", body.to_string())
    })
    .await;
    let may_send = |at: usize| if at == 1 { Err("the lease ended".to_owned()) } else { Ok(()) };
    let mut wrong = update();
    if let Request::Update { sys_id, .. } = &mut wrong {
        *sys_id = "../sys_user".into();
    }
    let batch = instance.client().perform_batch(0, &[create(), create(), create(), wrong], may_send).await;
    assert_eq!(outcome(&batch), "anaf");
    assert_eq!(failure(&batch.results[3].answer), (FailureClass::Rejected, "request"));
    let body: Value = serde_json::from_str(&instance.received()[0].body).unwrap();
    assert_eq!(body["rest_requests"].as_array().unwrap().len(), 2);
    let none = instance.client().perform_batch(0, &[create(), create()], |_| Err("the lease ended".into())).await;
    assert_eq!(
        (outcome(&none).as_str(), instance.received().len()),
        ("nn", 1),
        "no request remains, so no batch is sent"
    );
}

#[tokio::test]
async fn item_urls_omit_the_path_of_a_reverse_proxy() {
    let instance =
        Instance::start(|_, _| respond("200 OK", json!({"serviced_requests": [applied(0)]}).to_string())).await;
    let mut connection = instance.client().connection().clone();
    connection.base_url = format!("{}/snow/", instance.url());
    let client = Client::new(connection, || 1).unwrap();
    client.perform_batch(0, &[create()], |_| Ok(())).await;
    let received = instance.received();
    assert!(received[0].line.starts_with("POST /snow/api/now/v1/batch "), "{}", received[0].line);
    let body: Value = serde_json::from_str(&received[0].body).unwrap();
    assert!(body["rest_requests"][0]["url"].as_str().unwrap().starts_with("/api/now/table/incident?"));
}
