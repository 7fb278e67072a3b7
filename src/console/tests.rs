//! Tests of the admin server over HTTP, with a real listener.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::*;
use crate::engine::dispatcher::Snapshot;
use crate::runtime::clock;
use crate::sink::BlockedPartition;

struct Bench {
    serving: RunningConsole,
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
            sinks: vec![("incidents".into(), sink.clone())],
            sources: vec![("changes".into(), source::StatusHandle::default())],
            repartitions: vec![("incidents".into(), "repartition", crate::repartition::StatusHandle::default())],
            metrics: recorder.handle(),
            stopping: stopping.clone(),
        };
        let serving = serve(console, shutdown.clone()).await.expect("listens");
        Self { serving, sink, stopping, shutdown, recorder }
    }

    fn run_normally(&self) {
        self.sink.update(|s| {
            s.started = true;
            s.heartbeat = clock::mono();
            s.snapshot = Snapshot { partitions: 1, leased_partitions: 1, ..Snapshot::default() };
            s.snapshot.watermarks.insert(0, 42);
        });
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{}{path}", self.serving.address)).await.expect("answers");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).expect("JSON")
    }
}

#[tokio::test]
async fn readiness_depends_on_the_routes_and_has_one_reason_per_line() {
    let bench = Bench::start().await;
    let (code, text) = bench.get("/readyz").await;
    assert_eq!((code, text.as_str()), (503, "sink incidents: waiting for the consumer group to assign partitions\n"));
    bench.run_normally();
    assert_eq!(bench.get("/readyz").await, (200, "ready\n".into()));
    bench.sink.update(|s| {
        s.blocked_by = Some("the instance refuses the credentials\nsince 10:00".into());
        s.blocked_partitions.insert(3, BlockedPartition { reason: "its ledger is lost".into() });
    });
    let (code, text) = bench.get("/readyz").await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(code, 503);
    // A line break in a reason does not create a second one.
    assert_eq!(lines[0], "sink incidents: the instance refuses the credentials since 10:00");
    assert_eq!(lines[1], "sink incidents: partition 3 is blocked: its ledger is lost");
    let json = bench.json("/readyz?format=json").await;
    assert_eq!(json["ready"], false);
    assert_eq!(json["reasons"][1]["route"], "incidents");
}

#[tokio::test]
async fn a_resume_request_needs_the_header_and_an_address_as_host() {
    let bench = Bench::start().await;
    let url = format!("http://{}/routes/incidents/resume", bench.serving.address);
    let post = async |host: &str, header: &str| {
        let request = reqwest::Client::new().post(&url).header(header, "1").header("host", host);
        request.send().await.expect("answers").status().as_u16()
    };
    let port = bench.serving.address.port();
    assert_eq!(post(&format!("127.0.0.1:{port}"), "x-other").await, 403, "a form of a page cannot set the header");
    assert_eq!(
        post(&format!("evil.example:{port}"), RESUME_HEADER).await,
        403,
        "a DNS name that points to this machine"
    );
    assert!(!bench.sink.take_resume_request());
    for host in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("localhost:{port}"), "localhost".into()]
    {
        assert_eq!(post(&host, RESUME_HEADER).await, 200, "{host}");
        assert!(bench.sink.take_resume_request());
    }
}

#[tokio::test]
async fn a_bridge_that_shuts_down_is_alive_and_not_ready() {
    let bench = Bench::start().await;
    bench.run_normally();
    bench.stopping.cancel();
    assert_eq!(bench.get("/livez").await.0, 200);
    let (code, text) = bench.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(text.starts_with("bridge: shutting down"), "{text}");
}

#[tokio::test]
async fn a_loop_without_progress_is_not_alive() {
    let bench = Bench::start().await;
    assert_eq!(bench.get("/livez").await, (200, "alive\n".into()));
    bench.run_normally();
    assert_eq!(bench.get("/livez").await.0, 200);
    bench.sink.update(|s| s.heartbeat = clock::mono().saturating_sub(61_000).max(1));
    // Shortly after the machine's start, the mono clock has not reached this value.
    if clock::mono() > 61_000 {
        let (code, text) = bench.get("/livez").await;
        assert_eq!(code, 503);
        assert!(text.starts_with("sink incidents: its loop has made no progress"), "{text}");
    }
}

