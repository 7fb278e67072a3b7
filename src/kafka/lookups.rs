//! Questions about offsets, asked of the leader of a partition or the coordinator of a group.
//!
//! Guarantees: while a partition has no leader or a new one, or a group has no coordinator or a new one (right after
//! the topic was created, in an election, while a broker restarts), the question is asked again until `timeout`; and an
//! error of a single partition is an error, never a missing offset. Other errors are returned at once. Everything here
//! blocks.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

/// Pause between two attempts: librdkafka refreshes its metadata meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns the first offset of a partition, and one above the last offset that the consumer's isolation level shows.
pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    timeout: Duration,
) -> KafkaResult<(i64, i64)> {
    retry(timeout, |remaining| consumer.fetch_watermarks(topic, partition, remaining))
}

/// Returns the first offset whose record is not older than a Unix time in milliseconds; the partition's end if all are
/// older.
pub(super) fn offset_for_time<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    time: i64,
    timeout: Duration,
) -> KafkaResult<i64> {
    let found = retry(timeout, |remaining| {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, partition, Offset::Offset(time))?;
        all_valid(consumer.offsets_for_times(list, remaining)?)
    })?;
    match found.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Ok(offset),
        _ => watermarks(consumer, topic, partition, timeout).map(|(_, end)| end),
    }
}

/// Returns the committed offsets of the consumer's group.
///
/// A cluster without any groups creates the topic `__consumer_offsets` on the first request, and has no coordinator
/// until then.
pub(super) fn committed_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &TopicPartitionList,
    timeout: Duration,
) -> KafkaResult<TopicPartitionList> {
    retry(timeout, |remaining| all_valid(consumer.committed_offsets(partitions.clone(), remaining)?))
}

/// Returns the first error of a partition, if there is one.
fn all_valid(list: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    list.elements().iter().try_for_each(rdkafka::topic_partition_list::TopicPartitionListElem::error)?;
    Ok(list)
}

/// Calls `ask` with the time that remains until it succeeds, fails for another reason than an election, or `timeout`
/// is over.
fn retry<T>(timeout: Duration, mut ask: impl FnMut(Duration) -> KafkaResult<T>) -> KafkaResult<T> {
    let deadline = Instant::now() + timeout;
    loop {
        // librdkafka takes 0 for "do not wait", so the last attempt gets a moment.
        let remaining = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
        match ask(remaining) {
            Err(error) if is_election(&error) && Instant::now() + PAUSE < deadline => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

/// Whether the partition has no leader or a new one, or the group no coordinator or a new one.
fn is_election(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let codes = [
        Code::NotLeaderForPartition,
        Code::LeaderNotAvailable,
        Code::FencedLeaderEpoch,
        Code::UnknownLeaderEpoch,
        Code::OffsetNotAvailable,
        Code::NotCoordinator,
        Code::CoordinatorNotAvailable,
        Code::CoordinatorLoadInProgress,
    ];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LEADER: KafkaError = KafkaError::MetadataFetch(RDKafkaErrorCode::NotLeaderForPartition);

    #[test]
    fn a_question_is_asked_again_while_a_leader_is_elected() {
        let mut answers = [Err(NO_LEADER), Err(NO_LEADER), Ok(7)].into_iter();
        assert_eq!(retry(Duration::from_secs(10), |_| answers.next().expect("an answer")), Ok(7));
    }

    #[test]
    fn other_errors_are_returned_at_once() {
        let denied = KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed);
        let mut answers = [Err(denied.clone()), Ok(7)].into_iter();
        assert_eq!(retry(Duration::from_secs(10), |_| answers.next().expect("an answer")), Err(denied));
    }

    #[test]
    fn an_election_that_does_not_end_is_an_error_after_the_timeout() {
        let mut remaining = Vec::new();
        let answer: KafkaResult<i64> = retry(Duration::from_millis(250), |time| {
            remaining.push(time);
            Err(NO_LEADER)
        });
        assert_eq!(answer, Err(NO_LEADER));
        assert!(remaining.len() > 1 && remaining.iter().all(|time| *time >= PAUSE), "{remaining:?}");
    }
}
