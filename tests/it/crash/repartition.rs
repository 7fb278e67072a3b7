//! Repartitioning of a topic that is not keyed by the alert's key, while bridges are killed within transactions, added
//! and frozen: every record is in the internal topic once, and every ticket equals the expected one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nowbridge::kafka::KafkaOptions;
use nowbridge::kafka::options::Isolation;
use nowbridge::kafka::table::{StopAt, TableRead, read_records};
use nowbridge::model::Record;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;

use super::harness::{Bridge, Harness};
use super::redrive::{dead_letters, open_letters};
use super::reference::{Event, expected_tickets, random_events};
use super::{is_full, size};
use crate::support::kafka::{self, Broker};

const REPARTITION: &str = "    repartition: true\n";

/// Reads the records of an internal topic, partition by partition.
pub fn read_internal_topic(broker: &Broker, topic: &str, isolation: Isolation) -> Vec<Record> {
    let options: KafkaOptions = broker.options();
    let mut records = Vec::new();
    for partition in 0..4 {
        let request = TableRead {
            topic: topic.into(),
            partition,
            isolation,
            stop_at: StopAt::End,
            group: "test".into(),
            idle_timeout: Duration::from_secs(30),
        };
        read_records(&options, &request, &mut |record| records.push(record)).expect("readable");
    }
    records
}

/// Kills bridges within a transaction or right after its commit, alternately, at the n-th transaction, with n from
/// `after`. Another bridge runs meanwhile, and is sometimes killed, too. Returns this other bridge, and the number of
/// kills by failpoint.
pub fn kill_in_transactions(
    harness: &Harness,
    kills: usize,
    after: std::ops::Range<u8>,
    random: &mut fastrand::Rng,
) -> (Bridge, BTreeMap<&'static str, usize>) {
    let mut other = harness.start_bridge(None);
    other.await_assigned();
    let mut killed: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..kills {
        let failpoint = ["committed", "transaction"][number % 2];
        let mut bridge = harness.start_bridge(Some(&format!("{failpoint}:{}", random.u8(after.clone()))));
        // After a kill within a transaction, the next owner waits until the broker aborts it, up to 20 s.
        if bridge.await_failpoint(Duration::from_secs(45)) {
            *killed.entry(failpoint).or_default() += 1;
        }
        if number % 3 == 2 {
            other.signal("-KILL");
            *killed.entry("anywhere").or_default() += 1;
            other = harness.start_bridge(None);
        }
    }
    assert!(killed.contains_key("transaction") && killed.contains_key("committed"), "{killed:?}");
    (other, killed)
}

/// Checks that each record is there once, and that all records of an alert are in one partition and in order.
fn check_internal_topic(records: &[Record], events: &[Event]) {
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
    let duplicates = origins.values().filter(|count| **count > 1).count();
    println!("{} of {} records repartitioned, {duplicates} duplicates", origins.len(), events.len());
    assert_eq!((origins.len(), duplicates), (events.len(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_repartitioned_exactly_once_and_in_order_while_bridges_are_killed() {
    let Some(broker) = kafka::real("repartitioning") else { return };
    let harness = Harness::start(broker, 5, 5, REPARTITION).await;
    harness.set_faults(&json!({"seed": 7, "drop_after_commit": 0.02, "error_500_before_commit": 0.01})).await;
    let (count, keys, kills) = if is_full() { (5_000, 500, 19) } else { (700, 70, 3) };
    let events = random_events(count, keys, 41, harness.first_event_time());
    let publishing = harness.publish(events.clone(), size().events_per_second);
    let mut random = fastrand::Rng::with_seed(9);
    let (first, killed) = kill_in_transactions(&harness, kills, 3..12, &mut random);
    println!("killed at: {killed:?}");
    let bridges = [first, harness.start_bridge(None)];
    // Longer than the session timeout: its partitions are assigned to the other bridge, and its later commits must
    // fail.
    bridges[0].await_assigned();
    bridges[0].signal("-STOP");
    tokio::time::sleep(Duration::from_secs(9)).await;
    bridges[0].signal("-CONT");
    publishing.await.expect("published");
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(if is_full() { 300 } else { 120 })).await;
    harness.check(&expected).await;
    let topic = harness.sink_topic();
    let (committed, all) = tokio::task::spawn_blocking(move || {
        let committed = read_internal_topic(broker, &topic, Isolation::Committed);
        let all = read_internal_topic(broker, &topic, Isolation::Uncommitted).len();
        (committed, all)
    })
    .await
    .expect("read");
    let aborted = all - committed.len();
    println!("one freeze; {aborted} records in aborted transactions");
    assert!(aborted > 0, "no bridge was killed within a transaction");
    check_internal_topic(&committed, &events);
    drop(bridges);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_cannot_be_switched_to_repartitioning_or_back() {
    let Some(broker) = kafka::real("switching to repartitioning") else { return };
    for (before, after, error) in [
        ("", REPARTITION, "previously ran without `repartition`"),
        (REPARTITION, "", "previously ran with `repartition: true`"),
    ] {
        let harness = Harness::start(broker, 5, 5, before).await;
        let events = random_events(20, 10, 51, harness.first_event_time());
        let mut bridge = harness.start_bridge(None);
        harness.publish(events.clone(), 1_000).await.expect("published");
        harness.await_expected(&expected_tickets(&events), Duration::from_secs(60)).await;
        bridge.signal("-TERM");
        assert_eq!(bridge.exit_code(Duration::from_secs(45)), Some(0), "{}", bridge.log());
        harness.configure(after);
        let mut bridge = harness.start_bridge(None);
        assert_eq!(bridge.exit_code(Duration::from_secs(30)), Some(1), "{}", bridge.log());
        assert!(bridge.log().contains(error), "{}", bridge.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_repartitioned_route_have_their_origin_and_are_redriven() {
    let Some(broker) = kafka::real("dead letters of a repartitioned route") else { return };
    let rejected = format!("{REPARTITION}    fields: {{ description: a drill }}\n");
    let harness = Harness::start(broker, 5, 5, &rejected).await;
    let rule = json!({"business_rules": [{"name": "No drills", "column": "description", "contains": "a drill", "abort": true}]});
    harness.set_faults(&rule).await;
    let events = random_events(10, 10, 61, harness.first_event_time());
    let bridge = harness.start_bridge(None);
    harness.publish(events.clone(), 1_000).await.expect("published");
    let alerts = format!("{}.alerts", harness.prefix);
    let producer: BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &broker.bootstrap).create().expect("a producer");
    producer.send(BaseRecord::<(), str>::to(&alerts).partition(2).payload("{")).map_err(|(e, _)| e).expect("sent");
    producer.flush(Duration::from_secs(20)).expect("acknowledged");
    let deadline = Instant::now() + Duration::from_secs(60);
    let letters = loop {
        let letters = open_letters(&harness);
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
    harness.configure(&format!("{REPARTITION}    fields: {{ description: no exercise }}\n"));
    let bridge = harness.start_bridge(None);
    bridge.await_assigned();
    let output = dead_letters(&harness, &["redrive", "--code", "SN-007"]);
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), bridge.log());
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(60)).await;
    harness.check(&expected).await;
    let remaining = open_letters(&harness);
    assert_eq!(remaining.len(), 1, "{remaining:?}");
    let id = remaining[0]["letter"].as_str().expect("an id");
    let shown = String::from_utf8(dead_letters(&harness, &["show", id]).stdout).expect("text");
    assert!(shown.contains(remaining[0]["origin"].as_str().expect("an origin")), "{shown}");
    drop(bridge);
}
