//! A topic that is not keyed by the alert's key, re-keyed while bridges are killed within transactions, added and frozen:
//! every record is in the internal topic once, and every ticket equals the reference.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nowbridge::kafka::KafkaOptions;
use nowbridge::kafka::options::Isolation;
use nowbridge::kafka::table::{TableRead, Until, read_records};
use nowbridge::model::Record;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use super::harness::{Bridge, World};
use super::redrive::{dead_letters, open_letters};
use super::reference::{Event, apply, input};
use super::{is_full, size};
use crate::support::kafka::{self, Broker};

const REKEY: &str = "    rekey: true\n";

/// What stands in the internal topic, by partition.
pub fn internal(broker: &Broker, topic: &str, isolation: Isolation) -> Vec<Record> {
    let options: KafkaOptions = broker.options();
    let mut records = Vec::new();
    for partition in 0..4 {
        let what = TableRead {
            topic: topic.into(),
            partition,
            isolation,
            until: Until::End,
            group: "test".into(),
            patience: Duration::from_secs(30),
        };
        read_records(&options, &what, &mut |record| records.push(record)).expect("it can be read");
    }
    records
}

/// Kills bridges in the middle of a transaction, or right behind one, after some of them, while another lives on, which is
/// killed now and then, too. That one, and how many died where.
pub fn kill_in_transactions(
    world: &World,
    kills: usize,
    after: std::ops::Range<u8>,
    random: &mut fastrand::Rng,
) -> (Bridge, BTreeMap<&'static str, usize>) {
    let mut other = world.bridge(None);
    other.await_assigned();
    let mut killed: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..kills {
        let window = ["committed", "transaction"][number % 2];
        let mut bridge = world.bridge(Some(&format!("{window}:{}", random.u8(after.clone()))));
        // After a kill within a transaction the next owner waits until the broker has aborted it, up to 20 s.
        if bridge.dies_within(Duration::from_secs(45)) {
            *killed.entry(window).or_default() += 1;
        }
        if number % 3 == 2 {
            other.signal("-KILL");
            *killed.entry("anywhere").or_default() += 1;
            other = world.bridge(None);
        }
    }
    assert!(killed.contains_key("transaction") && killed.contains_key("committed"), "{killed:?}");
    (other, killed)
}

