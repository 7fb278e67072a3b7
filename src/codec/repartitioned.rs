//! The headers of records in a route's internal topics, where each record is in the partition of its alerts.
//!
//! A repartitioned record has key, value and foreign headers of the original record. In addition it has:
//!
//! - `nowbridge-origin`: topic, partition and offset of the original, `<topic>/<partition>/<offset>`
//! - `nowbridge-timestamp`: the original's timestamp, from which some formats take an event's time. The record's own
//!   timestamp is that of the copy; otherwise retention would delete old records at once
//! - `nowbridge-events`: which alerts of the body count in this partition. It is left out if the body could not be
//!   decoded; such a record is copied to one partition only
//! - `nowbridge-groups`, if the route has a grouping: the key of the group of each of those alerts (a JSON list;
//!   `null`: no group)
//!
//! An event of a group has `nowbridge-group-event`: its body is a canonical event, whatever the route's format. Headers
//! of these names that a publisher has set are dropped.

use sha2::{Digest, Sha256};

use crate::model::Record;
use crate::model::record::Header;

const ORIGIN: &str = "nowbridge-origin";
const EVENTS: &str = "nowbridge-events";
const GROUPS: &str = "nowbridge-groups";
const GROUP_EVENT: &str = "nowbridge-group-event";

/// Returns the partition of an alert's records: the first eight bytes of the key's SHA-256, big-endian, modulo the
/// number of partitions. It must never change, or records of an alert would be in two partitions.
pub fn partition_for(key: &str, partitions: i32) -> i32 {
    let sha256 = Sha256::digest(key.as_bytes());
    let hash = sha256.iter().take(8).fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    i32::try_from(hash % u64::try_from(partitions.max(1)).unwrap_or(1)).unwrap_or(0)
}

/// Returns the headers for the copy of an input record in the internal topic. `events` are the indexes of the alerts
/// that count in the target partition; `None` if the record could not be decoded.
pub fn repartitioned_headers(record: &Record, events: Option<&[u32]>) -> Vec<Header> {
    let mut headers = super::dead_letter::foreign_headers(record);
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

/// Returns the position of a repartitioned record's original, in the form of the header.
pub fn origin(record: &Record) -> Option<&str> {
    record.header(ORIGIN)
}

/// Returns the headers that a record keeps if it, or its dead letter, is appended to the internal topic again.
pub(super) fn retained_headers(record: &Record) -> impl Iterator<Item = Header> + '_ {
    record.headers.iter().filter(|(name, _)| name == ORIGIN || name == GROUP_EVENT).cloned()
}

/// Returns the header that the dead letter of an event of a group keeps.
pub(super) fn group_event_header(record: &Record) -> Option<Header> {
    record.headers.iter().find(|(name, _)| name == GROUP_EVENT).cloned()
}

/// Returns the headers for the copy of an input record in the topic of alerts by group. `groups` are the keys of the
/// groups of the alerts, in the order of `events`.
pub fn grouped_headers(record: &Record, events: &[u32], groups: &[Option<String>]) -> Vec<Header> {
    let mut headers = repartitioned_headers(record, Some(events));
    headers.push((GROUPS.to_owned(), Some(serde_json::json!(groups).to_string().into_bytes())));
    headers
}

/// Returns the keys of the groups of the included events, in their order; `None` if the header is missing because the
/// record could not be decoded.
///
/// # Errors
/// The header is malformed.
pub fn group_keys(record: &Record) -> Result<Option<Vec<Option<String>>>, String> {
    let Some(text) = record.header(GROUPS) else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|error| format!("header {GROUPS}: {error}"))
}

/// Returns the headers for the copy of a grouped record that the sink reads. `events` are the alerts without a group.
pub fn ungrouped_headers(record: &Record, events: &[u32]) -> Vec<Header> {
    let mut headers = record.headers.clone();
    headers.retain(|(name, _)| name != GROUPS && name != EVENTS);
    headers.push(events_header(events));
    headers
}

