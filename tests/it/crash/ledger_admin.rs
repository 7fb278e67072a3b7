//! The ledger's commands on a real Kafka, with the bridge and the simulator as processes: a ledger that was lost, a topic
//! that was made anew, a route that is called otherwise, an instance at another address, a key that is forgotten. Each
//! time the bridge goes on with the tickets that it had.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nowbridge::kafka::topics::{Purpose, TopicSpec, Topics};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

use super::harness::{Bridge, World};
use super::reference::{Event, apply, input};
use crate::support::kafka::{self, Broker};

const KEYS: usize = 40;

/// Opens every key, and lets a bridge make the tickets.
async fn begin(broker: &Broker) -> (World, Vec<Event>) {
    let world = World::start(broker, 3, 1, "").await;
    let events = input(2 * KEYS, KEYS, 17, world.now());
    let bridge = world.bridge(None);
    world.feed(events.clone(), 1_000).await.expect("fed");
    world.await_right(&apply(&events), Duration::from_secs(60)).await;
    bridge.stop();
    (world, events)
}

/// Further events of the same keys find the tickets that there are: some are resolved, some are opened again.
async fn go_on(world: &World, mut events: Vec<Event>) {
    let known: BTreeSet<String> = world.rows().await.into_keys().collect();
    let later = input(5 * KEYS, KEYS, 23, world.now() + 1_000_000);
    let later: Vec<Event> = (1_000..).zip(later).map(|(number, event)| renumbered(number, event)).collect();
    events.extend(later.clone());
    let bridge = world.bridge(None);
    world.feed(later, 1_000).await.expect("fed");
    let expected = apply(&events);
    world.await_right(&expected, Duration::from_secs(60)).await;
    world.check(&expected).await;
    assert_eq!(world.rows().await.into_keys().collect::<BTreeSet<_>>(), known);
    bridge.stop();
}

/// With a number above all before. The first word about a key is no opening one: what changes a ticket must find it, too.
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
        assert!(Instant::now() < deadline, "the bridge does not say {text:?}: {}", bridge.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn delete(broker: &Broker, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &broker.bootstrap).create().expect("an admin client");
    admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("deleted");
    let topics = Topics::new(&broker.options(), Duration::from_secs(10));
    let deadline = Instant::now() + Duration::from_secs(20);
    while topics.partitions(topic).await.expect("answered").is_some() {
        assert!(Instant::now() < deadline, "{topic} is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_is_begun_anew_and_every_ticket_is_found() {
    let Some(broker) = kafka::real("a lost ledger") else { return };
    let (world, events) = begin(broker).await;
    delete(broker, &format!("{}.incidents.ledger", world.prefix)).await;
    let bridge = world.bridge(None);
    await_log(&bridge, "nowbridge ledger rebuild").await;
    let (well, told) = world.command(&["ledger", "rebuild", "--yes"]);
    assert!(!well && told.contains("has members"), "not while a bridge runs: {told}");
    bridge.stop();
    assert!(world.done(&["ledger", "rebuild"]).contains("Nothing was changed"));
    assert!(world.done(&["ledger", "rebuild", "--yes"]).contains("begun anew"));
    go_on(&world, events).await;
    let told = world.done(&["ledger", "list"]);
    assert!(told.contains("4 partitions do not know every key"), "{told}");
    world.done(&["ledger", "adopt", "--proven", "--yes"]);
    assert!(!world.done(&["ledger", "list"]).contains("do not know every key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_read_from_its_start() {
    let Some(broker) = kafka::real("a topic made anew") else { return };
    let (world, mut events) = begin(broker).await;
    let topic = format!("{}.alerts", world.prefix);
    delete(broker, &topic).await;
    broker.create(&[TopicSpec::new(&topic, Purpose::Input).partitions(4)]).await;
    let first = renumbered(999, input(1, 1, 1, world.now() + 500_000).remove(0));
    world.feed(vec![first.clone()], 1_000).await.expect("fed");
    events.push(first);
    let bridge = world.bridge(None);
    await_log(&bridge, "ledger rebuild --from earliest").await;
    bridge.stop();
    let (well, told) = world.command(&["ledger", "rebuild", "--yes"]);
    assert!(!well && told.contains("--from earliest"), "its offsets mean nothing: {told}");
    world.done(&["ledger", "rebuild", "--from", "earliest", "--yes"]);
    go_on(&world, events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_goes_along_with_a_route_s_name_and_an_instance_s_address() {
    let Some(broker) = kafka::real("a ledger taken along") else { return };
    let (world, events) = begin(broker).await;
    let text = std::fs::read_to_string(world.config()).expect("a configuration");
    std::fs::write(world.config(), text.replace("//127.0.0.1:", "//localhost:")).expect("written");
    let bridge = world.bridge(None);
    await_log(&bridge, "nowbridge ledger adopt").await;
    bridge.stop();
    assert!(world.done(&["ledger", "adopt"]).contains("the instance was `http://127.0.0.1:"));
    world.done(&["ledger", "adopt", "--yes"]);
    let text = std::fs::read_to_string(world.config()).expect("a configuration");
    std::fs::write(world.config(), text.replace("  incidents:\n", "  tickets:\n")).expect("written");
    let mut bridge = world.bridge(None);
    assert_eq!(bridge.exit_code(Duration::from_secs(30)), Some(1), "{}", bridge.log());
    assert!(bridge.log().contains("nowbridge ledger rename --from incidents"), "{}", bridge.log());
    let told = world.done(&["ledger", "rename", "--from", "incidents", "--yes"]);
    assert!(told.contains(&format!("taken along: {KEYS} keys")), "{told}");
    let (well, again) = world.command(&["ledger", "rename", "--from", "incidents", "--yes"]);
    assert!(!well && again.contains("is not empty"), "{again}");
    let looks = |state: &Value| {
        let requests = state["requests"].as_array().into_iter().flatten();
        let gets = requests.filter(|r| r["method"] == "GET" && r["table"] == "incident");
        gets.filter_map(|r| r["count"].as_u64()).sum::<u64>()
    };
    let before = looks(&world.state().await);
    go_on(&world, events).await;
    // The greeting at the start is one.
    assert!(looks(&world.state().await) <= before + 1, "every ticket is known, none was looked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_forgotten_wherever_the_bridge_remembers_it() {
    let Some(broker) = kafka::real("a key forgotten") else { return };
    let (world, _) = begin(broker).await;
    let key = "test:alert:7";
    let listed = || {
        let text = world.done(&["ledger", "list", "--json", "--limit", "1"]);
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>()
    };
    assert_eq!(listed().len(), KEYS, "JSON is of all keys");
    assert!(listed().iter().any(|line| line["key"] == key && line["number"].as_str().is_some_and(|n| !n.is_empty())));
    let pattern = world.done(&["ledger", "list", "--key", "test:alert:1*"]);
    assert!(pattern.contains("test:alert:12") && !pattern.contains("test:alert:2 "), "{pattern}");
    let told = world.done(&["ledger", "forget", key]);
    assert!(told.contains("Nothing was changed") && told.contains(&format!("{}.alerts", world.prefix)), "{told}");
    world.done(&["ledger", "forget", key, "--yes"]);
    assert_eq!(listed().len(), KEYS - 1);
    assert!(listed().iter().all(|line| line["key"] != key));
    let (well, told) = world.command(&["ledger", "get", key]);
    assert!(!well && told.contains("knows nothing"), "{told}");
    // A resolved one is not in the way of the next.
    let (well, told) = world.command(&["ledger", "forget", key, "--yes"]);
    assert!(!well && told.contains("knows nothing"), "{told}");
}
