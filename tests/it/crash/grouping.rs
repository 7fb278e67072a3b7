//! Many alerts in one ticket, while bridges are killed within the transactions of both stages: each group has one ticket
//! that is open exactly as long as one of its alerts is, counts them, and has each of their notes once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nowbridge::kafka::options::Isolation;
use serde_json::{Value, json};

use super::harness::World;
use super::oracle::{judge, overtaken};
use super::reference::{Event, Ticket, apply, input, notes};
use super::repartition::{internal, kill_in_transactions};
use super::{is_full, size};
use crate::support::kafka;

/// Alerts share a ticket by the last digit of their key; those that end with 0 keep tickets of their own.
const DIGEST: &str = "    digest: { group_by: \"{% if key[-1:] != '0' %}{{ key[-1:] }}{% endif %}\", list: 100 }\n";

/// What the ticket of a group must be.
#[derive(Debug, Default)]
struct Expected {
    /// Titles and severities of its open alerts.
    open: Vec<String>,
    worst: Option<(&'static str, &'static str)>,
    notes: Vec<String>,
}

/// The groups by their keys, from the input alone.
fn groups(events: &[Event], alerts: &BTreeMap<String, Ticket>) -> BTreeMap<String, Expected> {
    let mut groups: BTreeMap<String, Expected> = BTreeMap::new();
    let mut titles: BTreeMap<&str, &str> = BTreeMap::new();
    let name = |key: &str| key.chars().last().filter(|last| *last != '0').map(|last| format!("digest:{last}"));
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
            let worth = (alert.impact, alert.urgency);
            group.worst = Some(group.worst.map_or(worth, |worst| worst.min(worth)));
        }
    }
    for group in groups.values_mut() {
        group.notes.sort();
        group.open.sort();
    }
    groups
}

/// Severity and title of an alert that a description lists as open.
fn listed(line: &str) -> Option<String> {
    let open = line.strip_prefix("- open, ").or_else(|| line.strip_prefix("- acknowledged, "))?;
    let (severity, rest) = open.split_once(", since ")?;
    Some(format!("{severity}: {}", rest.split_once("Z: ")?.1))
}

/// What is wrong with a group's rows.
fn wrong(group: &str, rows: Option<&Vec<Value>>, expected: &Expected, topic: &str) -> Option<String> {
    let Some([row]) = rows.map(Vec::as_slice) else { return Some(format!("{group}: {rows:?}")) };
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let marked = notes(row, topic);
    let mut written: Vec<String> = marked.iter().map(|(text, _)| text.clone()).collect();
    written.sort();
    let begins = format!("{} open, ", expected.open.len());
    let mut open: Vec<String> = text("description").lines().filter_map(listed).collect();
    open.sort();
    let right = (text("state") == "6") == expected.open.is_empty()
        && text("description").starts_with(&begins)
        && open == expected.open
        && expected.worst.is_none_or(|worst| (text("impact"), text("urgency")) == worst)
        && written == expected.notes;
    (!right).then(|| format!("{group}: {expected:?}\n  notes {marked:?}\n  {row}"))
}

async fn all_wrong(
    world: &World,
    groups: &BTreeMap<String, Expected>,
    alone: &BTreeMap<String, Ticket>,
) -> Vec<String> {
    let topic = world.topic();
    let (of_groups, rows): (BTreeMap<String, Vec<Value>>, BTreeMap<_, _>) =
        world.rows().await.into_iter().partition(|(key, _)| key.starts_with("digest:"));
    let mut all = judge(&rows, alone, &topic).differences;
    all.extend(groups.iter().filter_map(|(group, expected)| wrong(group, of_groups.get(group), expected, &topic)));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_of_a_group_share_a_ticket_while_bridges_are_killed() {
    let Some(broker) = kafka::real("digests") else { return };
    let world = World::start(broker, 5, 5, DIGEST).await;
    world.faults(&json!({"seed": 7, "drop_after_commit": 0.02, "error_500_before_commit": 0.01})).await;
    let (count, keys, kills) = if is_full() { (5_000, 500, 19) } else { (700, 70, 4) };
    let events = input(count, keys, 71, world.now());
    let alerts = apply(&events);
    let groups = groups(&events, &alerts);
    let alone: BTreeMap<String, Ticket> = alerts.into_iter().filter(|(key, _)| key.ends_with('0')).collect();
    assert_eq!((groups.len(), alone.len()), (9, keys / 10));
    let feed = world.feed(events.clone(), size().per_second);
    let mut random = fastrand::Rng::with_seed(11);
    let (other, killed) = kill_in_transactions(&world, kills, 3..20, &mut random);
    feed.await.expect("fed");
    let topic = format!("{}.grouped", world.topic());
    let grouped = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let grouped = internal(broker, &topic, Isolation::Committed);
            let mut origins: BTreeMap<String, usize> = BTreeMap::new();
            for record in &grouped {
                *origins.entry(record.header("nowbridge-origin").expect("one").to_owned()).or_default() += 1;
            }
            if origins.len() == count || Instant::now() > deadline {
                return origins;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    })
    .await
    .expect("read");
    let doubled: Vec<_> = grouped.iter().filter(|(_, count)| **count > 1).collect();
    println!("{} records grouped, doubled: {doubled:?}", grouped.len());
    assert_eq!((grouped.len(), doubled), (count, Vec::new()));
    let deadline = Instant::now() + Duration::from_secs(if is_full() { 300 } else { 120 });
    loop {
        let wrong = all_wrong(&world, &groups, &alone).await;
        if wrong.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{}\n{}", wrong.join("\n"), other.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (disordered, ghosts) = overtaken(&world.log().await);
    let open: usize = groups.values().map(|group| group.open.len()).sum();
    println!(
        "killed at {killed:?}; {} alerts in {} tickets of groups, {open} of them open, {} with tickets of their own; \
         {} writes out of order, {ghosts} ghosts struck",
        keys - alone.len(),
        groups.len(),
        alone.len(),
        disordered.len(),
    );
    assert_eq!(disordered, Vec::<String>::new());
    // Another rule would leave the tickets of the old groups open.
    other.stop();
    world.configure("    digest: { group_by: \"{{ key[-2:] }}\" }\n");
    let other = world.bridge(None);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !other.log().contains("open alerts would be in two groups") {
        assert!(Instant::now() < deadline, "{}", other.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(other);
    // Nor is it what it was without a rule, or with a topic of alerts.
    for (more, told) in [("", "it has been run with `digest`"), ("    rekey: true\n", "goes by the positions of")] {
        world.configure(more);
        let mut other = world.bridge(None);
        assert_eq!(other.exit_code(Duration::from_secs(30)), Some(1), "{}", other.log());
        assert!(other.log().contains(told), "{}", other.log());
    }
}
