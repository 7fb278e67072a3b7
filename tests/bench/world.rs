//! The processes of a measurement: a simulated instance, a bridge, and what is seen of both from outside.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nowbridge::kafka::topics::{Purpose, TopicSpec};
use serde_json::Value;

use crate::feed::Stand;
use crate::support::kafka::{self, Broker};

/// At rest the allocator has given back what earlier work took after so long: what is due every ten seconds wakes it.
const SETTLE: Duration = Duration::from_secs(15);

/// How a case is set up.
pub struct Setup {
    /// Milliseconds that the instance takes for a request.
    pub latency: u32,
    /// Requests at once.
    pub at_once: u32,
    /// Partitions of the input.
    pub partitions: i32,
    /// Requests a minute that the instance's rule allows.
    pub quota: Option<u32>,
    /// How long the bridge is told that a request may take, and a lost write to strike; its defaults where there is none.
    pub settle: Option<Duration>,
    /// Keep the instance's log of writes. Its memory grows with every write.
    pub history: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { latency: 0, at_once: 16, partitions: 4, quota: None, settle: None, history: false }
    }
}

/// An instance, and a bridge's configuration.
pub struct World {
    bootstrap: String,
    topic: String,
    url: String,
    admin: String,
    http: reqwest::Client,
    folder: tempfile::TempDir,
    _simulator: Process,
}

