//! `resync` writes the values of a changed mapping to open tickets while newer events arrive and the bridge is killed;
//! `reprocess` applies the events of alerts that a key filter had skipped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::Harness;
use super::reference::{Event, expected_tickets, notes, random_events};
use crate::support::kafka;

const KEYS: usize = 60;

/// Last characters of the keys that get newer events.
const UPDATED_KEY_ENDINGS: [char; 3] = ['0', '1', '2'];

/// The number of outdated tickets in the command's output.
fn outdated_tickets(output: &str) -> usize {
    let line = output.lines().find(|line| line.contains("open tickets have values")).expect("a count");
    line.split(' ').next().and_then(|count| count.parse().ok()).expect("a number")
}

fn is_open(row: &Value) -> bool {
    !["6", "7", "8"].contains(&row["state"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn resync_applies_a_changed_mapping_to_open_tickets_in_order() {
    let Some(broker) = kafka::real("resync") else { return };
    let harness = Harness::start(broker, 3, 1, "    max_row_age: 1s\n    fields: { description: before }\n").await;
    let events = random_events(6 * KEYS, KEYS, 41, harness.first_event_time());
    let bridge = harness.start_bridge(None);
    harness.publish(events.clone(), 1_000).await.expect("the events are published");
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(60)).await;
    assert_eq!(outdated_tickets(&harness.command(&["resync"])), 0, "the mapping has not changed yet");
    bridge.stop();
    let rows = harness.rows().await;
    let open: BTreeSet<&String> = rows.iter().filter(|(_, rows)| is_open(&rows[0])).map(|(key, _)| key).collect();
    assert!(open.len() > KEYS / 3 && open.len() < KEYS, "{}", open.len());
    let resolved: BTreeSet<&String> = rows.keys().filter(|key| !open.contains(key)).collect();
    // A user has edited one of them.
    let edited = *open.iter().find(|key| !key.ends_with(UPDATED_KEY_ENDINGS)).expect("an open one");
    let edit = json!({"user": "beth.anglin", "sys_id": rows[edited][0]["sys_id"],
        "set": {"description": "mine"}});
    harness.edit_as_user(&edit).await;

    harness.configure("    max_row_age: 1s\n    fields: { description: \"after {{ title }}\" }\n");
    let output = harness.command(&["resync"]);
    assert_eq!(outdated_tickets(&output), open.len(), "{output}");
    assert!(output.contains("Nothing was changed") && output.contains("  description"), "{output}");
    let mut bridge = harness.start_bridge(None);
    bridge.await_assigned();
    // Meanwhile newer events of some keys arrive, and the bridge is killed.
    let later: Vec<Event> = random_events(4 * KEYS, KEYS, 43, harness.first_event_time() + 1_000_000).split_off(KEYS);
    let mut later: Vec<Event> = later.into_iter().filter(|event| event.key.ends_with(UPDATED_KEY_ENDINGS)).collect();
    later.iter_mut().for_each(|event| event.title = event.title.replace('#', "#9"));
    assert!(later.len() > KEYS / 2, "{}", later.len());
    let publishing = harness.publish(later.clone(), 40);
    let output = harness.command(&["resync", "--yes", "--rate", "20"]);
    assert!(outdated_tickets(&output) > open.len() / 2 && output.contains("Wrote the events to"), "{output}");
    bridge.signal("-KILL");
    assert_eq!(bridge.exit_code(Duration::from_secs(5)), None, "it was killed");
    let bridge = harness.start_bridge(None);
    publishing.await.expect("the events are published");
    let all = [events, later.clone()].concat();
    let expected = expected_tickets(&all);
    harness.await_expected(&expected, Duration::from_secs(60)).await;
    // The user's value is kept, so the value that the bridge wrote last stays different from the mapping's.
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let output = harness.command(&["resync"]);
        if outdated_tickets(&output) == 1 && output.contains(edited.as_str()) {
            break;
        }
        assert!(Instant::now() < deadline, "{output}\n{}", bridge.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    harness.check(&expected).await;
    let newer: BTreeSet<&String> = later.iter().map(|event| &event.key).collect();
    for (key, rows) in harness.rows().await {
        let description = rows[0]["description"].as_str().unwrap_or_default();
        if key == *edited {
            assert_eq!(description, "mine");
        } else if open.contains(&key) {
            let expected = format!("after {}", expected[&key].title);
            assert_eq!(description, expected, "{key}");
        } else if !newer.contains(&key) {
            assert_eq!(description, "before", "{key} is resolved, and no newer event has arrived: {resolved:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reprocess_applies_events_that_a_key_filter_had_skipped() {
    let Some(broker) = kafka::real("reprocess") else { return };
    let harness = Harness::start(broker, 3, 1, "    key_filter: [\"test:alert:1*\"]\n").await;
    let events = random_events(5 * KEYS, KEYS, 47, harness.first_event_time());
    let bridge = harness.start_bridge(None);
    harness.publish(events.clone(), 1_000).await.expect("the events are published");
    let filtered: Vec<Event> = events.iter().filter(|event| event.key.starts_with("test:alert:1")).cloned().collect();
    let first = expected_tickets(&filtered);
    harness.await_expected(&first, Duration::from_secs(60)).await;
    let output = harness.try_command(&["reprocess", "--from", "earliest", "--yes"]);
    assert!(!output.success && output.text.contains("has members"), "a bridge is running: {}", output.text);
    bridge.stop();
    harness.configure("");
    let output = harness.try_command(&["reprocess", "--from", "latest"]);
    assert!(!output.success && output.text.contains("applies nothing"), "{}", output.text);
    assert!(harness.command(&["reprocess", "--from", "1s"]).contains("nothing to apply again"));
    let output = harness.command(&["reprocess", "--from", "earliest"]);
    assert!(output.contains("Nothing was changed") && output.contains("reading restarts at offset"), "{output}");
    let output = harness.command(&["reprocess", "--from", "earliest", "--yes"]);
    assert!(output.contains(&format!("the bridge reads {} records again", events.len())), "{output}");
    let _bridge = harness.start_bridge(None);
    let expected = expected_tickets(&events);
    let reprocessed = |key: &String| first.get(key).is_some_and(|ticket| ticket.state != "6");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let rows = harness.rows().await;
        let wrong: Vec<String> = expected
            .iter()
            .filter_map(|(key, ticket)| {
                let of_key = rows.get(key)?;
                let row = &of_key[0];
                let written: Vec<String> =
                    notes(row, &harness.sink_topic()).into_iter().map(|(text, _)| text).collect();
                let mut wanted = ticket.notes.clone();
                if reprocessed(key) {
                    wanted.extend(ticket.notes.clone());
                }
                let is_expected =
                    of_key.len() == 1 && row["state"] == ticket.state && row["short_description"] == *ticket.title;
                (!is_expected || written != wanted)
                    .then(|| format!("{key}: notes {written:?}, expected {wanted:?}; {row}"))
            })
            .collect();
        if wrong.is_empty() && rows.len() == expected.len() {
            break;
        }
        assert!(Instant::now() < deadline, "{} rows, expected {}; wrong: {wrong:#?}", rows.len(), expected.len());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(first.keys().filter(|key| reprocessed(key)).count() > 2, "too few tickets of the first run were open");
}
