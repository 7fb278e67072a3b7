//! Kafka to ServiceNow on a real broker: bad input becomes dead letters and the rest goes on; an instance that is
//! down, throttles, refuses the credentials or a broker that is gone is waited for; signals end the process as they
//! should. The bridge is the real binary, the instance the simulator.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nowbridge::kafka::KafkaOptions;
use nowbridge::kafka::topics::{Purpose, TopicSpec};
use nowbridge::simulators::servicenow::{Options, Running, Simulator, User};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::support::kafka;

const PATIENCE: Duration = Duration::from_secs(60);

/// A bridge process, the simulator it writes to, and its topics.
struct Scene {
    bootstrap: String,
    prefix: String,
    simulator: Running,
    folder: tempfile::TempDir,
    bridge: Option<Child>,
}

impl Scene {
    async fn start(bootstrap: &str, options: &KafkaOptions, more: &str) -> Self {
        Self::start_with(Options::default(), bootstrap, options, "", more).await
    }

    /// With an instance of other options, and more about it in the configuration.
    async fn start_with(
        instance: Options,
        bootstrap: &str,
        options: &KafkaOptions,
        of_instance: &str,
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
             settle_time: 2s\n{of_instance}kafka:\n  bootstrap: {bootstrap}\n  session_timeout: 6s\ntopics:\n  prefix: {prefix}\n  \
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
        producer.flush(PATIENCE).expect("acknowledged");
    }

    fn alert(&self, key: &str, action: &str, more: Value) {
        self.publish(Some(key), Some(event(key, action, more).to_string().as_bytes()));
    }