/// Once each, all of an alert in one partition, and in order.
fn check_internal(records: &[Record], events: &[Event]) {
    let mut origins: BTreeMap<String, usize> = BTreeMap::new();
    let mut last: BTreeMap<String, (i32, String)> = BTreeMap::new();
    for record in records {
        let header = |name: &str| record.header(name).expect(name).to_owned();
        *origins.entry(header("nowbridge-origin")).or_default() += 1;
        assert_eq!(header("nowbridge-events"), "0");
        let body: serde_json::Value = serde_json::from_slice(record.value.as_deref().expect("a body")).expect("JSON");
        let text = |name: &str| body[name].as_str().expect(name).to_owned();
        if let Some((partition, at)) = last.insert(text("key"), (record.partition, text("occurred_at"))) {
            assert_eq!(partition, record.partition, "{} is in two partitions", text("key"));
            let (before, now): (jiff::Timestamp, jiff::Timestamp) =
                (at.parse().expect("a time"), text("occurred_at").parse().expect("a time"));
            assert!(before < now, "{} is out of order: {before} before {now}", text("key"));
        }
    }
    let doubled = origins.values().filter(|count| **count > 1).count();
    println!("{} records re-keyed of {}, {doubled} doubled", origins.len(), events.len());
    assert_eq!((origins.len(), doubled), (events.len(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_rekeyed_once_and_in_order_while_bridges_are_killed() {
    let Some(broker) = kafka::real("re-keying") else { return };
    let world = World::start(broker, 5, 5, REKEY).await;
    world.faults(&json!({"seed": 7, "drop_after_commit": 0.02, "error_500_before_commit": 0.01})).await;
    let (count, keys, kills) = if is_full() { (5_000, 500, 19) } else { (700, 70, 3) };
    let events = input(count, keys, 41, world.now());
    let feed = world.feed(events.clone(), size().per_second);
    let mut random = fastrand::Rng::with_seed(9);
    let (one, killed) = kill_in_transactions(&world, kills, 3..12, &mut random);
    println!("killed at: {killed:?}");
    let bridges = [one, world.bridge(None)];
    // Longer than the session: its partitions go to the other, and what it then commits must be refused.
    bridges[0].await_assigned();
    bridges[0].signal("-STOP");
    tokio::time::sleep(Duration::from_secs(9)).await;
    bridges[0].signal("-CONT");
    feed.await.expect("fed");
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(if is_full() { 300 } else { 120 })).await;
    world.check(&expected).await;
    let topic = world.topic();
    let (committed, all) = tokio::task::spawn_blocking(move || {
        (internal(broker, &topic, Isolation::Committed), internal(broker, &topic, Isolation::Uncommitted).len())
    })
    .await
    .expect("read");
    let aborted = all - committed.len();
    println!("one freeze; {aborted} records lie in transactions that were aborted");
    assert!(aborted > 0, "no kill struck inside of a transaction");
    check_internal(&committed, &events);
    drop(bridges);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_not_switched_to_rekeying_or_back() {
    let Some(broker) = kafka::real("switching to re-keying") else { return };
    for (before, after, told) in
        [("", REKEY, "it has been run without `rekey`"), (REKEY, "", "it has been run with `rekey: true`")]
    {
        let world = World::start(broker, 5, 5, before).await;
        let events = input(20, 10, 51, world.now());
        let mut bridge = world.bridge(None);
        world.feed(events.clone(), 1_000).await.expect("fed");
        world.await_right(&apply(&events), Duration::from_secs(60)).await;
        bridge.signal("-TERM");
        assert_eq!(bridge.exit_code(Duration::from_secs(45)), Some(0), "{}", bridge.log());
        world.configure(after);
        let mut bridge = world.bridge(None);
        assert_eq!(bridge.exit_code(Duration::from_secs(30)), Some(1), "{}", bridge.log());
        assert!(bridge.log().contains(told), "{}", bridge.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_rekeyed_route_say_where_they_came_from_and_go_back() {
    let Some(broker) = kafka::real("dead letters of a re-keyed route") else { return };
    let wrong = format!("{REKEY}    fields: {{ description: a drill }}\n");
    let world = World::start(broker, 5, 5, &wrong).await;
    let rule =
        json!({"business_rules": [{"name": "No drills", "when": "description", "contains": "a drill", "abort": true}]});
    world.faults(&rule).await;
    let events = input(10, 10, 61, world.now());
    let bridge = world.bridge(None);
    world.feed(events.clone(), 1_000).await.expect("fed");
    let alerts = format!("{}.alerts", world.prefix);
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &broker.bootstrap).create().expect("a producer");
    producer.send(BaseRecord::<(), str>::to(&alerts).partition(2).payload("{")).map_err(|(e, _)| e).expect("sent");
    producer.flush(Duration::from_secs(20)).expect("acknowledged");
    let deadline = Instant::now() + Duration::from_secs(60);
    let letters = loop {
        let letters = open_letters(&world);
        if letters.len() == 11 {
            break letters;
        }
        assert!(Instant::now() < deadline, "{} letters: {letters:?}\n{}", letters.len(), bridge.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    for letter in &letters {
        let origin = letter["origin"].as_str().expect("an origin");
        assert!(origin.starts_with(&format!("{alerts}/")), "{letter}");
    }
    assert_eq!(letters.iter().filter(|letter| letter["code"] == "undecodable").count(), 1);
    drop(bridge);
    world.configure(&format!("{REKEY}    fields: {{ description: no exercise }}\n"));
    let bridge = world.bridge(None);
    bridge.await_assigned();
    let output = dead_letters(&world, &["redrive", "--code", "SN-007"]);
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), bridge.log());
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(60)).await;
    world.check(&expected).await;
    let left = open_letters(&world);
    assert_eq!(left.len(), 1, "{left:?}");
    let place = left[0]["place"].as_str().expect("a place");
    let shown = String::from_utf8(dead_letters(&world, &["show", place]).stdout).expect("text");
    assert!(shown.contains(left[0]["origin"].as_str().expect("an origin")), "{shown}");
    drop(bridge);
}
