//! The processes of a crash test, and what the simulator shows to the oracle.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nowbridge::kafka::topics::{Purpose, TopicSpec};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use super::alerts;
use super::oracle::{judge, overtaken};
use super::reference::{Event, Ticket, notes};
use crate::support::kafka::{self, Broker};

/// What a check has seen.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub tickets: usize,
    /// Writes that the instance made after it had cut their connection.
    pub ghosts: usize,
}

/// The simulator as a process, and what the bridges need.
pub struct World {
    bootstrap: String,
    pub prefix: String,
    url: String,
    http: reqwest::Client,
    folder: tempfile::TempDir,
    /// The bridge's configuration, given lines of its sink.
    text: Box<dyn Fn(&str) -> String + Send + Sync>,
    simulator: Child,
    bridges: AtomicUsize,
}

impl World {
    pub async fn start(broker: &Broker, deadline: u64, settle: u64, more: &str) -> Self {
        Self::start_scaled(broker, deadline, settle, "", more).await
    }

    /// With more lines about Kafka.
    pub async fn start_scaled(broker: &Broker, deadline: u64, settle: u64, kafka_lines: &str, more: &str) -> Self {
        let prefix = kafka::unique("crash");
        let spec = TopicSpec::new(format!("{prefix}.alerts"), Purpose::Input).partitions(4);
        broker.create(&[spec]).await;
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let url = format!("http://127.0.0.1:{port}");
        let simulator = Command::new(env!("CARGO_BIN_EXE_nowbridge"))
            .args(["simulate", "--latency", "20", "--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the simulator starts");
        let folder = tempfile::tempdir().expect("a folder");
        let (bootstrap, name, at) = (broker.bootstrap.clone(), prefix.clone(), url.clone());
        let scaled = kafka_lines.to_owned();
        let text = move |more: &str| {
            let closing = "    closing: { close_code: Solution provided }\n";
            let closing = if more.contains("write: event") { "" } else { closing };
            format!(
                "instances:\n  dev:\n    url: {at}\n    allow_http: true\n    auth: {{ basic: {{ user: nowbridge, password: \
             nowbridge }} }}\n    request_deadline: {deadline}s\n    settle_time: {settle}s\n    concurrency: 16\n    \
             auth_retry: {{ first: 1s, longest: 4s }}\nkafka:\n  bootstrap: {bootstrap}\n  session_timeout: \
             6s\n{scaled}topics:\n  prefix: {name}\n  unsafe_topics: true\n  \
             replication: 1\nsinks:\n  incidents:\n    topic: {name}.alerts\n{closing}{more}admin:\n  listen: 127.0.0.1:0\n",
            )
        };
        let world = Self {
            text: Box::new(text),
            bootstrap: broker.bootstrap.clone(),
            prefix,
            url,
            http: reqwest::Client::new(),
            folder,
            simulator,
            bridges: AtomicUsize::new(0),
        };
        world.configure(more);
        let deadline = Instant::now() + Duration::from_secs(20);
        while world.get("/simulator/state").await.is_none() {
            assert!(Instant::now() < deadline, "the simulator does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world
    }

    /// Writes the bridge's configuration with these lines in its sink.
    pub fn configure(&self, more: &str) {
        std::fs::write(self.config(), (self.text)(more)).expect("a configuration");
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("bridge.yaml")
    }

    /// What a command of the bridge prints, and whether it ended well.
    pub fn command(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
        let output = command.args(arguments).arg("--config").arg(self.config()).output().expect("it runs");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    /// As [`World::command`], of one that must end well.
    pub fn done(&self, arguments: &[&str]) -> String {
        let (well, told) = self.command(arguments);
        assert!(well, "{arguments:?}: {told}");
        told
    }

    /// Where the events' times begin: far enough back that none lies in the future.
    pub fn now(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond() - 3_600_000
    }

    async fn get(&self, path: &str) -> Option<Value> {
        self.http.get(format!("{}{path}", self.url)).send().await.ok()?.json().await.ok()
    }

    pub async fn state(&self) -> Value {
        self.get("/simulator/state").await.expect("the simulator answers")
    }

    pub async fn faults(&self, faults: &Value) {
        let sent = self.http.post(format!("{}/simulator/faults", self.url)).json(faults).send().await.expect("sent");
        assert!(sent.status().is_success(), "{}", sent.text().await.unwrap_or_default());
    }

    pub async fn person(&self, act: &Value) {
        let sent = self.http.post(format!("{}/simulator/people", self.url)).json(act).send().await.expect("sent");
        assert!(sent.status().is_success(), "{act}: {}", sent.text().await.unwrap_or_default());
    }

    /// Incidents by correlation; where the route writes events, alerts by message key.
    pub async fn rows(&self) -> BTreeMap<String, Vec<Value>> {
        if self.writes_events() {
            // Alerts are looked at last, since every event that was seen has made its alert by then.
            let events = self.get_rows("em_event").await;
            let alerts = self.get_rows("em_alert").await;
            return alerts::rows(&alerts, &events);
        }
        let page = self.get("/simulator/rows?table=incident&limit=100000").await.expect("rows");
        let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for row in page["rows"].as_array().expect("rows") {
            let key = row["correlation_id"].as_str().unwrap_or_default().to_owned();
            rows.entry(key).or_default().push(row.clone());
        }
        rows
    }

    /// Publishes at a pace, in order.
    pub fn feed(&self, events: Vec<Event>, per_second: usize) -> tokio::task::JoinHandle<()> {
        let (bootstrap, topic, rekeyed) =
            (self.bootstrap.clone(), format!("{}.alerts", self.prefix), self.is_rekeyed());
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", &bootstrap)
                .set("enable.idempotence", "true")
                .create()
                .expect("a producer");
            let began = Instant::now();
            for (number, event) in (0_u32..).zip(&events) {
                let body = event.body();
                let (host, partition) = foreign(&event.key);
                let mut record = BaseRecord::to(&topic).payload(&body);
                if rekeyed {
                    // Records of an alert share a partition, by which they have an order, and nothing else.
                    record.partition = Some(partition);
                    record.key = host.as_ref();
                } else {
                    record.key = Some(&event.key);
                }
                producer.send(record).map_err(|(e, _)| e).expect("sent");
                let due = Duration::from_secs(1) * number / u32::try_from(per_second).unwrap_or(1);
                // This is the pace of the input, not a wait for anything.
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            producer.flush(Duration::from_secs(30)).expect("acknowledged");
        })
    }

    /// Another bridge of the same group.
    pub fn bridge(&self, crash_at: Option<&str>) -> Bridge {
        let number = self.bridges.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("bridge-{number}.log"));
        let file = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
        command.args(["run", "--config"]).arg(self.config());
        if let Some(at) = crash_at {
            command.env("NOWBRIDGE_CRASH_AT", at);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("the bridge starts");
        Bridge { child, log }
    }

    fn differences(&self, rows: &BTreeMap<String, Vec<Value>>, expected: &BTreeMap<String, Ticket>) -> Vec<String> {
        if self.writes_events() {
            return judge(rows, &alerts::expected(expected), &self.topic()).differences;
        }
        judge(rows, expected, &self.topic()).differences
    }

    /// The topic that the sink reads, which its notes name.
    pub fn topic(&self) -> String {
        let reads = match (self.is_configured("digest:"), self.is_rekeyed()) {
            (true, _) => "incidents.digests",
            (false, true) => "incidents.rekeyed",
            (false, false) => "alerts",
        };
        format!("{}.{reads}", self.prefix)
    }

    fn is_configured(&self, what: &str) -> bool {
        std::fs::read_to_string(self.config()).is_ok_and(|text| text.contains(what))
    }

    fn writes_events(&self) -> bool {
        self.is_configured("write: event")
    }

    async fn get_rows(&self, table: &str) -> Vec<Value> {
        let page = self.get(&format!("/simulator/rows?table={table}&limit=1000000")).await.expect("rows");
        page["rows"].as_array().expect("rows").clone()
    }

    fn is_rekeyed(&self) -> bool {
        self.is_configured("rekey: true") || self.is_configured("digest:")
    }

    /// Waits until every ticket is as it must be.
    pub async fn await_right(&self, expected: &BTreeMap<String, Ticket>, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let wrong = self.differences(&self.rows().await, expected);
            if wrong.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                let shown: Vec<_> = wrong.iter().take(10).collect();
                panic!("{} of {} are wrong: {shown:#?}\n{}", wrong.len(), expected.len(), self.last_log());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Waits until the instance works on so many requests at once.
    pub async fn await_running(&self, count: u64, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.state().await["requests_running"].as_u64() < Some(count) {
            let state = self.state().await;
            assert!(Instant::now() < deadline, "never {count} requests at once: {state}\n{}", self.last_log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until each of these keys has a note.
    pub async fn await_notes(&self, keys: &[String], patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let rows = self.rows().await;
            let missing = keys.iter().filter(|k| notes(&rows[*k][0], &self.topic()).is_empty()).count();
            if missing == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{missing} notes are missing\n{}", self.last_log());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What the instance did, in order.
    pub async fn log(&self) -> Vec<Value> {
        let log = self.get("/simulator/log?limit=10000000").await.expect("a log");
        log["entries"].as_array().expect("entries").clone()
    }

    /// Counts on the simulator's side, from its log of writes: nothing doubled, nothing out of order.
    pub async fn check(&self, expected: &BTreeMap<String, Ticket>) -> Told {
        let rows = self.rows().await;
        assert_eq!(self.differences(&rows, expected), Vec::<String>::new());
        for (key, rows) in &rows {
            let written = notes(&rows[0], &self.topic());
            let mut markers: Vec<&String> = written.iter().map(|(_, marker)| marker).collect();
            markers.sort();
            markers.dedup();
            assert_eq!(markers.len(), written.len(), "{key}: a note is doubled: {written:?}");
        }
        let entries = self.log().await;
        let (disordered, ghosts) =
            if self.writes_events() { overtaken(&alerts::writes(&entries)) } else { overtaken(&entries) };
        assert_eq!(self.state().await["writes_to_closed_rows"], 0);
        println!(
            "{} tickets, 0 doubled, 0 missing, {} writes out of order, {ghosts} ghosts struck, all repaired",
            rows.len(),
            disordered.len()
        );
        let told =
            || disordered.iter().filter_map(|one| Some(self.told_of(one.split_once(": ")?.0))).collect::<String>();
        assert!(disordered.is_empty(), "{}\n{}", disordered.join("\n"), told());
        Told { tickets: rows.len(), ghosts }
    }

    /// What all bridges have told of a key.
    fn told_of(&self, key: &str) -> String {
        let quoted = format!("\"{key}\"");
        let bridges = 0..self.bridges.load(Ordering::Relaxed);
        let logs = bridges.map(|number| {
            let log = self.folder.path().join(format!("bridge-{number}.log"));
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().filter(|line| line.contains(&quoted)).collect();
            format!("bridge {number}:\n{}\n", lines.join("\n"))
        });
        logs.collect()
    }

    fn last_log(&self) -> String {
        let last = self.bridges.load(Ordering::Relaxed).saturating_sub(1);
        let text = std::fs::read_to_string(self.folder.path().join(format!("bridge-{last}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// The key of a record that is not its alert's, or none, and the partition that a publisher chose by it.
fn foreign(key: &str) -> (Option<String>, i32) {
    let sum = key.bytes().fold(0_i32, |sum, byte| sum * 31 % 10_007 + i32::from(byte));
    ((sum % 3 != 0).then(|| format!("host-{}", sum % 5)), sum % 4)
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.simulator.kill();
        let _ = self.simulator.wait();
    }
}

/// A bridge process.
pub struct Bridge {
    child: Child,
    log: PathBuf,
}

impl Bridge {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
    }

    /// Stops it in order.
    pub fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.exit_code(Duration::from_secs(30)), Some(0), "{}", self.log());
    }

    /// True where it died by the SIGKILL that it was told to die by; else it is killed now.
    pub fn dies_within(&mut self, patience: Duration) -> bool {
        use std::os::unix::process::ExitStatusExt;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                assert_eq!(status.signal(), Some(9), "{}", self.log());
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
        false
    }

    pub fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    pub fn await_assigned(&self) {
        let deadline = Instant::now() + Duration::from_secs(40);
        while !self.log().contains("was assigned a partition") {
            assert!(Instant::now() < deadline, "no partition was assigned: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
