//! The repartitioning stage alone, with a real Kafka: its throughput, and lost offsets.

use std::time::{Duration, Instant};

use nowbridge::kafka::options::Isolation;
use nowbridge::kafka::table::{StopAt, TableRead, read};
use nowbridge::kafka::topics::{Purpose, TopicSpec};
use nowbridge::kafka::{ProduceRequest, TransactionalProducer};
use nowbridge::ledger::StartAt;
use nowbridge::repartition::{Partitioner, Stage, Status, StatusHandle, Step, run};
use nowbridge::systems::Decoder;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio_util::sync::CancellationToken;

use crate::support::kafka::{self, Broker};

const PARTITIONS: i32 = 4;

fn stage(broker: &Broker, prefix: &str, group: &str) -> Stage {
    Stage {
        name: "incidents".into(),
        kafka: broker.options(),
        input: format!("{prefix}.alerts"),
        group: group.into(),
        session_timeout: Duration::from_secs(6),
        max_poll_interval: Duration::from_secs(60),
        step: Step::Repartition(Box::new(Partitioner {
            decoder: Decoder::Canonical,
            topic: format!("{prefix}.repartitioned").into(),
            partitions: PARTITIONS,
            group_by: None,
        })),
        transactional_id: kafka::unique("repartition"),
        start: StartAt::Earliest,
    }
}

async fn topics(broker: &Broker) -> String {
    let prefix = kafka::unique("repartition");
    let input = TopicSpec::new(format!("{prefix}.alerts"), Purpose::Input).partitions(PARTITIONS);
    let internal = TopicSpec::new(format!("{prefix}.repartitioned"), Purpose::Repartitioned).partitions(PARTITIONS);
    broker.create(&[input, internal]).await;
    prefix
}

fn publish(broker: &Broker, prefix: &str, count: usize) {
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &broker.bootstrap)
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .expect("a producer");
    let topic = format!("{prefix}.alerts");
    for number in 0..count {
        let body = format!(
            "{{\"source\":\"test\",\"key\":\"disk:{}\",\"action\":\"update\",\"title\":\"Disk full on web-{number}\",\
             \"severity\":\"high\",\"description\":\"a typical description by a monitoring system\"}}",
            number % 500
        );
        let partition = i32::try_from(number).expect("small") % PARTITIONS;
        let record = BaseRecord::<(), str>::to(&topic).partition(partition).payload(&body);
        producer.send(record).map_err(|(e, _)| e).expect("sent");
    }
    producer.flush(Duration::from_secs(60)).expect("acknowledged");
}

/// Runs a stage until its status meets a condition. Returns the status, and the time since the first record.
async fn run_until(stage: Stage, what: &str, is_done: impl Fn(&Status) -> bool) -> (Status, Duration) {
    let (status, stop) = (StatusHandle::default(), CancellationToken::new());
    let task = tokio::spawn(run(stage, status.clone(), stop.clone()));
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut started = None;
    let reached = loop {
        let now = status.get();
        if now.records > 0 {
            started.get_or_insert_with(Instant::now);
        }
        if is_done(&now) {
            break now;
        }
        assert!(Instant::now() < deadline, "timed out waiting for {what}: {now:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let took = started.map_or(Duration::ZERO, |started| started.elapsed());
    stop.cancel();
    task.await.expect("no panic").expect("no error");
    (reached, took)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_repartitioned_fast() {
    let Some(broker) = kafka::real("throughput of repartitioning") else { return };
    let prefix = topics(broker).await;
    let count = if std::env::var_os("NOWBRIDGE_FULL").is_some() { 200_000 } else { 30_000 };
    publish(broker, &prefix, count);
    let all = u64::try_from(count).expect("small");
    let stage = stage(broker, &prefix, &kafka::unique("group"));
    let (status, took) = run_until(stage, "all records", |status| status.records == all).await;
    #[expect(clippy::cast_precision_loss, reason = "a count of a test")]
    let rate = count as f64 / took.as_secs_f64();
    println!("{count} records in {} transactions, {rate:.0} per second after the first", status.transactions);
    assert_eq!(status.failed_transactions, 0);
    let mut found = 0;
    for partition in 0..PARTITIONS {
        let (options, topic) = (broker.options(), format!("{prefix}.repartitioned"));
        let request = TableRead {
            topic: topic.into(),
            partition,
            isolation: Isolation::Committed,
            stop_at: StopAt::End,
            group: "test".into(),
            idle_timeout: Duration::from_secs(30),
        };
        let end = tokio::task::spawn_blocking(move || read(&options, &request, &mut |_| {})).await.expect("read");
        found += end.expect("read").records;
    }
    assert_eq!(found, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_takes_no_needless_time() {
    let Some(broker) = kafka::real("duration of a transaction") else { return };
    let prefix = topics(broker).await;
    let id = kafka::unique("tx");
    let producer =
        TransactionalProducer::init(&broker.options(), &id, Duration::from_secs(20)).await.expect("a producer");
    let record = || ProduceRequest {
        topic: format!("{prefix}.repartitioned").into(),
        partition: Some(0),
        key: None,
        value: Some(b"x".to_vec()),
        headers: Vec::new(),
        tag: 0,
    };
    producer.send_all(vec![record()]).await.expect("committed");
    let started = Instant::now();
    for _ in 0..20 {
        producer.send_all(vec![record()]).await.expect("committed");
    }
    let each = started.elapsed() / 20;
    println!("a transaction of one record takes {} ms", each.as_millis());
    assert!(each < Duration::from_millis(100), "librdkafka polls for 100 ms again: {each:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_offsets_were_lost_is_not_started() {
    let Some(broker) = kafka::real("lost offsets of repartitioning") else { return };
    let prefix = topics(broker).await;
    publish(broker, &prefix, 40);
    let group = kafka::unique("group");
    run_until(stage(broker, &prefix, &group), "all records", |status| status.records == 40).await;
    // Another group has no offsets, like a group whose offsets have expired.
    let is_blocked = |status: &Status| status.blocked.len() == 4;
    let (status, _) =
        run_until(stage(broker, &prefix, &kafka::unique("group")), "blocked partitions", is_blocked).await;
    assert_eq!(status.records, 0);
    assert!(status.blocked[&0].contains("its offsets were lost"), "{:?}", status.blocked);
    assert_eq!(status.reasons().len(), 4);
    // The first group continues, and processes nothing twice.
    publish(broker, &prefix, 8);
    let (status, _) = run_until(stage(broker, &prefix, &group), "the rest", |status| status.records == 8).await;
    assert_eq!(status.partitions[&0], Some(12));
}
