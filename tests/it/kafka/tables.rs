//! Tables, topics and transactions: compaction, open transactions, fencing, what a check finds.

use std::time::Duration;

use nowbridge::kafka::options::Isolation;
use nowbridge::kafka::table::{self, TableEnd, TableRead, Until};
use nowbridge::kafka::topics::{Purpose, Strictness, TopicSpec, Topics};
use nowbridge::kafka::{KafkaOptions, TransactionError, TransactionalProducer};

use super::member::{PATIENCE, fill, request};
use crate::support::kafka::{real, unique};

type Seen = Vec<(i64, String, Option<String>)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads partition 0.
async fn read(options: &KafkaOptions, topic: &str, isolation: Isolation, until: Until) -> (Seen, TableEnd) {
    let what =
        TableRead { topic: topic.into(), partition: 0, isolation, until, group: "readers".into(), patience: PATIENCE };
    let options = options.clone();
    let read = move || {
        let mut seen = Vec::new();
        let mut each = |record: table::TableRecord<'_>| {
            seen.push((record.offset, record.key.map(text).unwrap_or_default(), record.value.map(text)));
        };
        let end = table::read(&options, &what, &mut each).expect("the table can be read");
        (seen, end)
    };
    tokio::task::spawn_blocking(read).await.expect("no panic")
}

fn compacted(topic: &str) -> TopicSpec {
    let mut spec = TopicSpec::new(topic, Purpose::Table).partitions(1);
    let quick = [("segment.ms", "500"), ("min.cleanable.dirty.ratio", "0.01"), ("delete.retention.ms", "0")];
    spec.settings.extend(quick.map(|(name, value)| (name.to_owned(), value.to_owned())));
    spec
}

