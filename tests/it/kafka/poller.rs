//! The poller: fetching, pausing, revoked and lost partitions, and the lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nowbridge::kafka::topics::{Purpose, TopicSpec};
use nowbridge::kafka::{PollerEvent, Producer};
use nowbridge::model::Epoch;
use nowbridge::runtime::clock;

use super::member::{Member, PATIENCE, fill, request};
use crate::support::kafka::{real, unique};

const LOOKUP: Duration = Duration::from_secs(10);

fn input(topic: &str, partitions: i32) -> TopicSpec {
    TopicSpec::new(topic, Purpose::Input).partitions(partitions)
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

fn offsets(records: &[(Epoch, nowbridge::model::Record)]) -> Vec<i64> {
    records.iter().map(|(_, record)| record.offset).collect()
}

/// Without a committed offset, with `auto.offset.reset=error`: before `fetch` there are neither records nor errors, and
/// after it exactly the requested records.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_before_it_is_requested() {
    let Some(broker) = real("nothing_is_fetched_before_it_is_requested") else { return };
    let (topic, group) = (unique("fetch"), unique("group"));
    broker.create(&[input(&topic, 2)]).await;
    let options = broker.options();
    fill(&options, &topic, 0, numbers(0..10)).await;
    let mut member = Member::join(&options, &topic, &group);
    let epochs = member.assigned(2).await;
    assert!(epochs[&0] != epochs[&1], "an epoch is one assignment of one partition");
    // Records that are produced meanwhile must not be fetched either.
    fill(&options, &topic, 0, numbers(10..20)).await;
    member.handle.fetch(1, epochs[&1], 0);
    fill(&options, &topic, 1, numbers(0..1)).await;
    let first = member.records(1).await;
    assert_eq!((first[0].1.partition, first[0].1.offset), (1, 0), "only the partition that was started");
    member.handle.fetch(0, epochs[&0], 4);
    let records = member.records(16).await;
    assert_eq!(offsets(&records), (4..20).collect::<Vec<_>>());
    assert!(records.iter().all(|(epoch, _)| *epoch == epochs[&0]));
    assert!(member.received.iter().all(|event| !matches!(event, PollerEvent::Error { .. })), "{:?}", member.received);
    // A stale epoch starts nothing. Another `fetch` may go back.
    member.handle.fetch(0, Epoch(0), 0);
    member.handle.fetch(0, epochs[&0], 18);
    assert_eq!(offsets(&member.records(2).await), [18, 19]);
    member.handle.close();
    member.wait("the end", |event| matches!(event, PollerEvent::Closed).then_some(())).await;
}

/// A partition starts at the requested offset, whenever `fetch` is called. After an assignment at a logical offset,
/// librdkafka (2.12.1) asked for the end again half a second later, even after a seek: partitions whose ledger was
/// loaded in just that time started at their end, and their records were skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_starts_at_the_requested_offset_whenever_it_is_fetched() {
    let Some(broker) = real("a_partition_starts_at_the_requested_offset_whenever_it_is_fetched") else { return };
    let (topic, group) = (unique("start"), unique("group"));
    let partitions = 60;
    broker.create(&[input(&topic, partitions)]).await;
    let options = broker.options();
    let (producer, _deliveries) = Producer::new(&options, Duration::from_secs(20)).expect("a producer");
    for partition in 0..partitions {
        for value in ["0", "1"] {
            producer.produce(request(&topic, partition, value, Some(value))).expect("accepted");
        }
    }
    tokio::task::spawn_blocking(move || producer.flush(PATIENCE)).await.expect("flushed").expect("acknowledged");
    let mut member = Member::join(&options, &topic, &group);
    let epochs = member.assigned(60).await;
    let assigned = tokio::time::Instant::now();
    for partition in 0..partitions {
        // From 470 to 530 ms after the assignment: around half a second, in steps of one millisecond.
        let after = Duration::from_millis(470 + u64::try_from(partition).expect("a number"));
        tokio::time::sleep_until(assigned + after).await;
        member.handle.fetch(partition, epochs[&partition], 0);
    }
    let mut first: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for (_, record) in member.records(120).await {
        first.entry(record.partition).or_default().push(record.offset);
    }
    assert!(first.values().all(|offsets| offsets == &[0, 1]), "{first:?}");
    member.handle.close();
}