/// Returns the headers of an event of a group. `record` is the record that caused it, if a single one did.
pub fn group_event_headers(record: Option<&Record>) -> Vec<Header> {
    let mut headers: Vec<Header> = record.map(|record| retained_headers(record).collect()).unwrap_or_default();
    headers.push((GROUP_EVENT.to_owned(), Some(b"1".to_vec())));
    headers.push(events_header(&[0]));
    headers
}

/// Whether the record is an event of a group.
pub fn is_group_event(record: &Record) -> bool {
    record.header(GROUP_EVENT).is_some()
}

/// Returns the indexes of the events of a repartitioned record that count in its partition; `None` if the header is
/// missing because the record could not be decoded.
///
/// # Errors
/// The header is malformed.
pub fn included_events(record: &Record) -> Result<Option<Vec<u32>>, String> {
    let Some(text) = record.header(EVENTS) else { return Ok(None) };
    let listed: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    listed.map(Some).map_err(|_| format!("header {EVENTS}: {text:?} is not a list of numbers"))
}

/// Returns the timestamp of a repartitioned record's original, Unix milliseconds.
///
/// # Errors
/// The header is malformed.
pub fn original_timestamp(record: &Record) -> Result<Option<i64>, String> {
    super::redrive::parse_number(record, super::redrive::TIMESTAMP)
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
    fn the_partition_of_a_key_never_changes() {
        // The values of the first release: another partition would separate alerts from their earlier records.
        let found: Vec<i32> =
            ["disk:a", "disk:b", "backup:db-7", "", "ä"].iter().map(|key| partition_for(key, 12)).collect();
        assert_eq!(found, PARTITIONS);
        assert!((0..1_000).all(|n| partition_for(&n.to_string(), 1) == 0));
        let mut counts = [0; 4];
        (0..4_000).for_each(|n| counts[usize::try_from(partition_for(&format!("k{n}"), 4)).expect("a partition")] += 1);
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }

    const PARTITIONS: [i32; 5] = [4, 8, 3, 4, 4];

    #[test]
    fn a_repartitioned_record_has_origin_and_timestamp_and_no_nowbridge_headers_of_the_publisher() {
        let repartitioned = Record { headers: repartitioned_headers(&record(), Some(&[0, 7])), ..record() };
        assert_eq!(repartitioned.header("trace"), Some("1"));
        assert_eq!(repartitioned.header("nowbridge-redrive"), None);
        assert_eq!(origin(&repartitioned), Some("alerts/3/41"));
        assert_eq!(included_events(&repartitioned), Ok(Some(vec![0, 7])));
        assert_eq!(original_timestamp(&repartitioned), Ok(Some(77)));
        let undecodable = Record { headers: repartitioned_headers(&record(), None), ..record() };
        assert_eq!(included_events(&undecodable), Ok(None));
    }

    #[test]
    fn events_of_groups_and_alerts_without_a_group_have_their_headers() {
        let groups = [Some("group:a".to_owned()), None];
        let grouped = Record { headers: grouped_headers(&record(), &[0, 7], &groups), ..record() };
        assert_eq!(group_keys(&grouped), Ok(Some(groups.to_vec())));
        assert!(!is_group_event(&grouped));
        let ungrouped = Record { headers: ungrouped_headers(&grouped, &[7]), ..record() };
        assert_eq!((included_events(&ungrouped), group_keys(&ungrouped)), (Ok(Some(vec![7])), Ok(None)));
        assert_eq!((origin(&ungrouped), original_timestamp(&ungrouped)), (Some("alerts/3/41"), Ok(Some(77))));
        let group_event = Record { headers: group_event_headers(Some(&grouped)), ..record() };
        assert!(is_group_event(&group_event));
        assert_eq!((origin(&group_event), included_events(&group_event)), (Some("alerts/3/41"), Ok(Some(vec![0]))));
        let retained = Record { headers: retained_headers(&group_event).collect(), ..record() };
        assert!(is_group_event(&retained) && origin(&retained) == Some("alerts/3/41"));
    }

    #[test]
    fn a_malformed_list_is_an_error() {
        let mut record = record();
        record.headers.push((EVENTS.into(), Some(b"1,x".to_vec())));
        assert!(included_events(&record).expect_err("an error").contains("nowbridge-events"));
    }
}
