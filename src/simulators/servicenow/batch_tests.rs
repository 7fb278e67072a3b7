//! The Batch API as a client sees it over HTTP.

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
    let response = bench.send(Method::POST, BATCH, &body).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.expect("JSON")
}

/// Returns status and decoded body of the serviced item with an id.
fn serviced(response: &Value, id: &str) -> Option<(u64, Value)> {
    let all = response["serviced_requests"].as_array().expect("a list");
    let item = all.iter().find(|item| item["id"] == id)?;
    let body = BASE64.decode(item["body"].as_str().expect("text")).expect("base64");
    Some((item["status_code"].as_u64().expect("a status"), serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

fn rows(bench: &Bench) -> u64 {
    bench.running.rows("incident", 0, 0)["total"].as_u64().expect("a count")
}

#[tokio::test]
async fn each_item_has_its_own_response() {
    let bench = Bench::start(Options::default()).await;
    let row = bench.create(&json!({"correlation_id": "old"})).await;
    let url = format!("/api/now/table/incident/{}", row["sys_id"].as_str().expect("an id"));
    let mut items = creates(1);
    items.push(item(1, "PATCH", &url, &json!({"state": "7"})));
    items.push(item(2, "GET", &format!("{url}?sysparm_fields=correlation_id"), &json!({})));
    items.push(item(3, "POST", "/api/now/attachment", &json!({})));
    items.push(json!({"id": "4", "method": "POST", "url": "/api/now/table/incident", "body": "%%%"}));
    let response = call(&bench, items).await;
    assert_eq!(
        serviced(&response, "0").map(|(status, row)| (status, row["result"]["correlation_id"].clone())),
        Some((201, "k0".into()))
    );
    let (status, error) = serviced(&response, "1").expect("a serviced item");
    assert!(status == 403 && error["error"]["detail"].as_str().is_some_and(|d| d.starts_with("Data Policy")));
    assert_eq!(serviced(&response, "2"), Some((200, json!({"result": {"correlation_id": "old"}}))));
    assert_eq!(
        (serviced(&response, "3").map(|(s, _)| s), serviced(&response, "4").map(|(s, _)| s)),
        (Some(400), Some(400))
    );
    assert_eq!((&response["unserviced_requests"], &response["batch_request_id"]), (&json!([]), &json!("b")));
    assert_eq!(rows(&bench), 2);
    assert_eq!(bench.running.state()["counters"]["batch_items"], 5);
}

#[tokio::test]
async fn the_quota_ends_a_call_and_unserviced_items_never_ran() {
    let options = Options {
        latency: Latency { base_ms: 40, jitter_ms: 0 },
        settings: Settings { batch_quota_ms: 130, ..Settings::default() },
        ..Options::default()
    };
    let bench = Bench::start(options).await;
    let response = call(&bench, creates(10)).await;
    let unserviced: Vec<&str> =
        response["unserviced_requests"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!((6..=10).contains(&unserviced.len()), "{response}");
    // No unserviced item was committed, and every item with status 201 was.
    let stored = bench.running.rows("incident", 0, 100);
    let is_stored =
        |id: &str| stored["rows"].as_array().expect("rows").iter().any(|r| r["correlation_id"] == format!("k{id}"));
    assert!(unserviced.iter().all(|id| !is_stored(id)));
    for id in (0..10).map(|n: usize| n.to_string()) {
        if serviced(&response, &id).is_some_and(|(status, _)| status == 201) {
            assert!(is_stored(&id));
        }
    }
}

#[tokio::test]
async fn the_item_that_ran_when_the_quota_ended_the_call_appears_in_every_known_way() {
    let bench = Bench::start(Options::default()).await;
    bench.running.set_faults(&json!({"batch_quota_exceeded": 1.0})).expect("faults");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let before = rows(&bench);
        let response = call(&bench, creates(3)).await;
        let unserviced = response["unserviced_requests"].as_array().expect("a list").len();
        let items = response["serviced_requests"].as_array().expect("a list");
        let created = items.iter().filter(|item| item["status_code"] == 201).count();
        let committed = rows(&bench) - before > created as u64;
        seen.insert((items.len() > created, items.len() + unserviced < 3, committed));
    }
    // (status 500, left out, committed). An item that is listed as unserviced was never committed.
    let all =
        [(true, false, false), (true, false, true), (false, true, false), (false, true, true), (false, false, false)];
    assert_eq!(seen, all.into());
}

#[tokio::test]
async fn faults_affect_a_call_as_a_whole_and_a_ghost_write_commits_all_items() {
    let bench = Bench::start(Options::default()).await;
    let body = json!({"batch_request_id": "b", "rest_requests": creates(3)});
    for (fault, status, commits) in [("error_500_after_commit", 500, 3), ("gateway_502_before_commit", 502, 0)] {
        let before = rows(&bench);
        bench.running.set_faults(&json!({fault: 1.0})).expect("faults");
        assert_eq!(bench.send(Method::POST, BATCH, &body).await.status().as_u16(), status);
        assert_eq!(rows(&bench) - before, commits);
        bench.running.set_faults(&json!({fault: 0.0})).expect("faults");
    }
    let ghost = json!({"ghost": 1.0, "ghost_delay_ms": [300, 300], "ghost_response": "gateway_timeout"});
    bench.running.set_faults(&ghost).expect("faults");
    assert_eq!(bench.send(Method::POST, BATCH, &body).await.status().as_u16(), 504);
    assert_eq!(rows(&bench), 3);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while rows(&bench) < 6 {
        assert!(std::time::Instant::now() < deadline, "the ghost write never committed");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let log = bench.running.log(0, 100);
    assert_eq!(log["entries"].as_array().expect("a log").iter().filter(|e| e["ghost_write"] == true).count(), 3);
}

#[tokio::test]
async fn items_count_against_rate_limit_rules_if_the_instance_counts_them() {
    let rule: RateLimit = serde_json::from_value(json!({"requests": 2, "table": "incident"})).expect("a rule");
    let settings = Settings { rate_limit_batch_items: true, ..Settings::default() };
    let bench = Bench::start(Options { rate_limits: vec![rule], settings, ..Options::default() }).await;
    let response = call(&bench, creates(4)).await;
    let statuses: Vec<_> = (0..4).filter_map(|n: usize| serviced(&response, &n.to_string())).map(|(s, _)| s).collect();
    assert_eq!(statuses, [201, 201, 429, 429]);
    let headers = response["serviced_requests"].as_array().expect("a list").iter().find(|i| i["id"] == "3");
    let headers = headers.and_then(|i| i["headers"].as_array()).expect("headers");
    assert!(headers.iter().any(|h| h["name"] == "retry-after"));
}
