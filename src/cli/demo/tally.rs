//! Compares the simulator's rows and the change topic with the published alerts and the user's edits. It shares no code
//! with the engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

use super::storm::Storm;
use super::user::UserActions;
use crate::config::Config;
use crate::kafka::KafkaOptions;
use crate::simulators::servicenow::RunningSimulator;

/// A change that was read from the topic.
#[derive(Debug, Clone)]
pub struct ReceivedChange {
    /// How often it was read.
    count: u64,
    body: Value,
}

/// The changes that were read from the topic, by change id.
pub type Changes = BTreeMap<String, ReceivedChange>;

/// Reads the change topic in a separate thread.
pub struct ChangeReader {
    changes: Arc<Mutex<Changes>>,
}

impl ChangeReader {
    /// Starts reading at the beginning of the topic.
    ///
    /// # Errors
    /// The consumer can't be created.
    pub fn start(kafka: &KafkaOptions, topic: &str) -> Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &kafka.bootstrap)
            .set("group.id", "demo-reader")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().context("can't read the change topic")?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning).context("can't read the change topic")?;
        consumer.assign(&list).context("can't read the change topic")?;
        let changes: Arc<Mutex<Changes>> = Arc::default();
        let shared = Arc::downgrade(&changes);
        std::thread::spawn(move || {
            while let Some(changes) = shared.upgrade() {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
                let Some(body) = message.payload().and_then(|p| serde_json::from_slice::<Value>(p).ok()) else {
                    continue;
                };
                let id = body.get("change_id").and_then(Value::as_str).unwrap_or_default().to_owned();
                let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
                changes.entry(id).or_insert(ReceivedChange { count: 0, body }).count += 1;
            }
        });
        Ok(Self { changes })
    }

    /// Returns the changes that were read so far.
    pub fn changes(&self) -> Changes {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The counts of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Alert bodies of the storm.
    pub events: usize,
    /// Expected tickets.
    pub expected: usize,
    /// Existing tickets.
    pub tickets: usize,
    /// Keys whose ticket has the expected state.
    pub correct: usize,
    /// Requests that the instance received.
    pub requests: u64,
    /// The writes among these requests.
    pub writes: u64,
    /// Published changes.
    pub changes: usize,
    /// Edits and notes of the user.
    pub actions: usize,
    /// Tickets and changes that exist more than once.
    pub duplicates: usize,
    /// Keys without a correct ticket, and edits without a change.
    pub missing: usize,
}

impl Tally {
    /// Counts the present state.
    pub fn count(storm: &Storm, actions: &UserActions, rows: &[Value], state: &Value, received: &Changes) -> Self {
        let mut by_key: HashMap<&str, Vec<&Value>> = HashMap::new();
        for row in rows {
            by_key.entry(text(row, "correlation_id")).or_default().push(row);
        }
        let resolved: BTreeSet<&str> = actions.resolved.iter().map(String::as_str).collect();
        let mut tally = Self {
            events: storm.events(),
            expected: storm.groups.len(),
            tickets: rows.len(),
            requests: requests(state),
            writes: writes(state),
            changes: received.len(),
            actions: actions.versions.len() + actions.notes.len(),
            ..Self::default()
        };
        for group in &storm.groups {
            let rows = by_key.get(group.key.as_str()).map_or(&[][..], Vec::as_slice);
            tally.duplicates += rows.len().saturating_sub(1);
            let is_resolved = group.resolved || resolved.contains(group.key.as_str());
            tally.correct += usize::from(rows.first().is_some_and(|r| (text(r, "state") == "6") == is_resolved));
        }
        let published = published_versions(received);
        let notes: BTreeSet<&str> =
            received.values().filter_map(|change| change.body["note"]["body"].as_str()).collect();
        let missing_versions =
            actions.versions.iter().filter(|(id, version)| !is_covered(&published, id, *version)).count();
        let missing_notes = actions.notes.iter().filter(|n| !notes.contains(n.as_str())).count();
        tally.duplicates += received.values().filter(|change| change.count > 1).count();
        tally.missing = (tally.expected - tally.correct) + missing_versions + missing_notes;
        tally
    }

