//! Tests of the console, over HTTP against a real listener.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::*;
use crate::engine::dispatcher::Snapshot;
use crate::runtime::clock;
use crate::sink::PartitionStatus;

struct Bench {
    serving: Serving,
    sink: sink::StatusHandle,
    stopping: CancellationToken,
    shutdown: CancellationToken,
    recorder: PrometheusRecorder,
}

impl Bench {
    async fn start() -> Self {
        let recorder = recorder().expect("recorder");
        let (sink, stopping, shutdown) =
            (sink::StatusHandle::default(), CancellationToken::new(), CancellationToken::new());
        let console = Console {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            routes: vec![("incidents".into(), sink.clone())],
            sources: vec![("changes".into(), source::StatusHandle::default())],
            repartitions: vec![("incidents".into(), "rekey", crate::repartition::StatusHandle::default())],
            metrics: recorder.handle(),
            stopping: stopping.clone(),
        };
        let serving = serve(console, shutdown.clone()).await.expect("listens");
        Self { serving, sink, stopping, shutdown, recorder }
    }

    fn works(&self) {
        self.sink.update(|s| {
            s.started = true;
            s.pulse = clock::mono();
            s.snapshot = Snapshot { partitions: (1, 0), leased: 1, ..Snapshot::default() };
            s.snapshot.watermarks.insert(0, 42);
        });
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.serving.address)).await.expect("answers");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).expect("JSON")
    }
}

#[tokio::test]
async fn readiness_follows_the_routes_and_gives_one_reason_a_line() {
    let bench = Bench::start().await;
    let (code, text) = bench.get("/readyz").await;
    assert_eq!((code, text.as_str()), (503, "sink incidents: waits for the consumer group to assign partitions\n"));
    bench.works();
    assert_eq!(bench.get("/readyz").await, (200, "ready\n".into()));
    bench.sink.update(|s| {
        s.blocked_by = Some("the instance refuses the credentials\nsince 10:00".into());
        s.held.insert(3, PartitionStatus { held: "its ledger is lost".into() });
    });
    let (code, text) = bench.get("/readyz").await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(code, 503);
    // A line break in a reason does not make a second one.
    assert_eq!(lines[0], "sink incidents: the instance refuses the credentials since 10:00");
    assert_eq!(lines[1], "sink incidents: partition 3 is held: its ledger is lost");
    let json = bench.json("/readyz?format=json").await;
    assert_eq!(json["ready"], false);
    assert_eq!(json["reasons"][1]["route"], "incidents");
}

#[tokio::test]
async fn only_who_asks_by_address_and_by_header_lets_a_route_go_on() {
    let bench = Bench::start().await;
    let url = format!("http://{}/routes/incidents/resume", bench.serving.address);
    let ask = async |host: &str, header: &str| {
        let request = reqwest::Client::new().post(&url).header(header, "1").header("host", host);
        request.send().await.expect("answers").status().as_u16()
    };
    let port = bench.serving.address.port();
    assert_eq!(ask(&format!("127.0.0.1:{port}"), "x-other").await, 403, "a page's form has no such header");
    assert_eq!(ask(&format!("evil.example:{port}"), ASKED).await, 403, "a name that points here");
    assert!(!bench.sink.take_resume());
    for host in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("localhost:{port}"), "localhost".into()]
    {
        assert_eq!(ask(&host, ASKED).await, 200, "{host}");
        assert!(bench.sink.take_resume());
    }
}

#[tokio::test]
async fn a_stopping_bridge_is_alive_and_not_ready() {
    let bench = Bench::start().await;
    bench.works();
    bench.stopping.cancel();
    assert_eq!(bench.get("/livez").await.0, 200);
    let (code, text) = bench.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(text.starts_with("bridge: is stopping"), "{text}");
}

