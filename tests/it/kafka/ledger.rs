//! Loading ledger partitions with a real broker: tokens, stale records, start offsets, and rejected ledgers.

use std::sync::Arc;
use std::time::Duration;

use nowbridge::engine::event::{LedgerKey, LedgerState, LedgerWrite};
use nowbridge::kafka::topics::{Purpose, TopicSpec};
use nowbridge::kafka::{KafkaOptions, Outcome, ProduceRequest, Producer};
use nowbridge::ledger::{Identity, LoadError, Loader, OnMissingLedger, ReadError, StartAt, wire};
use nowbridge::model::{EventOrder, Mark, Park, Position, Token};

use super::member::{Member, PATIENCE, fill, request};
use crate::support::kafka::{real, unique};

/// A route with one partition that is assigned to a member.
struct Route {
    options: KafkaOptions,
    loader: Loader,
    input: String,
    _member: Member,
}

impl Route {
    /// Starts a route with `records` records in its input.
    async fn start(test: &str, records: u32) -> Option<Self> {
        let broker = real(test)?;
        let options = broker.options();
        let (input, ledger, group) = (unique("input"), unique("ledger"), unique("group"));
        let specs = [TopicSpec::new(&input, Purpose::Input), TopicSpec::new(&ledger, Purpose::Ledger)];
        broker.create(&specs.map(|spec| spec.partitions(1))).await;
        fill(&options, &input, 0, (0..records).map(|number| number.to_string())).await;
        let mut member = Member::join(&options, &input, &group);
        member.assigned(1).await;
        let identity = Identity {
            cluster_id: None,
            topic: input.clone(),
            partitions: 1,
            instance: "instance".into(),
            route: "route".into(),
            table: "incident".into(),
            key_rule: "plain".into(),
            topic_generation: 0,
        };
        let (producer, _) = Producer::new(&options, PATIENCE).expect("a producer");
        let loader = Loader {
            options: options.clone(),
            producer,
            poller: member.handle.clone(),
            topic: ledger.as_str().into(),
            group,
            identity,
            member: "member".into(),
            host: "host".into(),
            start: StartAt::Earliest,
            on_missing_ledger: OnMissingLedger::Refuse,
            timeout: PATIENCE,
        };
        Some(Self { options, loader, input, _member: member })
    }

    async fn load(&self) -> Result<LedgerState, LoadError> {
        self.loader.take_over(0, Arc::new(|_| {})).await
    }

    async fn write(&self, write: &LedgerWrite) -> i64 {
        let (key, value) = wire::encode(write);
        let topic = Arc::clone(&self.loader.topic);
        let request = ProduceRequest { topic, partition: Some(0), key: Some(key), value, headers: Vec::new(), tag: 0 };
        match self.loader.producer.produce_and_wait(request).await {
            Ok(Outcome::Acked { offset, .. }) => offset,
            other => panic!("{other:?}"),
        }
    }
}

