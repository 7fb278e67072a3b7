//! The processes of a crash test, and the simulator's data for the oracle.

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
use super::oracle::{WriteOrder, compare, write_order};
use super::reference::{Event, Ticket, notes};
use crate::support::kafka::{self, Broker};

/// The counts of a successful check.
#[derive(Debug, Clone, Copy)]
pub struct CheckResult {
    pub tickets: usize,
    /// Writes that the instance committed after their connection was cut.
    pub ghost_writes: usize,
}

/// A finished command of the bridge.
#[derive(Debug)]
pub struct CommandOutput {
    pub success: bool,
    /// Standard output and standard error.
    pub text: String,
}

/// The simulator as a process, with the topics and the configuration for bridges.
pub struct Harness {
    bootstrap: String,
    pub prefix: String,
    url: String,
    http: reqwest::Client,
    folder: tempfile::TempDir,
    /// Renders the bridge's configuration, given further lines of its sink.
    render_config: Box<dyn Fn(&str) -> String + Send + Sync>,
    simulator: Child,
    /// Number of bridges started so far.
    bridges: AtomicUsize,
}

impl Harness {
    /// Creates the input topic and starts the simulator. `request_deadline` and `max_transaction_time` are in seconds.
    pub async fn start(broker: &Broker, request_deadline: u64, max_transaction_time: u64, sink_lines: &str) -> Self {
        Self::start_with_kafka_lines(broker, request_deadline, max_transaction_time, "", sink_lines).await
    }

