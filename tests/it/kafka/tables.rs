//! Reads of tables, topics, and transactions: compaction, open transactions, fencing, findings of checks.

use std::time::Duration;

use nowbridge::kafka::options::Isolation;
use nowbridge::kafka::table::{self, StopAt, TableRead, TableReadResult};
use nowbridge::kafka::topics::{Purpose, Strictness, TopicSpec, Topics};
use nowbridge::kafka::{KafkaOptions, TransactionError, TransactionalProducer};

use super::member::{PATIENCE, fill, request};
use crate::support::kafka::{real, unique};

/// Offset, key and value of each record.
type Rows = Vec<(i64, String, Option<String>)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads partition 0.
async fn read(options: &KafkaOptions, topic: &str, isolation: Isolation, stop_at: StopAt) -> (Rows, TableReadResult) {
    let request = TableRead {
        topic: topic.into(),
        partition: 0,
        isolation,
        stop_at,
        group: "readers".into(),
        idle_timeout: PATIENCE,
    };
    let options = options.clone();
    let read = move || {
        let mut rows = Vec::new();
        let mut on_record = |record: table::TableRecord<'_>| {
            rows.push((record.offset, record.key.map(text).unwrap_or_default(), record.value.map(text)));
        };
        let result = table::read(&options, &request, &mut on_record).expect("the table can be read");
        (rows, result)
    };
    tokio::task::spawn_blocking(read).await.expect("no panic")
}

fn compacted(topic: &str) -> TopicSpec {
    let mut spec = TopicSpec::new(topic, Purpose::Table).partitions(1);
    let quick = [("segment.ms", "500"), ("min.cleanable.dirty.ratio", "0.01"), ("delete.retention.ms", "0")];
    spec.settings.extend(quick.map(|(name, value)| (name.to_owned(), value.to_owned())));
    spec
}

