//! ServiceNow to Kafka on a real broker: the bridge's process is killed and restarted while it polls the simulator.
//! The output of a `read_committed` reader is compared with the simulator's log of writes. The full size (10,000
//! changes, rows up to 30 s late) runs with `NOWBRIDGE_FULL=1`; otherwise it is smaller.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nowbridge::kafka::topics::{Purpose, TopicSpec};
use nowbridge::kafka::{KafkaOptions, TransactionError};
use nowbridge::model::Change;
use nowbridge::model::change::ChangeOrigin;
use nowbridge::quota::{LimiterSettings, RequestLimiter};
use nowbridge::servicenow::{Auth, Client, Connection, RowVersions};
use nowbridge::simulators::servicenow::{Options, RunningSimulator, Simulator};
use nowbridge::source::change_detection::{ChangeDetector, PollPage};
use nowbridge::source::publish::Publisher;
use nowbridge::source::{
    self, OwnershipSettings, Settings, SourceRoute, SourceTopics, Start, State, StatusHandle, Timing, run_all,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::kafka;

const PATIENCE: Duration = Duration::from_secs(20);

/// Reads committed records, independently of the code under test.
struct Reader {
    consumer: BaseConsumer,
    changes: Vec<Change>,
}

impl Reader {
    fn new(bootstrap: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", kafka::unique("reader"))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        let mut all = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            all.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a partition");
        }
        consumer.assign(&all).expect("assigned");
        Self { consumer, changes: Vec::new() }
    }

    /// Reads until no record arrives for 200 ms.
    fn read(&mut self) {
        while let Some(message) = self.consumer.poll(Duration::from_millis(200)) {
            let Ok(message) = message else { continue };
            let change: Change = serde_json::from_slice(message.payload().expect("a value")).expect("a change");
            let key = format!("dev:incident:{}", change.sys_id);
            assert_eq!(message.key(), Some(key.as_bytes()));
            self.changes.push(change);
        }
    }
}

/// The writes in the simulator's log.
#[derive(Default)]
struct WriteLog {
    /// Author of each version of each row.
    authors: HashMap<String, BTreeMap<u64, String>>,
    /// Texts of notes.
    notes: HashSet<String>,
    changes: usize,
    /// Highest number of changes in one second.
    ties: usize,
}

impl WriteLog {
    fn of(simulator: &RunningSimulator) -> Self {
        let mut written = Self::default();
        let mut seconds: HashMap<String, usize> = HashMap::new();
        let log = simulator.log(0, usize::MAX);
        for entry in log["entries"].as_array().expect("entries") {
            if entry["changed"] != json!(true) || entry["table"] != json!("incident") {
                continue;
            }
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_string();
            let count = entry["sys_mod_count"].as_u64().expect("a count");
            written.authors.entry(text("sys_id")).or_default().insert(count, text("user"));
            for note in entry["notes"].as_array().into_iter().flatten() {
                written.notes.insert(note["value"].as_str().expect("a text").into());
            }
            *seconds.entry(text("at")).or_default() += 1;
            written.changes += 1;
        }
        written.ties = seconds.values().copied().max().unwrap_or(0);
        written
    }

    /// Numbers of rows without their last version and of notes that a reader has not received.
    fn missing(&self, changes: &[Change]) -> (usize, usize) {
        let mut last: HashMap<&str, u64> = HashMap::new();
        for change in changes.iter().filter(|c| c.note.is_none()) {
            last.insert(&change.sys_id, change.sys_mod_count);
        }
        let rows = self.authors.iter().filter(|(id, v)| last.get(id.as_str()) != v.keys().last()).count();
        let seen: HashSet<&str> = changes.iter().filter_map(|c| Some(c.note.as_ref()?.body.as_str())).collect();
        (rows, self.notes.iter().filter(|n| !seen.contains(n.as_str())).count())
    }

    fn check(&self, changes: &[Change]) {
        let mut ids = HashSet::new();
        let mut notes = HashSet::new();
        let mut last: HashMap<&str, u64> = HashMap::new();
        for change in changes {
            assert!(ids.insert(&change.change_id), "{} was published twice", change.change_id);
            if let Some(note) = &change.note {
                assert!(notes.insert(&note.body), "note {} was published twice", note.body);
                continue;
            }
            let before = last.insert(&change.sys_id, change.sys_mod_count);
            assert!(before.is_none_or(|b| b < change.sys_mod_count), "{} is out of order", change.change_id);
            let authors = &self.authors[&change.sys_id];
            assert_eq!(change.updated_by, authors[&change.sys_mod_count], "{}", change.change_id);
            if change.origin == ChangeOrigin::Bridge {
                let hidden = before.map_or(0, |b| b + 1)..=change.sys_mod_count;
                assert!(
                    hidden.clone().all(|v| authors[&v] == "nowbridge"),
                    "{}: a user's change in {hidden:?} is marked as an echo",
                    change.change_id
                );
            }
        }
        assert_eq!(self.missing(changes), (0, 0), "rows without their last version, and notes");
    }
}