fn park(key: &str, token: Token, offset: i64) -> LedgerWrite {
    LedgerWrite::Park(
        key.into(),
        Park {
            token,
            position: Position::new(0, offset, 0),
            newest_letter: None,
            order: EventOrder::UNKNOWN,
            event_ids: Vec::new(),
            rejected_run: None,
            active_run: None,
            announced: false,
            code: "business_rule".into(),
            reason: "no".into(),
        },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_increase_and_late_records_of_a_previous_owner_do_not_count() {
    let Some(route) = Route::start("tokens_increase_and_late_records_of_a_previous_owner_do_not_count", 20).await
    else {
        return;
    };
    let first = route.load().await.expect("a new ledger");
    assert_eq!((first.start_offset, first.mark_watermark, first.incomplete), (0, 0, false));
    route.write(&park("a:b", first.token, 3)).await;
    let second = route.load().await.expect("loaded");
    assert!(second.token > first.token, "tokens only grow");
    assert_eq!(second.parks["a:b"].position.offset, 3);
    route.write(&park("a:b", second.token, 7)).await;
    route.write(&LedgerWrite::Mark(second.token, Mark::at(9))).await;
    // The first member was frozen; its records in flight are written now.
    route.write(&park("a:b", first.token, 4)).await;
    route.write(&LedgerWrite::Mark(first.token, Mark::at(5))).await;
    let third = route.load().await.expect("loaded");
    assert_eq!(third.parks["a:b"].position.offset, 7);
    assert_eq!(
        (third.mark_watermark, third.start_offset),
        (9, 9),
        "the mark never decreases, and determines the start offset"
    );
    assert!(third.stale.contains(&(LedgerKey::Park("a:b".into()), first.token)), "{:?}", third.stale);
    route.write(&LedgerWrite::Tombstone(LedgerKey::Park("a:b".into()), second.token)).await;
    route.write(&LedgerWrite::Tombstone(LedgerKey::Park("a:b".into()), first.token)).await;
    assert!(route.load().await.expect("loaded").parks.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_route_starts_where_its_configuration_says() {
    let Some(mut route) = Route::start("a_new_route_starts_where_its_configuration_says", 20).await else { return };
    route.loader.start = StartAt::Latest;
    assert_eq!(route.load().await.expect("loaded").start_offset, 20);
    route.loader.start = StartAt::Time(0);
    assert_eq!(route.load().await.expect("loaded").start_offset, 0);
    route.loader.start = StartAt::Time(i64::MAX / 2);
    assert_eq!(route.load().await.expect("loaded").start_offset, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_another_route_is_rejected() {
    let Some(mut route) = Route::start("a_ledger_of_another_route_is_rejected", 20).await else { return };
    let token = route.load().await.expect("a new ledger").token;
    let identity = route.loader.identity.clone();
    route.loader.identity.instance = "clone".into();
    let error = route.load().await.expect_err("another instance");
    assert!(!error.is_transient() && error.to_string().contains("ledger adopt"), "{error}");
    route.loader.identity = identity;
    // More partitions than before: keys may be in other partitions.
    route.loader.identity.partitions = 2;
    assert!(route.load().await.expect("loaded").incomplete);
    route.loader.identity.partitions = 1;
    // The mark is above the end of the input: the input was recreated.
    route.write(&LedgerWrite::Mark(token, Mark::at(21))).await;
    let error = route.load().await.expect_err("recreated");
    assert!(matches!(error, LoadError::InputRecreated { end: 20, resolved: 21, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_is_detected() {
    let Some(mut route) = Route::start("a_lost_ledger_is_detected", 20).await else { return };
    let (epoch, handle) = (route.loader.poller.epoch_of(0).expect("ours"), route.loader.poller.clone());
    handle.commit(0, epoch, 12);
    let deadline = std::time::Instant::now() + PATIENCE;
    let committed = || {
        let handle = handle.clone();
        tokio::task::spawn_blocking(move || handle.committed_offset(0, PATIENCE).expect("a response"))
    };
    while committed().await.expect("no panic") != Some(12) {
        assert!(std::time::Instant::now() < deadline, "not committed in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = route.load().await.expect_err("lost");
    assert!(matches!(error, LoadError::MissingLedger { resolved: 12, .. }), "{error}");
    route.loader.on_missing_ledger = OnMissingLedger::LookUp;
    let loaded = route.load().await.expect("loaded");
    assert_eq!((loaded.start_offset, loaded.incomplete), (12, true));
    // It stays incomplete until it is rebuilt, whatever the setting is later.
    route.loader.on_missing_ledger = OnMissingLedger::Refuse;
    assert!(route.load().await.expect("loaded").incomplete);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_newer_version_are_rejected() {
    let Some(route) = Route::start("records_of_a_newer_version_are_rejected", 1).await else { return };
    route.load().await.expect("a new ledger");
    let topic = route.loader.topic.to_string();
    let newer = request(&topic, 0, "park:k:1", Some(r#"{"v":2,"d":{}}"#));
    route.loader.producer.produce_and_wait(newer).await.expect("written");
    let error = route.load().await.expect_err("too new");
    assert!(matches!(&error, LoadError::Read(ReadError::Unreadable { .. })) && !error.is_transient(), "{error}");
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("version 2"), "{source}");
    assert_eq!(route.input, route.loader.identity.topic);
    assert_eq!(route.options.bootstrap, route.loader.options.bootstrap);
}

/// Loading must be fast, because a rebalance stops the partitions until it is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_ledger_loads_fast() {
    let Some(route) = Route::start("a_large_ledger_loads_fast", 1).await else { return };
    let token = route.load().await.expect("a new ledger").token;
    let count = 200_000;
    for number in 0..count {
        let (key, value) = wire::encode(&park(&format!("host-{number}:disk"), token, 1));
        let topic = Arc::clone(&route.loader.topic);
        let mut request =
            ProduceRequest { topic, partition: Some(0), key: Some(key), value, headers: Vec::new(), tag: 0 };
        while let Err(error) = route.loader.producer.produce(request) {
            let nowbridge::kafka::ProduceError::QueueFull(returned) = error else { panic!("{error}") };
            request = *returned;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let producer = route.loader.producer.clone();
    tokio::task::spawn_blocking(move || producer.flush(PATIENCE)).await.expect("no panic").expect("acked");
    let started = std::time::Instant::now();
    let loaded = route.load().await.expect("loaded");
    eprintln!("{count} records loaded in {:?}", started.elapsed());
    assert_eq!(loaded.parks.len(), count);
    assert!(started.elapsed() < Duration::from_secs(10), "loading took {:?}", started.elapsed());
}