/// With a slow reader, fetching pauses, polling continues, and no record is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_channel_pauses_fetching_and_loses_nothing() {
    let Some(broker) = real("a_full_channel_pauses_fetching_and_loses_nothing") else { return };
    let (topic, group) = (unique("full"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let options = broker.options();
    fill(&options, &topic, 0, numbers(0..20_000)).await;
    let mut member = Member::join_with(&options, &topic, &group, |settings| settings.capacity = 500);
    let epoch = member.assigned(1).await[&0];
    member.handle.fetch(0, epoch, 0);
    let before = member.handle.last_poll();
    // Nothing is read until the thread has polled for a while with a full channel.
    let deadline = std::time::Instant::now() + LOOKUP;
    while member.handle.last_poll() < before + 500 || member.events.len() < 500 {
        assert!(std::time::Instant::now() < deadline, "polled for {} ms", member.handle.last_poll() - before);
        tokio::task::yield_now().await;
    }
    assert!(member.events.len() < 600, "the channel contains {}", member.events.len());
    member.handle.pause();
    member.handle.resume();
    let records = member.records(20_000).await;
    assert_eq!(offsets(&records), (0..20_000).collect::<Vec<_>>());
    member.handle.close();
}

/// A second member joins: a partition of the first is revoked and stays assigned until its release, and its last offset
/// is committed before it is assigned to the second. The other partition keeps its epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_partition_is_released_and_committed_before_it_is_assigned() {
    let Some(broker) = real("a_revoked_partition_is_released_and_committed_before_it_is_assigned") else { return };
    let (topic, group) = (unique("handover"), unique("group"));
    broker.create(&[input(&topic, 2)]).await;
    let options = broker.options();
    for partition in 0..2 {
        fill(&options, &topic, partition, numbers(0..10)).await;
    }
    let mut first = Member::join(&options, &topic, &group);
    let epochs = first.assigned(2).await;
    for (&partition, &epoch) in &epochs {
        first.handle.fetch(partition, epoch, 0);
        first.handle.commit(partition, epoch, 1);
    }
    first.records(20).await;
    let mut second = Member::join(&options, &topic, &group);
    let revoked = |event: &PollerEvent| match event {
        PollerEvent::Revoked { partition, epoch } => Some((*partition, *epoch)),
        _ => None,
    };
    let (partition, epoch) = first.wait("a revocation", revoked).await;
    assert_eq!(epoch, epochs[&partition]);
    assert_eq!(first.handle.epoch_of(partition), Some(epoch), "still assigned until it is released");
    // A commit works while the callback blocks.
    first.handle.commit(partition, epoch, 5);
    while first.committed(epoch).await.1 < 5 {}
    assert!(second.events.is_empty(), "nothing is assigned to the second member yet");
    first.handle.release(partition, epoch, Some(7));
    let assigned = second.assigned(1).await;
    assert_eq!(assigned.keys().copied().collect::<Vec<_>>(), [partition]);
    assert!(assigned[&partition] > epoch, "epochs increase");
    assert_eq!(first.handle.epoch_of(partition), None);
    let handle = second.handle.clone();
    let committed = tokio::task::spawn_blocking(move || handle.committed_offset(partition, LOOKUP)).await;
    assert_eq!(committed.expect("no panic").expect("a response"), Some(7));
    let kept = 1 - partition;
    assert_eq!(first.handle.epoch_of(kept), Some(epochs[&kept]), "the other partition was not revoked");
    // The new owner continues at the offset. The previous owner receives no more records.
    second.handle.fetch(partition, assigned[&partition], 7);
    assert_eq!(offsets(&second.records(3).await), [7, 8, 9]);
    first.handle.close();
    second.assigned(1).await;
    second.handle.close();
}

