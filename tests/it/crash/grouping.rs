//! Grouping, while bridges are killed within the transactions of both stages: each group has one ticket, which is open
//! exactly as long as one of its alerts is open, counts the alerts, and has each of their notes once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nowbridge::kafka::options::Isolation;
use serde_json::{Value, json};

use super::harness::Harness;
use super::oracle::{compare, write_order};
use super::reference::{Event, Ticket, expected_tickets, notes, random_events};
use super::repartition::{kill_in_transactions, read_internal_topic};
use super::{is_full, size};
use crate::support::kafka;

/// Alerts are grouped by the last digit of their key. Alerts whose key ends with 0 get their own tickets.
const GROUPING: &str =
    "    grouping: { group_by: \"{% if key[-1:] != '0' %}{{ key[-1:] }}{% endif %}\", max_listed: 100 }\n";

/// The expected ticket of a group.
#[derive(Debug, Default)]
struct Expected {
    /// Severities and titles of its open alerts, sorted.
    open: Vec<String>,
    /// Impact and urgency of the open alert with the highest severity.
    worst: Option<(&'static str, &'static str)>,
    notes: Vec<String>,
}

/// Returns the expected tickets by group key, computed from the input alone.
fn expected_groups(events: &[Event], alerts: &BTreeMap<String, Ticket>) -> BTreeMap<String, Expected> {
    let mut groups: BTreeMap<String, Expected> = BTreeMap::new();
    let mut titles: BTreeMap<&str, &str> = BTreeMap::new();
    let name = |key: &str| key.chars().last().filter(|last| *last != '0').map(|last| format!("group:{last}"));
    for event in events {
        if event.action != "note" {
            titles.insert(&event.key, &event.title);
        }
        if let (Some(group), Some(note)) = (name(&event.key), &event.note) {
            let title = titles.get(event.key.as_str()).expect("every alert opens first");
            groups.entry(group).or_default().notes.push(format!("{title}: {note}"));
        }
    }
    for (key, alert) in alerts {
        let Some(group) = name(key) else { continue };
        let group = groups.entry(group).or_default();
        if alert.state != "6" {
            let severity = match (alert.impact, alert.urgency) {
                ("1", _) => "critical",
                ("2", "1") => "high",
                ("2", _) => "medium",
                _ => "low",
            };
            group.open.push(format!("{severity}: {}", alert.title));
            let rank = (alert.impact, alert.urgency);
            group.worst = Some(group.worst.map_or(rank, |worst| worst.min(rank)));
        }
    }
    for group in groups.values_mut() {
        group.notes.sort();
        group.open.sort();
    }
    groups
}

/// Returns severity and title of an alert that a line of a description lists as open.
fn open_alert(line: &str) -> Option<String> {
    let open = line.strip_prefix("- open, ").or_else(|| line.strip_prefix("- acknowledged, "))?;
    let (severity, rest) = open.split_once(", since ")?;
    Some(format!("{severity}: {}", rest.split_once("Z: ")?.1))
}

/// Returns the difference between the rows of a group and the expected ticket.
fn difference(group: &str, rows: Option<&Vec<Value>>, expected: &Expected, topic: &str) -> Option<String> {
    let Some([row]) = rows.map(Vec::as_slice) else { return Some(format!("{group}: {rows:?}")) };
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let marked = notes(row, topic);
    let mut written: Vec<String> = marked.iter().map(|(text, _)| text.clone()).collect();
    written.sort();
    let prefix = format!("{} open, ", expected.open.len());
    let mut open: Vec<String> = text("description").lines().filter_map(open_alert).collect();
    open.sort();
    let is_equal = (text("state") == "6") == expected.open.is_empty()
        && text("description").starts_with(&prefix)
        && open == expected.open
        && expected.worst.is_none_or(|worst| (text("impact"), text("urgency")) == worst)
        && written == expected.notes;
    (!is_equal).then(|| format!("{group}: {expected:?}\n  notes {marked:?}\n  {row}"))
}

