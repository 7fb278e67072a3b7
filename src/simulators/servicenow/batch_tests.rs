//! The Batch API as a client sees it, over HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::tests::Bench;
use super::*;

const BATCH: &str = "/api/now/v1/batch";

fn item(id: usize, method: &str, url: &str, body: &Value) -> Value {
    json!({
        "id": id, "method": method, "url": url, "body": BASE64.encode(body.to_string()),
        "headers": [{"name": "Content-Type", "value": "application/json"}],
    })
}

fn creates(count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| item(n, "POST", "/api/now/table/incident", &json!({"correlation_id": format!("k{n}")})))
        .collect()
}

async fn call(bench: &Bench, items: Vec<Value>) -> Value {
    let body = json!({"batch_request_id": "b", "rest_requests": items});
    let answer = bench.send(Method::POST, BATCH, &body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.expect("JSON")
}

/// The served item of an id, with its body decoded.
fn served(answer: &Value, id: &str) -> Option<(u64, Value)> {
    let all = answer["serviced_requests"].as_array().expect("a list");
    let item = all.iter().find(|item| item["id"] == id)?;
    let body = BASE64.decode(item["body"].as_str().expect("text")).expect("base64");
    Some((item["status_code"].as_u64().expect("a status"), serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

fn rows(bench: &Bench) -> u64 {
    bench.running.rows("incident", 0, 0)["total"].as_u64().expect("a count")
}

#[tokio::test]
async fn each_item_has_its_own_answer() {
    let bench = Bench::start(Options::default()).await;
    let row = bench.create(&json!({"correlation_id": "old"})).await;
    let url = format!("/api/now/table/incident/{}", row["sys_id"].as_str().expect("an id"));
    let mut items = creates(1);
    items.push(item(1, "PATCH", &url, &json!({"state": "7"})));
    items.push(item(2, "GET", &format!("{url}?sysparm_fields=correlation_id"), &json!({})));
    items.push(item(3, "POST", "/api/now/attachment", &json!({})));
    items.push(json!({"id": "4", "method": "POST", "url": "/api/now/table/incident", "body": "%%%"}));
    let answer = call(&bench, items).await;
    assert_eq!(
        served(&answer, "0").map(|(status, row)| (status, row["result"]["correlation_id"].clone())),
        Some((201, "k0".into()))
    );
    let (status, refusal) = served(&answer, "1").expect("served");
    assert!(status == 403 && refusal["error"]["detail"].as_str().is_some_and(|d| d.starts_with("Data Policy")));
    assert_eq!(served(&answer, "2"), Some((200, json!({"result": {"correlation_id": "old"}}))));
    assert_eq!((served(&answer, "3").map(|(s, _)| s), served(&answer, "4").map(|(s, _)| s)), (Some(400), Some(400)));
    assert_eq!((&answer["unserviced_requests"], &answer["batch_request_id"]), (&json!([]), &json!("b")));
    assert_eq!(rows(&bench), 2);
    assert_eq!(bench.running.state()["counts"]["batch_items"], 5);
}

#[tokio::test]
async fn the_quota_ends_a_call_and_names_what_never_ran() {
    let options = Options {
        latency: Latency { base_ms: 40, jitter_ms: 0 },
        switches: Switches { batch_quota_ms: 130, ..Switches::default() },
        ..Options::default()
    };
    let bench = Bench::start(options).await;
    let answer = call(&bench, creates(10)).await;
    let left: Vec<&str> =
        answer["unserviced_requests"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!((6..=10).contains(&left.len()), "{answer}");
    // What is named as not served never ran, and all that was answered 201 did.
    let stands = bench.running.rows("incident", 0, 100);
    let stands =
        |id: &str| stands["rows"].as_array().expect("rows").iter().any(|r| r["correlation_id"] == format!("k{id}"));
    assert!(left.iter().all(|id| !stands(id)));
    for id in (0..10).map(|n: usize| n.to_string()) {
        if served(&answer, &id).is_some_and(|(status, _)| status == 201) {
            assert!(stands(&id));
        }
    }
}

#[tokio::test]
async fn the_item_that_ran_when_the_quota_struck_shows_in_every_known_way() {
    let bench = Bench::start(Options::default()).await;
    bench.running.set_faults(&json!({"batch_quota": 1.0})).expect("faults");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let before = rows(&bench);
        let answer = call(&bench, creates(3)).await;
        let left = answer["unserviced_requests"].as_array().expect("a list").len();
        let done = answer["serviced_requests"].as_array().expect("a list");
        let whole = done.iter().filter(|item| item["status_code"] == 201).count();
        let committed = rows(&bench) - before > whole as u64;
        seen.insert((done.len() > whole, done.len() + left < 3, committed));
    }
    // Answered 500, left out, or named: the last only where it did nothing.
    let all =
        [(true, false, false), (true, false, true), (false, true, false), (false, true, true), (false, false, false)];
    assert_eq!(seen, all.into());
}

#[tokio::test]
async fn faults_strike_a_call_as_a_whole_and_ghosts_commit_all_of_it() {
    let bench = Bench::start(Options::default()).await;
    let body = json!({"batch_request_id": "b", "rest_requests": creates(3)});
    for (fault, status, commits) in [("error_500_after_commit", 500, 3), ("gateway_502_before_commit", 502, 0)] {
        let before = rows(&bench);
        bench.running.set_faults(&json!({fault: 1.0})).expect("faults");
        assert_eq!(bench.send(Method::POST, BATCH, &body).await.status().as_u16(), status);
        assert_eq!(rows(&bench) - before, commits);
        bench.running.set_faults(&json!({fault: 0.0})).expect("faults");
    }
    let ghost = json!({"ghost": 1.0, "ghost_ms": [300, 300], "ghost_answer": "gateway"});
    bench.running.set_faults(&ghost).expect("faults");
    assert_eq!(bench.send(Method::POST, BATCH, &body).await.status().as_u16(), 504);
    assert_eq!(rows(&bench), 3);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while rows(&bench) < 6 {
        assert!(std::time::Instant::now() < deadline, "the ghost never came");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let log = bench.running.log(0, 100);
    assert_eq!(log["entries"].as_array().expect("a log").iter().filter(|e| e["was_ghost"] == true).count(), 3);
}

#[tokio::test]
async fn items_count_against_rules_where_the_instance_does_it_so() {
    let rule: RateLimit = serde_json::from_value(json!({"requests": 2, "table": "incident"})).expect("a rule");
    let switches = Switches { batch_items_count: true, ..Switches::default() };
    let bench = Bench::start(Options { rate_limits: vec![rule], switches, ..Options::default() }).await;
    let answer = call(&bench, creates(4)).await;
    let statuses: Vec<_> = (0..4).filter_map(|n: usize| served(&answer, &n.to_string())).map(|(s, _)| s).collect();
    assert_eq!(statuses, [201, 201, 429, 429]);
    let headers = answer["serviced_requests"].as_array().expect("a list").iter().find(|i| i["id"] == "3");
    let headers = headers.and_then(|i| i["headers"].as_array()).expect("headers");
    assert!(headers.iter().any(|h| h["name"] == "retry-after"));
}
