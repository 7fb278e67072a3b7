//! The headers of records that were put into a route's internal topic, each in the partition of its alerts.
//!
//! A re-keyed record is the original, key, value and foreign headers untouched, with `nowbridge-origin` (topic, partition
//! and offset where it stood: `<topic>/<partition>/<offset>`), `nowbridge-timestamp` (the original's, since some formats
//! take an event's time from it; the record's own is when it was re-keyed, or retention would take old records at once)
//! and `nowbridge-events`: which of the body's alerts are meant in this partition. The last is left out where the body
//! could not be read; such a record is in one place only. Headers of these names that a publisher has sent are dropped.
//!
//! Where the route makes digests, `nowbridge-groups` says to which group each of those alerts belongs (a JSON list; `null`:
//! to none), and a record that a digest has made carries `nowbridge-digest`: its body is a canonical event, whatever the
//! route's format.

use sha2::{Digest, Sha256};

use crate::model::Record;
use crate::model::record::Header;

const ORIGIN: &str = "nowbridge-origin";
const EVENTS: &str = "nowbridge-events";
const GROUPS: &str = "nowbridge-groups";
const DIGEST: &str = "nowbridge-digest";

/// The partition in which all records of an alert are. It must never change, or an alert would be in two: the first eight
/// bytes of the key's SHA-256, big-endian, modulo the number of partitions.
pub fn partition_for(key: &str, partitions: i32) -> i32 {
    let digest = Sha256::digest(key.as_bytes());
    let hash = digest.iter().take(8).fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    i32::try_from(hash % u64::try_from(partitions.max(1)).unwrap_or(1)).unwrap_or(0)
}

/// The headers of a record of the input on its way to the internal topic, about these of its events; `None` where it
/// can't be read.
pub fn rekeyed_headers(record: &Record, events: Option<&[u32]>) -> Vec<Header> {
    let mut headers = super::letter::foreign_headers(record);
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(value.into_bytes())));
    add(ORIGIN, format!("{}/{}/{}", record.topic, record.partition, record.offset));
    if let Some(timestamp) = record.timestamp {
        add(super::redrive::TIMESTAMP, timestamp.to_string());
    }
    headers.extend(events.map(events_header));
    headers
}

fn events_header(events: &[u32]) -> Header {
    let listed: Vec<String> = events.iter().map(u32::to_string).collect();
    (EVENTS.to_owned(), Some(listed.join(",").into_bytes()))
}

/// Where a re-keyed record stood in the input, in the words of the header.
pub fn origin(record: &Record) -> Option<&str> {
    record.header(ORIGIN)
}

/// What a record keeps of these headers when it, or its dead letter, is put into the internal topic again.
pub(super) fn kept_headers(record: &Record) -> impl Iterator<Item = Header> + '_ {
    record.headers.iter().filter(|(name, _)| name == ORIGIN || name == DIGEST).cloned()
}

/// What a dead letter of an event of a group keeps.
pub(super) fn digest_header(record: &Record) -> Option<Header> {
    record.headers.iter().find(|(name, _)| name == DIGEST).cloned()
}

/// The headers of a record whose alerts belong to these groups, in the order of `events`.
pub fn grouped_headers(record: &Record, events: &[u32], groups: &[Option<String>]) -> Vec<Header> {
    let mut headers = rekeyed_headers(record, Some(events));
    headers.push((GROUPS.to_owned(), Some(serde_json::json!(groups).to_string().into_bytes())));
    headers
}

/// To which groups the events of a record belong that are meant where it lies, in their order; `None`: it was not said,
/// because it could not be read.
///
/// # Errors
/// The header makes no sense.
pub fn groups(record: &Record) -> Result<Option<Vec<Option<String>>>, String> {
    let Some(text) = record.header(GROUPS) else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|error| format!("header {GROUPS}: {error}"))
}

/// The headers with which a grouped record goes on to the sink, about these of its events: those that belong to no group.
pub fn ungrouped_headers(record: &Record, events: &[u32]) -> Vec<Header> {
    let mut headers = record.headers.clone();
    headers.retain(|(name, _)| name != GROUPS && name != EVENTS);
    headers.push(events_header(events));
    headers
}

