//! Crash tests: on a real Kafka, with the bridge and the simulator as separate processes, the bridge is killed again
//! and again at failpoints, responses are lost, and writes are committed late; in the end every ticket must equal the
//! reference model. `NOWBRIDGE_FULL=1` runs the full size: 5,000 events of 500 keys, 20 kills, ghost writes up to 20 s
//! late.

mod alerts;
mod chaos;
mod grouping;
mod harness;
mod ledger_admin;
mod oracle;
mod redrive;
mod reference;
mod repartition;
mod resync;
mod workload;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::kafka;
use harness::Harness;
use reference::{expected_tickets, random_events};
use workload::{Pattern, Profile};

/// Size of a run.
struct Size {
    events: usize,
    keys: usize,
    kills: usize,
    /// Delay of ghost writes: minimum, maximum.
    ghost_delay_ms: [u64; 2],
    /// Seconds.
    max_transaction_time: u64,
    events_per_second: usize,
    /// Multiplies the probabilities of faults of the full size, so that every fault occurs although there are fewer
    /// writes.
    fault_factor: f64,
    throttled_every_ms: u64,
}

fn is_full() -> bool {
    std::env::var_os("NOWBRIDGE_FULL").is_some()
}

fn size() -> Size {
    if is_full() {
        Size {
            events: 5_000,
            keys: 500,
            kills: 20,
            ghost_delay_ms: [1_000, 20_000],
            max_transaction_time: 25,
            events_per_second: 30,
            fault_factor: 1.0,
            throttled_every_ms: 20_000,
        }
    } else {
        Size {
            events: 700,
            keys: 70,
            kills: 5,
            ghost_delay_ms: [1_000, 3_000],
            max_transaction_time: 5,
            events_per_second: 15,
            fault_factor: 4.0,
            throttled_every_ms: 7_000,
        }
    }
}

const FAULTS: [&str; 7] = [
    "drop_after_commit",
    "ghost",
    "error_500_after_commit",
    "gateway_502_after_commit",
    "error_500_before_commit",
    "gateway_503_before_commit",
    "throttle",
];

const FAILPOINTS: [&str; 5] = ["claim", "send", "in-flight", "entry", "commit"];

/// How a run writes.
struct Mode {
    name: &'static str,
    /// Lines of the sink's configuration.
    sink_lines: &'static str,
    /// Faults that only this way of writing can meet.
    faults: Value,
    /// Of these, the ones that must occur.
    required_faults: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_correct_after_kills_lost_responses_and_ghost_writes() {
    let mode = Mode { name: "crash test", sink_lines: "", faults: json!({}), required_faults: &[] };
    let state = crash_test(mode, size()).await;
    assert!(state.is_none_or(|state| state["counters"]["batch_items"].is_null()), "no batch was configured");
}

/// In batches fewer requests contain more events, so more events are published, and faster. The batches are small, so
/// that there are enough of them for every fault to occur.
#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_correct_after_kills_lost_responses_and_ghost_writes_of_batches() {
    let base = size();
    let size = Size {
        events: if is_full() { 9_000 } else { 1_500 },
        keys: if is_full() { 600 } else { 150 },
        events_per_second: if is_full() { 50 } else { 40 },
        ..base
    };
    let faults = json!({"batch_quota_exceeded": size.fault_factor * 0.02, "batch_item_500": size.fault_factor * 0.004});
    let mode = Mode {
        name: "crash test of batches",
        sink_lines: "    write: batch\n    batch: { size: 6, linger: 200ms }\n",
        faults,
        required_faults: &["batch_quota_exceeded", "batch_item_500"],
    };
    let Some(state) = crash_test(mode, size).await else { return };
    let (items, ended) = (&state["counters"]["batch_items"], &state["counters"]["batches_ended_early"]);
    let requests = state["requests"].as_array().expect("counts");
    let batches: u64 = requests.iter().filter(|r| r["table"] == "batch").filter_map(|r| r["count"].as_u64()).sum();
    println!("{batches} batches with {items} items; the quota ended {ended} of them");
    assert!(items.as_u64() > Some(2 * batches), "too few items per batch: {items} in {batches}");
}

/// Writes through a staging table, whose transform map reports the result of a row inside a 201.
#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_correct_after_kills_lost_responses_and_ghost_writes_of_import_sets() {
    let size = size();
    let faults = json!({"import_error_after_commit": size.fault_factor * 0.01});
    let mode = Mode {
        name: "crash test of import sets",
        sink_lines: "    write: import_set\n    import_set: { staging: u_nowbridge_incident }\n",
        faults,
        required_faults: &["import_error_after_commit"],
    };
    let Some(state) = crash_test(mode, size).await else { return };
    let requests = state["requests"].as_array().expect("counts");
    let wrote = |r: &&Value| r["table"] == "incident" && r["method"] != "GET";
    assert_eq!(requests.iter().filter(wrote).count(), 0, "writes outside the staging table: {requests:?}");
    println!("{} rows were staged", state["counters"]["import_rows"]);
}

