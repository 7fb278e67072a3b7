//! A ledger of a million keys: what they cost in memory, and how soon a bridge that is started again is at work.
//!
//! The keys are made as a user makes them, by a million new alerts. Then the bridge is stopped in order, alerts of 40 keys
//! in all partitions are published, and a second bridge is started. Its time is counted from the moment at which the
//! group gave it its partitions, as how long a group takes to form is the group's business; that time is shown beside.

use std::time::{Duration, Instant};

use crate::feed::Feed;
use crate::outcome::Case;
use crate::support::kafka::Broker;
use crate::world::{Running, Setup, World};

/// Keys of the ledger, and those of them that change once it is started again.
const KEYS: u32 = 1_000_000;
const CHANGED: u32 = 40;

/// Runs the case; how many tickets are wrong.
pub async fn run(broker: &Broker, lines: &mut Vec<Case>) -> usize {
    let case = "million";
    let world = World::start(broker, &Setup { latency: 0, at_once: 64, ..Setup::default() }).await;
    let bridge = world.bridge().await;
    let idle = bridge.at_rest().await;
    let feed = Feed::creates(KEYS);
    let mut expected = feed.expected();
    let feeding = feed.publish(world.bootstrap(), world.topic());
    await_known(&world, KEYS).await;
    feeding.await.expect("the events are published");
    let filled = bridge.at_rest().await;
    let before = bridge.stop().len();

    let again = Feed::again(CHANGED);
    expected.extend(again.expected());
    again.publish(world.bootstrap(), world.topic()).await.expect("the events are published");
    let began = Instant::now();
    let second = world.run(&mut world.command());
    let assigned = await_line(&second, before, "was assigned a partition").await;
    let first = await_applied(&world, 1).await;
    let last = await_applied(&world, CHANGED).await;
    let wrong = world.await_right(&expected).await;
    let loaded = second.at_rest().await;

    let told = |what: &str, figure: f64| Case::plain(case, what, format!("{figure:.1}"));
    lines.extend([
        told("RSS idle, MB", idle.resident),
        told("RSS more with 1,000,000 keys, MB", filled.resident - idle.resident).wanted("150"),
        told("RSS more after a restart, MB", loaded.resident - idle.resident).wanted("150"),
        told("RSS peak of the restart, MB", loaded.peak),
        told("start to assignment, s", (assigned - began).as_secs_f64()),
        told("assignment to first write, s", (first - assigned).as_secs_f64()).wanted("5"),
        told("assignment to all partitions, s", (last - assigned).as_secs_f64()),
    ]);
    lines.push(Case::plain(case, "tickets, and wrong ones", format!("{}, {wrong}", expected.len())));
    wrong
}

/// Waits until the ledger knows so many keys, and nothing is left to do.
async fn await_known(world: &World, count: u32) {
    let deadline = Instant::now() + Duration::from_secs(900);
    loop {
        let known = world.metric("nowbridge_ledger_entries").await;
        if known >= f64::from(count) && world.metric("nowbridge_unresolved_events").await < 1.0 {
            return;
        }
        assert!(Instant::now() < deadline, "{known} keys of {count} are known\n{}", world.last_log());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Waits until this bridge has applied so many events; when it had.
async fn await_applied(world: &World, count: u32) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let applied = world.metric("nowbridge_events_applied_total").await;
        if applied >= f64::from(count) {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "{applied} events of {count} are applied\n{}", world.last_log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a line in the bridge's log, behind what was there before; when it was seen.
async fn await_line(bridge: &Running, before: usize, text: &str) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bridge.log().get(before..).is_some_and(|log| log.contains(text)) {
        assert!(Instant::now() < deadline, "the log does not say: {text}\n{}", bridge.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Instant::now()
}
