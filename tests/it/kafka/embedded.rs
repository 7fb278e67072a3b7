//! librdkafka's mock cluster, which the demo uses: the clients must work with it, although it gives no guarantees.

use std::sync::Arc;

use nowbridge::kafka::topics::{Purpose, Strictness, TopicSpec, Topics};
use nowbridge::kafka::{KafkaOptions, Producer};
use nowbridge::ledger::{Identity, Loader, OnMissingLedger, StartAt};
use rdkafka::mocking::MockCluster;

use super::member::{Member, PATIENCE, fill};
use crate::support::kafka::unique;

#[tokio::test(flavor = "multi_thread")]
async fn poller_producer_and_ledger_work_with_the_mock_cluster() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    let (input, ledger, group) = (unique("input"), unique("ledger"), unique("group"));
    mock.create_topic(&input, 2, 1).expect("created");
    let options = KafkaOptions::new(mock.bootstrap_servers());
    let embedded = Strictness { unsafe_topics: true, embedded: true };
    let specs = [TopicSpec::new(&input, Purpose::Input).partitions(2), TopicSpec::new(&ledger, Purpose::Ledger)];
    let topics = Topics::new(&options, PATIENCE);
    let created = topics.create_missing(&specs, embedded).await.expect("created by a metadata request");
    assert_eq!(created, std::slice::from_ref(&ledger));
    assert_eq!(topics.check(&specs, embedded).await.expect("a response"), []);
    fill(&options, &input, 0, (0..10).map(|number| number.to_string())).await;
    let mut member = Member::join(&options, &input, &group);
    let epochs = member.assigned(2).await;
    let (producer, _) = Producer::new(&options, PATIENCE).expect("a producer");
    let identity = Identity {
        cluster_id: topics.cluster_id().await.expect("a response"),
        topic: input.clone(),
        partitions: 2,
        instance: "instance".into(),
        route: "route".into(),
        table: "incident".into(),
        key_rule: "plain".into(),
        topic_generation: 0,
    };
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
    for partition in 0..2 {
        let loaded = loader.take_over(partition, Arc::new(|_| {})).await.expect("a new ledger");
        assert_eq!((loaded.start_offset, loaded.incomplete), (0, false));
        member.handle.fetch(partition, epochs[&partition], loaded.start_offset);
    }
    let records = member.records(10).await;
    assert_eq!(records.iter().map(|(_, record)| record.offset).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    member.handle.commit(0, epochs[&0], 10);
    while member.committed(epochs[&0]).await.1 < 10 {}
    assert_eq!(loader.take_over(0, Arc::new(|_| {})).await.expect("loaded").start_offset, 10);
    member.handle.close();
    member.wait("the end", |event| matches!(event, nowbridge::kafka::PollerEvent::Closed).then_some(())).await;
}