/// Writes events, from which the instance creates alerts. Its responses contain only how many events it accepted.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_correct_after_kills_lost_responses_and_ghost_writes_of_events() {
    let base = size();
    let size = Size {
        events: if is_full() { 9_000 } else { 1_500 },
        keys: if is_full() { 600 } else { 150 },
        events_per_second: if is_full() { 50 } else { 40 },
        // There are few requests, between kills that are about seven seconds apart.
        throttled_every_ms: 3_000,
        ..base
    };
    let mode = Mode {
        name: "crash test of events",
        sink_lines: "    write: event\n    event: { size: 6, linger: 200ms }\n",
        faults: json!({"event_not_inserted": size.fault_factor * 0.004}),
        required_faults: &["event_not_inserted"],
    };
    let Some(state) = crash_test(mode, size).await else { return };
    let requests = state["requests"].as_array().expect("counts");
    let wrote = |r: &&Value| r["method"] != "GET" && r["table"] != "em_event";
    assert_eq!(requests.iter().filter(wrote).count(), 0, "writes other than events: {requests:?}");
    println!("{} requests contained events", state["counters"]["event_requests"]);
}

/// Publishes, kills and checks. Returns the simulator's counters at the end, or `None` if there is no real Kafka.
async fn crash_test(mode: Mode, size: Size) -> Option<Value> {
    let broker = kafka::real(mode.name)?;
    let harness = Harness::start(broker, 3, size.max_transaction_time, mode.sink_lines).await;
    let scaled = |probability: f64| size.fault_factor * probability;
    harness
        .set_faults(&json!({
            "seed": 5,
            "drop_after_commit": scaled(0.02), "ghost": scaled(0.01), "ghost_delay_ms": size.ghost_delay_ms,
            "error_500_after_commit": scaled(0.005), "gateway_502_after_commit": scaled(0.005),
            "error_500_before_commit": scaled(0.005), "gateway_503_before_commit": scaled(0.005),
            "throttle": {"every_ms": size.throttled_every_ms, "for_ms": 1_000, "retry_after": 1},
        }))
        .await;
    harness.set_faults(&mode.faults).await;
    let events = random_events(size.events, size.keys, 11, harness.first_event_time());
    let publishing = harness.publish(events.clone(), size.events_per_second);
    let mut killed_at = Vec::new();
    let mut random = fastrand::Rng::with_seed(3);
    for number in 0..size.kills {
        let failpoint = FAILPOINTS[number % FAILPOINTS.len()];
        let mut bridge = harness.start_bridge(Some(&format!("{failpoint}:{}", random.u8(3..20))));
        // If too little is left to do, the failpoint is not reached; such a kill is not counted.
        if bridge.await_failpoint(Duration::from_secs(40)) {
            killed_at.push(failpoint);
        }
    }
    let bridge = harness.start_bridge(None);
    publishing.await.expect("the events are published");
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(if size.kills > 5 { 400 } else { 150 })).await;
    let state = harness.state().await;
    println!("{} kills: {killed_at:?}", killed_at.len());
    println!("faults: {}", state["faults_injected"]);
    harness.check(&expected).await;
    println!("{} events, {} requests", events.len(), state["requests_total"]);
    for failpoint in FAILPOINTS {
        let wanted = size.kills / FAILPOINTS.len() / 2 + 1;
        let times = killed_at.iter().filter(|k| **k == failpoint).count();
        assert!(times >= wanted.min(size.kills / FAILPOINTS.len()), "only {times} kills at {failpoint}");
    }
    for fault in FAULTS.iter().chain(mode.required_faults) {
        let faults = &state["faults_injected"];
        assert!(faults[fault].as_u64() > Some(0), "fault {fault} did not occur: {faults}");
    }
    drop(bridge);
    Some(state)
}

