//! Kafka to ServiceNow on a real broker: invalid input becomes dead letters and does not stop other records; the bridge
//! waits for an instance that is down, limits the rate or rejects the credentials, and for a broker that is down;
//! signals stop the process. The bridge is the real binary, the instance is the simulator.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nowbridge::kafka::KafkaOptions;
use nowbridge::kafka::topics::{Purpose, TopicSpec};
use nowbridge::simulators::servicenow::{Options, RunningSimulator, Simulator, User};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::support::kafka;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A bridge process, the simulator it writes to, and its topics.
struct Scene {
    bootstrap: String,
    prefix: String,
    simulator: RunningSimulator,
    folder: tempfile::TempDir,
    bridge: Option<Child>,
}

impl Scene {
    async fn start(bootstrap: &str, options: &KafkaOptions, more: &str) -> Self {
        Self::start_with(Options::default(), bootstrap, options, "", more).await
    }

    /// As [`Scene::start`], with options of the instance and further lines of its configuration.
    async fn start_with(
        instance: Options,
        bootstrap: &str,
        options: &KafkaOptions,
        instance_lines: &str,
        more: &str,
    ) -> Self {
        let simulator = Simulator::start(instance).await.expect("a simulator");
        let prefix = kafka::unique("sink");
        kafka::create(options, &[TopicSpec::new(format!("{prefix}.alerts"), Purpose::Input).partitions(2)], false)
            .await;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("password"), "nowbridge").expect("a password");
        let text = format!(
            "instances:\n  dev:\n    url: {url}\n    allow_http: true\n    auth: {{ basic: {{ user: nowbridge, password: \
             \"file:{password}\" }} }}\n    auth_retry: {{ first: 1s, longest: 2s }}\n    request_deadline: 3s\n    \
             max_transaction_time: 2s\n{instance_lines}kafka:\n  bootstrap: {bootstrap}\n  session_timeout: 6s\ntopics:\n  prefix: {prefix}\n  \
             unsafe_topics: true\n  replication: 1\nsinks:\n  incidents:\n    topic: {prefix}.alerts\n    closing: {{ \
             close_code: Solution provided }}\n{more}admin:\n  listen: 127.0.0.1:0\n",
            url = simulator.url(),
            password = folder.path().join("password").display(),
        );
        std::fs::write(folder.path().join("bridge.yaml"), text).expect("a configuration");
        let mut scene = Self { bootstrap: bootstrap.into(), prefix, simulator, folder, bridge: None };
        scene.run();
        scene
    }

    fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_nowbridge"))
            .args(["run", "--config"])
            .arg(self.folder.path().join("bridge.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the bridge starts");
        self.bridge = Some(child);
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.folder.path().join("bridge.log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let id = self.bridge.as_ref().expect("a bridge").id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
    }

    fn publish(&self, key: Option<&str>, value: Option<&[u8]>) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("a producer");
        let topic = format!("{}.alerts", self.prefix);
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&topic);
        record.key = key;
        record.payload = value;
        producer.send(record).map_err(|(error, _)| error).expect("sent");
        producer.flush(TIMEOUT).expect("acknowledged");
    }

    fn alert(&self, key: &str, action: &str, more: Value) {
        self.publish(Some(key), Some(event(key, action, more).to_string().as_bytes()));
    }

    /// Publishes many alerts (key, action, further fields).
    fn alerts(&self, alerts: Vec<(String, String, Value)>) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("a producer");
        let topic = format!("{}.alerts", self.prefix);
        for (key, action, more) in alerts {
            let body = event(&key, &action, more).to_string();
            producer.send(BaseRecord::to(&topic).key(&key).payload(&body)).map_err(|(e, _)| e).expect("sent");
        }
        producer.flush(TIMEOUT).expect("acknowledged");
    }

    fn tickets(&self, key: &str) -> Vec<Value> {
        let rows = self.simulator.rows("incident", 0, usize::MAX);
        let rows = rows["rows"].as_array().cloned().unwrap_or_default();
        rows.into_iter().filter(|r| r["correlation_id"] == key).collect()
    }

    /// One above the last offset of the first partition of a topic; 0 if the topic does not exist yet.
    fn end_offset(&self, topic: &str) -> i64 {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("a client");
        client.fetch_watermarks(topic, 0, Duration::from_secs(5)).map_or(0, |(_, end)| end)
    }

    fn wait_for(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !condition(self) {
            if Instant::now() > deadline {
                let _ = std::io::stderr().write_all(self.log().as_bytes());
                panic!("timeout, waiting for {what}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn dead_letters(&self, at_least: usize) -> Vec<Letter> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", kafka::unique("letters"))
            .create()
            .expect("a consumer");
        let topic = format!("{}.incidents.dead-letters", self.prefix);
        let mut all = TopicPartitionList::new();
        for partition in 0..2 {
            all.add_partition_offset(&topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&all).expect("assigned");
        let deadline = Instant::now() + TIMEOUT;
        let mut letters = Vec::new();
        while letters.len() < at_least && Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
                let headers = message.headers().into_iter().flat_map(Headers::iter);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                letters.push(Letter {
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers.map(|h| (h.key.to_owned(), h.value.map(text).unwrap_or_default())).collect(),
                });
            }
        }
        assert!(letters.len() >= at_least, "only {} of {at_least} dead letters\n{}", letters.len(), self.log());
        letters
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut child) = self.bridge.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Letter {
    value: Option<Vec<u8>>,
    headers: BTreeMap<String, String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_records_become_dead_letters_and_do_not_stop_others() {
    let Some(broker) = kafka::real("sink: invalid input") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.publish(Some("a"), Some(b"\xff not json"));
    scene.publish(Some("b"), Some(br#"{"source":"test","action":"open","title":"keyed by its record"}"#));
    scene.publish(Some("c"), Some(br#"{"source":"test","key":"c","action":"explode","title":"t"}"#));
    scene.publish(Some("d"), None);
    scene.publish(None, Some(br#"{"source":"test","key":"e","action":"open","title":"t"}"#));
    scene.alert("good", "open", json!({}));
    let letters = scene.dead_letters(3);
    let code = |value: &[u8]| {
        let letter = letters.iter().find(|l| l.value.as_deref().is_some_and(|v| v.starts_with(value)));
        letter.expect("its dead letter").headers["nowbridge-code"].clone()
    };
    assert_eq!(code(b"\xff not json"), "undecodable");
    assert_eq!(code(br#"{"source":"test","key":"e""#), "missing_key");
    assert_eq!(code(br#"{"source":"test","key":"c""#), "unknown_action");
    assert!(letters.iter().all(|l| !l.headers["nowbridge-reason"].is_empty()));
    scene.wait_for("the good alert's ticket", |s| s.tickets("good").len() == 1);
    scene.wait_for("a ticket by the record's key", |s| s.tickets("b").len() == 1);
    assert_eq!(letters.len(), 3, "the tombstone is not a dead letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_record_parks_its_key_with_the_message_of_the_instance() {
    let Some(broker) = kafka::real("sink: rejected") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.alert("k", "open", json!({}));
    scene.wait_for("the ticket", |s| s.tickets("k").len() == 1);
    let rule = json!({"business_rules": [{"name": "No drills", "table": "incident", "column": "short_description",
        "contains": "drill", "abort": true}]});
    scene.simulator.set_faults(&rule).expect("a business rule");
    scene.alert("k", "update", json!({"title": "a drill"}));
    scene.alert("k", "update", json!({"title": "later"}));
    scene.alert("other", "open", json!({}));
    let letters = scene.dead_letters(2);
    assert_eq!(letters[0].headers["nowbridge-code"], "business_rule");
    assert_eq!(letters[0].headers["nowbridge-explain"], "SN-007");
    assert!(letters[0].headers["nowbridge-reason"].contains("No drills"), "{:?}", letters[0].headers);
    assert_eq!(letters[1].headers["nowbridge-code"], "parked");
    scene.wait_for("the ticket of another key", |s| s.tickets("other").len() == 1);
    assert_eq!(
        scene.tickets("k")[0]["short_description"],
        "alert k",
        "no later record of the key is applied before the rejected one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_credentials_stop_the_route_without_dead_letters() {
    let Some(broker) = kafka::real("sink: credentials") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.alert("one", "open", json!({}));
    scene.wait_for("the first ticket", |s| s.tickets("one").len() == 1);
    scene.simulator.set_faults(&json!({"unauthorized": true})).expect("set");
    scene.alert("two", "open", json!({}));
    scene.wait_for("the route to stop", |s| s.log().contains("rejects the credentials"));
    scene.simulator.set_faults(&json!({"unauthorized": false})).expect("set");
    scene.wait_for("the route to resume by itself", |s| s.tickets("two").len() == 1);
    assert!(!scene.log().contains("dead letter"));
}

/// Five wrong passwords in a row lock the simulated account, like a real one.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_never_locks_the_account_and_the_corrected_one_is_reloaded() {
    let Some(broker) = kafka::real("sink: lockout") else { return };
    let more = "sources:\n  changes:\n    table: incident\n    interval: 1s\n";
    let mut scene = Scene::start(&broker.bootstrap, &broker.options(), more).await;
    scene.signal("-TERM");
    scene.bridge.take().expect("a bridge").wait().expect("it ends");
    std::fs::write(scene.folder.path().join("password"), "wrong").expect("a password");
    scene.run();
    scene.alert("one", "open", json!({}));
    scene.wait_for("the bridge to stop using the password", |s| s.log().contains("rejected 4 times in a row"));
    let rejected = |scene: &Scene| -> u64 {
        let state = scene.simulator.state();
        let lines = state["requests"].as_array().into_iter().flatten().filter(|line| line["status"] == 401);
        lines.filter_map(|line| line["count"].as_u64()).sum()
    };
    // The routes retry by themselves, and send no request to the instance.
    let reports = scene.log().matches("rejects the credentials").count();
    assert_eq!((rejected(&scene), reports > 0), (4, true));
    assert_eq!(scene.simulator.state()["lockouts"], 0);
    std::fs::write(scene.folder.path().join("password"), "nowbridge").expect("a password");
    scene.wait_for("the ticket", |s| s.tickets("one").len() == 1);
    assert_eq!(rejected(&scene), 4);
    assert!(!scene.log().contains("dead letter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_waits_for_an_instance_that_is_down_or_hibernates() {
    let Some(broker) = kafka::real("sink: instance down") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.alert("first", "open", json!({}));
    scene.wait_for("the first ticket", |s| s.tickets("first").len() == 1);
    for (number, fault) in [json!({"maintenance_503": true}), json!({"hibernating": true})].iter().enumerate() {
        scene.simulator.set_faults(fault).expect("set");
        let keys: Vec<String> = (0..10).map(|n| format!("down-{number}-{n}")).collect();
        keys.iter().for_each(|k| scene.alert(k, "open", json!({"note": "seen"})));
        scene.wait_for("some failures", |s| s.log().matches("write outcome unknown").count() > number);
        let off: serde_json::Map<String, Value> =
            fault.as_object().into_iter().flatten().map(|(k, _)| (k.clone(), json!(false))).collect();
        scene.simulator.set_faults(&Value::Object(off)).expect("set");
        scene.wait_for("every ticket once", |s| keys.iter().all(|k| s.tickets(k).len() == 1));
    }
    assert!(!scene.log().contains("dead letter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rejection_limit_stops_a_route_and_an_operator_resumes_it() {
    let Some(broker) = kafka::real("sink: rejection limit") else { return };
    let options = broker.options();
    let more = "    rejection_limit: 3\n    fields: { description: \"{{ 'a drill' if severity == 'low' else 'no exercise' }}\" }\n";
    let mut scene = Scene::start(&broker.bootstrap.clone(), &options, more).await;
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    scene.signal("-TERM");
    scene.bridge.take().expect("a bridge").wait().expect("it ends");
    let path = scene.folder.path().join("bridge.yaml");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(&path, text.replace("127.0.0.1:0", &address.to_string())).expect("written");
    scene.run();
    let rule = json!({"business_rules": [{"name": "No drills", "column": "description", "contains": "a drill", "abort": true}]});
    scene.simulator.set_faults(&rule).expect("set");
    (0..3).for_each(|n| scene.alert(&format!("drill-{n}"), "open", json!({"severity": "low"})));
    scene.wait_for("the rejection limit", |s| s.log().contains("rejection limit reached"));
    scene.alert("good", "open", json!({}));
    let received = "nowbridge_records_received_total{route=\"incidents\"} 4";
    scene.wait_for("the record to be read", |_| metrics(address).contains(received));
    assert!(scene.tickets("good").is_empty(), "a stopped route writes nothing");
    let resume = Command::new(env!("CARGO_BIN_EXE_nowbridge")).args(["resume", "--config"]).arg(&path).output();
    let resume = resume.expect("it runs");
    assert!(resume.status.success(), "{}", String::from_utf8_lossy(&resume.stderr));
    scene.wait_for("the route to resume", |s| s.tickets("good").len() == 1);
}

fn metrics(address: std::net::SocketAddr) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    let stream = std::net::TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        stream.read_to_string(&mut text)
    });
    stream.map_or(String::new(), |_| text)
}

/// The hour of a real instance is eight seconds here.
#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_learns_and_keeps_a_rate_limit_rule_and_a_critical_alert_is_next() {
    let Some(broker) = kafka::real("sink: quota") else { return };
    let options = broker.options();
    let rule = json!({"requests": 64, "window_seconds": 8});
    let rules = vec![serde_json::from_value(rule).expect("a rule")];
    let instance = Options { rate_limits: rules, ..Options::default() };
    let scene = Scene::start_with(instance, &options.bootstrap, &options, "    rate_limit_window: 8s\n", "").await;
    let keys: Vec<String> = (0..120).map(|n| format!("storm-{n}")).collect();
    keys.iter().for_each(|k| scene.alert(k, "open", json!({"severity": "low"})));
    let created = |s: &Scene| s.simulator.rows("incident", 0, usize::MAX)["rows"].as_array().map_or(0, Vec::len);
    scene.wait_for("the quota to limit the storm", |s| created(s) >= 20);
    let before = created(&scene);
    scene.alert("critical", "open", json!({"severity": "critical"}));
    scene.wait_for("the critical ticket", |s| s.tickets("critical").len() == 1);
    let meanwhile = created(&scene) - before;
    assert!(meanwhile <= 8, "{meanwhile} tickets were created before the critical one");
    assert!(before + meanwhile < keys.len(), "the storm was over before the critical alert; the test proves nothing");
    scene.wait_for("every ticket", |s| created(s) == keys.len() + 1);
    let counts = scene.simulator.state()["counters"].clone();
    assert_eq!(counts["rate_limited"], Value::Null, "a request was rejected: {counts}");
    assert!(keys.iter().all(|k| scene.tickets(k).len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_waits_for_a_broker_that_is_down() {
    let Some(mut broker) = kafka::private("sink: broker down", &[]) else { return };
    let options = broker.options();
    let scene = Scene::start(&options.bootstrap.clone(), &options, "").await;
    scene.alert("before", "open", json!({}));
    scene.wait_for("the first ticket", |s| s.tickets("before").len() == 1);
    broker.kill();
    std::thread::sleep(Duration::from_secs(if std::env::var_os("NOWBRIDGE_FULL").is_some() { 60 } else { 12 }));
    broker.restart();
    scene.alert("after", "open", json!({}));
    scene.alert("before", "resolve", json!({}));
    scene.wait_for("the updates after the restart", |s| {
        s.tickets("after").len() == 1 && s.tickets("before")[0]["state"] == "6"
    });
    assert_eq!(scene.tickets("before").len(), 1);
}

/// Nothing is wrong, so nothing is logged as a warning or an error; and an idle bridge logs nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_ten_events_and_a_stop_log_no_warning_and_no_error() {
    let Some(broker) = kafka::real("sink: log lines") else { return };
    let source =
        "sources:\n  changes:\n    table: incident\n    interval: 1s\n    start: all\n    include_echoes: true\n";
    let mut scene = Scene::start(&broker.bootstrap, &broker.options(), source).await;
    for n in 0..5 {
        scene.alert(&format!("quiet-{n}"), "open", json!({}));
        scene.alert(&format!("quiet-{n}"), "resolve", json!({}));
    }
    let changes = format!("{}.changes.changes", scene.prefix);
    scene.wait_for("five resolved tickets, and their changes", |s| {
        let resolved = |n: &u32| s.tickets(&format!("quiet-{n}")).first().is_some_and(|t| t["state"] == "6");
        (0..5).all(|n| resolved(&n)) && s.end_offset(&changes) >= 5
    });
    let busy = scene.log();
    // Three polls of the source, and marks, commits and lease renewals of the sink.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(scene.log(), busy, "an idle bridge logs nothing");
    scene.signal("-TERM");
    let status = scene.bridge.as_mut().expect("a bridge").wait().expect("it ends");
    assert!(status.success(), "{status}: {}", scene.log());
    let log = scene.log();
    let trouble: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert!(trouble.is_empty(), "{} lines at WARN or ERROR:\n{}", trouble.len(), trouble.join("\n"));
    assert!(log.contains(" INFO "), "levels are printed as this test expects:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_the_bridge_and_a_second_one_exits_immediately() {
    let Some(broker) = kafka::real("sink: signals") else { return };
    let mut scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.simulator.set_faults(&json!({"latency_ms": 1_500})).expect("set");
    scene.alert("slow", "open", json!({}));
    scene.wait_for("its partitions", |s| s.log().matches("partition assigned").count() == 2);
    // The request is in flight by now, except on very slow machines; there the test is weaker, not wrong.
    std::thread::sleep(Duration::from_secs(1));
    scene.signal("-TERM");
    let status = scene.bridge.as_mut().expect("a bridge").wait().expect("it ends");
    assert!(status.success(), "{status}: {}", scene.log());
    scene.simulator.set_faults(&json!({"latency_ms": 0})).expect("set");
    scene.run();
    scene.alert("slow", "note", json!({"note": "after the restart"}));
    scene.wait_for("one ticket, with the note", |s| {
        s.tickets("slow").first().is_some_and(|t| t["journal"].as_array().is_some_and(|j| j.len() == 1))
    });
    assert_eq!(scene.tickets("slow").len(), 1);
    scene.simulator.set_faults(&json!({"latency_ms": 20_000})).expect("set");
    scene.alert("stuck", "open", json!({}));
    std::thread::sleep(Duration::from_millis(500));
    scene.signal("-TERM");
    scene.wait_for("the bridge to drain", |s| s.log().matches("received SIGTERM, draining").count() >= 2);
    scene.signal("-TERM");
    let signalled = Instant::now();
    let status = scene.bridge.as_mut().expect("a bridge").wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert!(signalled.elapsed() < Duration::from_secs(5));
}

/// A canonical event with the present time.
fn event(key: &str, action: &str, more: Value) -> Value {
    let mut event = json!({"source": "test", "key": key, "action": action, "title": format!("alert {key}")});
    event["occurred_at"] = jiff::Timestamp::now().to_string().into();
    if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
        event.extend(more.clone());
    }
    event
}

/// Returns the number of write requests that reached the instance, by table, or `batch` for the Batch API.
fn requests(scene: &Scene, table: &str) -> u64 {
    let state = scene.simulator.state();
    let counts = state["requests"].as_array().expect("counts");
    counts.iter().filter(|c| c["table"] == table && c["method"] != "GET").filter_map(|c| c["count"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_batches_a_storm_costs_a_fraction_of_the_requests() {
    let Some(broker) = kafka::real("sink: batches") else { return };
    let lines = "    write: batch\n    batch: { size: 20, linger: 500ms }\n";
    let scene = Scene::start(&broker.bootstrap, &broker.options(), lines).await;
    scene.wait_for("its partitions", |s| s.log().matches("partition assigned").count() == 2);
    let keys: Vec<String> = (0..200).map(|n| format!("storm-{n}")).collect();
    let events = |action: &str, more: Value| {
        let all = keys.iter().map(|key| (key.clone(), action.to_owned(), more.clone()));
        scene.alerts(all.collect());
    };
    events("open", json!({}));
    scene.wait_for("every ticket", |s| keys.iter().all(|key| s.tickets(key).len() == 1));
    let opened = requests(&scene, "batch");
    events("resolve", json!({"note": "over"}));
    scene.wait_for("every ticket resolved", |s| keys.iter().all(|key| s.tickets(key)[0]["state"] == "6"));
    let resolved = requests(&scene, "batch") - opened;
    println!("200 tickets: {opened} requests to open them, {resolved} to resolve them");
    assert_eq!(requests(&scene, "incident"), 0, "all writes were batched");
    assert!(opened <= 40 && resolved <= 40, "{opened} to open, {resolved} to resolve: at best 10");
    assert!(keys.iter().all(|key| scene.tickets(key)[0]["journal"].as_array().is_some_and(|j| j.len() == 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_sent_unbatched_if_the_instance_rejects_batches() {
    let Some(broker) = kafka::real("sink: batches rejected") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "    write: batch\n").await;
    scene.simulator.set_faults(&json!({"batch_forbidden": true})).expect("set");
    let keys: Vec<String> = (0..10).map(|n| format!("single-{n}")).collect();
    keys.iter().for_each(|key| scene.alert(key, "open", json!({})));
    scene.wait_for("every ticket", |s| keys.iter().all(|key| s.tickets(key).len() == 1));
    assert!(scene.log().contains("instance rejected a batch, sending requests unbatched"), "{}", scene.log());
    assert!(!scene.log().contains("dead letter") && !scene.log().contains("write outcome unknown"), "{}", scene.log());
    assert_eq!(requests(&scene, "incident"), 10);
}

/// Import sets must not coalesce on the correlation: an alert that comes back has the correlation of its closed ticket.
#[tokio::test(flavor = "multi_thread")]
async fn with_import_sets_a_closed_ticket_is_not_changed_and_a_rejected_row_becomes_a_dead_letter() {
    let Some(broker) = kafka::real("sink: import sets") else { return };
    // The user may stage rows, and write no ticket.
    let users = vec![User::new("nowbridge", "nowbridge", &["import_transformer", "personalize_choices"])];
    let instance = Options { users, oauth_clients: Vec::new(), ..Options::default() };
    let lines = "    write: import_set\n    import_set: { staging: u_nowbridge_incident }\n";
    let scene = Scene::start_with(instance, &broker.bootstrap, &broker.options(), "", lines).await;
    scene.alert("k", "open", json!({"note": "first"}));
    scene.wait_for("the ticket", |s| s.tickets("k").len() == 1);
    let set = json!({"state": "7", "close_code": "Solution provided", "close_notes": "done"});
    let edit = json!({"correlation_id": "k", "user": "nowbridge", "set": set});
    let closed = scene.simulator.edit_as_user(&edit).expect("closed");
    scene.alert("k", "open", json!({"title": "it came back", "note": "second"}));
    scene.wait_for("a new ticket", |s| s.tickets("k").len() == 2);
    scene.alert("k", "resolve", json!({"note": "over"}));
    scene.wait_for("the new ticket to be resolved", |s| s.tickets("k")[1]["state"] == "6");
    let [old, new] = &scene.tickets("k")[..] else { panic!("{:?}", scene.tickets("k")) };
    assert_eq!(
        (&old["state"], &old["sys_mod_count"]),
        (&json!("7"), &closed["sys_mod_count"]),
        "a closed ticket is never written"
    );
    assert_eq!(new["short_description"], "alert k");
    assert_eq!(new["journal"].as_array().map(Vec::len), Some(2), "the notes of the new ticket: {new}");
    assert_eq!(scene.simulator.state()["writes_to_closed_rows"], 0);
    let rule = json!({"business_rules": [{"name": "No drills", "table": "incident", "column": "short_description",
        "contains": "drill", "abort": true}]});
    scene.simulator.set_faults(&rule).expect("a business rule");
    scene.alert("other", "open", json!({"title": "a drill"}));
    let letters = scene.dead_letters(1);
    assert_eq!(letters[0].headers["nowbridge-code"], "import_error");
    assert!(letters[0].headers["nowbridge-reason"].contains("No drills"), "{:?}", letters[0].headers);
    assert_eq!(scene.tickets("other").len(), 0);
    assert_eq!(requests(&scene, "incident"), 0);
}
