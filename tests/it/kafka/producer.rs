//! The producer: what each outcome means, and how fast it is.

use std::time::{Duration, Instant};

use nowbridge::kafka::topics::{Purpose, TopicSpec};
use nowbridge::kafka::{Outcome, ProduceError, Producer};

use super::member::{PATIENCE, request};
use crate::support::kafka::{create, private, real, unique};

#[tokio::test(flavor = "multi_thread")]
async fn every_produce_is_answered_in_order() {
    let Some(broker) = real("every_produce_is_answered_in_order") else { return };
    let topic = unique("produce");
    broker.create(&[TopicSpec::new(&topic, Purpose::Stream).partitions(2)]).await;
    let (producer, mut deliveries) = Producer::new(&broker.options(), PATIENCE).expect("a producer");
    let count = 100_000_u64;
    let started = Instant::now();
    for tag in 0..count {
        let mut request = request(&topic, 1, "key", Some("a small value of some forty bytes, as it may be"));
        request.tag = tag;
        while let Err(error) = producer.produce(request.clone()) {
            assert!(matches!(error, ProduceError::QueueFull(_)), "{error}");
            tokio::task::yield_now().await;
        }
    }
    for tag in 0..count {
        let delivery = deliveries.recv().await.expect("an answer");
        assert_eq!(delivery.tag, tag);
        let expected = i64::try_from(tag).expect("small");
        assert!(
            matches!(delivery.outcome, Outcome::Acked { partition: 1, offset, .. } if offset == expected),
            "{delivery:?}"
        );
    }
    let rate = f64::from(u32::try_from(count).expect("small")) / started.elapsed().as_secs_f64();
    eprintln!("{rate:.0} produces a second");
    assert_eq!(producer.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_written_is_refused() {
    let Some(broker) = real("what_can_never_be_written_is_refused") else { return };
    let topic = unique("refused");
    let mut spec = TopicSpec::new(&topic, Purpose::Stream).partitions(1);
    spec.settings.insert("max.message.bytes".into(), "2000".into());
    broker.create(&[spec]).await;
    let (producer, _deliveries) = Producer::new(&broker.options(), PATIENCE).expect("a producer");
    let large = "x".repeat(5000);
    let answer = producer.produce_and_wait(request(&topic, 0, "key", Some(&large))).await;
    assert!(matches!(answer, Ok(Outcome::Refused(_))), "the broker's limit: {answer:?}");
    let huge = "x".repeat(3 << 20);
    let answer = producer.produce_and_wait(request(&topic, 0, "key", Some(&huge))).await;
    assert!(matches!(answer, Err(ProduceError::Refused { .. })), "the client's limit: {answer:?}");
    let answer = producer.produce_and_wait(request(&topic, 7, "key", Some("x"))).await;
    let refused = matches!(answer, Ok(Outcome::Refused(_)) | Err(ProduceError::Refused { .. }));
    assert!(refused, "no such partition: {answer:?}");
    let answer = producer.produce_and_wait(request(&topic, 0, "key", None)).await;
    assert!(matches!(answer, Ok(Outcome::Acked { .. })), "and it goes on: {answer:?}");
}

/// A broker that hangs: the answer is "unknown", in time, and what was sent before may indeed be there.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_broker_leaves_a_doubt() {
    let Some(mut broker) = private("a_hanging_broker_leaves_a_doubt", &[]) else { return };
    let topic = unique("doubt");
    create(&broker.options(), &[TopicSpec::new(&topic, Purpose::Stream).partitions(1)], false).await;
    let timeout = Duration::from_secs(2);
    let (producer, _deliveries) = Producer::new(&broker.options(), timeout).expect("a producer");
    let answer = producer.produce_and_wait(request(&topic, 0, "a", Some("before"))).await;
    assert!(matches!(answer, Ok(Outcome::Acked { offset: 0, .. })), "{answer:?}");
    broker.freeze();
    let started = Instant::now();
    let answer = producer.produce_and_wait(request(&topic, 0, "a", Some("frozen"))).await;
    assert!(matches!(answer, Ok(Outcome::Unknown(_))), "{answer:?}");
    let took = started.elapsed();
    assert!(took > timeout / 2 && took < timeout * 2, "answered after {took:?}");
    broker.thaw();
    // Whether the doubted one landed is not known; the client goes on either way.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match producer.produce_and_wait(request(&topic, 0, "a", Some("after"))).await {
            Ok(Outcome::Acked { offset, .. }) => break assert!(offset == 1 || offset == 2, "at {offset}"),
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
    broker.kill();
    let answer = producer.produce_and_wait(request(&topic, 0, "a", Some("gone"))).await;
    assert!(matches!(answer, Ok(Outcome::Unknown(_))), "{answer:?}");
    broker.restart();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match producer.produce_and_wait(request(&topic, 0, "a", Some("back"))).await {
            Ok(Outcome::Acked { .. }) => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}