    /// Returns true if everything has arrived.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Returns true if all counts are correct.
    pub fn is_correct(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.tickets == self.expected
    }

    /// Returns the summary to print.
    pub fn summary(&self, elapsed: Duration) -> String {
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let per_event = self.writes as f64 / self.events.max(1) as f64;
        format!(
            "\nafter {} s, counted from the instance's rows and the change topic:\n\
             \x20 alerts published        {:>7}\n\
             \x20 tickets                 {:>7}   (expected {})\n\
             \x20 requests                {:>7}   ({} of them writes, {per_event:.2} per alert)\n\
             \x20 changes published       {:>7}   (for {} user edits and notes)\n\
             \x20 duplicates              {:>7}\n\
             \x20 missing                 {:>7}\n\
             {}",
            elapsed.as_secs(),
            self.events,
            self.tickets,
            self.expected,
            self.requests,
            self.writes,
            self.changes,
            self.actions,
            self.duplicates,
            self.missing,
            if self.is_correct() { "all counts are correct" } else { "A COUNT IS WRONG" }
        )
    }
}

/// A published version of a row.
struct PublishedVersion {
    version: u64,
    /// How many versions directly before it were not published.
    skipped: u64,
}

/// Returns the published versions by sys_id of the row.
fn published_versions(received: &Changes) -> HashMap<&str, Vec<PublishedVersion>> {
    let mut versions: HashMap<&str, Vec<PublishedVersion>> = HashMap::new();
    for ReceivedChange { body: change, .. } in received.values() {
        if change["note"].is_null() {
            let version = change["sys_mod_count"].as_u64().unwrap_or(0);
            let skipped = change["versions_skipped"].as_u64().unwrap_or(0);
            versions.entry(text(change, "sys_id")).or_default().push(PublishedVersion { version, skipped });
        }
    }
    versions
}

/// Returns true if a version was published, or is included in a later one because both were written between two polls.
fn is_covered(published: &HashMap<&str, Vec<PublishedVersion>>, sys_id: &str, version: u64) -> bool {
    let versions = published.get(sys_id).map_or(&[][..], Vec::as_slice);
    versions.iter().any(|p| p.version >= version && p.version - p.skipped.min(p.version) <= version)
}

fn requests(state: &Value) -> u64 {
    state["requests_total"].as_u64().unwrap_or(0)
}

/// Returns the number of requests that wrote to the table.
fn writes(state: &Value) -> u64 {
    let list = state["requests"].as_array().map_or(&[][..], Vec::as_slice);
    let of_table =
        list.iter().filter(|r| r["table"] == "incident" && (r["method"] == "POST" || r["method"] == "PATCH"));
    of_table.filter_map(|r| r["count"].as_u64()).sum()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Returns all incidents.
pub fn rows(simulator: &RunningSimulator) -> Vec<Value> {
    match simulator.rows("incident", 0, usize::MAX) {
        Value::Object(mut page) => match page.remove("rows") {
            Some(Value::Array(rows)) => rows,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Checks that the embedded broker has not deleted records, which it does above 5 MB per partition: then the counts
/// would be meaningless.
///
/// # Errors
/// A topic no longer starts at offset 0.
pub async fn check_nothing_deleted(kafka: &KafkaOptions, config: &Config) -> Result<()> {
    let inputs = vec![super::PARTITIONS; config.sinks.len()];
    let layout = crate::bridge::topics::layout(config, &inputs);
    let bootstrap = kafka.bootstrap.clone();
    let check = tokio::task::spawn_blocking(move || -> Result<()> {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &bootstrap).create()?;
        for spec in layout.inputs.iter().chain(&layout.own) {
            for partition in 0..spec.partitions.unwrap_or(1) {
                let (low, _) = consumer.fetch_watermarks(&spec.name, partition, Duration::from_secs(5))?;
                if low > 0 {
                    bail!("the embedded broker deleted records of {}/{partition}; use fewer --tickets", spec.name);
                }
            }
        }
        Ok(())
    });
    check.await.context("the task that checks the topics panicked")?
}