#[tokio::test]
async fn a_loop_that_stands_still_is_not_alive() {
    let bench = Bench::start().await;
    assert_eq!(bench.get("/livez").await, (200, "alive\n".into()));
    bench.works();
    assert_eq!(bench.get("/livez").await.0, 200);
    bench.sink.update(|s| s.pulse = clock::mono().saturating_sub(61_000).max(1));
    // A machine that has just started has no such past.
    if clock::mono() > 61_000 {
        let (code, text) = bench.get("/livez").await;
        assert_eq!(code, 503);
        assert!(text.starts_with("sink incidents: its loop has stood still"), "{text}");
    }
}

#[tokio::test]
async fn the_status_shows_partitions_parked_keys_and_counts() {
    let bench = Bench::start().await;
    bench.works();
    bench.sink.update(|s| {
        s.parked = vec![("<script>alert(1)</script>".into(), "data_policy: \"Close notes\" is mandatory".into())];
        s.snapshot.doubts = 2;
        s.snapshot.requests = 4;
        s.held.insert(7, PartitionStatus { held: "has no ledger partition".into() });
    });
    bench.sink.count("applied", 5);
    let status = bench.json("/status").await;
    let sink = &status["sinks"][0];
    assert_eq!(sink["name"], "incidents");
    assert_eq!(sink["partitions"]["0"]["watermark"], 42);
    assert_eq!(sink["partitions"]["7"]["held"], "has no ledger partition");
    assert_eq!(sink["in_doubt"], 2);
    assert_eq!(sink["requests_in_flight"], 4);
    assert_eq!(sink["parked"][0]["key"], "<script>alert(1)</script>");
    assert_eq!(sink["counts"]["applied"], 5);
    assert_eq!(status["sources"][0]["state"], "standby");
}

#[tokio::test]
async fn metrics_are_rendered_with_their_meaning_and_buckets() {
    let bench = Bench::start().await;
    ::metrics::with_local_recorder(&bench.recorder, || {
        metrics::describe_all();
        metrics::applied("incidents", "created", 3, 120);
    });
    let (code, text) = bench.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(text.contains("# HELP nowbridge_events_applied_total "), "{text}");
    assert!(text.contains("nowbridge_events_applied_total{route=\"incidents\",outcome=\"created\"} 3"), "{text}");
    assert!(text.contains("nowbridge_latency_milliseconds_bucket{route=\"incidents\",le=\"150\"} 1"), "{text}");
}

#[tokio::test]
async fn the_page_carries_a_policy_that_forbids_foreign_scripts() {
    let bench = Bench::start().await;
    for path in ["/", "/page.js", "/status", "/readyz", "/nothing"] {
        let answer = reqwest::get(format!("http://{}{path}", bench.serving.address)).await.expect("answers");
        let policy = answer.headers().get("content-security-policy").expect("a policy").to_str().expect("text");
        assert!(policy.contains("script-src 'self'") && policy.contains("default-src 'none'"), "{policy}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    }
    assert!(bench.get("/").await.1.contains("/page.js"));
    assert_eq!(bench.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn nothing_can_be_changed_over_it() {
    let bench = Bench::start().await;
    let client = reqwest::Client::new();
    for path in ["/", "/livez", "/readyz", "/metrics", "/status"] {
        let answer = client.post(format!("http://{}{path}", bench.serving.address)).body("x").send().await;
        assert_eq!(answer.expect("answers").status().as_u16(), 405, "{path}");
    }
}

#[tokio::test]
async fn it_ends_when_told_and_the_port_is_free_again() {
    let bench = Bench::start().await;
    let address = bench.serving.address;
    bench.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), bench.serving.task).await;
    ended.expect("ends in time").expect("without a panic");
    assert!(TcpListener::bind(address).await.is_ok());
}

#[tokio::test]
async fn an_address_in_use_is_told_with_the_setting_to_change() {
    let bench = Bench::start().await;
    let console = Console {
        listen: bench.serving.address,
        routes: Vec::new(),
        repartitions: Vec::new(),
        sources: Vec::new(),
        metrics: bench.recorder.handle(),
        stopping: CancellationToken::new(),
    };
    let error = serve(console, CancellationToken::new()).await.expect_err("the address is taken");
    assert!(error.to_string().contains("admin.listen"), "{error}");
}