#[tokio::test]
async fn the_status_shows_partitions_parked_keys_and_counts() {
    let bench = Bench::start().await;
    bench.run_normally();
    bench.sink.update(|s| {
        s.parked = vec![("<script>alert(1)</script>".into(), "data_policy: \"Close notes\" is mandatory".into())];
        s.snapshot.ambiguous_lanes = 2;
        s.snapshot.requests_in_flight = 4;
        s.blocked_partitions.insert(7, BlockedPartition { reason: "has no ledger partition".into() });
    });
    bench.sink.count("applied", 5);
    let status = bench.json("/status").await;
    let sink = &status["sinks"][0];
    assert_eq!(sink["name"], "incidents");
    assert_eq!(sink["partitions"]["0"]["watermark"], 42);
    assert_eq!(sink["partitions"]["7"]["blocked_by"], "has no ledger partition");
    assert_eq!(sink["ambiguous"], 2);
    assert_eq!(sink["requests_in_flight"], 4);
    assert_eq!(sink["parked"][0]["key"], "<script>alert(1)</script>");
    assert_eq!(sink["counters"]["applied"], 5);
    assert_eq!(status["sources"][0]["state"], "standby");
}

#[tokio::test]
async fn metrics_are_rendered_with_help_texts_and_buckets() {
    let bench = Bench::start().await;
    ::metrics::with_local_recorder(&bench.recorder, || {
        metrics::describe_all();
        metrics::applied("incidents", "created", 3, 120);
    });
    let (code, text) = bench.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(text.contains("# HELP nowbridge_events_applied_total "), "{text}");
    assert!(text.contains("nowbridge_events_applied_total{route=\"incidents\",outcome=\"created\"} 3"), "{text}");
    assert!(text.contains("nowbridge_write_latency_seconds_bucket{route=\"incidents\",le=\"0.15\"} 1"), "{text}");
}

#[tokio::test]
async fn every_response_has_a_policy_that_forbids_foreign_scripts() {
    let bench = Bench::start().await;
    for path in ["/", "/page.js", "/status", "/readyz", "/nothing"] {
        let response = reqwest::get(format!("http://{}{path}", bench.serving.address)).await.expect("answers");
        let policy = response.headers().get("content-security-policy").expect("a policy").to_str().expect("text");
        assert!(policy.contains("script-src 'self'") && policy.contains("default-src 'none'"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    assert!(bench.get("/").await.1.contains("/page.js"));
    assert_eq!(bench.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn the_read_only_routes_reject_posts() {
    let bench = Bench::start().await;
    let client = reqwest::Client::new();
    for path in ["/", "/livez", "/readyz", "/metrics", "/status"] {
        let response = client.post(format!("http://{}{path}", bench.serving.address)).body("x").send().await;
        assert_eq!(response.expect("answers").status().as_u16(), 405, "{path}");
    }
}

#[tokio::test]
async fn it_ends_on_shutdown_and_frees_its_port() {
    let bench = Bench::start().await;
    let address = bench.serving.address;
    bench.shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), bench.serving.task).await;
    ended.expect("ends in time").expect("without a panic");
    assert!(TcpListener::bind(address).await.is_ok());
}

#[tokio::test]
async fn the_error_of_an_address_in_use_names_the_setting() {
    let bench = Bench::start().await;
    let console = Console {
        listen: bench.serving.address,
        sinks: Vec::new(),
        repartitions: Vec::new(),
        sources: Vec::new(),
        metrics: bench.recorder.handle(),
        stopping: CancellationToken::new(),
    };
    let error = serve(console, CancellationToken::new()).await.expect_err("the address is in use");
    assert!(error.to_string().contains("admin.listen"), "{error}");
}