/// A read reaches the end although compaction has left gaps, and returns every record once.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_table_is_read_to_its_end() {
    let Some(broker) = real("a_compacted_table_is_read_to_its_end") else { return };
    let (options, topic) = (broker.options(), unique("compacted"));
    broker.create(&[compacted(&topic)]).await;
    let (rows, end) = read(&options, &topic, Isolation::Uncommitted, StopAt::End).await;
    assert_eq!((rows.len(), end.next), (0, 0), "the read of an empty topic ends at once");
    // Keys repeat, so that most records can be compacted. A later write rolls the segment, which the cleaner requires.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut written = 0;
    let (rows, end) = loop {
        written += fill(&options, &topic, 0, (0..200).map(|number| format!("key-{}", number % 5))).await.len();
        let (rows, end) = read(&options, &topic, Isolation::Uncommitted, StopAt::End).await;
        if rows.len() < written / 2 {
            break (rows, end);
        }
        assert!(tokio::time::Instant::now() < deadline, "not compacted in time");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert_eq!(end.next, i64::try_from(written).expect("small"));
    assert_eq!(rows.last().map(|(offset, ..)| *offset), Some(end.next - 1));
    assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, each once");
    // Up to an offset that may not exist any more.
    let cut = rows[0].0 - 1;
    let (below, _) = read(&options, &topic, Isolation::Uncommitted, StopAt::Including(cut)).await;
    assert_eq!(below, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_atomic_and_fenced() {
    let Some(broker) = real("transactions_are_atomic_and_fenced") else { return };
    let (options, topic, id) = (broker.options(), unique("transactions"), unique("id"));
    let mut spec = TopicSpec::new(&topic, Purpose::Stream).partitions(1);
    spec.settings.insert("max.message.bytes".into(), "2000".into());
    broker.create(&[spec]).await;
    let timeout = Duration::from_secs(20);
    let first = TransactionalProducer::init(&options, &id, timeout).await.expect("a producer");
    let batch = |text: &str| (0..3).map(|n| request(&topic, 0, &format!("{text}-{n}"), Some(text))).collect::<Vec<_>>();
    first.send_all(batch("one")).await.expect("committed");
    // A rejected record aborts the whole transaction, and the next transaction works.
    let mut with_rejected = batch("two");
    with_rejected.push(request(&topic, 0, "large", Some(&"x".repeat(5000))));
    let rejected = first.send_all(with_rejected).await;
    assert!(matches!(rejected, Err(TransactionError::Rejected(_))), "{rejected:?}");
    // librdkafka may need one more abort because of the sequence gap that the rejected batch has left.
    let mut sent = first.send_all(batch("three")).await;
    if matches!(sent, Err(TransactionError::Retriable(_))) {
        sent = first.send_all(batch("three")).await;
    }
    sent.expect("committed");
    let second = TransactionalProducer::init(&options, &id, timeout).await.expect("a producer");
    let fenced = first.send_all(batch("four")).await;
    assert!(matches!(fenced, Err(TransactionError::Fenced(_))), "{fenced:?}");
    second.send_all(batch("five")).await.expect("committed");
    let (rows, end) = read(&options, &topic, Isolation::Committed, StopAt::End).await;
    let mut batches: Vec<_> = rows.iter().filter_map(|(_, _, value)| value.clone()).collect();
    batches.dedup();
    assert_eq!(batches, ["one", "three", "five"]);
    assert_eq!(rows.len(), 9);
    assert!(end.next > 9, "the last offset is a transaction marker, which no reader sees: {end:?}");
}

/// An open transaction of another route must not hide later committed records: the read waits until it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_an_open_transaction() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    let Some(broker) = real("a_read_waits_for_an_open_transaction") else { return };
    let (options, topic) = (broker.options(), unique("open"));
    broker.create(&[TopicSpec::new(&topic, Purpose::Stream).partitions(1)]).await;
    let config = options.transactional_producer(&unique("id"), Duration::from_secs(30));
    let open: BaseProducer = config.create().expect("a producer");
    open.init_transactions(PATIENCE).expect("ready");
    open.begin_transaction().expect("started");
    open.send(BaseRecord::<[u8], [u8]>::to(&topic).payload(b"open".as_slice())).expect("sent");
    open.flush(PATIENCE).expect("written");
    let other = TransactionalProducer::init(&options, &unique("id"), PATIENCE).await.expect("a producer");
    other.send_all(vec![request(&topic, 0, "checkpoint", Some("value"))]).await.expect("committed");
    let reading = {
        let (options, topic) = (options.clone(), topic.clone());
        tokio::spawn(async move { read(&options, &topic, Isolation::Committed, StopAt::End).await })
    };
    // There is no event to wait for: the read must still wait after several polls.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!reading.is_finished(), "it would miss the checkpoint");
    open.abort_transaction(PATIENCE).expect("aborted");
    let (rows, _) = reading.await.expect("no panic");
    assert_eq!(rows.iter().map(|(_, key, _)| key.as_str()).collect::<Vec<_>>(), ["checkpoint"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_and_checked() {
    let Some(broker) = real("topics_are_created_and_checked") else { return };
    let (options, name) = (broker.options(), unique("checked"));
    let topics = Topics::new(&options, PATIENCE);
    let (strict, lax) = (Strictness::default(), Strictness { unsafe_topics: true, embedded: false });
    let spec = TopicSpec::new(format!("{name}.ledger"), Purpose::Ledger).partitions(3);
    let missing = topics.check(std::slice::from_ref(&spec), lax).await.expect("a response");
    assert!(missing.len() == 1 && missing[0].fatal && missing[0].remedy.contains("topics create"), "{missing:?}");
    let created = topics.create_missing(std::slice::from_ref(&spec), lax).await.expect("created");
    assert_eq!(created, std::slice::from_ref(&spec.name));
    let created = topics.create_missing(std::slice::from_ref(&spec), lax).await.expect("nothing to do");
    assert!(created.is_empty());
    assert_eq!(topics.check(std::slice::from_ref(&spec), lax).await.expect("a response"), []);
    // A ledger with one replica is an error, unless `unsafe_topics` is set.
    let findings = topics.check(std::slice::from_ref(&spec), strict).await.expect("a response");
    let is_fatal = |word: &str| findings.iter().any(|finding| finding.fatal && finding.problem.contains(word));
    assert!(is_fatal("replicas") && is_fatal("min.insync.replicas"), "{findings:?}");
    // A topic with other settings.
    let foreign = TopicSpec::new(format!("{name}.foreign"), Purpose::Stream).partitions(2);
    topics.create_missing(std::slice::from_ref(&foreign), lax).await.expect("created");
    let as_ledger = TopicSpec::new(&foreign.name, Purpose::Ledger).partitions(3);
    let findings = topics.check(&[as_ledger], lax).await.expect("a response");
    let is_fatal = |word: &str| findings.iter().any(|finding| finding.fatal && finding.problem.contains(word));
    assert!(is_fatal("2 partitions") && is_fatal("cleanup.policy") && is_fatal("timestamps"), "{findings:?}");
    assert!(topics.cluster_id().await.expect("a response").is_some());
}
