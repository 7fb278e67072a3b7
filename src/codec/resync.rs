//! The headers of records that a resync appends to the input: the newest applied event of an open ticket, of which only
//! the values are written.
//!
//! Such a record has key, value and foreign headers of the event's record. In addition it has `nowbridge-resync` (the
//! position of the key's ledger entry: the record counts only while the entry is at that position), `nowbridge-index`
//! (the event of the record), `nowbridge-timestamp` (the original's timestamp, from which some formats take an event's
//! time) and, if the record was repartitioned or is an event of a group, `nowbridge-origin` and
//! `nowbridge-group-event`. Its dead letter keeps `nowbridge-resync`, so that a redrive of it writes only values, too.

use crate::model::record::Header;
use crate::model::{Position, Record};

const ENTRY: &str = "nowbridge-resync";

/// The parsed headers of a record that a resync has appended to the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResyncHeaders {
    /// The position of the key's entry when the resync read the ledger.
    pub entry: Position,
    /// The event of the record.
    pub index: u32,
    /// The original's timestamp, Unix milliseconds.
    pub timestamp: Option<i64>,
}

/// Parses the headers that a resync has added to a record; `None` if it has none.
///
/// # Errors
/// A header is missing or malformed.
pub fn parse_resync_headers(record: &Record) -> Result<Option<ResyncHeaders>, String> {
    if record.headers.is_empty() {
        return Ok(None);
    }
    let Some(entry) = record.header(ENTRY) else { return Ok(None) };
    let entry = super::parse_position(entry).ok_or_else(|| format!("header {ENTRY}: {entry:?} is not a position"))?;
    let index = super::redrive::parse_number(record, super::redrive::INDEX)?;
    let index = index.ok_or_else(|| format!("header {} is missing although {ENTRY} is set", super::redrive::INDEX))?;
    let timestamp = super::redrive::parse_number(record, super::redrive::TIMESTAMP)?;
    Ok(Some(ResyncHeaders { entry, index, timestamp }))
}

/// Whether a record comes from a resync, directly or by a redrive of its dead letter.
pub fn is_resync(record: &Record) -> bool {
    record.header(ENTRY).is_some()
}

/// Returns the headers with which a resync appends an event of a record to the input. `timestamp` is that of the
/// event's record, Unix milliseconds.
pub fn resync_headers(record: &Record, entry: Position, index: u32, timestamp: Option<i64>) -> Vec<Header> {
    let mut headers = super::dead_letter::foreign_headers(record);
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(value.into_bytes())));
    add(ENTRY, entry.to_string());
    add(super::redrive::INDEX, index.to_string());
    if let Some(timestamp) = timestamp {
        add(super::redrive::TIMESTAMP, timestamp.to_string());
    }
    headers.extend(super::repartitioned::retained_headers(record));
    headers
}

/// Returns the resync header, which the record's dead letter keeps.
pub(super) fn resync_header(record: &Record) -> Option<Header> {
    record.headers.iter().find(|(name, _)| name == ENTRY).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{DeadLetterDetails, RedriveHeaders, dead_letter, parse_redrive_headers, redrive_headers};
    use crate::model::RedriveId;

    fn record() -> Record {
        let text = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        Record {
            topic: "alerts".into(),
            partition: 2,
            offset: 41,
            key: Some(b"k".to_vec()),
            value: Some(b"{}".to_vec()),
            headers: vec![text("trace", "1"), text("nowbridge-redrive", "ff"), text("nowbridge-origin", "raw/0/7")],
            timestamp: Some(99),
        }
    }

    #[test]
    fn a_resynced_event_keeps_its_foreign_headers_and_is_recognized() {
        let entry = Position::new(2, 44, 0);
        let resynced = Record { headers: resync_headers(&record(), entry, 3, Some(77)), ..record() };
        assert_eq!(resynced.header("trace"), Some("1"));
        assert_eq!(resynced.header("nowbridge-origin"), Some("raw/0/7"));
        assert_eq!(parse_redrive_headers(&resynced), Ok(None), "it is not a redrive any more");
        assert_eq!(parse_resync_headers(&resynced), Ok(Some(ResyncHeaders { entry, index: 3, timestamp: Some(77) })));
        assert_eq!(parse_resync_headers(&record()), Ok(None));
        assert!(is_resync(&resynced) && !is_resync(&record()));
    }

    #[test]
    fn a_redrive_of_its_dead_letter_is_still_a_resync() {
        let at = Position::new(2, 50, 3);
        let headers = resync_headers(&record(), Position::new(2, 44, 0), 3, None);
        let rejected = Record { headers, ..record() };
        let details = DeadLetterDetails {
            code: "data_policy",
            explain: "",
            reason: "no",
            position: at,
            key: Some("k"),
            route: "alerts",
            origin: None,
            superseded: &[],
        };
        let (key, value, headers) = dead_letter(&rejected, &details, 0);
        let letter = Record { key, value, headers, ..record() };
        let redriven = Record { headers: redrive_headers(&letter, RedriveId(1), at), ..record() };
        assert!(is_resync(&redriven));
        assert!(matches!(parse_redrive_headers(&redriven), Ok(Some(RedriveHeaders::Event { index: Some(3), .. }))));
    }

    #[test]
    fn malformed_headers_are_errors() {
        let mut headers = resync_headers(&record(), Position::new(2, 44, 0), 3, None);
        headers.retain(|(name, _)| name != "nowbridge-index");
        let without = parse_resync_headers(&Record { headers, ..record() }).expect_err("an error");
        assert!(without.contains("nowbridge-index is missing"), "{without}");
        let headers = vec![("nowbridge-resync".to_owned(), Some(b"7".to_vec()))];
        assert!(
            parse_resync_headers(&Record { headers, ..record() }).expect_err("an error").contains("not a position")
        );
    }
}