/// The flapping alerts of the fault benchmark at a small size; `cargo bench --bench delivery -- report` runs the full
/// size.
#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_correct_after_flapping_alerts() {
    let Some(broker) = kafka::real("flapping alerts") else { return };
    let harness = Harness::start(broker, 3, 5, "").await;
    let duration = Duration::from_secs(4);
    let flap = Profile { pattern: Pattern::Flap, events: 300, keys: 15, duration, critical_every: 30 };
    let events = flap.generate(1, harness.first_event_time()).events;
    let bridge = harness.start_bridge(None);
    harness.publish(events.clone(), 75).await.expect("the events are published");
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(30)).await;
    harness.check(&expected).await;
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn user_edits_are_preserved() {
    let Some(broker) = kafka::real("user edits") else { return };
    let harness = Harness::start(broker, 10, 5, "    max_row_age: 1s\n").await;
    let bridge = harness.start_bridge(None);
    let each = 50;
    let start = harness.first_event_time();
    let mut opened = random_events(4 * each, 4 * each, 1, start);
    // So every value that the user sets differs from what the bridge wrote.
    opened.iter_mut().for_each(|e| e.severity = "critical");
    harness.publish(opened.clone(), 1_000).await.expect("the events are published");
    harness.await_expected(&expected_tickets(&opened), Duration::from_secs(60)).await;
    for (number, event) in opened.iter().enumerate() {
        let set = match number / each {
            0 => json!({"state": "7", "close_code": "Solution provided", "close_notes": "done"}),
            1 => json!({"state": "6", "close_code": "Solution provided", "close_notes": "done"}),
            2 => json!({"assigned_to": "beth.anglin", "short_description": "a better name"}),
            _ => json!({"impact": "3", "urgency": "3"}),
        };
        let edit = json!({"correlation_id": event.key, "user": "beth.anglin", "set": set});
        harness.edit_as_user(&edit).await;
    }
    let edited = harness.rows().await;
    // Longer than `max_row_age`, so that the bridge reads the rows before it writes.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let mut later = opened.clone();
    for (number, event) in later.iter_mut().enumerate() {
        event.action = ["update", "acknowledge"][number % 2];
        event.severity = "high";
        event.occurred_at = start + 100_000;
        event.title = format!("news {number}");
        event.note = (number / each != 0).then(|| format!("news {number}"));
    }
    harness.publish(later.clone(), 1_000).await.expect("the events are published");
    let noted: Vec<_> = later.iter().filter(|e| e.note.is_some()).map(|e| e.key.clone()).collect();
    harness.await_notes(&noted, Duration::from_secs(90)).await;
    let state = harness.state().await;
    assert_eq!(state["writes_to_closed_rows"], 0);
    let rows = harness.rows().await;
    for (number, event) in opened.iter().enumerate() {
        let row = &rows[&event.key][0];
        match number / each {
            0 => assert_eq!(row["state"], "7"),
            1 => assert_eq!(row["state"], "6"),
            2 => {
                assert_eq!(row["assigned_to"], edited[&event.key][0]["assigned_to"], "{row}");
                assert_ne!(row["assigned_to"], "");
                assert_eq!(row["short_description"], "a better name");
                assert_eq!(row["impact"], "2", "the bridge writes columns that no user changed");
            }
            _ => assert_eq!((&row["impact"], &row["urgency"]), (&json!("3"), &json!("3")), "{row}"),
        }
    }
    println!("user edits: {} tickets, 0 writes to closed tickets, 0 values of users overwritten", opened.len());
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_correct_after_bridges_are_killed_added_and_frozen() {
    let Some(broker) = kafka::real("killed and frozen bridges") else { return };
    let harness = Harness::start(broker, 20, 5, "").await;
    let events = random_events(600, 60, 21, harness.first_event_time());
    let publishing = harness.publish(events.clone(), 12);
    let _first = harness.start_bridge(None);
    let second = harness.start_bridge(None);
    second.await_assigned();
    second.signal("-KILL");
    let third = harness.start_bridge(None);
    third.await_assigned();
    // Longer than the session timeout: its partitions go to the other bridge while it still believes that it owns them.
    third.signal("-STOP");
    tokio::time::sleep(Duration::from_secs(9)).await;
    third.signal("-CONT");
    publishing.await.expect("the events are published");
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(120)).await;
    harness.check(&expected).await;
}

/// A request that ends within the drain leaves no ambiguous write. A longer one becomes an ambiguous write of the next
/// owner, which verifies it. `NOWBRIDGE_FULL=1` tests the long one, because it takes minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_with_long_requests_in_flight_loses_nothing() {
    let Some(broker) = kafka::real("rolling restart") else { return };
    let (latency, request_deadline) = if is_full() { (30, 40) } else { (10, 20) };
    let harness = Harness::start(broker, request_deadline, 5, "").await;
    let events = random_events(40, 20, 31, harness.first_event_time());
    let pair = [harness.start_bridge(None), harness.start_bridge(None)];
    pair.iter().for_each(harness::Bridge::await_assigned);
    harness.set_faults(&json!({"latency_ms": latency * 1_000})).await;
    harness.publish(events.clone(), 1_000).await.expect("the events are published");
    harness.await_in_flight(8, Duration::from_secs(20)).await;
    let started = Instant::now();
    for mut bridge in pair {
        bridge.signal("-TERM");
        assert_eq!(bridge.exit_code(Duration::from_secs(45)), Some(0), "{}", bridge.log());
    }
    println!("requests of {latency} s: both bridges drained in {} s", started.elapsed().as_secs());
    harness.set_faults(&json!({"latency_ms": 0})).await;
    let last = harness.start_bridge(None);
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(180)).await;
    harness.check(&expected).await;
    let count = |text: &str| last.log().matches(text).count();
    let deadline = Instant::now() + Duration::from_secs(90);
    while count(AMBIGUOUS) != count(RESOLVED) {
        assert!(Instant::now() < deadline, "ambiguous writes are left: {}", last.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("ambiguous writes that the next owner resolved: {}", count(RESOLVED));
    assert_eq!(
        count(AMBIGUOUS) > 0,
        is_full(),
        "exactly the requests longer than the drain leave ambiguous writes: {}",
        last.log()
    );
}

/// The bridge's log lines about an ambiguous write: when it starts to verify it, and when the outcome is known.
const AMBIGUOUS: &str = "write outcome unknown, verifying";
const RESOLVED: &str = "write outcome resolved";