async fn differences(
    harness: &Harness,
    groups: &BTreeMap<String, Expected>,
    ungrouped: &BTreeMap<String, Ticket>,
) -> Vec<String> {
    let topic = harness.sink_topic();
    let (grouped_rows, rows): (BTreeMap<String, Vec<Value>>, BTreeMap<_, _>) =
        harness.rows().await.into_iter().partition(|(key, _)| key.starts_with("group:"));
    let mut all = compare(&rows, ungrouped, &topic).differences;
    all.extend(
        groups.iter().filter_map(|(group, expected)| difference(group, grouped_rows.get(group), expected, &topic)),
    );
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_a_group_share_a_ticket_while_bridges_are_killed() {
    let Some(broker) = kafka::real("grouping") else { return };
    let harness = Harness::start(broker, 5, 5, GROUPING).await;
    harness.set_faults(&json!({"seed": 7, "drop_after_commit": 0.02, "error_500_before_commit": 0.01})).await;
    let (count, keys, kills) = if is_full() { (5_000, 500, 19) } else { (700, 70, 4) };
    let events = random_events(count, keys, 71, harness.first_event_time());
    let alerts = expected_tickets(&events);
    let groups = expected_groups(&events, &alerts);
    let ungrouped: BTreeMap<String, Ticket> = alerts.into_iter().filter(|(key, _)| key.ends_with('0')).collect();
    assert_eq!((groups.len(), ungrouped.len()), (9, keys / 10));
    let publishing = harness.publish(events.clone(), size().events_per_second);
    let mut random = fastrand::Rng::with_seed(11);
    let (other, killed) = kill_in_transactions(&harness, kills, 3..20, &mut random);
    publishing.await.expect("published");
    let topic = format!("{}.input", harness.sink_topic());
    let grouped = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let grouped = read_internal_topic(broker, &topic, Isolation::Committed);
            let mut origins: BTreeMap<String, usize> = BTreeMap::new();
            for record in &grouped {
                *origins.entry(record.header("nowbridge-origin").expect("an origin").to_owned()).or_default() += 1;
            }
            if origins.len() == count || Instant::now() > deadline {
                return origins;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    })
    .await
    .expect("read");
    let duplicates: Vec<_> = grouped.iter().filter(|(_, count)| **count > 1).collect();
    println!("{} records grouped, duplicates: {duplicates:?}", grouped.len());
    assert_eq!((grouped.len(), duplicates), (count, Vec::new()));
    let deadline = Instant::now() + Duration::from_secs(if is_full() { 300 } else { 120 });
    loop {
        let differences = differences(&harness, &groups, &ungrouped).await;
        if differences.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{}\n{}", differences.join("\n"), other.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let order = write_order(&harness.log().await);
    let open: usize = groups.values().map(|group| group.open.len()).sum();
    println!(
        "killed at {killed:?}; {} alerts in {} tickets of groups, {open} of them open, {} with their own tickets; \
         {} writes out of order, {} ghost writes",
        keys - ungrouped.len(),
        groups.len(),
        ungrouped.len(),
        order.out_of_order.len(),
        order.ghost_writes,
    );
    assert_eq!(order.out_of_order, Vec::<String>::new());
    // Another rule is rejected, because the tickets of the old groups would stay open.
    other.stop();
    harness.configure("    grouping: { group_by: \"{{ key[-2:] }}\" }\n");
    let other = harness.start_bridge(None);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !other.log().contains("open alerts would be in two groups") {
        assert!(Instant::now() < deadline, "{}", other.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(other);
    // So is a route without a rule, or with only repartitioning.
    for (lines, error) in
        [("", "previously ran with `grouping`"), ("    repartition: true\n", "the positions in its ledger")]
    {
        harness.configure(lines);
        let mut other = harness.start_bridge(None);
        assert_eq!(other.exit_code(Duration::from_secs(30)), Some(1), "{}", other.log());
        assert!(other.log().contains(error), "{}", other.log());
    }
}
