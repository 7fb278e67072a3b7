//! The processes of a measurement, a simulated instance and a bridge (or another consumer), and what they expose: API,
//! metrics, logs, memory and processor time.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nowbridge::kafka::topics::{Purpose, TopicSpec};
use serde_json::Value;

use crate::load::ExpectedTicket;
use crate::support::kafka::{self, Broker};

/// How long an idle process needs until the allocator has returned the memory of earlier work; a timer that fires every
/// ten seconds triggers it.
const SETTLE: Duration = Duration::from_secs(15);

/// How a case is set up.
pub struct Setup {
    /// Milliseconds that the instance takes for a request.
    pub latency_ms: u32,
    /// Maximum number of concurrent requests.
    pub concurrency: u32,
    /// Partitions of the input topic.
    pub partitions: i32,
    /// Limit of the instance's rate limit rule. `None`: no rule.
    pub requests_per_minute: Option<u32>,
    /// The bridge's `request_deadline` and `max_transaction_time`. `None`: its defaults.
    pub request_deadline: Option<Duration>,
    /// Keep the instance's log of writes. Its memory grows with every write.
    pub write_log: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            concurrency: 16,
            partitions: 4,
            requests_per_minute: None,
            request_deadline: None,
            write_log: false,
        }
    }
}

/// A simulated instance, an input topic, and the configuration of a bridge.
pub struct Testbed {
    bootstrap: String,
    topic: String,
    url: String,
    admin: String,
    http: reqwest::Client,
    folder: tempfile::TempDir,
    _simulator: KillOnDrop,
}

