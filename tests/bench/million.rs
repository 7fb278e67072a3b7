//! A ledger with a million keys: their memory, and the time that a restarted bridge needs until it writes.
//!
//! The keys are created by a million new alerts. Then the bridge is stopped, changes of 40 keys in all partitions are
//! published, and a second bridge is started. Its time counts from the assignment of its partitions, because the
//! consumer group determines how long that takes; the time until then is a separate figure.

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::results::Measurement;
use crate::support::kafka::Broker;
use crate::testbed::{ConsumerProcess, Setup, Testbed};

/// Number of keys in the ledger, and of those that change before the restart.
const KEYS: u32 = 1_000_000;
const CHANGED: u32 = 40;

/// Runs the case, and returns the number of wrong tickets.
pub async fn run(broker: &Broker, measurements: &mut Vec<Measurement>) -> usize {
    let case = "million";
    let testbed = Testbed::start(broker, &Setup { latency_ms: 0, concurrency: 64, ..Setup::default() }).await;
    let bridge = testbed.start_bridge().await;
    let idle = bridge.usage_at_rest().await;
    let load = Load::creates(KEYS);
    let mut expected = load.expected();
    let publishing = load.publish(testbed.bootstrap(), testbed.topic());
    await_ledger_entries(&testbed, KEYS).await;
    publishing.await.expect("the events are published");
    let filled = bridge.usage_at_rest().await;
    let log_length = bridge.stop().len();

    let updates = Load::updates(CHANGED);
    expected.extend(updates.expected());
    updates.publish(testbed.bootstrap(), testbed.topic()).await.expect("the events are published");
    let started = Instant::now();
    let second = testbed.run(&mut testbed.command());
    let assigned = await_log(&second, log_length, "partition assigned").await;
    let first = await_applied(&testbed, 1).await;
    let last = await_applied(&testbed, CHANGED).await;
    let wrong = testbed.await_expected(&expected).await;
    let loaded = second.usage_at_rest().await;

    let plain = |name: &str, value: f64| Measurement::plain(case, name, format!("{value:.1}"));
    measurements.extend([
        plain("RSS idle, MB", idle.resident_mb),
        plain("RSS added by 1,000,000 keys, MB", filled.resident_mb - idle.resident_mb).with_target("150"),
        plain("RSS added after a restart, MB", loaded.resident_mb - idle.resident_mb).with_target("150"),
        plain("RSS peak of the restart, MB", loaded.peak_mb),
        plain("start to assignment, s", (assigned - started).as_secs_f64()),
        plain("assignment to first write, s", (first - assigned).as_secs_f64()).with_target("5"),
        plain("assignment to last write, s", (last - assigned).as_secs_f64()),
    ]);
    measurements.push(Measurement::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    wrong
}

/// Waits until the ledger has `count` entries and no event is pending.
async fn await_ledger_entries(testbed: &Testbed, count: u32) {
    let deadline = Instant::now() + Duration::from_secs(900);
    loop {
        let entries = testbed.metric("nowbridge_ledger_entries").await;
        if entries >= f64::from(count) && testbed.metric("nowbridge_pending_events").await < 1.0 {
            return;
        }
        assert!(Instant::now() < deadline, "{entries} ledger entries of {count}\n{}", testbed.log_tail());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until this bridge has applied `count` events, and returns the time.
async fn await_applied(testbed: &Testbed, count: u32) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let applied = testbed.metric("nowbridge_events_applied_total").await;
        if applied >= f64::from(count) {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "{applied} events of {count} are applied\n{}", testbed.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a text in the log after its first `skip` bytes, and returns the time.
async fn await_log(bridge: &ConsumerProcess, skip: usize, text: &str) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bridge.log().get(skip..).is_some_and(|log| log.contains(text)) {
        assert!(Instant::now() < deadline, "the log does not contain: {text}\n{}", bridge.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Instant::now()
}
