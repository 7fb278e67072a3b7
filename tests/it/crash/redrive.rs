//! Dead letters of many keys, put back after the mapping was set right, while newer events of the same keys come and
//! the bridge is killed: in the end every ticket is as if nothing had ever been refused.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::World;
use super::reference::{apply, input};
use crate::support::kafka;

/// What the instance refuses stands in the tickets of alerts of this severity; and the brake lets a hundred keys be
/// parked.
const WRONG: &str =
    "    fields: { description: \"{{ 'a drill' if severity == 'high' else 'no exercise' }}\" }\n    brake: 1000\n";
const RIGHT: &str = "    fields: { description: no exercise }\n";

const KEYS: usize = 100;

pub(super) fn dead_letters(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
    command.arg("dead-letters").args(arguments).arg("--config").arg(world.config()).output().expect("it runs")
}

/// Open letters, as `list --json` tells them.
pub(super) fn open_letters(world: &World) -> Vec<Value> {
    let output = dead_letters(world, &["list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(super) fn keys_of(letters: &[Value]) -> BTreeSet<&str> {
    letters.iter().filter_map(|l| l["key"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_are_redriven_while_newer_events_come_and_nothing_is_overtaken() {
    let Some(broker) = kafka::real("redrive") else { return };
    let world = World::start(broker, 3, 5, WRONG).await;
    let rule =
        json!({"business_rules": [{"name": "No drills", "when": "description", "contains": "a drill", "abort": true}]});
    world.faults(&rule).await;
    let mut events = input(10 * KEYS, KEYS, 31, world.now());
    // All are opened with a severity that the instance takes, and then get one that it doesn't.
    events[..KEYS].iter_mut().for_each(|event| event.severity = "low");
    events[KEYS..6 * KEYS].iter_mut().for_each(|event| event.severity = "high");
    // An opening event for a finished ticket passes a parked key by itself (protocol rule 18), and what is redriven after
    // it is older; of such keys this test says nothing.
    events[KEYS..].iter_mut().filter(|event| event.action == "open").for_each(|event| event.action = "update");
    let (before, after) = events.split_at(6 * KEYS);
    let bridge = world.bridge(None);
    world.feed(before.to_vec(), 200).await.expect("fed");
    let refused: BTreeSet<&str> =
        before.iter().filter(|e| e.severity == "high" && e.action != "note").map(|e| e.key.as_str()).collect();
    assert!(refused.len() > KEYS * 9 / 10, "{}", refused.len());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let letters = open_letters(&world);
        if keys_of(&letters) == refused {
            break;
        }
        let count = keys_of(&letters).len();
        assert!(Instant::now() < deadline, "{count} keys of {} are parked\n{}", refused.len(), bridge.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The mapping is set right, and the bridge restarted with it.
    drop(bridge);
    world.configure(RIGHT);
    let mut bridge = world.bridge(None);
    bridge.await_assigned();
    let parked = open_letters(&world);
    let feed = world.feed(after.to_vec(), 30);
    let redrive = {
        let config = world.config();
        tokio::task::spawn_blocking(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
            command
                .args(["dead-letters", "redrive", "--rounds", "40", "--config"])
                .arg(config)
                .output()
                .expect("it runs")
        })
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    bridge.signal("-KILL");
    assert_eq!(bridge.exit_code(Duration::from_secs(5)), None, "it was killed");
    let bridge = world.bridge(None);
    let output = redrive.await.expect("it ends");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}\n{}", String::from_utf8_lossy(&output.stderr), bridge.log());
    feed.await.expect("fed");
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(60)).await;
    world.check(&expected).await;
    assert_eq!(open_letters(&world), Vec::<Value>::new());
    println!("{} letters of {} parked keys put back", parked.len(), keys_of(&parked).len());
    print!("{told}");
    drop(bridge);
}