impl Testbed {
    pub async fn start(broker: &Broker, setup: &Setup) -> Self {
        let prefix = kafka::unique("bench");
        let topic = format!("{prefix}.alerts");
        broker.create(&[TopicSpec::new(topic.clone(), Purpose::Input).partitions(setup.partitions)]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (listen, admin) = (free_address(), free_address());
        let url = format!("http://{listen}");
        let (rate, rules) = match setup.requests_per_minute {
            Some(requests) => (
                format!("    rate: {requests}/minute\n    rate_limit_window: 1m\n"),
                format!("rate_limits: [{{ requests: {requests}, window_seconds: 60 }}]\n"),
            ),
            None => (String::new(), String::new()),
        };
        let deadlines = setup.request_deadline.map_or(String::new(), |time| {
            format!("    request_deadline: {0}s\n    max_transaction_time: {0}s\n", time.as_secs())
        });
        let bridge = format!(
            "instances:\n  dev:\n    url: {url}\n    allow_http: true\n    auth: {{ basic: {{ user: nowbridge, \
             password: nowbridge }} }}\n    concurrency: {concurrency}\n{rate}{deadlines}kafka:\n  bootstrap: {bootstrap}\n  \
             session_timeout: 6s\ntopics:\n  prefix: {prefix}\n  unsafe_topics: true\n  replication: 1\nsinks:\n  incidents:\n    \
             topic: {topic}\n    closing: {{ close_code: Solution provided }}\nadmin:\n  listen: {admin}\n",
            concurrency = setup.concurrency,
            bootstrap = broker.bootstrap,
        );
        std::fs::write(folder.path().join("bridge.yaml"), bridge).expect("a configuration");
        let options = folder.path().join("instance.yaml");
        std::fs::write(&options, format!("write_log: {}\n{rules}", setup.write_log)).expect("the instance's options");
        let mut simulate = nowbridge();
        simulate.args(["simulate", "--listen", &listen, "--latency", &setup.latency_ms.to_string(), "--options"]);
        simulate.arg(options).stdout(Stdio::null()).stderr(Stdio::null());
        let simulator = KillOnDrop(simulate.spawn().expect("the simulator starts"));
        let bootstrap = broker.bootstrap.clone();
        let http = reqwest::Client::new();
        let testbed = Self { bootstrap, topic, url, admin, http, folder, _simulator: simulator };
        testbed.await_ok(&format!("{}/simulator/state", testbed.url), "the simulator").await;
        testbed
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The sum of a metric of the bridge over all its labels; 0 while the bridge does not respond.
    pub async fn metric(&self, name: &str) -> f64 {
        let Ok(response) = self.http.get(format!("http://{}/metrics", self.admin)).send().await else { return 0.0 };
        let text = response.text().await.unwrap_or_default();
        let has_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = text.lines().filter(has_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The command that runs a bridge.
    pub fn command(&self) -> Command {
        let mut run = nowbridge();
        run.args(["run", "--config"]).arg(self.folder.path().join("bridge.yaml"));
        run
    }

    /// Starts a bridge, and waits until it is ready.
    pub async fn start_bridge(&self) -> ConsumerProcess {
        let bridge = self.run(&mut self.command());
        self.await_ready().await;
        bridge
    }

    /// Starts a consumer, and appends its output to the log.
    pub fn run(&self, command: &mut Command) -> ConsumerProcess {
        let log = self.folder.path().join("bridge.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
        let stdout = file.try_clone().expect("a log");
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(file).spawn().expect("it starts");
        ConsumerProcess { child: KillOnDrop(child), log }
    }

    /// Waits until the bridge is ready.
    pub async fn await_ready(&self) {
        self.await_ok(&format!("http://{}/readyz", self.admin), "the bridge").await;
    }

    /// Sets the faults of the instance.
    pub async fn set_faults(&self, faults: &Value) {
        let sent = self.http.post(format!("{}/simulator/faults", self.url)).json(faults).send().await.expect("sent");
        assert!(sent.status().is_success(), "{}", sent.text().await.unwrap_or_default());
    }

    /// The instance's counters.
    pub async fn state(&self) -> Value {
        self.get("/simulator/state").await
    }

    /// The instance's log of writes.
    pub async fn log(&self) -> Vec<Value> {
        let mut log = self.get("/simulator/log?limit=10000000").await;
        log["entries"].as_array_mut().map(std::mem::take).expect("entries")
    }

    /// Incidents by correlation, with their journals.
    pub async fn rows(&self) -> BTreeMap<String, Vec<Value>> {
        let mut page = self.get("/simulator/rows?table=incident&limit=100000").await;
        let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for row in page["rows"].as_array_mut().map(std::mem::take).expect("rows") {
            let key = row["correlation_id"].as_str().unwrap_or_default().to_owned();
            rows.entry(key).or_default().push(row);
        }
        rows
    }

    async fn await_ok(&self, url: &str, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.http.get(url).send().await.is_ok_and(|response| response.status().is_success()) {
            assert!(Instant::now() < deadline, "{name} is not ready\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.expect("the simulator responds");
        response.json().await.expect("JSON")
    }

    /// Numbers of requests that the instance has answered, and of writes that it has applied.
    async fn requests_and_writes(&self) -> (u64, u64) {
        let state = self.state().await;
        let (mut requests, mut writes) = (0, 0);
        for line in state["requests"].as_array().expect("requests") {
            let count = line["count"].as_u64().unwrap_or(0);
            requests += count;
            if matches!(line["method"].as_str(), Some("POST" | "PATCH"))
                && matches!(line["status"].as_u64(), Some(200 | 201))
            {
                writes += count;
            }
        }
        (requests, writes)
    }

    /// The number of requests that the instance has answered.
    pub async fn requests(&self) -> u64 {
        self.requests_and_writes().await.0
    }

    /// The number of writes that the instance has applied.
    pub async fn writes(&self) -> u64 {
        self.requests_and_writes().await.1
    }

    /// Waits until there are at least `count` writes, and returns their number and the time.
    pub async fn await_writes(&self, count: u64) -> (u64, Instant) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let writes = self.writes().await;
            let now = Instant::now();
            if writes >= count {
                return (writes, now);
            }
            assert!(now < deadline, "{writes} writes of {count}\n{}", self.log_tail());
            // Do not ask more often: for each response the instance counts all its rows, on the cores that are
            // measured.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// The number of requests that the instance rejected by its rate limit rule.
    pub async fn throttled(&self) -> u64 {
        self.get("/simulator/state").await["counters"]["rate_limited"].as_u64().unwrap_or(0)
    }

    /// The correlations of all tickets.
    pub async fn keys(&self) -> Vec<String> {
        let page = self.get("/simulator/rows?table=incident&limit=10000").await;
        let rows = page["rows"].as_array().expect("rows");
        rows.iter().filter_map(|row| row["correlation_id"].as_str()).map(str::to_owned).collect()
    }

    /// Waits until each key has exactly one ticket, as expected. Returns the number of wrong tickets, which is above
    /// zero after a timeout.
    pub async fn await_expected(&self, expected: &BTreeMap<String, ExpectedTicket>) -> usize {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let wrong = self.wrong_tickets(expected).await;
            if wrong == 0 || Instant::now() > deadline {
                return wrong;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn wrong_tickets(&self, expected: &BTreeMap<String, ExpectedTicket>) -> usize {
        let mut tickets: BTreeMap<String, Vec<ExpectedTicket>> = BTreeMap::new();
        loop {
            let seen: usize = tickets.values().map(Vec::len).sum();
            let page = self.get(&format!("/simulator/rows?table=incident&limit=10000&offset={seen}")).await;
            let rows = page["rows"].as_array().expect("rows");
            for row in rows {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                let ticket = ExpectedTicket { title: text("short_description"), resolved: text("state") == "6" };
                tickets.entry(text("correlation_id")).or_default().push(ticket);
            }
            if rows.is_empty() {
                break;
            }
        }
        let is_correct = |(key, ticket): &(&String, &ExpectedTicket)| {
            tickets.get(*key).is_some_and(|found| found == &[(*ticket).clone()])
        };
        let without_alert = tickets.keys().filter(|key| !expected.contains_key(*key)).count();
        expected.iter().filter(|pair| !is_correct(pair)).count() + without_alert
    }

    /// The last lines of the log of all consumers.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("bridge.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// The process of a bridge, or of another consumer.
pub struct ConsumerProcess {
    child: KillOnDrop,
    log: PathBuf,
}

/// Memory and processor time of a process.
pub struct Usage {
    /// Resident memory, MB (10^6 bytes).
    pub resident_mb: f64,
    /// Resident memory without pages of files, which Linux shares between processes and drops when it needs memory.
    pub anonymous_mb: f64,
    /// Peak of the resident memory.
    pub peak_mb: f64,
    /// Processor time on all cores, user and kernel.
    pub cpu: Duration,
}

impl ConsumerProcess {
    /// Stops it with SIGTERM, waits until it has ended, and returns its log.
    pub fn stop(mut self) -> String {
        let id = i32::try_from(self.child.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("the signal is sent");
        let status = self.child.0.wait().expect("it ends");
        assert!(status.success(), "{status}\n{}", self.log());
        self.log()
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its usage once it has returned the memory of earlier work.
    pub async fn usage_at_rest(&self) -> Usage {
        tokio::time::sleep(SETTLE).await;
        self.usage()
    }

    /// Its usage until now.
    pub fn usage(&self) -> Usage {
        self.usage_if_running().unwrap_or_else(|| panic!("the consumer has ended\n{}", self.log()))
    }

    /// Its usage until now; `None` if it has ended.
    pub fn usage_if_running(&self) -> Option<Usage> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.child.0.id())).ok();
        let (status, stat) = (read("status")?, read("stat")?);
        let memory = |name: &str| {
            // A process that has ended and was not waited for yet has no memory.
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_end_matches("kB").trim().parse::<f64>().expect("a number") * 1.024 / 1_000.0)
        };
        // The name in parentheses can contain spaces; user and system time are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        // A tick is 10 ms on every Linux that Rust runs on.
        let cpu = Duration::from_millis(10 * (ticks(11) + ticks(12)));
        Some(Usage {
            resident_mb: memory("VmRSS:")?,
            anonymous_mb: memory("RssAnon:")?,
            peak_mb: memory("VmHWM:")?,
            cpu,
        })
    }
}

/// A process that is killed when it is dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nowbridge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
    command.stdin(Stdio::null());
    command
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a free port").to_string()
}