/// The headers of an event of a group; of one that a single record has brought about, with where that stood.
pub fn digest_headers(record: Option<&Record>) -> Vec<Header> {
    let mut headers: Vec<Header> = record.map(|record| kept_headers(record).collect()).unwrap_or_default();
    headers.push((DIGEST.to_owned(), Some(b"1".to_vec())));
    headers.push(events_header(&[0]));
    headers
}

/// Whether the record is an event of a group.
pub fn is_digest(record: &Record) -> bool {
    record.header(DIGEST).is_some()
}

/// Which events of a re-keyed record are meant where it lies; `None`: it was not said, because it could not be read.
///
/// # Errors
/// The header makes no sense.
pub fn events_meant(record: &Record) -> Result<Option<Vec<u32>>, String> {
    let Some(text) = record.header(EVENTS) else { return Ok(None) };
    let listed: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    listed.map(Some).map_err(|_| format!("header {EVENTS}: {text:?} is no list of numbers"))
}

/// The timestamp that a re-keyed record had in the input, Unix milliseconds.
///
/// # Errors
/// The header makes no sense.
pub fn original_timestamp(record: &Record) -> Result<Option<i64>, String> {
    super::redrive::number(record, super::redrive::TIMESTAMP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let text = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        Record {
            topic: "alerts".into(),
            partition: 3,
            offset: 41,
            key: None,
            value: Some(b"{}".to_vec()),
            headers: vec![text("trace", "1"), text("Nowbridge-Redrive", "ff"), text("nowbridge-events", "9")],
            timestamp: Some(77),
        }
    }

    #[test]
    fn the_home_of_a_key_never_changes() {
        // Of a release that is in use: a change moves alerts away from their records.
        let homes: Vec<i32> =
            ["disk:a", "disk:b", "backup:db-7", "", "ä"].iter().map(|key| partition_for(key, 12)).collect();
        assert_eq!(homes, HOMES);
        assert!((0..1_000).all(|n| partition_for(&n.to_string(), 1) == 0));
        let mut counts = [0; 4];
        (0..4_000).for_each(|n| counts[usize::try_from(partition_for(&format!("k{n}"), 4)).expect("a partition")] += 1);
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }

    const HOMES: [i32; 5] = [4, 8, 3, 4, 4];

    #[test]
    fn a_record_takes_its_place_and_time_along_and_none_of_a_publishers_words_in_our_name() {
        let moved = Record { headers: rekeyed_headers(&record(), Some(&[0, 7])), ..record() };
        assert_eq!(moved.header("trace"), Some("1"));
        assert_eq!(moved.header("nowbridge-redrive"), None);
        assert_eq!(origin(&moved), Some("alerts/3/41"));
        assert_eq!(events_meant(&moved), Ok(Some(vec![0, 7])));
        assert_eq!(original_timestamp(&moved), Ok(Some(77)));
        let unread = Record { headers: rekeyed_headers(&record(), None), ..record() };
        assert_eq!(events_meant(&unread), Ok(None));
    }

    #[test]
    fn a_digest_is_known_as_such_and_its_alerts_without_a_group_go_on() {
        let groups_of = [Some("digest:a".to_owned()), None];
        let grouped = Record { headers: grouped_headers(&record(), &[0, 7], &groups_of), ..record() };
        assert_eq!(groups(&grouped), Ok(Some(groups_of.to_vec())));
        assert!(!is_digest(&grouped));
        let alone = Record { headers: ungrouped_headers(&grouped, &[7]), ..record() };
        assert_eq!((events_meant(&alone), groups(&alone)), (Ok(Some(vec![7])), Ok(None)));
        assert_eq!((origin(&alone), original_timestamp(&alone)), (Some("alerts/3/41"), Ok(Some(77))));
        let digest = Record { headers: digest_headers(Some(&grouped)), ..record() };
        assert!(is_digest(&digest));
        assert_eq!((origin(&digest), events_meant(&digest)), (Some("alerts/3/41"), Ok(Some(vec![0]))));
        let again = Record { headers: kept_headers(&digest).collect(), ..record() };
        assert!(is_digest(&again) && origin(&again) == Some("alerts/3/41"));
    }

    #[test]
    fn a_list_that_makes_no_sense_is_told() {
        let mut record = record();
        record.headers.push((EVENTS.into(), Some(b"1,x".to_vec())));
        assert!(events_meant(&record).expect_err("refused").contains("nowbridge-events"));
    }
}
