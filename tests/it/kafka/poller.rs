//! The poller: starting, letting go, losing, pausing, and the lease.

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

/// Without a committed offset, with `auto.offset.reset=error`: nothing comes and nothing fails before `fetch`, and
/// then exactly what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_before_it_is_asked_for() {
    let Some(broker) = real("nothing_is_fetched_before_it_is_asked_for") else { return };
    let (topic, group) = (unique("fetch"), unique("group"));
    broker.create(&[input(&topic, 2)]).await;
    let options = broker.options();
    fill(&options, &topic, 0, numbers(0..10)).await;
    let mut member = Member::join(&options, &topic, &group);
    let epochs = member.assigned(2).await;
    assert!(epochs[&0] != epochs[&1], "an epoch names one assignment of one partition");
    // Records produced meanwhile must not come either.
    fill(&options, &topic, 0, numbers(10..20)).await;
    member.handle.fetch(1, epochs[&1], 0);
    fill(&options, &topic, 1, numbers(0..1)).await;
    let first = member.records(1).await;
    assert_eq!((first[0].1.partition, first[0].1.offset), (1, 0), "only the partition that was started");
    member.handle.fetch(0, epochs[&0], 4);
    let records = member.records(16).await;
    assert_eq!(offsets(&records), (4..20).collect::<Vec<_>>());
    assert!(records.iter().all(|(epoch, _)| *epoch == epochs[&0]));
    assert!(member.seen.iter().all(|event| !matches!(event, PollerEvent::Trouble { .. })), "{:?}", member.seen);
    // A stale epoch starts nothing; sought again, it goes back.
    member.handle.fetch(0, Epoch(0), 0);
    member.handle.fetch(0, epochs[&0], 18);
    assert_eq!(offsets(&member.records(2).await), [18, 19]);
    member.handle.close();
    member.wait("the end", |event| matches!(event, PollerEvent::Closed).then_some(())).await;
}

