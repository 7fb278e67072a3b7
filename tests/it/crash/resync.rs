//! Events applied again, by command: the values of open tickets brought up to a changed mapping while newer events come
//! and the bridge is killed, and alerts that a rule had left out read once more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::World;
use super::reference::{Event, apply, input, notes};
use crate::support::kafka;

const KEYS: usize = 60;

/// How the keys end of which newer events come.
const SOME: [char; 3] = ['0', '1', '2'];

/// How many tickets are stale, as the command says.
fn stale(told: &str) -> usize {
    let line = told.lines().find(|line| line.contains("open tickets have values")).expect("a count");
    line.split(' ').next().and_then(|count| count.parse().ok()).expect("a number")
}

fn is_open(row: &Value) -> bool {
    !["6", "7", "8"].contains(&row["state"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_is_brought_to_open_tickets_and_overtakes_nothing() {
    let Some(broker) = kafka::real("resync") else { return };
    let world = World::start(broker, 3, 1, "    row_freshness: 1s\n    fields: { description: before }\n").await;
    let events = input(6 * KEYS, KEYS, 41, world.now());
    let bridge = world.bridge(None);
    world.feed(events.clone(), 1_000).await.expect("fed");
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(60)).await;
    assert_eq!(stale(&world.done(&["resync"])), 0, "nothing has changed yet");
    bridge.stop();
    let rows = world.rows().await;
    let open: BTreeSet<&String> = rows.iter().filter(|(_, rows)| is_open(&rows[0])).map(|(key, _)| key).collect();
    assert!(open.len() > KEYS / 3 && open.len() < KEYS, "{}", open.len());
    let finished: BTreeSet<&String> = rows.keys().filter(|key| !open.contains(key)).collect();
    // A person has put something into one of them.
    let theirs = *open.iter().find(|key| !key.ends_with(SOME)).expect("an open one");
    let act = json!({"user": "beth.anglin", "sys_id": rows[theirs][0]["sys_id"],
        "set": {"description": "mine"}});
    world.person(&act).await;

    world.configure("    row_freshness: 1s\n    fields: { description: \"after {{ title }}\" }\n");
    let told = world.done(&["resync"]);
    assert_eq!(stale(&told), open.len(), "{told}");
    assert!(told.contains("Nothing was changed") && told.contains("  description"), "{told}");
    let mut bridge = world.bridge(None);
    bridge.await_assigned();
    // Meanwhile newer events of some come, and the bridge dies.
    let later: Vec<Event> = input(4 * KEYS, KEYS, 43, world.now() + 1_000_000).split_off(KEYS);
    let mut later: Vec<Event> = later.into_iter().filter(|event| event.key.ends_with(SOME)).collect();
    later.iter_mut().for_each(|event| event.title = event.title.replace('#', "#9"));
    assert!(later.len() > KEYS / 2, "{}", later.len());
    let feed = world.feed(later.clone(), 40);
    let told = world.done(&["resync", "--yes", "--rate", "20"]);
    assert!(stale(&told) > open.len() / 2 && told.contains("put before the bridge"), "{told}");
    bridge.signal("-KILL");
    assert_eq!(bridge.exit_code(Duration::from_secs(5)), None, "it was killed");
    let bridge = world.bridge(None);
    feed.await.expect("fed");
    let all = [events, later.clone()].concat();
    let expected = apply(&all);
    world.await_right(&expected, Duration::from_secs(60)).await;
    // The person's value is kept, so the bridge's own last one is not the mapping's for ever.
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let told = world.done(&["resync"]);
        if stale(&told) == 1 && told.contains(theirs.as_str()) {
            break;
        }
        assert!(Instant::now() < deadline, "{told}\n{}", bridge.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world.check(&expected).await;
    let newer: BTreeSet<&String> = later.iter().map(|event| &event.key).collect();
    for (key, rows) in world.rows().await {
        let description = rows[0]["description"].as_str().unwrap_or_default();
        if key == *theirs {
            assert_eq!(description, "mine");
        } else if open.contains(&key) {
            let expected = format!("after {}", expected[&key].title);
            assert_eq!(description, expected, "{key}");
        } else if !newer.contains(&key) {
            assert_eq!(description, "before", "{key} is finished, and nothing more has come: {finished:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_had_left_out_is_read_once_more() {
    let Some(broker) = kafka::real("reprocess") else { return };
    let world = World::start(broker, 3, 1, "    only: [\"test:alert:1*\"]\n").await;
    let events = input(5 * KEYS, KEYS, 47, world.now());
    let bridge = world.bridge(None);
    world.feed(events.clone(), 1_000).await.expect("fed");
    let let_in: Vec<Event> = events.iter().filter(|event| event.key.starts_with("test:alert:1")).cloned().collect();
    let first = apply(&let_in);
    world.await_right(&first, Duration::from_secs(60)).await;
    let (well, told) = world.command(&["reprocess", "--from", "earliest", "--yes"]);
    assert!(!well && told.contains("has members"), "not while a bridge runs: {told}");
    bridge.stop();
    world.configure("");
    let (well, told) = world.command(&["reprocess", "--from", "latest"]);
    assert!(!well && told.contains("would apply nothing"), "{told}");
    assert!(world.done(&["reprocess", "--from", "1s"]).contains("nothing to apply again"));
    let told = world.done(&["reprocess", "--from", "earliest"]);
    assert!(told.contains("Nothing was changed") && told.contains("reading goes back from"), "{told}");
    let told = world.done(&["reprocess", "--from", "earliest", "--yes"]);
    assert!(told.contains(&format!("it reads {} records again", events.len())), "{told}");
    let _bridge = world.bridge(None);
    let expected = apply(&events);
    let again = |key: &String| first.get(key).is_some_and(|ticket| ticket.state != "6");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let rows = world.rows().await;
        let wrong: Vec<String> = expected
            .iter()
            .filter_map(|(key, ticket)| {
                let of_key = rows.get(key)?;
                let row = &of_key[0];
                let written: Vec<String> = notes(row, &world.topic()).into_iter().map(|(text, _)| text).collect();
                let mut wanted = ticket.notes.clone();
                if again(key) {
                    wanted.extend(ticket.notes.clone());
                }
                let stands =
                    of_key.len() == 1 && row["state"] == ticket.state && row["short_description"] == *ticket.title;
                (!stands || written != wanted).then(|| format!("{key}: {written:?} of {wanted:?}, {row}"))
            })
            .collect();
        if wrong.is_empty() && rows.len() == expected.len() {
            break;
        }
        assert!(Instant::now() < deadline, "{} rows of {}, wrong {wrong:#?}", rows.len(), expected.len());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(first.keys().filter(|key| again(key)).count() > 2, "some took part again");
}
