//! The ledger commands on a real Kafka, with the bridge and the simulator as processes: a lost ledger, a recreated
//! topic, a renamed route, a new instance address, a deleted key. Each time the bridge continues with the existing
//! tickets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nowbridge::kafka::topics::{Purpose, TopicSpec, Topics};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

use super::harness::{Bridge, Harness};
use super::reference::{Event, expected_tickets, random_events};
use crate::support::kafka::{self, Broker};

const KEYS: usize = 40;

/// Opens every key, and runs a bridge until all tickets exist.
async fn create_tickets(broker: &Broker) -> (Harness, Vec<Event>) {
    let harness = Harness::start(broker, 3, 1, "").await;
    let events = random_events(2 * KEYS, KEYS, 17, harness.first_event_time());
    let bridge = harness.start_bridge(None);
    harness.publish(events.clone(), 1_000).await.expect("the events are published");
    harness.await_expected(&expected_tickets(&events), Duration::from_secs(60)).await;
    bridge.stop();
    (harness, events)
}

/// Publishes further events of the same keys, and asserts that the bridge writes them to the existing tickets. Some of
/// the tickets are resolved, some reopened.
async fn check_tickets_are_found(harness: &Harness, mut events: Vec<Event>) {
    let known: BTreeSet<String> = harness.rows().await.into_keys().collect();
    let later = random_events(5 * KEYS, KEYS, 23, harness.first_event_time() + 1_000_000);
    let later: Vec<Event> = (1_000..).zip(later).map(|(number, event)| renumbered(number, event)).collect();
    events.extend(later.clone());
    let bridge = harness.start_bridge(None);
    harness.publish(later, 1_000).await.expect("the events are published");
    let expected = expected_tickets(&events);
    harness.await_expected(&expected, Duration::from_secs(60)).await;
    harness.check(&expected).await;
    assert_eq!(harness.rows().await.into_keys().collect::<BTreeSet<_>>(), known);
    bridge.stop();
}

/// Gives an event a number above those of all earlier ones. The first event of each key does not open: an update must
/// find its ticket too.
fn renumbered(number: usize, mut event: Event) -> Event {
    let (alert, _) = event.title.split_once('#').expect("a number");
    event.title = format!("{alert}#{number}");
    if number < 1_000 + KEYS {
        event.action = "update";
    }
    event
}