/// The rebalance waits for a release until the drain deadline at most.
#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_a_release_is_limited() {
    let Some(broker) = real("the_wait_for_a_release_is_limited") else { return };
    let (topic, group) = (unique("bounded"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let options = broker.options();
    let mut first =
        Member::join_with(&options, &topic, &group, |settings| settings.drain_timeout = Duration::from_millis(500));
    let epoch = first.assigned(1).await[&0];
    let started = std::time::Instant::now();
    first.handle.close();
    first.wait("a revocation", |event| matches!(event, PollerEvent::Revoked { .. }).then_some(())).await;
    first.wait("the end", |event| matches!(event, PollerEvent::Closed).then_some(())).await;
    assert!(started.elapsed() < Duration::from_secs(4), "took {:?}", started.elapsed());
    assert_eq!(first.handle.epoch_of(0), None);
    let committed =
        first.received.iter().any(|event| matches!(event, PollerEvent::Committed { epoch: e, .. } if *e == epoch));
    assert!(!committed, "without a release nothing is committed");
}

/// The lease: a commit is repeated although the offset does not change, each with a later time.
#[tokio::test(flavor = "multi_thread")]
async fn leases_are_renewed() {
    let Some(broker) = real("leases_are_renewed") else { return };
    let (topic, group) = (unique("lease"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let mut member = Member::join_with(&broker.options(), &topic, &group, |settings| {
        settings.session_timeout = Duration::from_secs(2);
    });
    let epoch = member.assigned(1).await[&0];
    let requested = clock::mono();
    member.handle.commit(0, epoch, 0);
    let (first, offset) = member.committed(epoch).await;
    assert!((requested..=clock::mono()).contains(&first), "the time at which it was sent");
    assert_eq!(offset, 0);
    let (second, _) = member.committed(epoch).await;
    let (third, _) = member.committed(epoch).await;
    for gap in [second - first, third - second] {
        assert!((400..1500).contains(&gap), "renewed after {gap} ms");
    }
    // A commit of another epoch is never sent.
    member.handle.commit(0, Epoch(epoch.0 - 1), 9);
    assert_eq!(member.committed(epoch).await.1, 0);
    member.handle.close();
}

/// The next offset was deleted: the event contains the first and the last offset, and another `fetch` continues.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_out_of_range_is_reported() {
    let Some(broker) = real("an_offset_out_of_range_is_reported") else { return };
    let (topic, group) = (unique("deleted"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let options = broker.options();
    fill(&options, &topic, 0, numbers(0..10)).await;
    delete_before(&options, &topic, 6).await;
    let mut member = Member::join(&options, &topic, &group);
    let epoch = member.assigned(1).await[&0];
    member.handle.fetch(0, epoch, 2);
    let range = |event: &PollerEvent| match event {
        PollerEvent::OutOfRange { wanted, low, high, .. } => Some((*wanted, *low, *high)),
        _ => None,
    };
    assert_eq!(member.wait("the range", range).await, (2, 6, 10));
    member.handle.fetch(0, epoch, 6);
    assert_eq!(offsets(&member.records(4).await), [6, 7, 8, 9]);
    member.handle.fetch(0, epoch, 60);
    assert_eq!(member.wait("the range", range).await, (60, 6, 10));
    member.handle.close();
}

async fn delete_before(options: &nowbridge::kafka::KafkaOptions, topic: &str, offset: i64) {
    use rdkafka::admin::{AdminClient, AdminOptions};
    let admin: AdminClient<_> = options.admin().create().expect("an admin client");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Offset(offset)).expect("an offset");
    admin.delete_records(&list, &AdminOptions::new()).await.expect("records can be deleted");
}

/// Offsets are looked up while another thread polls.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_looked_up() {
    let Some(broker) = real("offsets_are_looked_up") else { return };
    let (topic, group) = (unique("lookup"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let options = broker.options();
    fill(&options, &topic, 0, numbers(0..3)).await;
    let mut member = Member::join(&options, &topic, &group);
    member.assigned(1).await;
    let handle = member.handle.clone();
    let lookup = move || {
        let committed = handle.committed_offset(0, LOOKUP).expect("a response");
        let ends = handle.watermarks(0, LOOKUP).expect("watermarks");
        let (old, new) = (handle.offset_for_time(0, 1, LOOKUP), handle.offset_for_time(0, i64::MAX / 2, LOOKUP));
        (
            committed,
            ends,
            old.expect("an offset"),
            new.expect("an offset"),
            handle.partition_count(LOOKUP).expect("a count"),
        )
    };
    let found = tokio::task::spawn_blocking(lookup).await.expect("no panic");
    assert_eq!(found, (None, (0, 3), 0, 3, 1));
    member.handle.close();
}

/// Members join and leave: no partition is ever assigned to two members at once.
#[tokio::test(flavor = "multi_thread")]
async fn members_join_and_leave() {
    let Some(broker) = real("members_join_and_leave") else { return };
    let (topic, group) = (unique("join-and-leave"), unique("group"));
    broker.create(&[input(&topic, 4)]).await;
    let options = broker.options();
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..3 {
        members.push(Member::join(&options, &topic, &group));
        settle(&mut members, 4).await;
    }
    let leaving = members.remove(0);
    leaving.handle.close();
    drop(leaving);
    settle(&mut members, 4).await;
}

/// Releases revoked partitions until all partitions are assigned, each to exactly one member.
async fn settle(members: &mut [Member], partitions: usize) {
    let deadline = std::time::Instant::now() + super::member::PATIENCE;
    loop {
        for member in members.iter_mut() {
            while let Ok(event) = member.events.try_recv() {
                if let PollerEvent::Revoked { partition, epoch } = event {
                    member.handle.release(partition, epoch, None);
                }
            }
        }
        let count = i32::try_from(partitions).expect("few");
        let owned = |member: &Member| (0..count).filter(|p| member.handle.epoch_of(*p).is_some()).collect::<Vec<_>>();
        let each: Vec<Vec<i32>> = members.iter().map(owned).collect();
        let all: Vec<i32> = each.iter().flatten().copied().collect();
        assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len(), "two owners: {each:?}");
        if all.len() == partitions && each.iter().all(|owned| !owned.is_empty()) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "not assigned in time: {each:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A member that does not poll for too long is removed from the group: its partition is assigned to another member,
/// then the first one learns of the loss, and its later commits are not sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_member_loses_its_partitions() {
    let Some(broker) = real("a_stalled_member_loses_its_partitions") else { return };
    let (topic, group) = (unique("stalled"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let options = broker.options();
    let mut stalled = Member::join_with(&options, &topic, &group, |settings| {
        settings.session_timeout = Duration::from_secs(2);
        settings.max_poll_interval = Duration::from_secs(6);
        settings.drain_timeout = Duration::from_millis(3500);
    });
    let epoch = stalled.assigned(1).await[&0];
    stalled.handle.commit(0, epoch, 1);
    stalled.committed(epoch).await;
    stalled.handle.stall(Duration::from_secs(9));
    let mut other = Member::join(&options, &topic, &group);
    let new_epoch = other.assigned(1).await[&0];
    assert_eq!(stalled.handle.epoch_of(0), Some(epoch), "the stalled member cannot know yet, hence the lease");
    stalled.wait("the loss", |event| (*event == PollerEvent::Lost { partition: 0, epoch }).then_some(())).await;
    assert_eq!(stalled.handle.epoch_of(0), None);
    // Neither the old epoch nor a release sets the group's offset back.
    other.handle.commit(0, new_epoch, 5);
    while other.committed(new_epoch).await.1 < 5 {}
    stalled.handle.commit(0, epoch, 9);
    stalled.handle.release(0, epoch, Some(9));
    while other.committed(new_epoch).await.1 < 5 {}
    let handle = other.handle.clone();
    let committed = tokio::task::spawn_blocking(move || handle.committed_offset(0, LOOKUP)).await;
    assert_eq!(committed.expect("no panic").expect("a response"), Some(5));
    stalled.handle.close();
    other.handle.close();
}