    /// The same, with further lines in the `kafka` section of the configuration.
    pub async fn start_with_kafka_lines(
        broker: &Broker,
        request_deadline: u64,
        max_transaction_time: u64,
        kafka_lines: &str,
        sink_lines: &str,
    ) -> Self {
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
        let kafka_lines = kafka_lines.to_owned();
        let render_config = move |sink_lines: &str| {
            let closing = "    closing: { close_code: Solution provided }\n";
            let closing = if sink_lines.contains("write: event") { "" } else { closing };
            format!(
                "instances:\n  dev:\n    url: {at}\n    allow_http: true\n    auth: {{ basic: {{ user: nowbridge, \
                 password: nowbridge }} }}\n    request_deadline: {request_deadline}s\n    max_transaction_time: \
                 {max_transaction_time}s\n    concurrency: 16\n    auth_retry: {{ first: 1s, longest: 4s }}\nkafka:\n  \
                 bootstrap: {bootstrap}\n  session_timeout: 6s\n{kafka_lines}topics:\n  prefix: {name}\n  \
                 unsafe_topics: true\n  replication: 1\nsinks:\n  incidents:\n    topic: \
                 {name}.alerts\n{closing}{sink_lines}admin:\n  listen: 127.0.0.1:0\n",
            )
        };
        let harness = Self {
            render_config: Box::new(render_config),
            bootstrap: broker.bootstrap.clone(),
            prefix,
            url,
            http: reqwest::Client::new(),
            folder,
            simulator,
            bridges: AtomicUsize::new(0),
        };
        harness.configure(sink_lines);
        let deadline = Instant::now() + Duration::from_secs(20);
        while harness.get("/simulator/state").await.is_none() {
            assert!(Instant::now() < deadline, "the simulator does not respond");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        harness
    }

    /// Writes the bridge's configuration with these lines in its sink.
    pub fn configure(&self, sink_lines: &str) {
        std::fs::write(self.config(), (self.render_config)(sink_lines)).expect("the configuration is written");
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("bridge.yaml")
    }

    /// Runs a command of the bridge with this configuration.
    pub fn try_command(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
        let output = command.args(arguments).arg("--config").arg(self.config()).output().expect("nowbridge runs");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        CommandOutput { success: output.status.success(), text }
    }

    /// Runs a command that must succeed, and returns its output.
    pub fn command(&self, arguments: &[&str]) -> String {
        let output = self.try_command(arguments);
        assert!(output.success, "{arguments:?}: {}", output.text);
        output.text
    }

    /// The time of the first event in Unix milliseconds: an hour ago, so that no event is in the future.
    pub fn first_event_time(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond() - 3_600_000
    }

    async fn get(&self, path: &str) -> Option<Value> {
        self.http.get(format!("{}{path}", self.url)).send().await.ok()?.json().await.ok()
    }

    /// The simulator's counters.
    pub async fn state(&self) -> Value {
        self.get("/simulator/state").await.expect("the simulator responds")
    }

    pub async fn set_faults(&self, faults: &Value) {
        let sent = self.http.post(format!("{}/simulator/faults", self.url)).json(faults).send().await.expect("sent");
        assert!(sent.status().is_success(), "{}", sent.text().await.unwrap_or_default());
    }

    pub async fn edit_as_user(&self, edit: &Value) {
        let sent = self.http.post(format!("{}/simulator/user_edits", self.url)).json(edit).send().await.expect("sent");
        assert!(sent.status().is_success(), "{edit}: {}", sent.text().await.unwrap_or_default());
    }

    /// Incidents by correlation; if the route writes events, alerts by message key.
    pub async fn rows(&self) -> BTreeMap<String, Vec<Value>> {
        if self.writes_events() {
            // Alerts are read last: by then, every event that was read has created its alert.
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

    /// Publishes in order, at a steady rate.
    pub fn publish(&self, events: Vec<Event>, per_second: usize) -> tokio::task::JoinHandle<()> {
        let (bootstrap, topic, repartitioned) =
            (self.bootstrap.clone(), format!("{}.alerts", self.prefix), self.is_repartitioned());
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", &bootstrap)
                .set("enable.idempotence", "true")
                .create()
                .expect("a producer");
            let began = Instant::now();
            for (number, event) in (0_u32..).zip(&events) {
                let body = event.body();
                let (record_key, partition) = other_key_and_partition(&event.key);
                let mut record = BaseRecord::to(&topic).payload(&body);
                if repartitioned {
                    // The records of an alert share a partition, which orders them, but not a key.
                    record.partition = Some(partition);
                    record.key = record_key.as_ref();
                } else {
                    record.key = Some(&event.key);
                }
                producer.send(record).map_err(|(e, _)| e).expect("sent");
                let due = Duration::from_secs(1) * number / u32::try_from(per_second).unwrap_or(1);
                // This sets the rate of the input; it waits for nothing.
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            producer.flush(Duration::from_secs(30)).expect("acknowledged");
        })
    }

    /// Starts another bridge of the same consumer group, which kills itself at `failpoint` (`<point>:<n>`), if given.
    pub fn start_bridge(&self, failpoint: Option<&str>) -> Bridge {
        let number = self.bridges.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("bridge-{number}.log"));
        let file = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
        command.args(["run", "--config"]).arg(self.config());
        if let Some(failpoint) = failpoint {
            command.env("NOWBRIDGE_FAILPOINT", failpoint);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("the bridge starts");
        Bridge { child, log }
    }

    fn differences(&self, rows: &BTreeMap<String, Vec<Value>>, expected: &BTreeMap<String, Ticket>) -> Vec<String> {
        if self.writes_events() {
            return compare(rows, &alerts::expected(expected), &self.sink_topic()).differences;
        }
        compare(rows, expected, &self.sink_topic()).differences
    }

    /// The topic that the sink reads. The markers of its notes name it.
    pub fn sink_topic(&self) -> String {
        let topic = match (self.is_configured("grouping:"), self.is_repartitioned()) {
            (true, _) => "incidents.groups",
            (false, true) => "incidents.repartitioned",
            (false, false) => "alerts",
        };
        format!("{}.{topic}", self.prefix)
    }

    fn is_configured(&self, setting: &str) -> bool {
        std::fs::read_to_string(self.config()).is_ok_and(|text| text.contains(setting))
    }

    fn writes_events(&self) -> bool {
        self.is_configured("write: event")
    }

    async fn get_rows(&self, table: &str) -> Vec<Value> {
        let page = self.get(&format!("/simulator/rows?table={table}&limit=1000000")).await.expect("rows");
        page["rows"].as_array().expect("rows").clone()
    }

    fn is_repartitioned(&self) -> bool {
        self.is_configured("repartition: true") || self.is_configured("grouping:")
    }

    /// Waits until every ticket equals the expected one.
    pub async fn await_expected(&self, expected: &BTreeMap<String, Ticket>, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        loop {
            let differences = self.differences(&self.rows().await, expected);
            if differences.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                let (count, shown) = (differences.len(), differences.iter().take(10).collect::<Vec<_>>());
                panic!("{count} differences in {} tickets: {shown:#?}\n{}", expected.len(), self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Waits until the instance processes this many requests concurrently.
    pub async fn await_in_flight(&self, count: u64, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.state().await["requests_in_flight"].as_u64() < Some(count) {
            let state = self.state().await;
            assert!(Instant::now() < deadline, "never {count} concurrent requests: {state}\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until each of these keys has a note.
    pub async fn await_notes(&self, keys: &[String], timeout: Duration) {
        let deadline = Instant::now() + timeout;
        loop {
            let rows = self.rows().await;
            let missing = keys.iter().filter(|k| notes(&rows[*k][0], &self.sink_topic()).is_empty()).count();
            if missing == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{missing} notes are missing\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The instance's log of writes, in commit order.
    pub async fn log(&self) -> Vec<Value> {
        let log = self.get("/simulator/log?limit=10000000").await.expect("a log");
        log["entries"].as_array().expect("entries").clone()
    }

    /// Asserts by the simulator's rows and its log of writes: every ticket as expected, no duplicates, no write out of
    /// order, no write to a closed ticket.
    pub async fn check(&self, expected: &BTreeMap<String, Ticket>) -> CheckResult {
        let rows = self.rows().await;
        assert_eq!(self.differences(&rows, expected), Vec::<String>::new());
        for (key, rows) in &rows {
            let written = notes(&rows[0], &self.sink_topic());
            let mut markers: Vec<&String> = written.iter().map(|(_, marker)| marker).collect();
            markers.sort();
            markers.dedup();
            assert_eq!(markers.len(), written.len(), "{key}: duplicate note: {written:?}");
        }
        let entries = self.log().await;
        let WriteOrder { out_of_order, ghost_writes } =
            write_order(&if self.writes_events() { alerts::writes(&entries) } else { entries });
        assert_eq!(self.state().await["writes_to_closed_rows"], 0);
        println!(
            "{} tickets: 0 duplicated, 0 lost, {} writes out of order; {ghost_writes} ghost writes, all corrected",
            rows.len(),
            out_of_order.len()
        );
        let log_lines = || {
            let keys = out_of_order.iter().filter_map(|write| Some(write.split_once(": ")?.0));
            keys.map(|key| self.log_lines_of(key)).collect::<String>()
        };
        assert!(out_of_order.is_empty(), "{}\n{}", out_of_order.join("\n"), log_lines());
        CheckResult { tickets: rows.len(), ghost_writes }
    }

    /// The log lines of all bridges that name a key.
    fn log_lines_of(&self, key: &str) -> String {
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

    /// The last lines of the log of the bridge that was started last.
    fn log_tail(&self) -> String {
        let last = self.bridges.load(Ordering::Relaxed).saturating_sub(1);
        let text = std::fs::read_to_string(self.folder.path().join(format!("bridge-{last}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// A record key that is not the alert's key, or none, and the partition that a publisher chose for the alert.
fn other_key_and_partition(key: &str) -> (Option<String>, i32) {
    let sum = key.bytes().fold(0_i32, |sum, byte| sum * 31 % 10_007 + i32::from(byte));
    ((sum % 3 != 0).then(|| format!("host-{}", sum % 5)), sum % 4)
}

impl Drop for Harness {
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

    /// Stops it with SIGTERM; it must exit with 0.
    pub fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.exit_code(Duration::from_secs(30)), Some(0), "{}", self.log());
    }

    /// Waits until it has killed itself at its failpoint. Returns false if it has not; then it is killed now.
    pub fn await_failpoint(&mut self, timeout: Duration) -> bool {
        use std::os::unix::process::ExitStatusExt;
        let deadline = Instant::now() + timeout;
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

    /// Waits for its end. `None` if it was killed by a signal or still runs after `timeout`.
    pub fn exit_code(&mut self, timeout: Duration) -> Option<i32> {
        let deadline = Instant::now() + timeout;
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
        while !self.log().contains("partition assigned") {
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
