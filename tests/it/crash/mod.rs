//! The crash test: on a real Kafka, with the bridge and the simulator as processes of their own, the bridge is killed
//! again and again at chosen instructions, answers are lost, writes strike late; in the end every ticket equals a
//! reference model. `NOWBRIDGE_FULL=1` runs the full size: 5,000 events over 500 keys, 20 kills, ghosts up to 20 s late.

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
use harness::World;
use reference::{apply, input};
use workload::{Kind, Measures};

/// Sizes of a run.
struct Size {
    events: usize,
    keys: usize,
    kills: usize,
    ghost_ms: [u64; 2],
    settle: u64,
    per_second: usize,
    /// How much more often faults strike than in the full size: all of them must have struck, however few the writes.
    worse: f64,
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
            ghost_ms: [1_000, 20_000],
            settle: 25,
            per_second: 30,
            worse: 1.0,
            throttled_every_ms: 20_000,
        }
    } else {
        Size {
            events: 700,
            keys: 70,
            kills: 5,
            ghost_ms: [1_000, 3_000],
            settle: 5,
            per_second: 15,
            worse: 4.0,
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

const WINDOWS: [&str; 5] = ["claim", "send", "in-flight", "entry", "commit"];

/// How a run writes: lines of its route, and the faults that only this way of writing can meet.
struct Mode {
    name: &'static str,
    lines: &'static str,
    faults: Value,
    struck: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ticket_is_right_after_crashes_lost_answers_and_ghosts() {
    let mode = Mode { name: "crash test", lines: "", faults: json!({}), struck: &[] };
    let world = crash(mode, size()).await;
    assert!(world.is_none_or(|state| state["counts"]["batch_items"].is_null()), "no batch was asked for");
}

/// In batches fewer requests carry more events, so more events are fed, and more quickly; the batches are small, so
/// that there are enough of them for every fault to strike.
#[tokio::test(flavor = "multi_thread")]
async fn every_ticket_is_right_after_crashes_lost_answers_and_ghosts_of_batches() {
    let plain = size();
    let size = Size {
        events: if is_full() { 9_000 } else { 1_500 },
        keys: if is_full() { 600 } else { 150 },
        per_second: if is_full() { 50 } else { 40 },
        ..plain
    };
    let faults = json!({"batch_quota": size.worse * 0.02, "batch_item_500": size.worse * 0.004});
    let struck = &["batch_quota", "batch_item_500"];
    let lines = "    write: batch\n    batch: { size: 6, linger: 200ms }\n";
    let Some(state) = crash(Mode { name: "crash test of batches", lines, faults, struck }, size).await else { return };
    let (items, ended) = (&state["counts"]["batch_items"], &state["counts"]["batches_ended_early"]);
    let requests = state["requests"].as_array().expect("counts");
    let batches: u64 = requests.iter().filter(|r| r["table"] == "batch").filter_map(|r| r["count"].as_u64()).sum();
    println!("{batches} batches of {items} items, {ended} of them ended by the quota");
    assert!(items.as_u64() > Some(2 * batches), "requests went together: {items} in {batches}");
}

/// Through a staging table, whose transform map tells what became of a row inside of a 201.
#[tokio::test(flavor = "multi_thread")]
async fn every_ticket_is_right_after_crashes_lost_answers_and_ghosts_of_import_sets() {
    let size = size();
    let faults = json!({"import_error_after_commit": size.worse * 0.01});
    let mode = Mode {
        name: "crash test of import sets",
        lines: "    write: import_set\n    import_set: { staging: u_nowbridge_incident }\n",
        faults,
        struck: &["import_error_after_commit"],
    };
    let Some(state) = crash(mode, size).await else { return };
    let requests = state["requests"].as_array().expect("counts");
    let wrote = |r: &&Value| r["table"] == "incident" && r["method"] != "GET";
    assert_eq!(requests.iter().filter(wrote).count(), 0, "nothing was written but by the staging table: {requests:?}");
    println!("{} rows were staged", state["counts"]["import_rows"]);
}

/// As events, of which the instance makes alerts, and of which it tells only how many it took.
#[tokio::test(flavor = "multi_thread")]
async fn every_ticket_is_right_after_crashes_lost_answers_and_ghosts_of_events() {
    let plain = size();
    let size = Size {
        events: if is_full() { 9_000 } else { 1_500 },
        keys: if is_full() { 600 } else { 150 },
        per_second: if is_full() { 50 } else { 40 },
        // Requests are few, and come between kills that are about seven seconds apart.
        throttled_every_ms: 3_000,
        ..plain
    };
    let faults = json!({"event_not_taken": size.worse * 0.004});
    let lines = "    write: event\n    event: { size: 6, linger: 200ms }\n";
    let mode = Mode { name: "crash test of events", lines, faults, struck: &["event_not_taken"] };
    let Some(state) = crash(mode, size).await else { return };
    let requests = state["requests"].as_array().expect("counts");
    let wrote = |r: &&Value| r["method"] != "GET" && r["table"] != "em_event";
    assert_eq!(requests.iter().filter(wrote).count(), 0, "nothing was written but events: {requests:?}");
    println!("{} requests carried events", state["counts"]["event_requests"]);
}

/// Runs, kills and checks; the instance's counts at the end.
async fn crash(mode: Mode, size: Size) -> Option<Value> {
    let broker = kafka::real(mode.name)?;
    let world = World::start(broker, 3, size.settle, mode.lines).await;
    let worse = |probability: f64| size.worse * probability;
    world
        .faults(&json!({
            "seed": 5, "drop_after_commit": worse(0.02), "ghost": worse(0.01), "ghost_ms": size.ghost_ms,
            "error_500_after_commit": worse(0.005), "gateway_502_after_commit": worse(0.005),
            "error_500_before_commit": worse(0.005), "gateway_503_before_commit": worse(0.005),
            "throttle": {"every_ms": size.throttled_every_ms, "for_ms": 1_000, "retry_after": 1},
        }))
        .await;
    world.faults(&mode.faults).await;
    let events = input(size.events, size.keys, 11, world.now());
    let feed = world.feed(events.clone(), size.per_second);
    let mut killed = Vec::new();
    let mut random = fastrand::Rng::with_seed(3);
    for number in 0..size.kills {
        let window = WINDOWS[number % WINDOWS.len()];
        let mut bridge = world.bridge(Some(&format!("{window}:{}", random.u8(3..20))));
        // A window that does not come, because little is left to do, ends by a plain SIGKILL and is not counted.
        if bridge.dies_within(Duration::from_secs(40)) {
            killed.push(window);
        }
    }
    let bridge = world.bridge(None);
    feed.await.expect("fed");
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(if size.kills > 5 { 400 } else { 150 })).await;
    let state = world.state().await;
    println!("killed at: {killed:?}");
    println!("faults: {}", state["faults_struck"]);
    world.check(&expected).await;
    println!("{} events, {} requests", events.len(), state["requests_total"]);
    for window in WINDOWS {
        let wanted = size.kills / WINDOWS.len() / 2 + 1;
        let times = killed.iter().filter(|k| **k == window).count();
        assert!(times >= wanted.min(size.kills / WINDOWS.len()), "killed only {times} times at {window}");
    }
    for fault in FAULTS.iter().chain(mode.struck) {
        assert!(state["faults_struck"][fault].as_u64() > Some(0), "no {fault} happened: {}", state["faults_struck"]);
    }
    drop(bridge);
    Some(state)
}

/// The fault benchmark's flapping alerts, small: `cargo bench --bench delivery -- report` has it at its full size.
#[tokio::test(flavor = "multi_thread")]
async fn every_ticket_is_right_after_alerts_that_flap() {
    let Some(broker) = kafka::real("flapping") else { return };
    let world = World::start(broker, 3, 5, "").await;
    let lasts = Duration::from_secs(4);
    let flap = Measures { kind: Kind::Flap, events: 300, keys: 15, lasts, critical_every: 30 };
    let events = flap.trace(1, world.now()).events;
    let bridge = world.bridge(None);
    world.feed(events.clone(), 75).await.expect("fed");
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(30)).await;
    world.check(&expected).await;
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_did_to_their_tickets_stands() {
    let Some(broker) = kafka::real("people") else { return };
    let world = World::start(broker, 10, 5, "    row_freshness: 1s\n").await;
    let bridge = world.bridge(None);
    let each = 50;
    let start = world.now();
    let mut opened = input(4 * each, 4 * each, 1, start);
    // Whatever a person chooses then differs from what the bridge wrote.
    opened.iter_mut().for_each(|e| e.severity = "critical");
    world.feed(opened.clone(), 1_000).await.expect("fed");
    world.await_right(&apply(&opened), Duration::from_secs(60)).await;
    for (number, event) in opened.iter().enumerate() {
        let set = match number / each {
            0 => json!({"state": "7", "close_code": "Solution provided", "close_notes": "done"}),
            1 => json!({"state": "6", "close_code": "Solution provided", "close_notes": "done"}),
            2 => json!({"assigned_to": "beth.anglin", "short_description": "a better name"}),
            _ => json!({"impact": "3", "urgency": "3"}),
        };
        let act = json!({"correlation_id": event.key, "user": "beth.anglin", "set": set});
        world.person(&act).await;
    }
    let left = world.rows().await;
    // Later than the row's freshness, so that the bridge looks before it writes.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let mut later = opened.clone();
    for (number, event) in later.iter_mut().enumerate() {
        event.action = ["update", "acknowledge"][number % 2];
        event.severity = "high";
        event.occurred_at = start + 100_000;
        event.title = format!("news {number}");
        event.note = (number / each != 0).then(|| format!("news {number}"));
    }
    world.feed(later.clone(), 1_000).await.expect("fed");
    let noted: Vec<_> = later.iter().filter(|e| e.note.is_some()).map(|e| e.key.clone()).collect();
    world.await_notes(&noted, Duration::from_secs(90)).await;
    let state = world.state().await;
    assert_eq!(state["writes_to_closed_rows"], 0);
    let rows = world.rows().await;
    for (number, event) in opened.iter().enumerate() {
        let row = &rows[&event.key][0];
        match number / each {
            0 => assert_eq!(row["state"], "7"),
            1 => assert_eq!(row["state"], "6"),
            2 => {
                assert_eq!(row["assigned_to"], left[&event.key][0]["assigned_to"], "{row}");
                assert_ne!(row["assigned_to"], "");
                assert_eq!(row["short_description"], "a better name");
                assert_eq!(row["impact"], "2", "what no person changed is written");
            }
            _ => assert_eq!((&row["impact"], &row["urgency"]), (&json!("3"), &json!("3")), "{row}"),
        }
    }
    println!("people: {} tickets, 0 writes to closed tickets, 0 of their values overwritten", opened.len());
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_are_killed_added_and_frozen() {
    let Some(broker) = kafka::real("two instances") else { return };
    let world = World::start(broker, 20, 5, "").await;
    let events = input(600, 60, 21, world.now());
    let feed = world.feed(events.clone(), 12);
    let _first = world.bridge(None);
    let second = world.bridge(None);
    second.await_assigned();
    second.signal("-KILL");
    let third = world.bridge(None);
    third.await_assigned();
    // Longer than the session timeout: its partitions go to the other while it still believes to own them.
    third.signal("-STOP");
    tokio::time::sleep(Duration::from_secs(9)).await;
    third.signal("-CONT");
    feed.await.expect("fed");
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(120)).await;
    world.check(&expected).await;
}

/// A call that ends within the drain leaves no doubt; one that is longer becomes a doubt of the next owner, which
/// settles it. `NOWBRIDGE_FULL=1` has the long one, for it takes minutes.
#[tokio::test(flavor = "multi_thread")]
async fn two_instances_are_rolled_with_a_long_call_in_flight() {
    let Some(broker) = kafka::real("rolling restart") else { return };
    let (call, deadline) = if is_full() { (30, 40) } else { (10, 20) };
    let world = World::start(broker, deadline, 5, "").await;
    let events = input(40, 20, 31, world.now());
    let pair = [world.bridge(None), world.bridge(None)];
    pair.iter().for_each(harness::Bridge::await_assigned);
    world.faults(&json!({"latency_ms": call * 1_000})).await;
    world.feed(events.clone(), 1_000).await.expect("fed");
    world.await_running(8, Duration::from_secs(20)).await;
    let began = Instant::now();
    for mut bridge in pair {
        bridge.signal("-TERM");
        assert_eq!(bridge.exit_code(Duration::from_secs(45)), Some(0), "{}", bridge.log());
    }
    println!("calls of {call} s: both drained in {} s", began.elapsed().as_secs());
    world.faults(&json!({"latency_ms": 0})).await;
    let last = world.bridge(None);
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(180)).await;
    world.check(&expected).await;
    let count = |what: &str| last.log().matches(what).count();
    let deadline = Instant::now() + Duration::from_secs(90);
    while count("in doubt, looks") != count("settled a doubt") {
        assert!(Instant::now() < deadline, "doubts are left: {}", last.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("doubts that the next owner settled: {}", count("settled a doubt"));
    assert_eq!(count("in doubt, looks") > 0, is_full(), "only a call beyond the drain leaves doubts: {}", last.log());
}