    /// Many alerts (key, action, further fields) at once.
    fn alerts(&self, alerts: Vec<(String, String, Value)>) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().expect("a producer");
        let topic = format!("{}.alerts", self.prefix);
        for (key, action, more) in alerts {
            let body = event(&key, &action, more).to_string();
            producer.send(BaseRecord::to(&topic).key(&key).payload(&body)).map_err(|(e, _)| e).expect("sent");
        }
        producer.flush(PATIENCE).expect("acknowledged");
    }

    fn tickets(&self, key: &str) -> Vec<Value> {
        let rows = self.simulator.rows("incident", 0, usize::MAX);
        let rows = rows["rows"].as_array().cloned().unwrap_or_default();
        rows.into_iter().filter(|r| r["correlation_id"] == key).collect()
    }

    fn wait_for(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            if Instant::now() > deadline {
                let _ = std::io::stderr().write_all(self.log().as_bytes());
                panic!("waited in vain for: {what}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn dead_letters(&self, least: usize) -> Vec<Letter> {
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
        let deadline = Instant::now() + PATIENCE;
        let mut letters = Vec::new();
        while letters.len() < least && Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
                let headers = message.headers().into_iter().flat_map(Headers::iter);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                letters.push(Letter {
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers.map(|h| (h.key.to_owned(), h.value.map(text).unwrap_or_default())).collect(),
                });
            }
        }
        assert!(letters.len() >= least, "only {} dead letters of {least}\n{}", letters.len(), self.log());
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
async fn bad_input_becomes_dead_letters_and_the_rest_goes_on() {
    let Some(broker) = kafka::real("sink: bad input") else { return };
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
    assert_eq!(letters.len(), 3, "the tombstone is no dead letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_parks_its_key_with_the_words_of_the_instance() {
    let Some(broker) = kafka::real("sink: refused") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.alert("k", "open", json!({}));
    scene.wait_for("the ticket", |s| s.tickets("k").len() == 1);
    let rule = json!({"business_rules": [{"name": "No drills", "table": "incident", "when": "short_description",
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
    scene.wait_for("another key goes on", |s| s.tickets("other").len() == 1);
    assert_eq!(scene.tickets("k")[0]["short_description"], "alert k", "nothing overtakes a refused record");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_fail_stop_the_route_without_dead_letters() {
    let Some(broker) = kafka::real("sink: credentials") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.alert("one", "open", json!({}));
    scene.wait_for("the first ticket", |s| s.tickets("one").len() == 1);
    scene.simulator.set_faults(&json!({"unauthorised": true})).expect("set");
    scene.alert("two", "open", json!({}));
    scene.wait_for("the route to say that it stands", |s| s.log().contains("refuses the credentials"));
    scene.simulator.set_faults(&json!({"unauthorised": false})).expect("set");
    scene.wait_for("it goes on by itself", |s| s.tickets("two").len() == 1);
    assert!(!scene.log().contains("dead letter"));
}

/// Five wrong passwords in a row lock the simulated account, as they do a real one.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_never_locks_the_account_and_the_right_one_is_taken_from_its_file() {
    let Some(broker) = kafka::real("sink: lockout") else { return };
    let more = "sources:\n  changes:\n    table: incident\n    interval: 1s\n";
    let mut scene = Scene::start(&broker.bootstrap, &broker.options(), more).await;
    scene.signal("-TERM");
    scene.bridge.take().expect("a bridge").wait().expect("it ends");
    std::fs::write(scene.folder.path().join("password"), "wrong").expect("a password");
    scene.run();
    scene.alert("one", "open", json!({}));
    scene.wait_for("the route to give the password up", |s| s.log().contains("refusal 4 in a row"));
    let refused = |scene: &Scene| -> u64 {
        let state = scene.simulator.state();
        let lines = state["requests"].as_array().into_iter().flatten().filter(|line| line["status"] == 401);
        lines.filter_map(|line| line["count"].as_u64()).sum()
    };
    // The routes go on trying by themselves, and ask nothing of the instance.
    let tries = scene.log().matches("refuses the credentials").count();
    assert_eq!((refused(&scene), tries > 0), (4, true));
    assert_eq!(scene.simulator.state()["lockouts"], 0);
    std::fs::write(scene.folder.path().join("password"), "nowbridge").expect("a password");
    scene.wait_for("the ticket", |s| s.tickets("one").len() == 1);
    assert_eq!(refused(&scene), 4);
    assert!(!scene.log().contains("dead letter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_down_or_asks_to_wait_is_waited_for() {
    let Some(broker) = kafka::real("sink: instance down") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.alert("first", "open", json!({}));
    scene.wait_for("the first ticket", |s| s.tickets("first").len() == 1);
    for (number, fault) in [json!({"maintenance_503": true}), json!({"hibernating": true})].iter().enumerate() {
        scene.simulator.set_faults(fault).expect("set");
        let keys: Vec<String> = (0..10).map(|n| format!("down-{number}-{n}")).collect();
        keys.iter().for_each(|k| scene.alert(k, "open", json!({"note": "seen"})));
        scene.wait_for("some failures", |s| s.log().matches("in doubt").count() > number);
        let off: serde_json::Map<String, Value> =
            fault.as_object().into_iter().flatten().map(|(k, _)| (k.clone(), json!(false))).collect();
        scene.simulator.set_faults(&Value::Object(off)).expect("set");
        scene.wait_for("every ticket once", |s| keys.iter().all(|k| s.tickets(k).len() == 1));
    }
    assert!(!scene.log().contains("dead letter"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brake_stops_a_route_and_a_person_releases_it() {
    let Some(broker) = kafka::real("sink: brake") else { return };
    let options = broker.options();
    let more =
        "    brake: 3\n    fields: { description: \"{{ 'a drill' if severity == 'low' else 'no exercise' }}\" }\n";
    let mut scene = Scene::start(&broker.bootstrap.clone(), &options, more).await;
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    scene.signal("-TERM");
    scene.bridge.take().expect("a bridge").wait().expect("it ends");
    let path = scene.folder.path().join("bridge.yaml");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(&path, text.replace("127.0.0.1:0", &address.to_string())).expect("written");
    scene.run();
    let rule =
        json!({"business_rules": [{"name": "No drills", "when": "description", "contains": "a drill", "abort": true}]});
    scene.simulator.set_faults(&rule).expect("set");
    (0..3).for_each(|n| scene.alert(&format!("drill-{n}"), "open", json!({"severity": "low"})));
    scene.wait_for("the brake", |s| s.log().contains("stopped by the brake"));
    scene.alert("good", "open", json!({}));
    let received = "nowbridge_records_received_total{route=\"incidents\"} 4";
    scene.wait_for("the record to be read", |_| metrics(address).contains(received));
    assert!(scene.tickets("good").is_empty(), "a braked route writes nothing");
    let resume = Command::new(env!("CARGO_BIN_EXE_nowbridge")).args(["resume", "--config"]).arg(&path).output();
    let resume = resume.expect("it runs");
    assert!(resume.status.success(), "{}", String::from_utf8_lossy(&resume.stderr));
    scene.wait_for("the route to go on", |s| s.tickets("good").len() == 1);
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
async fn a_rule_of_the_instance_is_learned_and_kept_and_a_critical_alert_is_next() {
    let Some(broker) = kafka::real("sink: quota") else { return };
    let options = broker.options();
    let rule = json!({"requests": 64, "window_seconds": 8});
    let rules = vec![serde_json::from_value(rule).expect("a rule")];
    let instance = Options { rate_limits: rules, ..Options::default() };
    let scene = Scene::start_with(instance, &options.bootstrap, &options, "    rule_window: 8s\n", "").await;
    let keys: Vec<String> = (0..120).map(|n| format!("storm-{n}")).collect();
    keys.iter().for_each(|k| scene.alert(k, "open", json!({"severity": "low"})));
    let made = |s: &Scene| s.simulator.rows("incident", 0, usize::MAX)["rows"].as_array().map_or(0, Vec::len);
    scene.wait_for("the quota to bound the storm", |s| made(s) >= 20);
    let before = made(&scene);
    scene.alert("critical", "open", json!({"severity": "critical"}));
    scene.wait_for("the critical ticket", |s| s.tickets("critical").len() == 1);
    let meanwhile = made(&scene) - before;
    assert!(meanwhile <= 8, "{meanwhile} tickets were made before the critical one");
    assert!(before + meanwhile < keys.len(), "the storm was over before; nothing is proven");
    scene.wait_for("every ticket", |s| made(s) == keys.len() + 1);
    let counts = scene.simulator.state()["counts"].clone();
    assert_eq!(counts["rate_limited"], Value::Null, "a request was refused: {counts}");
    assert!(keys.iter().all(|k| scene.tickets(k).len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_gone_is_waited_for() {
    let Some(mut broker) = kafka::private("sink: broker gone", &[]) else { return };
    let options = broker.options();
    let scene = Scene::start(&options.bootstrap.clone(), &options, "").await;
    scene.alert("before", "open", json!({}));
    scene.wait_for("the first ticket", |s| s.tickets("before").len() == 1);
    broker.kill();
    std::thread::sleep(Duration::from_secs(if std::env::var_os("NOWBRIDGE_FULL").is_some() { 60 } else { 12 }));
    broker.restart();
    scene.alert("after", "open", json!({}));
    scene.alert("before", "resolve", json!({}));
    scene.wait_for("work goes on", |s| s.tickets("after").len() == 1 && s.tickets("before")[0]["state"] == "6");
    assert_eq!(scene.tickets("before").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_and_a_second_one_ends_at_once() {
    let Some(broker) = kafka::real("sink: signals") else { return };
    let mut scene = Scene::start(&broker.bootstrap, &broker.options(), "").await;
    scene.simulator.set_faults(&json!({"latency_ms": 1_500})).expect("set");
    scene.alert("slow", "open", json!({}));
    scene.wait_for("its partitions", |s| s.log().matches("was assigned a partition").count() == 2);
    // The request is in flight by now on all but the slowest machines; on those the test is weaker, not wrong.
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
    scene.wait_for("it drains", |s| s.log().matches("told to stop").count() >= 2);
    scene.signal("-TERM");
    let ended = Instant::now();
    let status = scene.bridge.as_mut().expect("a bridge").wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert!(ended.elapsed() < Duration::from_secs(5));
}

/// A canonical event of now.
fn event(key: &str, action: &str, more: Value) -> Value {
    let mut event = json!({"source": "test", "key": key, "action": action, "title": format!("alert {key}")});
    event["occurred_at"] = jiff::Timestamp::now().to_string().into();
    if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
        event.extend(more.clone());
    }
    event
}

/// Requests that reached the instance, by their table, or that of the Batch API.
fn requests(scene: &Scene, table: &str) -> u64 {
    let state = scene.simulator.state();
    let counts = state["requests"].as_array().expect("counts");
    counts.iter().filter(|c| c["table"] == table && c["method"] != "GET").filter_map(|c| c["count"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_batches_a_storm_costs_a_fraction_of_the_requests() {
    let Some(broker) = kafka::real("sink: batches") else { return };
    let lines = "    write: batch\n    batch: { size: 20, linger: 500ms }\n";
    let scene = Scene::start(&broker.bootstrap, &broker.options(), lines).await;
    scene.wait_for("its partitions", |s| s.log().matches("was assigned a partition").count() == 2);
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
    assert_eq!(requests(&scene, "incident"), 0, "all went in batches");
    assert!(opened <= 40 && resolved <= 40, "{opened} to open, {resolved} to resolve: at best 10");
    assert!(keys.iter().all(|key| scene.tickets(key)[0]["journal"].as_array().is_some_and(|j| j.len() == 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_batches_are_refused_requests_are_sent_singly() {
    let Some(broker) = kafka::real("sink: batches refused") else { return };
    let scene = Scene::start(&broker.bootstrap, &broker.options(), "    write: batch\n").await;
    scene.simulator.set_faults(&json!({"batch_refused": true})).expect("set");
    let keys: Vec<String> = (0..10).map(|n| format!("single-{n}")).collect();
    keys.iter().for_each(|key| scene.alert(key, "open", json!({})));
    scene.wait_for("every ticket", |s| keys.iter().all(|key| s.tickets(key).len() == 1));
    assert!(scene.log().contains("did not take a batch as a whole; sends requests singly"), "{}", scene.log());
    assert!(!scene.log().contains("dead letter") && !scene.log().contains("in doubt"), "{}", scene.log());
    assert_eq!(requests(&scene, "incident"), 10);
}

/// The trap of import sets is to coalesce on the correlation: an alert that comes back has that of its closed ticket.
#[tokio::test(flavor = "multi_thread")]
async fn by_import_sets_a_closed_ticket_stays_and_a_refused_row_is_a_dead_letter() {
    let Some(broker) = kafka::real("sink: import sets") else { return };
    // The user may stage rows, and write no ticket.
    let users = vec![User::new("nowbridge", "nowbridge", &["import_transformer", "personalize_choices"])];
    let instance = Options { users, oauth_clients: Vec::new(), ..Options::default() };
    let lines = "    write: import_set\n    import_set: { staging: u_nowbridge_incident }\n    row_freshness: 0s\n";
    let scene = Scene::start_with(instance, &broker.bootstrap, &broker.options(), "", lines).await;
    scene.alert("k", "open", json!({"note": "first"}));
    scene.wait_for("the ticket", |s| s.tickets("k").len() == 1);
    let set = json!({"state": "7", "close_code": "Solution provided", "close_notes": "done"});
    let person = json!({"correlation_id": "k", "user": "nowbridge", "set": set});
    let closed = scene.simulator.person(&person).expect("closed");
    scene.alert("k", "open", json!({"title": "it came back", "note": "second"}));
    scene.wait_for("a new ticket", |s| s.tickets("k").len() == 2);
    scene.alert("k", "resolve", json!({"note": "over"}));
    scene.wait_for("the new one resolved", |s| s.tickets("k")[1]["state"] == "6");
    let [old, new] = &scene.tickets("k")[..] else { panic!("{:?}", scene.tickets("k")) };
    assert_eq!((&old["state"], &old["sys_mod_count"]), (&json!("7"), &closed["sys_mod_count"]), "never written again");
    assert_eq!(new["short_description"], "alert k");
    assert_eq!(new["journal"].as_array().map(Vec::len), Some(2), "its own notes: {new}");
    assert_eq!(scene.simulator.state()["writes_to_closed_rows"], 0);
    let rule = json!({"business_rules": [{"name": "No drills", "table": "incident", "when": "short_description",
        "contains": "drill", "abort": true}]});
    scene.simulator.set_faults(&rule).expect("a business rule");
    scene.alert("other", "open", json!({"title": "a drill"}));
    let letters = scene.dead_letters(1);
    assert_eq!(letters[0].headers["nowbridge-code"], "import_error");
    assert!(letters[0].headers["nowbridge-reason"].contains("No drills"), "{:?}", letters[0].headers);
    assert_eq!(scene.tickets("other").len(), 0);
    assert_eq!(requests(&scene, "incident"), 0);
}