/// A user, or the bridge's user, writes.
fn write(simulator: &RunningSimulator, sys_id: &str, user: &str, text: &str, note: Option<String>) {
    let mut act = json!({"sys_id": sys_id, "user": user, "set": {"short_description": text}});
    if let Some(note) = note {
        act["work_notes"] = note.into();
    }
    simulator.edit_as_user(&act).expect("written");
}

struct Process(Child);

impl Process {
    fn start(config: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(config.with_extension("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_nowbridge"))
            .args([Path::new("run"), Path::new("--config"), config])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the bridge starts");
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_published_once_with_kills_ties_late_rows_and_unseen_versions() {
    let Some(broker) = kafka::real("source: changes with kills") else { return };
    let full = std::env::var_os("NOWBRIDGE_FULL").is_some();
    let (target, late) = if full { (10_000, [3_000, 30_000]) } else { (2_500, [3_000, 8_000]) };
    let simulator = Simulator::start(Options::default()).await.expect("a simulator");
    let folder = tempfile::tempdir().expect("a folder");
    let (config, topic) = configuration(folder.path(), &broker.bootstrap, &simulator.url(), if full { 40 } else { 15 });
    let mut bridge = Process::start(&config);
    let mut rng = fastrand::Rng::with_seed(7);
    let rows: Vec<String> = (0..300)
        .map(|n| {
            let act = json!({"create": true, "set": {"short_description": format!("row {n}")}});
            simulator.edit_as_user(&act).expect("made")["sys_id"].as_str().expect("a sys_id").to_string()
        })
        .collect();
    // Kills make sense only after the first start was stored.
    let mut reader = await_topic(&broker.bootstrap, &topic);
    await_changes(&mut reader, 1);

    let mut n = 0;
    let mut kills = 0;
    let mut change = |id: &str, user: &str, note: bool| {
        n += 1;
        write(&simulator, id, user, &format!("text {n}"), note.then(|| format!("note {n}")));
        n
    };
    let mut done = 0;
    let mut step = 0;
    while done < target {
        step += 1;
        match step {
            // 150 rows within one second, more than a page of the bridge.
            5 => rows.iter().take(150).for_each(|id| done = change(id, "beth.anglin", false)),
            // Two versions between two polls, and the bridge's write after a user's.
            8 => rows.iter().take(100).for_each(|id| {
                change(id, "beth.anglin", false);
                done = change(id, "david.loo", false);
            }),
            11 => rows.iter().skip(100).take(100).for_each(|id| {
                change(id, "beth.anglin", false);
                done = change(id, "nowbridge", false);
            }),
            14 => {
                simulator.set_faults(&json!({"delayed_visibility": 1.0, "visibility_delay_ms": late})).expect("faults");
                rows.iter().skip(200).for_each(|id| done = change(id, "beth.anglin", false));
                simulator.set_faults(&json!({"delayed_visibility": 0.0})).expect("faults");
            }
            _ => {
                for _ in 0..target / 60 {
                    let id = &rows[rng.usize(..rows.len())];
                    let user = ["beth.anglin", "david.loo", "nowbridge"][rng.usize(..3)];
                    done = change(id, user, rng.u8(..10) == 0);
                }
            }
        }
        if done > target / 4 * (kills + 1) && kills < 3 {
            // In the middle: a part of the writes since the last poll is published.
            let seen = reader.changes.len();
            await_changes(&mut reader, seen + 1);
            bridge.kill();
            kills += 1;
            bridge = Process::start(&config);
        }
        // At the users' pace, so that polls happen in between.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let written = WriteLog::of(&simulator);
    assert!(written.changes >= target && written.ties >= 100 && kills == 3);
    let deadline = Instant::now() + Duration::from_secs(120);
    while written.missing(&reader.changes) != (0, 0) && Instant::now() < deadline {
        reader.read();
    }
    if written.missing(&reader.changes) != (0, 0) {
        eprintln!("{}", std::fs::read_to_string(config.with_extension("log")).unwrap_or_default());
    }
    // Another lookback, in which nothing may be published a second time.
    let quiet = Instant::now() + Duration::from_secs(5);
    while Instant::now() < quiet {
        reader.read();
    }
    written.check(&reader.changes);
    let count = |origin| reader.changes.iter().filter(|c| c.origin == origin).count();
    let skipped: u64 = reader.changes.iter().map(|c| c.versions_skipped).sum();
    eprintln!(
        "source: {} writes, at most {} in one second, {kills} kills: {} changes published, {skipped} versions skipped, \
         {} notes, {} echoes, {} mixed",
        written.changes,
        written.ties,
        reader.changes.len(),
        written.notes.len(),
        count(ChangeOrigin::Bridge),
        count(ChangeOrigin::Mixed),
    );
    assert!(
        skipped > 0 && count(ChangeOrigin::Bridge) > 0 && count(ChangeOrigin::Mixed) > 0,
        "the scenario did not produce unseen versions, echoes and mixed changes"
    );
    drop(bridge);
}

fn configuration(folder: &Path, bootstrap: &str, url: &str, lookback: u32) -> (std::path::PathBuf, String) {
    let prefix = kafka::unique("src");
    let text = format!(
        "instances:\n  dev:\n    url: {url}\n    allow_http: true\n    auth:\n      basic: {{ user: nowbridge, password: \
         nowbridge }}\nkafka:\n  bootstrap: {bootstrap}\n  session_timeout: 6s\ntopics:\n  prefix: {prefix}\n  \
         unsafe_topics: true\n  replication: 1\nsources:\n  incidents:\n    instance: dev\n    table: incident\n    interval: 1s\n    \
         lookback: {lookback}s\n    safety_lag: 2s\n    page_size: 80\n    start: all\n    include_echoes: true\nadmin:\n  listen: \
         127.0.0.1:0\n"
    );
    let path = folder.join("bridge.yaml");
    std::fs::write(&path, text).expect("written");
    (path, format!("{prefix}.incidents.changes"))
}

fn await_topic(bootstrap: &str, topic: &str) -> Reader {
    let deadline = Instant::now() + Duration::from_secs(60);
    let lookup: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    while Instant::now() < deadline {
        let metadata = lookup.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        if metadata.topics().iter().any(|t| t.error().is_none() && !t.partitions().is_empty()) {
            return Reader::new(bootstrap, topic);
        }
    }
    panic!("the bridge did not create {topic}")
}

fn await_changes(reader: &mut Reader, least: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while reader.changes.len() < least {
        assert!(Instant::now() < deadline, "received {} changes, expected at least {least}", reader.changes.len());
        reader.read();
    }
}

async fn topics(broker: &kafka::Broker, prefix: &str, routes: &[&str]) {
    let mut specs = vec![
        TopicSpec::new(format!("{prefix}.checkpoints"), Purpose::Table).partitions(2),
        TopicSpec::new(format!("{prefix}.ownership"), Purpose::Stream).partitions(2),
    ];
    for route in routes {
        specs.push(TopicSpec::new(format!("{prefix}.{route}.changes"), Purpose::Stream).partitions(2));
        specs.push(TopicSpec::new(format!("{prefix}.{route}.rows"), Purpose::Table).partitions(2));
    }
    broker.create(&specs).await;
}

fn source_topics(prefix: &str, route: &str) -> SourceTopics {
    SourceTopics {
        changes: format!("{prefix}.{route}.changes"),
        rows: format!("{prefix}.{route}.rows"),
        checkpoints: format!("{prefix}.checkpoints"),
    }
}

/// One bridge process, in this process.
struct Member {
    statuses: Vec<StatusHandle>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), source::Error>>,
}

impl Member {
    fn start(options: &KafkaOptions, prefix: &str, url: &str) -> Self {
        let auth = Auth::Basic { user: "nowbridge".into(), password: "nowbridge".to_string().into() };
        let client =
            Client::new(Connection::new(url, "incident", auth), nowbridge::runtime::clock::mono).expect("a client");
        let limiter = Arc::new(RequestLimiter::new(&LimiterSettings::default()));
        let routes: Vec<SourceRoute> = ["a", "b"]
            .iter()
            .map(|name| SourceRoute {
                settings: Arc::new(Settings {
                    start: Start::All,
                    lookback: 10,
                    safety_lag: 1,
                    ..Settings::new(name, "dev", "incident", "nowbridge")
                }),
                topics: source_topics(prefix, name),
                transactional_id: format!("{prefix}.{name}"),
                group: format!("{prefix}.{name}"),
                timing: Timing { interval: Duration::from_millis(300), ..Timing::default() },
                client: client.clone(),
                new_credentials: Arc::new(|| None),
                row_versions: RowVersions::default(),
                permits: Arc::new(Arc::clone(&limiter)),
                status: StatusHandle::default(),
            })
            .collect();
        let statuses = routes.iter().map(|r| r.status.clone()).collect();
        let stop = CancellationToken::new();
        let ownership = OwnershipSettings {
            topic: format!("{prefix}.ownership"),
            group: format!("{prefix}.sources"),
            session_timeout: Duration::from_secs(6),
            max_poll_interval: Duration::from_secs(60),
            drain: Duration::from_secs(3),
            timeout: PATIENCE,
        };
        let (options, token) = (options.clone(), stop.clone());
        let task = tokio::spawn(async move { run_all(routes, &options, &ownership, token).await });
        Self { statuses, stop, task }
    }

    fn polling(&self) -> Vec<bool> {
        self.statuses.iter().map(|s| s.get().state == State::Polling).collect()
    }
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_two_routes_and_one_takes_over() {
    let Some(broker) = kafka::real("source: two processes") else { return };
    let prefix = kafka::unique("share");
    topics(broker, &prefix, &["a", "b"]).await;
    let simulator = Simulator::start(Options::default()).await.expect("a simulator");
    let ids: Vec<String> = (0..20)
        .map(|_| {
            simulator.edit_as_user(&json!({"create": true})).expect("made")["sys_id"].as_str().expect("an id").into()
        })
        .collect();
    let options = broker.options();
    let one = Member::start(&options, &prefix, &simulator.url());
    wait_for("one process runs both routes", || one.polling() == [true, true]).await;
    let two = Member::start(&options, &prefix, &simulator.url());
    wait_for("each process runs one route", || {
        let (a, b) = (one.polling(), two.polling());
        a.iter().zip(&b).all(|(a, b)| a != b) && a[0] != a[1]
    })
    .await;
    for (n, id) in ids.iter().enumerate() {
        write(&simulator, id, "beth.anglin", &format!("first {n}"), Some(format!("note {n}")));
    }
    one.stop.cancel();
    one.task.await.expect("ended").expect("no error");
    wait_for("the other process runs both routes", || two.polling() == [true, true]).await;
    for (n, id) in ids.iter().enumerate() {
        write(&simulator, id, "beth.anglin", &format!("second {n}"), None);
    }
    let written = WriteLog::of(&simulator);
    for route in ["a", "b"] {
        let mut reader = Reader::new(&broker.bootstrap, &format!("{prefix}.{route}.changes"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while written.missing(&reader.changes) != (0, 0) && Instant::now() < deadline {
            reader.read();
        }
        written.check(&reader.changes);
    }
    two.stop.cancel();
    two.task.await.expect("ended").expect("no error");
}

/// A response with one row at a version, as the first page after a first start.
fn page(mod_count: u64) -> PollPage {
    let row = [
        ("sys_id", "0123456789abcdef0123456789abcdef".to_string()),
        ("sys_mod_count", mod_count.to_string()),
        ("sys_created_on", "2026-11-23 10:00:00".into()),
        ("sys_updated_on", format!("2026-11-23 10:00:{mod_count:02}")),
        ("sys_updated_by", "beth.anglin".into()),
        ("state", "1".into()),
    ];
    let row = row.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    PollPage { rows: vec![row], total: None, now: Some(1_795_428_060) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_previous_owner_is_fenced_and_its_transaction_is_not_visible() {
    let Some(broker) = kafka::real("source: fencing") else { return };
    let prefix = kafka::unique("fence");
    topics(broker, &prefix, &["r"]).await;
    let settings = Arc::new(Settings {
        start: Start::All,
        journal: false,
        deletes: false,
        ..Settings::new("r", "dev", "incident", "nowbridge")
    });
    let (options, names, id) = (broker.options(), source_topics(&prefix, "r"), format!("{prefix}.r"));
    let open = || Publisher::open(&options, Arc::clone(&settings), &names, &id, &id, PATIENCE);
    let next = |detector: &mut ChangeDetector, page: &PollPage| {
        detector.start_poll();
        detector.next_request().expect("a next request");
        detector.process_page(page).expect("a good page")
    };
    let (first, loaded) = open().await.expect("opened");
    let mut frozen_detector =
        ChangeDetector::new((*settings).clone(), loaded.published_state, loaded.checkpoint).expect("a detector");
    first.publish(&next(&mut frozen_detector, &page(0))).await.expect("the first start is stored");
    first.publish(&next(&mut frozen_detector, &page(1))).await.expect("published");

    let (second, loaded) = open().await.expect("taken over");
    let mut detector =
        ChangeDetector::new((*settings).clone(), loaded.published_state, loaded.checkpoint).expect("a detector");
    assert_eq!(detector.known_rows(), 1, "the row that the first owner published is known");
    let late = first.publish(&next(&mut frozen_detector, &page(2))).await;
    assert!(matches!(late, Err(TransactionError::Fenced(_))), "{late:?}");
    second.publish(&next(&mut detector, &page(2))).await.expect("published");

    let mut reader = Reader::new(&broker.bootstrap, &names.changes);
    await_changes(&mut reader, 2);
    reader.read();
    let counts: Vec<u64> = reader.changes.iter().map(|c| c.sys_mod_count).collect();
    assert_eq!(counts, [1, 2]);
}