/// The end is found although compaction has left gaps, and everything that stands is seen once.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_table_is_read_to_its_end() {
    let Some(broker) = real("a_compacted_table_is_read_to_its_end") else { return };
    let (options, topic) = (broker.options(), unique("compacted"));
    broker.create(&[compacted(&topic)]).await;
    let (seen, end) = read(&options, &topic, Isolation::Uncommitted, Until::End).await;
    assert_eq!((seen.len(), end.next), (0, 0), "an empty one ends at once");
    // Keys repeat, so that most records can go; a later write rolls the segment and lets the cleaner at it.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut written = 0;
    let (seen, end) = loop {
        written += fill(&options, &topic, 0, (0..200).map(|number| format!("key-{}", number % 5))).await.len();
        let (seen, end) = read(&options, &topic, Isolation::Uncommitted, Until::End).await;
        if seen.len() < written / 2 {
            break (seen, end);
        }
        assert!(tokio::time::Instant::now() < deadline, "never compacted");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert_eq!(end.next, i64::try_from(written).expect("small"));
    assert_eq!(seen.last().map(|(offset, ..)| *offset), Some(end.next - 1));
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, once");
    // Up to an offset, which may itself be gone.
    let cut = seen[0].0 - 1;
    let (below, _) = read(&options, &topic, Isolation::Uncommitted, Until::Including(cut)).await;
    assert_eq!(below, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_whole_and_fenced() {
    let Some(broker) = real("transactions_are_whole_and_fenced") else { return };
    let (options, topic, id) = (broker.options(), unique("transactions"), unique("id"));
    let mut spec = TopicSpec::new(&topic, Purpose::Stream).partitions(1);
    spec.settings.insert("max.message.bytes".into(), "2000".into());
    broker.create(&[spec]).await;
    let timeout = Duration::from_secs(20);
    let first = TransactionalProducer::init(&options, &id, timeout).await.expect("a producer");
    let page = |text: &str| (0..3).map(|n| request(&topic, 0, &format!("{text}-{n}"), Some(text))).collect::<Vec<_>>();
    first.send_all(page("one")).await.expect("committed");
    // A refused record takes the whole page with it, and the next page goes on.
    let mut spoiled = page("two");
    spoiled.push(request(&topic, 0, "large", Some(&"x".repeat(5000))));
    let refused = first.send_all(spoiled).await;
    assert!(matches!(refused, Err(TransactionError::Refused(_))), "{refused:?}");
    // librdkafka may need one more abort to get over the gap that the refused batch left.
    let mut sent = first.send_all(page("three")).await;
    if matches!(sent, Err(TransactionError::Retriable(_))) {
        sent = first.send_all(page("three")).await;
    }
    sent.expect("committed");
    let second = TransactionalProducer::init(&options, &id, timeout).await.expect("a producer");
    let fenced = first.send_all(page("four")).await;
    assert!(matches!(fenced, Err(TransactionError::Fenced(_))), "{fenced:?}");
    second.send_all(page("five")).await.expect("committed");
    let (seen, end) = read(&options, &topic, Isolation::Committed, Until::End).await;
    let mut pages: Vec<_> = seen.iter().filter_map(|(_, _, value)| value.clone()).collect();
    pages.dedup();
    assert_eq!(pages, ["one", "three", "five"]);
    assert_eq!(seen.len(), 9);
    assert!(end.next > 9, "the last offset is a marker that no reader sees: {end:?}");
}

/// A transaction that another route left open must not hide what was committed before the end: it is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_waited_for() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    let Some(broker) = real("an_open_transaction_is_waited_for") else { return };
    let (options, topic) = (broker.options(), unique("open"));
    broker.create(&[TopicSpec::new(&topic, Purpose::Stream).partitions(1)]).await;
    let config = options.transactional_producer(&unique("id"), Duration::from_secs(30));
    let open: BaseProducer = config.create().expect("a producer");
    open.init_transactions(PATIENCE).expect("ready");
    open.begin_transaction().expect("begun");
    open.send(BaseRecord::<[u8], [u8]>::to(&topic).payload(b"open".as_slice())).expect("sent");
    open.flush(PATIENCE).expect("written");
    let mine = TransactionalProducer::init(&options, &unique("id"), PATIENCE).await.expect("a producer");
    mine.send_all(vec![request(&topic, 0, "checkpoint", Some("mine"))]).await.expect("committed");
    let reading = {
        let (options, topic) = (options.clone(), topic.clone());
        tokio::spawn(async move { read(&options, &topic, Isolation::Committed, Until::End).await })
    };
    // Nothing to wait for but time: the reader must still be waiting after several of its polls.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!reading.is_finished(), "it would have missed the checkpoint");
    open.abort_transaction(PATIENCE).expect("aborted");
    let (seen, _) = reading.await.expect("no panic");
    assert_eq!(seen.iter().map(|(_, key, _)| key.as_str()).collect::<Vec<_>>(), ["checkpoint"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_and_checked() {
    let Some(broker) = real("topics_are_made_and_checked") else { return };
    let (options, name) = (broker.options(), unique("checked"));
    let topics = Topics::new(&options, PATIENCE);
    let (strict, lax) = (Strictness::default(), Strictness { unsafe_topics: true, embedded: false });
    let spec = TopicSpec::new(format!("{name}.ledger"), Purpose::Ledger).partitions(3);
    let missing = topics.check(std::slice::from_ref(&spec), lax).await.expect("an answer");
    assert!(missing.len() == 1 && missing[0].fatal && missing[0].remedy.contains("topics create"), "{missing:?}");
    let made = topics.create_missing(std::slice::from_ref(&spec), lax).await.expect("made");
    assert_eq!(made, std::slice::from_ref(&spec.name));
    let made = topics.create_missing(std::slice::from_ref(&spec), lax).await.expect("nothing to do");
    assert!(made.is_empty());
    assert_eq!(topics.check(std::slice::from_ref(&spec), lax).await.expect("an answer"), []);
    // One replica is no ledger, unless somebody says that losing it does not matter.
    let findings = topics.check(std::slice::from_ref(&spec), strict).await.expect("an answer");
    let told = |word: &str| findings.iter().any(|finding| finding.fatal && finding.what.contains(word));
    assert!(told("replicas") && told("min.insync.replicas"), "{findings:?}");
    // Made by somebody who did not know.
    let foreign = TopicSpec::new(format!("{name}.foreign"), Purpose::Stream).partitions(2);
    topics.create_missing(std::slice::from_ref(&foreign), lax).await.expect("made");
    let as_ledger = TopicSpec::new(&foreign.name, Purpose::Ledger).partitions(3);
    let findings = topics.check(&[as_ledger], lax).await.expect("an answer");
    let told = |word: &str| findings.iter().any(|finding| finding.fatal && finding.what.contains(word));
    assert!(told("2 partitions") && told("cleanup.policy") && told("clocks"), "{findings:?}");
    assert!(topics.cluster_id().await.expect("an answer").is_some());
}
