//! Batches over real sockets: an instance that answers as scripted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::tests::{Act, ID, Instance, create, failure, result, row, say, update};
use super::*;
use crate::model::{Answer, Class};

fn served(id: usize, status: u16, body: &str) -> Value {
    json!({"id": id.to_string(), "status_code": status, "body": BASE64.encode(body), "headers": []})
}

fn applied(id: usize) -> Value {
    served(id, 201, &result(&row("1", r#","impact":"1""#)))
}

/// Five creates, answered by these served items and ids of others.
async fn call(done: &[Value], left: &[usize]) -> Replies {
    let left: Vec<String> = left.iter().map(usize::to_string).collect();
    let body = json!({"batch_request_id": "1", "serviced_requests": done, "unserviced_requests": left}).to_string();
    let instance = Instance::start(move |_, _| say("200 OK", body.clone())).await;
    let requests: Vec<Request> = (0..5).map(|_| create()).collect();
    instance.client().perform_together(0, &requests, |_| Ok(())).await
}

/// `a`pplied, `n`ot sent, in `d`oubt with its transaction ended or `o`pen, `f`ailed otherwise.
fn outcome(replies: &Replies) -> String {
    let letter = |reply: &Reply| match &reply.answer {
        Answer::Applied { .. } => 'a',
        Answer::NotSent { .. } => 'n',
        Answer::Failed(failure) => match failure.class {
            Class::Ambiguous { ended: true } => 'd',
            Class::Ambiguous { ended: false } => 'o',
            _ => 'f',
        },
        Answer::Rows { .. } => 'r',
    };
    replies.each.iter().map(letter).collect()
}

#[tokio::test]
async fn each_item_is_sent_in_its_plain_form_and_answered_by_itself() {
    let instance = Instance::start(|_, _| {
        let refusal =
            r#"{"error":{"message":"Operation Failed","detail":"Data Policy Exception: x"},"status":"failure"}"#;
        let done = [
            served(3, 200, &result(&format!("[{}]", row("1", "")))),
            served(1, 403, refusal),
            served(2, 200, &result(&row("2", ""))),
            served(0, 201, &result(&row("1", r#","impact":"2""#))),
        ];
        let body = json!({"serviced_requests": done, "unserviced_requests": []});
        say("200 OK\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT", body.to_string())
    })
    .await;
    let read = Request::Read { sys_id: ID.into(), columns: Vec::new(), markers: Vec::new() };
    let find = Request::Find { correlation: "Key".into(), columns: Vec::new() };
    let replies = instance.client().perform_together(0, &[create(), update(), read, find], |_| Ok(())).await;
    let Answer::Applied { warnings, .. } = &replies.each[0].answer else { panic!("{replies:?}") };
    assert_eq!(warnings, &[r#"impact: sent "1", stands "2""#], "judged as a plain answer is");
    assert_eq!(failure(&replies.each[1].answer), (Class::Rejected, "data_policy"));
    for read in &replies.each[2..] {
        assert!(matches!(&read.answer, Answer::Rows { rows, .. } if rows.len() == 1), "{read:?}");
    }
    assert!(replies.each.iter().all(|reply| reply.instance_date == Some(1_795_428_000)) && !replies.as_one);
    let seen = instance.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].line.starts_with("POST /api/now/v1/batch "), "{}", seen[0].line);
    let body: Value = serde_json::from_str(&seen[0].body).unwrap();
    let items = body["rest_requests"].as_array().unwrap();
    let methods: Vec<_> = items.iter().map(|item| item["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["POST", "PATCH", "GET", "GET"]);
    assert!(items[0]["url"].as_str().unwrap().starts_with("/api/now/table/incident?sysparm_display_value=false&"));
    assert!(items[1]["url"].as_str().unwrap().starts_with(&format!("/api/now/table/incident/{ID}?")));
    let first = BASE64.decode(items[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(first, br#"{"correlation_id":"Key","correlation_display":"bridge","impact":"1"}"#);
}

#[tokio::test]
async fn of_what_the_quota_cut_off_only_the_one_that_may_have_run_is_in_doubt() {
    let cancelled = r#"{"error":{"message":"Transaction cancelled","detail":null},"status":"failure"}"#;
    // All others are named: the first of them may have been running.
    assert_eq!(outcome(&call(&[applied(0), applied(1)], &[2, 3, 4]).await), "aadnn");
    assert_eq!(outcome(&call(&[], &[0, 1, 2, 3, 4]).await), "dnnnn");
    // One is neither answered nor named: that one it was.
    assert_eq!(outcome(&call(&[applied(0), applied(1)], &[3, 4]).await), "aadnn");
    // The one that ran was answered.
    assert_eq!(outcome(&call(&[applied(0), served(1, 500, cancelled)], &[2, 3, 4]).await), "adnnn");
    // It was the last.
    assert_eq!(outcome(&call(&[applied(0), applied(1), applied(2), applied(3)], &[]).await), "aaaad");
    // An item is named and answered, another answered twice, and strangers are.
    let odd = [applied(0), applied(1), applied(1), applied(2), applied(3), applied(4), applied(77)];
    assert_eq!(outcome(&call(&odd, &[0, 99]).await), "adaaa");
}

#[tokio::test]
async fn an_answer_that_can_t_be_read_leaves_its_item_alone_in_doubt() {
    let broken = json!({"id": "1", "status_code": 201, "body": "%%%"});
    let empty = json!({"id": 2, "status_code": 202});
    assert_eq!(outcome(&call(&[applied(0), broken, empty, applied(3), applied(4)], &[]).await), "aodaa");
    let throttled = json!({
        "id": "0", "status_code": 429, "headers": [{"name": "Retry-After", "value": "7"}],
        "body": BASE64.encode(r#"{"error":{"message":"Rate limit exceeded","detail":null},"status":"failure"}"#),
    });
    let replies = call(&[throttled, applied(1), applied(2), applied(3), applied(4)], &[]).await;
    assert_eq!(failure(&replies.each[0].answer).0, Class::Throttled { retry_after: Some(7_000) });
}

#[tokio::test]
async fn a_call_that_fails_as_a_whole_is_one_failure_and_every_write_is_in_doubt() {
    let spliced = r#"{"serviced_requests":[],"error":{"message":"Transaction cancelled"},"status":"failure"}"#;
    let error = r#"{"error":{"message":"Transaction cancelled","detail":null},"status":"failure"}"#;
    type Script = fn() -> Act;
    let acts: [(Script, &str); 5] = [
        (|| Act::Cut, "oof"),
        (|| say("502 Bad Gateway", "<html>"), "oof"),
        (|| say("200 OK", "null"), "oof"),
        (|| say("200 OK", r#"{"serviced_requests":[{"id":"0","status_"#), "oof"),
        (|| say("202 Accepted", ""), "ddf"),
    ];
    let requests = || [create(), update(), Request::Find { correlation: "Key".into(), columns: Vec::new() }];
    for (act, expected) in acts {
        let instance = Instance::start(move |_, _| act()).await;
        let replies = instance.client().perform_together(0, &requests(), |_| Ok(())).await;
        assert_eq!((outcome(&replies).as_str(), replies.as_one), (expected, true));
        assert_eq!(failure(&replies.each[2].answer).0, Class::Transient, "a read changes nothing");
    }
    for (status, body, expected) in [("200 OK", spliced, "oof"), ("500 Server Error", error, "ddf")] {
        let instance = Instance::start(move |_, _| say(status, body)).await;
        let replies = instance.client().perform_together(0, &requests(), |_| Ok(())).await;
        assert_eq!(outcome(&replies), expected);
    }
}

#[tokio::test]
async fn a_call_that_is_refused_as_a_whole_ran_nothing_and_says_nothing_of_its_items() {
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
        let instance = Instance::start(move |_, _| say(status, body)).await;
        let replies = instance.client().perform_together(0, &[create(), update()], |_| Ok(())).await;
        assert_eq!(outcome(&replies), "nn");
        assert!(replies.refused.is_some());
    }
}

#[tokio::test]
async fn what_may_not_be_sent_any_more_is_left_out_of_the_call() {
    let instance = Instance::start(|_, _| {
        let body = json!({"serviced_requests": [applied(0), applied(2)], "unserviced_requests": []});
        say("200 OK", body.to_string())
    })
    .await;
    let over = |at: usize| if at == 1 { Err("the lease ended".to_owned()) } else { Ok(()) };
    let mut wrong = update();
    if let Request::Update { sys_id, .. } = &mut wrong {
        *sys_id = "../sys_user".into();
    }
    let replies = instance.client().perform_together(0, &[create(), create(), create(), wrong], over).await;
    assert_eq!(outcome(&replies), "anaf");
    assert_eq!(failure(&replies.each[3].answer), (Class::Rejected, "request"));
    let body: Value = serde_json::from_str(&instance.seen()[0].body).unwrap();
    assert_eq!(body["rest_requests"].as_array().unwrap().len(), 2);
    let none = instance.client().perform_together(0, &[create(), create()], |_| Err("over".into())).await;
    assert_eq!((outcome(&none).as_str(), instance.seen().len()), ("nn", 1), "nothing left, nothing was sent");
}

#[tokio::test]
async fn behind_a_reverse_proxy_an_item_names_the_instance_s_own_path() {
    let instance = Instance::start(|_, _| say("200 OK", json!({"serviced_requests": [applied(0)]}).to_string())).await;
    let mut connection = instance.client().connection().clone();
    connection.base_url = format!("{}/snow/", instance.url());
    let client = Client::new(connection, || 1).unwrap();
    client.perform_together(0, &[create()], |_| Ok(())).await;
    let seen = instance.seen();
    assert!(seen[0].line.starts_with("POST /snow/api/now/v1/batch "), "{}", seen[0].line);
    let body: Value = serde_json::from_str(&seen[0].body).unwrap();
    assert!(body["rest_requests"][0]["url"].as_str().unwrap().starts_with("/api/now/table/incident?"));
}