async fn await_log(bridge: &Bridge, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !bridge.log().contains(text) {
        assert!(Instant::now() < deadline, "the bridge does not log {text:?}: {}", bridge.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn delete_topic(broker: &Broker, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &broker.bootstrap).create().expect("an admin client");
    admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("deleted");
    let topics = Topics::new(&broker.options(), Duration::from_secs(10));
    let deadline = Instant::now() + Duration::from_secs(20);
    while topics.partitions(topic).await.expect("answered").is_some() {
        assert!(Instant::now() < deadline, "{topic} still exists");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ticket_is_found_after_a_lost_ledger_is_rebuilt() {
    let Some(broker) = kafka::real("a lost ledger") else { return };
    let (harness, events) = create_tickets(broker).await;
    delete_topic(broker, &format!("{}.incidents.ledger", harness.prefix)).await;
    let bridge = harness.start_bridge(None);
    await_log(&bridge, "nowbridge ledger rebuild").await;
    let output = harness.try_command(&["ledger", "rebuild", "--yes"]);
    assert!(!output.success && output.text.contains("has members"), "a bridge is running: {}", output.text);
    bridge.stop();
    assert!(harness.command(&["ledger", "rebuild"]).contains("Nothing was changed"));
    assert!(harness.command(&["ledger", "rebuild", "--yes"]).contains("rebuilt the ledger"));
    check_tickets_are_found(&harness, events).await;
    let output = harness.command(&["ledger", "list"]);
    assert!(output.contains("4 partitions are incomplete"), "{output}");
    harness.command(&["ledger", "adopt", "--complete", "--yes"]);
    assert!(!harness.command(&["ledger", "list"]).contains("partitions are incomplete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_read_from_its_start() {
    let Some(broker) = kafka::real("a recreated topic") else { return };
    let (harness, mut events) = create_tickets(broker).await;
    let topic = format!("{}.alerts", harness.prefix);
    delete_topic(broker, &topic).await;
    broker.create(&[TopicSpec::new(&topic, Purpose::Input).partitions(4)]).await;
    let first = renumbered(999, random_events(1, 1, 1, harness.first_event_time() + 500_000).remove(0));
    harness.publish(vec![first.clone()], 1_000).await.expect("the events are published");
    events.push(first);
    let bridge = harness.start_bridge(None);
    await_log(&bridge, "ledger rebuild --from earliest").await;
    bridge.stop();
    let output = harness.try_command(&["ledger", "rebuild", "--yes"]);
    assert!(!output.success && output.text.contains("--from earliest"), "the old offsets are invalid: {}", output.text);
    harness.command(&["ledger", "rebuild", "--from", "earliest", "--yes"]);
    check_tickets_are_found(&harness, events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_migrated_to_a_new_instance_address_and_route_name() {
    let Some(broker) = kafka::real("ledger migration") else { return };
    let (harness, events) = create_tickets(broker).await;
    let text = std::fs::read_to_string(harness.config()).expect("a configuration");
    std::fs::write(harness.config(), text.replace("//127.0.0.1:", "//localhost:")).expect("written");
    let bridge = harness.start_bridge(None);
    await_log(&bridge, "nowbridge ledger adopt").await;
    bridge.stop();
    assert!(harness.command(&["ledger", "adopt"]).contains("the instance was `http://127.0.0.1:"));
    harness.command(&["ledger", "adopt", "--yes"]);
    let text = std::fs::read_to_string(harness.config()).expect("a configuration");
    std::fs::write(harness.config(), text.replace("  incidents:\n", "  tickets:\n")).expect("written");
    let mut bridge = harness.start_bridge(None);
    assert_eq!(bridge.exit_code(Duration::from_secs(30)), Some(1), "{}", bridge.log());
    assert!(bridge.log().contains("nowbridge ledger rename --from incidents"), "{}", bridge.log());
    let output = harness.command(&["ledger", "rename", "--from", "incidents", "--yes"]);
    assert!(output.contains(&format!("migrated {KEYS} keys")), "{output}");
    let again = harness.try_command(&["ledger", "rename", "--from", "incidents", "--yes"]);
    assert!(!again.success && again.text.contains("is not empty"), "{}", again.text);
    let reads = |state: &Value| {
        let requests = state["requests"].as_array().into_iter().flatten();
        let gets = requests.filter(|r| r["method"] == "GET" && r["table"] == "incident");
        gets.filter_map(|r| r["count"].as_u64()).sum::<u64>()
    };
    let before = reads(&harness.state().await);
    check_tickets_are_found(&harness, events).await;
    // A look reads many tickets; a look-up by the key would be a request for each.
    let count = reads(&harness.state().await) - before;
    assert!(count < KEYS as u64 / 2, "every ticket is known, so none is looked up: {count} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_is_removed_from_the_ledger() {
    let Some(broker) = kafka::real("a deleted key") else { return };
    let (harness, _) = create_tickets(broker).await;
    let key = "test:alert:7";
    let listed = || {
        let text = harness.command(&["ledger", "list", "--json", "--limit", "1"]);
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>()
    };
    assert_eq!(listed().len(), KEYS, "JSON lists all keys, whatever the limit");
    assert!(listed().iter().any(|line| line["key"] == key && line["number"].as_str().is_some_and(|n| !n.is_empty())));
    let pattern = harness.command(&["ledger", "list", "--key", "test:alert:1*"]);
    assert!(pattern.contains("test:alert:12") && !pattern.contains("test:alert:2 "), "{pattern}");
    let output = harness.command(&["ledger", "delete", key]);
    assert!(
        output.contains("Nothing was changed") && output.contains(&format!("{}.alerts", harness.prefix)),
        "{output}"
    );
    harness.command(&["ledger", "delete", key, "--yes"]);
    assert_eq!(listed().len(), KEYS - 1);
    assert!(listed().iter().all(|line| line["key"] != key));
    let output = harness.try_command(&["ledger", "get", key]);
    assert!(!output.success && output.text.contains("has no record of key"), "{}", output.text);
    let output = harness.try_command(&["ledger", "delete", key, "--yes"]);
    assert!(!output.success && output.text.contains("has no record of key"), "{}", output.text);
}
