//! Redrive of the dead letters of many keys, after the mapping was corrected, while newer events of the same keys
//! arrive and the bridge is killed: finally, every ticket is as if no event had been rejected.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::Harness;
use super::reference::{expected_tickets, random_events};
use crate::support::kafka;

/// With this mapping, the instance rejects the tickets of alerts with severity `high`. The rejection limit allows a
/// hundred parked keys.
const REJECTED_MAPPING: &str = "    fields: { description: \"{{ 'a drill' if severity == 'high' else 'no exercise' }}\" }\n    rejection_limit: 1000\n";
const CORRECT_MAPPING: &str = "    fields: { description: no exercise }\n";

const KEYS: usize = 100;

/// Runs a `dead-letters` command.
pub(super) fn dead_letters(harness: &Harness, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
    command.arg("dead-letters").args(arguments).arg("--config").arg(harness.config()).output().expect("nowbridge runs")
}

/// Returns the open dead letters, from `list --json`.
pub(super) fn open_letters(harness: &Harness) -> Vec<Value> {
    let output = dead_letters(harness, &["list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Returns the keys of dead letters.
pub(super) fn keys_of(letters: &[Value]) -> BTreeSet<&str> {
    letters.iter().filter_map(|l| l["key"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_keys_are_redriven_in_order_while_newer_events_arrive() {
    let Some(broker) = kafka::real("redrive") else { return };
    let harness = Harness::start(broker, 3, 5, REJECTED_MAPPING).await;
    let rule = json!({"business_rules": [{"name": "No drills", "column": "description", "contains": "a drill", "abort": true}]});
    harness.set_faults(&rule).await;
    let mut events = random_events(10 * KEYS, KEYS, 31, harness.first_event_time());
    // All alerts open with a severity that the instance accepts, and then get one that it rejects.
    events[..KEYS].iter_mut().for_each(|event| event.severity = "low");
    events[KEYS..6 * KEYS].iter_mut().for_each(|event| event.severity = "high");
    // An opening event of a key without an open ticket releases the key by itself (protocol rule 18), and redriven
    // events after it are older. This test does not examine such keys.
    events[KEYS..].iter_mut().filter(|event| event.action == "open").for_each(|event| event.action = "update");
    let (before, after) = events.split_at(6 * KEYS);
    let bridge = harness.start_bridge(None);
    harness.publish(before.to_vec(), 200).await.expect("published");
    let rejected: BTreeSet<&str> =
        before.iter().filter(|e| e.severity == "high" && e.action != "note").map(|e| e.key.as_str()).collect();
    assert!(rejected.len() > KEYS * 9 / 10, "{}", rejected.len());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let letters = open_letters(&harness);
        if keys_of(&letters) == rejected {
            break;
        }
        let count = keys_of(&letters).len();
        assert!(Instant::now() < deadline, "{count} of {} keys are parked\n{}", rejected.len(), bridge.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The mapping is corrected, and the bridge restarted with it.
    drop(bridge);
    harness.configure(CORRECT_MAPPING);
    let mut bridge = harness.start_bridge(None);
    bridge.await_assigned();
    let parked = open_letters(&harness);
    let publishing = harness.publish(after.to_vec(), 30);
    let redrive = {
        let config = harness.config();
        tokio::task::spawn_blocking(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_nowbridge"));
            command
                .args(["dead-letters", "redrive", "--rounds", "40", "--config"])
                .arg(config)
                .output()
                .expect("nowbridge runs")
        })
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    bridge.signal("-KILL");
    assert_eq!(bridge.exit_code(Duration::from_secs(5)), None, "it was killed");
    let bridge = harness.start_bridge(None);
    let output = redrive.await.expect("no panic");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}\n{}", String::from_utf8_lossy(&output.stderr), bridge.log());
    publishing.await.expect("published");
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(60)).await;
    harness.check(&expected).await;
    assert_eq!(open_letters(&harness), Vec::<Value>::new());
    println!("{} dead letters of {} parked keys redriven", parked.len(), keys_of(&parked).len());
    print!("{printed}");
    drop(bridge);
}