/// Whenever a partition is asked for, it begins where it was asked to. An assignment at a logical offset made
/// librdkafka (2.12.1) ask for the end again half a second after it, whatever had been sought meanwhile: partitions
/// whose ledger was read in just that time began at their end, and what they held was skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_begins_where_it_was_asked_to_however_long_its_ledger_took() {
    let Some(broker) = real("a_partition_begins_where_it_was_asked_to_however_long_its_ledger_took") else { return };
    let (topic, group) = (unique("begin"), unique("group"));
    let partitions = 60;
    broker.create(&[input(&topic, partitions)]).await;
    let options = broker.options();
    let (producer, _deliveries) = Producer::new(&options, Duration::from_secs(20)).expect("a producer");
    for partition in 0..partitions {
        for value in ["0", "1"] {
            producer.produce(request(&topic, partition, value, Some(value))).expect("taken");
        }
    }
    tokio::task::spawn_blocking(move || producer.flush(PATIENCE)).await.expect("flushed").expect("acknowledged");
    let mut member = Member::join(&options, &topic, &group);
    let epochs = member.assigned(60).await;
    let assigned = tokio::time::Instant::now();
    for partition in 0..partitions {
        // From 470 to 530 ms: each time a different instant of the half second's end.
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

/// A slow reader stops the flow, not the polling, and misses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_channel_pauses_and_loses_nothing() {
    let Some(broker) = real("a_full_channel_pauses_and_loses_nothing") else { return };
    let (topic, group) = (unique("full"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let options = broker.options();
    fill(&options, &topic, 0, numbers(0..20_000)).await;
    let mut member = Member::join_with(&options, &topic, &group, |settings| settings.capacity = 500);
    let epoch = member.assigned(1).await[&0];
    member.handle.fetch(0, epoch, 0);
    let before = member.handle.last_poll();
    // Nobody reads until the thread has polled on for a while with a full channel.
    let deadline = std::time::Instant::now() + LOOKUP;
    while member.handle.last_poll() < before + 500 || member.events.len() < 500 {
        assert!(std::time::Instant::now() < deadline, "polled {} ms on", member.handle.last_poll() - before);
        tokio::task::yield_now().await;
    }
    assert!(member.events.len() < 600, "the channel holds {}", member.events.len());
    member.handle.pause();
    member.handle.resume();
    let records = member.records(20_000).await;
    assert_eq!(offsets(&records), (0..20_000).collect::<Vec<_>>());
    member.handle.close();
}

/// A second member joins: the first is asked for a partition, works on until it lets go, and its last offset is
/// committed before the other begins. The partition it keeps keeps its epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_handed_over() {
    let Some(broker) = real("a_partition_is_handed_over") else { return };
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
    assert_eq!(first.handle.epoch_of(partition), Some(epoch), "still ours until it is let go");
    // A commit works while the callback blocks.
    first.handle.commit(partition, epoch, 5);
    while first.committed(epoch).await.1 < 5 {}
    assert!(second.events.is_empty(), "the other one has nothing yet");
    first.handle.release(partition, epoch, Some(7));
    let gained = second.assigned(1).await;
    assert_eq!(gained.keys().copied().collect::<Vec<_>>(), [partition]);
    assert!(gained[&partition] > epoch, "epochs rise");
    assert_eq!(first.handle.epoch_of(partition), None);
    let handle = second.handle.clone();
    let committed = tokio::task::spawn_blocking(move || handle.committed_offset(partition, LOOKUP)).await;
    assert_eq!(committed.expect("no panic").expect("an answer"), Some(7));
    let kept = 1 - partition;
    assert_eq!(first.handle.epoch_of(kept), Some(epochs[&kept]), "the other partition was never touched");
    // The new owner goes on behind the offset; the old one gets nothing of it any more.
    second.handle.fetch(partition, gained[&partition], 7);
    assert_eq!(offsets(&second.records(3).await), [7, 8, 9]);
    first.handle.close();
    second.assigned(1).await;
    second.handle.close();
}

/// A member that does not let go is not waited for longer than the drain deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_handover_is_bounded() {
    let Some(broker) = real("a_handover_is_bounded") else { return };
    let (topic, group) = (unique("bounded"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let options = broker.options();
    let mut first = Member::join_with(&options, &topic, &group, |settings| settings.drain = Duration::from_millis(500));
    let epoch = first.assigned(1).await[&0];
    let started = std::time::Instant::now();
    first.handle.close();
    first.wait("a revocation", |event| matches!(event, PollerEvent::Revoked { .. }).then_some(())).await;
    first.wait("the end", |event| matches!(event, PollerEvent::Closed).then_some(())).await;
    assert!(started.elapsed() < Duration::from_secs(4), "took {:?}", started.elapsed());
    assert_eq!(first.handle.epoch_of(0), None);
    let stale = first.seen.iter().any(|event| matches!(event, PollerEvent::Committed { epoch: e, .. } if *e == epoch));
    assert!(!stale, "nothing was released, so nothing is committed");
}

/// The lease: a commit is renewed although nothing moves, each stamped with a later time.
#[tokio::test(flavor = "multi_thread")]
async fn leases_are_renewed() {
    let Some(broker) = real("leases_are_renewed") else { return };
    let (topic, group) = (unique("lease"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let mut member = Member::join_with(&broker.options(), &topic, &group, |settings| {
        settings.session_timeout = Duration::from_secs(2);
    });
    let epoch = member.assigned(1).await[&0];
    let asked = clock::mono();
    member.handle.commit(0, epoch, 0);
    let (first, offset) = member.committed(epoch).await;
    assert!((asked..=clock::mono()).contains(&first), "stamped when sent");
    assert_eq!(offset, 0);
    let (second, _) = member.committed(epoch).await;
    let (third, _) = member.committed(epoch).await;
    for gap in [second - first, third - second] {
        assert!((400..1500).contains(&gap), "renewed after {gap} ms");
    }
    // Another epoch's commit is never sent.
    member.handle.commit(0, Epoch(epoch.0 - 1), 9);
    assert_eq!(member.committed(epoch).await.1, 0);
    member.handle.close();
}

/// The next offset was deleted: said with both ends, and goes on from where it is told.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_reported() {
    let Some(broker) = real("deleted_records_are_reported") else { return };
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

/// Ends and times are looked up while another thread polls.
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
    let look = move || {
        let committed = handle.committed_offset(0, LOOKUP).expect("an answer");
        let ends = handle.watermarks(0, LOOKUP).expect("ends");
        let (old, new) = (handle.offset_for_time(0, 1, LOOKUP), handle.offset_for_time(0, i64::MAX / 2, LOOKUP));
        (
            committed,
            ends,
            old.expect("an offset"),
            new.expect("an offset"),
            handle.partition_count(LOOKUP).expect("a count"),
        )
    };
    let found = tokio::task::spawn_blocking(look).await.expect("no panic");
    assert_eq!(found, (None, (0, 3), 0, 3, 1));
    member.handle.close();
}

/// Three members come and go: no partition is ever two members' own at once, and every record comes.
#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go() {
    let Some(broker) = real("members_come_and_go") else { return };
    let (topic, group) = (unique("come-and-go"), unique("group"));
    broker.create(&[input(&topic, 4)]).await;
    let options = broker.options();
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..3 {
        members.push(Member::join(&options, &topic, &group));
        settle(&mut members, 4).await;
    }
    let gone = members.remove(0);
    gone.handle.close();
    drop(gone);
    settle(&mut members, 4).await;
}

/// Lets go whatever is asked for until the members own all partitions, each one exactly once.
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
        assert!(std::time::Instant::now() < deadline, "not settled: {each:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A member that does not poll for too long is thrown out: it is told that the partition is lost, by then another has
/// it, and what it still wants to commit is not sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_member_loses_its_partitions() {
    let Some(broker) = real("a_stalled_member_loses_its_partitions") else { return };
    let (topic, group) = (unique("stalled"), unique("group"));
    broker.create(&[input(&topic, 1)]).await;
    let options = broker.options();
    let mut stalled = Member::join_with(&options, &topic, &group, |settings| {
        settings.session_timeout = Duration::from_secs(2);
        settings.max_poll_interval = Duration::from_secs(6);
        settings.drain = Duration::from_millis(3500);
    });
    let epoch = stalled.assigned(1).await[&0];
    stalled.handle.commit(0, epoch, 1);
    stalled.committed(epoch).await;
    stalled.handle.stall(Duration::from_secs(9));
    let mut other = Member::join(&options, &topic, &group);
    let gained = other.assigned(1).await[&0];
    assert_eq!(stalled.handle.epoch_of(0), Some(epoch), "it can't know yet: hence the lease");
    stalled.wait("the loss", |event| (*event == PollerEvent::Lost { partition: 0, epoch }).then_some(())).await;
    assert_eq!(stalled.handle.epoch_of(0), None);
    // Neither the old epoch nor a release sets the group's offset back.
    other.handle.commit(0, gained, 5);
    while other.committed(gained).await.1 < 5 {}
    stalled.handle.commit(0, epoch, 9);
    stalled.handle.release(0, epoch, Some(9));
    while other.committed(gained).await.1 < 5 {}
    let handle = other.handle.clone();
    let committed = tokio::task::spawn_blocking(move || handle.committed_offset(0, LOOKUP)).await;
    assert_eq!(committed.expect("no panic").expect("an answer"), Some(5));
    stalled.handle.close();
    other.handle.close();
}