impl World {
    pub async fn start(broker: &Broker, setup: &Setup) -> Self {
        let prefix = kafka::unique("bench");
        let topic = format!("{prefix}.alerts");
        broker.create(&[TopicSpec::new(topic.clone(), Purpose::Input).partitions(setup.partitions)]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (listen, admin) = (free_address(), free_address());
        let url = format!("http://{listen}");
        let (quota, rules) = match setup.quota {
            Some(quota) => (
                format!("    rate: {quota}/minute\n    rule_window: 1m\n"),
                format!("rate_limits: [{{ requests: {quota}, window_seconds: 60 }}]\n"),
            ),
            None => (String::new(), String::new()),
        };
        let settle = setup.settle.map_or(String::new(), |time| {
            format!("    request_deadline: {0}s\n    settle_time: {0}s\n", time.as_secs())
        });
        let bridge = format!(
            "instances:\n  dev:\n    url: {url}\n    allow_http: true\n    auth: {{ basic: {{ user: nowbridge, password: \
             nowbridge }} }}\n    concurrency: {at_once}\n{quota}{settle}kafka:\n  bootstrap: {bootstrap}\n  session_timeout: 6s\ntopics:\n  prefix: {prefix}\n  \
             unsafe_topics: true\n  replication: 1\nsinks:\n  incidents:\n    topic: {topic}\n    closing: {{ close_code: Solution \
             provided }}\nadmin:\n  listen: {admin}\n",
            at_once = setup.at_once,
            bootstrap = broker.bootstrap,
        );
        std::fs::write(folder.path().join("bridge.yaml"), bridge).expect("a configuration");
        let options = folder.path().join("instance.yaml");
        std::fs::write(&options, format!("history: {}\n{rules}", setup.history)).expect("the instance's options");
        let mut simulate = nowbridge();
        simulate.args(["simulate", "--listen", &listen, "--latency", &setup.latency.to_string(), "--options"]);
        simulate.arg(options).stdout(Stdio::null()).stderr(Stdio::null());
        let simulator = Process(simulate.spawn().expect("the simulator starts"));
        let bootstrap = broker.bootstrap.clone();
        let http = reqwest::Client::new();
        let world = Self { bootstrap, topic, url, admin, http, folder, _simulator: simulator };
        world.await_ok(&format!("{}/simulator/state", world.url), "the simulator").await;
        world
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The sum of a metric of the bridge over all its labels; 0 while the bridge does not answer.
    pub async fn metric(&self, name: &str) -> f64 {
        let Ok(answer) = self.http.get(format!("http://{}/metrics", self.admin)).send().await else { return 0.0 };
        let text = answer.text().await.unwrap_or_default();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// What runs a bridge.
    pub fn command(&self) -> Command {
        let mut run = nowbridge();
        run.args(["run", "--config"]).arg(self.folder.path().join("bridge.yaml"));
        run
    }

    /// A bridge that is ready and has nothing to do.
    pub async fn bridge(&self) -> Running {
        let bridge = self.run(&mut self.command());
        self.await_ready().await;
        bridge
    }

    /// Runs this, and keeps what it tells.
    pub fn run(&self, command: &mut Command) -> Running {
        let log = self.folder.path().join("bridge.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
        let told = file.try_clone().expect("a log");
        let child = command.stdin(Stdio::null()).stdout(told).stderr(file).spawn().expect("it starts");
        Running { process: Process(child), log }
    }

    /// Waits until the bridge is ready.
    pub async fn await_ready(&self) {
        self.await_ok(&format!("http://{}/readyz", self.admin), "the bridge").await;
    }

    /// Faults that strike from now on.
    pub async fn faults(&self, faults: &Value) {
        let sent = self.http.post(format!("{}/simulator/faults", self.url)).json(faults).send().await.expect("sent");
        assert!(sent.status().is_success(), "{}", sent.text().await.unwrap_or_default());
    }

    /// What the instance has counted.
    pub async fn state(&self) -> Value {
        self.get("/simulator/state").await
    }

    /// The instance's log of writes.
    pub async fn log(&self) -> Vec<Value> {
        let mut log = self.get("/simulator/log?limit=10000000").await;
        log["entries"].as_array_mut().map(std::mem::take).expect("entries")
    }

    /// Incidents by correlation, journals and all.
    pub async fn rows(&self) -> BTreeMap<String, Vec<Value>> {
        let mut page = self.get("/simulator/rows?table=incident&limit=100000").await;
        let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for row in page["rows"].as_array_mut().map(std::mem::take).expect("rows") {
            let key = row["correlation_id"].as_str().unwrap_or_default().to_owned();
            rows.entry(key).or_default().push(row);
        }
        rows
    }

    async fn await_ok(&self, url: &str, who: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(Instant::now() < deadline, "{who} is not ready\n{}", self.last_log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.expect("the simulator answers");
        answer.json().await.expect("JSON")
    }

    /// Requests that the instance has answered, and those of them that wrote.
    async fn counted(&self) -> (u64, u64) {
        let state = self.state().await;
        let (mut all, mut writes) = (0, 0);
        for line in state["requests"].as_array().expect("requests") {
            let count = line["count"].as_u64().unwrap_or(0);
            all += count;
            if matches!(line["method"].as_str(), Some("POST" | "PATCH"))
                && matches!(line["status"].as_u64(), Some(200 | 201))
            {
                writes += count;
            }
        }
        (all, writes)
    }

    /// Requests that the instance has answered.
    pub async fn requests(&self) -> u64 {
        self.counted().await.0
    }

    /// Writes that the instance has applied.
    pub async fn writes(&self) -> u64 {
        self.counted().await.1
    }

    /// Waits for so many writes; how many there were then, and when.
    pub async fn await_writes(&self, count: u64) -> (u64, Instant) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let writes = self.writes().await;
            let now = Instant::now();
            if writes >= count {
                return (writes, now);
            }
            assert!(now < deadline, "{writes} writes of {count}\n{}", self.last_log());
            // The instance counts all its rows for an answer, on the cores that are measured.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// How many requests the instance refused by its rule.
    pub async fn refused(&self) -> u64 {
        self.get("/simulator/state").await["counts"]["rate_limited"].as_u64().unwrap_or(0)
    }

    /// The correlations of all tickets there are.
    pub async fn keys(&self) -> Vec<String> {
        let page = self.get("/simulator/rows?table=incident&limit=10000").await;
        let rows = page["rows"].as_array().expect("rows");
        rows.iter().filter_map(|row| row["correlation_id"].as_str()).map(str::to_owned).collect()
    }

    /// Waits until each key has one ticket that stands so; how many do not in the end.
    pub async fn await_right(&self, expected: &BTreeMap<String, Stand>) -> usize {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let wrong = self.wrong(expected).await;
            if wrong == 0 || Instant::now() > deadline {
                return wrong;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn wrong(&self, expected: &BTreeMap<String, Stand>) -> usize {
        let mut titles: BTreeMap<String, Vec<Stand>> = BTreeMap::new();
        loop {
            let seen: usize = titles.values().map(Vec::len).sum();
            let page = self.get(&format!("/simulator/rows?table=incident&limit=10000&offset={seen}")).await;
            let rows = page["rows"].as_array().expect("rows");
            for row in rows {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                let stand = Stand { title: text("short_description"), resolved: text("state") == "6" };
                titles.entry(text("correlation_id")).or_default().push(stand);
            }
            if rows.is_empty() {
                break;
            }
        }
        let right =
            |(key, stand): &(&String, &Stand)| titles.get(*key).is_some_and(|found| found == &[(*stand).clone()]);
        let stray = titles.keys().filter(|key| !expected.contains_key(*key)).count();
        expected.iter().filter(|pair| !right(pair)).count() + stray
    }

    pub fn last_log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("bridge.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// A bridge's process, or another's that does its work.
pub struct Running {
    process: Process,
    log: PathBuf,
}

/// What a process has used.
pub struct Usage {
    /// Resident now, MB (10^6 bytes).
    pub resident: f64,
    /// Of it not pages of files, which Linux shares between processes and drops when it needs memory.
    pub own: f64,
    /// Resident at most, MB.
    pub peak: f64,
    /// On all cores, in user and kernel.
    pub cpu: Duration,
}

impl Running {
    /// Stops it in order, and waits until it has ended; what it has logged.
    pub fn stop(mut self) -> String {
        let id = i32::try_from(self.process.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it can be told");
        let ended = self.process.0.wait().expect("it ends");
        assert!(ended.success(), "{ended}\n{}", self.log());
        self.log()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has used until now, once it has given back what its work before this took.
    pub async fn at_rest(&self) -> Usage {
        tokio::time::sleep(SETTLE).await;
        self.usage()
    }

    /// What it has used until now.
    pub fn usage(&self) -> Usage {
        let told = || format!("the bridge is gone\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        self.usage_if_it_lives().unwrap_or_else(|| panic!("{}", told()))
    }

    /// The same; nothing of a process that has ended.
    pub fn usage_if_it_lives(&self) -> Option<Usage> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.process.0.id())).ok();
        let (status, stat) = (read("status")?, read("stat")?);
        let memory = |name: &str| {
            // What has ended, and was not waited for yet, has no memory any more.
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_end_matches("kB").trim().parse::<f64>().expect("a number") * 1.024 / 1_000.0)
        };
        // The name in parentheses may hold blanks; user and system time are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        // A tick is 10 ms on every Linux that Rust runs on.
        let cpu = Duration::from_millis(10 * (ticks(11) + ticks(12)));
        Some(Usage { resident: memory("VmRSS:")?, own: memory("RssAnon:")?, peak: memory("VmHWM:")?, cpu })
    }
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
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
