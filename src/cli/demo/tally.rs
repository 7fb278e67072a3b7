//! The count at the end: from the simulator's rows and from the change topic, against what was fed. It shares no code
//! with the engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

use super::person::Acts;
use super::storm::Storm;
use crate::config::Config;
use crate::kafka::KafkaOptions;
use crate::simulators::servicenow::Running;

/// Changes read from the topic: how often each change id came.
pub type Seen = BTreeMap<String, (u64, Value)>;

/// Reads the change topic on a thread of its own.
pub struct Reader {
    seen: Arc<Mutex<Seen>>,
}

impl Reader {
    /// Starts reading from the beginning.
    ///
    /// # Errors
    /// No consumer can be made.
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
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let shared = Arc::downgrade(&seen);
        std::thread::spawn(move || {
            while let Some(seen) = shared.upgrade() {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
                let Some(change) = message.payload().and_then(|p| serde_json::from_slice::<Value>(p).ok()) else {
                    continue;
                };
                let id = change.get("change_id").and_then(Value::as_str).unwrap_or_default().to_owned();
                seen.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert((0, change)).0 += 1;
            }
        });
        Ok(Self { seen })
    }

    /// What has come so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Everything that is counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Alert bodies that the storm has.
    pub events: usize,
    /// Tickets that there should be.
    pub wanted: usize,
    /// Tickets that there are.
    pub tickets: usize,
    /// Keys whose ticket stands as it should.
    pub right: usize,
    /// Requests that the instance received.
    pub requests: u64,
    /// Of these, writes to the table.
    pub writes: u64,
    /// Changes published.
    pub changes: usize,
    /// The person's acts.
    pub acts: usize,
    /// Tickets and changes that are there more than once.
    pub doubled: usize,
    /// Keys without a right ticket, and acts without a change.
    pub lost: usize,
}

impl Tally {
    /// Counts.
    pub fn count(storm: &Storm, acts: &Acts, rows: &[Value], state: &Value, seen: &Seen) -> Self {
        let mut by_key: HashMap<&str, Vec<&Value>> = HashMap::new();
        for row in rows {
            by_key.entry(text(row, "correlation_id")).or_default().push(row);
        }
        let resolved: BTreeSet<&str> = acts.resolved.iter().map(String::as_str).collect();
        let mut tally = Self {
            events: storm.events(),
            wanted: storm.groups.len(),
            tickets: rows.len(),
            requests: requests(state),
            writes: writes(state),
            changes: seen.len(),
            acts: acts.versions.len() + acts.notes.len(),
            ..Self::default()
        };
        for group in &storm.groups {
            let rows = by_key.get(group.key.as_str()).map_or(&[][..], Vec::as_slice);
            tally.doubled += rows.len().saturating_sub(1);
            let done = group.resolved || resolved.contains(group.key.as_str());
            tally.right += usize::from(rows.first().is_some_and(|r| (text(r, "state") == "6") == done));
        }
        let published = published_versions(seen);
        let notes: BTreeSet<&str> = seen.values().filter_map(|(_, c)| c["note"]["body"].as_str()).collect();
        let missing = acts.versions.iter().filter(|(id, version)| !is_covered(&published, id, *version)).count();
        let unheard = acts.notes.iter().filter(|n| !notes.contains(n.as_str())).count();
        tally.doubled += seen.values().filter(|(times, _)| *times > 1).count();
        tally.lost = (tally.wanted - tally.right) + missing + unheard;
        tally
    }

    /// True once everything has arrived.
    pub fn is_complete(&self) -> bool {
        self.lost == 0
    }

    /// True where every count is right.
    pub fn is_right(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.tickets == self.wanted
    }

    /// For people.
    pub fn summary(&self, elapsed: Duration) -> String {
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let per_event = self.writes as f64 / self.events.max(1) as f64;
        format!(
            "\nafter {} s, counted from the instance's rows and the change topic:\n\
             \x20 alerts published        {:>7}\n\
             \x20 tickets                 {:>7}   (wanted {})\n\
             \x20 requests                {:>7}   ({} of them writes, {per_event:.2} an alert)\n\
             \x20 changes published back  {:>7}   (the person acted {} times)\n\
             \x20 doubled                 {:>7}\n\
             \x20 lost                    {:>7}\n\
             {}",
            elapsed.as_secs(),
            self.events,
            self.tickets,
            self.wanted,
            self.requests,
            self.writes,
            self.changes,
            self.acts,
            self.doubled,
            self.lost,
            if self.is_right() { "every count is right" } else { "A COUNT IS WRONG" }
        )
    }
}

/// The published versions of each row: (version, versions skipped before it).
fn published_versions(seen: &Seen) -> HashMap<&str, Vec<(u64, u64)>> {
    let mut versions: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for (_, change) in seen.values() {
        if change["note"].is_null() {
            let version = change["sys_mod_count"].as_u64().unwrap_or(0);
            let skipped = change["versions_skipped"].as_u64().unwrap_or(0);
            versions.entry(text(change, "sys_id")).or_default().push((version, skipped));
        }
    }
    versions
}

/// A version was published, or counted in a later one that overtook it between two polls.
fn is_covered(published: &HashMap<&str, Vec<(u64, u64)>>, sys_id: &str, version: u64) -> bool {
    let versions = published.get(sys_id).map_or(&[][..], Vec::as_slice);
    versions.iter().any(|&(at, skipped)| at >= version && at - skipped.min(at) <= version)
}

fn requests(state: &Value) -> u64 {
    state["requests_total"].as_u64().unwrap_or(0)
}

/// Requests that wrote to the table.
fn writes(state: &Value) -> u64 {
    let list = state["requests"].as_array().map_or(&[][..], Vec::as_slice);
    let of_table =
        list.iter().filter(|r| r["table"] == "incident" && (r["method"] == "POST" || r["method"] == "PATCH"));
    of_table.filter_map(|r| r["count"].as_u64()).sum()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// All incidents.
pub fn rows(simulator: &Running) -> Vec<Value> {
    match simulator.rows("incident", 0, usize::MAX) {
        Value::Object(mut page) => match page.remove("rows") {
            Some(Value::Array(rows)) => rows,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The embedded broker drops old records above 5 MB a partition; then the counts would prove nothing.
///
/// # Errors
/// A topic no longer begins at 0.
pub async fn check_nothing_thrown_away(kafka: &KafkaOptions, config: &Config) -> Result<()> {
    let inputs = vec![super::PARTITIONS; config.sinks.len()];
    let layout = crate::bridge::topics::layout(config, &inputs);
    let bootstrap = kafka.bootstrap.clone();
    let check = tokio::task::spawn_blocking(move || -> Result<()> {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &bootstrap).create()?;
        for spec in layout.inputs.iter().chain(&layout.own) {
            for partition in 0..spec.partitions.unwrap_or(1) {
                let (low, _) = consumer.fetch_watermarks(&spec.name, partition, Duration::from_secs(5))?;
                if low > 0 {
                    bail!("the embedded broker threw records of {}/{partition} away; try fewer --tickets", spec.name);
                }
            }
        }
        Ok(())
    });
    check.await.context("looking at the topics died")?
}
