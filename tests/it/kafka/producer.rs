//! The producer: the meaning of each outcome, and its throughput.

use std::time::{Duration, Instant};

use nowbridge::kafka::topics::{Purpose, TopicSpec};
use nowbridge::kafka::{Outcome, ProduceError, Producer};

use super::member::{PATIENCE, request};
use crate::support::kafka::{create, private, real, unique};

#[tokio::test(flavor = "multi_thread")]
async fn every_record_gets_a_delivery_in_order() {
    let Some(broker) = real("every_record_gets_a_delivery_in_order") else { return };
    let topic = unique("produce");
    broker.create(&[TopicSpec::new(&topic, Purpose::Stream).partitions(2)]).await;
    let (producer, mut deliveries) = Producer::new(&broker.options(), PATIENCE).expect("a producer");
    let count = 100_000_u64;
    let started = Instant::now();
    for tag in 0..count {
        let mut request = request(&topic, 1, "key", Some("a small value of about forty bytes, as usual"));
        request.tag = tag;
        while let Err(error) = producer.produce(request.clone()) {
            assert!(matches!(error, ProduceError::QueueFull(_)), "{error}");
            tokio::task::yield_now().await;
        }
    }
    for tag in 0..count {
        let delivery = deliveries.recv().await.expect("a delivery");
        assert_eq!(delivery.tag, tag);
        let expected = i64::try_from(tag).expect("small");
        assert!(
            matches!(delivery.outcome, Outcome::Acked { partition: 1, offset, .. } if offset == expected),
            "{delivery:?}"
        );
    }
    let rate = f64::from(u32::try_from(count).expect("small")) / started.elapsed().as_secs_f64();
    eprintln!("{rate:.0} records per second");
    assert_eq!(producer.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_can_never_be_written_is_rejected() {
    let Some(broker) = real("a_record_that_can_never_be_written_is_rejected") else { return };
    let topic = unique("rejected");
    let mut spec = TopicSpec::new(&topic, Purpose::Stream).partitions(1);
    spec.settings.insert("max.message.bytes".into(), "2000".into());
    broker.create(&[spec]).await;
    let (producer, _deliveries) = Producer::new(&broker.options(), PATIENCE).expect("a producer");
    let large = "x".repeat(5000);
    let result = producer.produce_and_wait(request(&topic, 0, "key", Some(&large))).await;
    assert!(matches!(result, Ok(Outcome::Rejected(_))), "the broker's limit: {result:?}");
    let huge = "x".repeat(3 << 20);
    let result = producer.produce_and_wait(request(&topic, 0, "key", Some(&huge))).await;
    assert!(matches!(result, Err(ProduceError::Rejected { .. })), "the client's limit: {result:?}");
    let result = producer.produce_and_wait(request(&topic, 7, "key", Some("x"))).await;
    let rejected = matches!(result, Ok(Outcome::Rejected(_)) | Err(ProduceError::Rejected { .. }));
    assert!(rejected, "unknown partition: {result:?}");
    let result = producer.produce_and_wait(request(&topic, 0, "key", None)).await;
    assert!(matches!(result, Ok(Outcome::Acked { .. })), "the producer still works: {result:?}");
}

/// With a broker that hangs, the outcome is "unknown" after the timeout, and the record may be written.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_hanging_broker_the_outcome_is_unknown() {
    let Some(mut broker) = private("with_a_hanging_broker_the_outcome_is_unknown", &[]) else { return };
    let topic = unique("unknown");
    create(&broker.options(), &[TopicSpec::new(&topic, Purpose::Stream).partitions(1)], false).await;
    let timeout = Duration::from_secs(2);
    let (producer, _deliveries) = Producer::new(&broker.options(), timeout).expect("a producer");
    let result = producer.produce_and_wait(request(&topic, 0, "a", Some("before"))).await;
    assert!(matches!(result, Ok(Outcome::Acked { offset: 0, .. })), "{result:?}");
    broker.freeze();
    let started = Instant::now();
    let result = producer.produce_and_wait(request(&topic, 0, "a", Some("frozen"))).await;
    assert!(matches!(result, Ok(Outcome::Unknown(_))), "{result:?}");
    let took = started.elapsed();
    assert!(took > timeout / 2 && took < timeout * 2, "the outcome came after {took:?}");
    broker.thaw();
    // The record may or may not have been written. The client continues in both cases.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match producer.produce_and_wait(request(&topic, 0, "a", Some("after"))).await {
            Ok(Outcome::Acked { offset, .. }) => break assert!(offset == 1 || offset == 2, "at {offset}"),
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
    broker.kill();
    let result = producer.produce_and_wait(request(&topic, 0, "a", Some("gone"))).await;
    assert!(matches!(result, Ok(Outcome::Unknown(_))), "{result:?}");
    broker.restart();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match producer.produce_and_wait(request(&topic, 0, "a", Some("back"))).await {
            Ok(Outcome::Acked { .. }) => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}
