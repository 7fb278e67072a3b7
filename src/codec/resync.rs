//! The headers of records that a resync puts into the input: the newest event of an open ticket once more, for its values
//! only.
//!
//! Such a record is the event's, key, value and foreign headers untouched, with `nowbridge-resync` (the position of the
//! key's ledger entry: it counts only while the entry stands there), `nowbridge-index` (which of the record's events),
//! `nowbridge-timestamp` (the original's, since some formats take an event's time from it) and, of a re-keyed record, its
//! `nowbridge-origin` and `nowbridge-digest`. Its dead letter keeps the first, so that a redrive takes it for what it is.

use crate::model::record::Header;
use crate::model::{Position, Record};

const ENTRY: &str = "nowbridge-resync";

/// A record that a resync has put into the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resynced {
    /// Where the key's entry stood.
    pub entry: Position,
    /// Which of the record's events.
    pub index: u32,
    /// The original's timestamp, Unix milliseconds.
    pub timestamp: Option<i64>,
}

/// What a resync has written on a record; `None` where none has.
///
/// # Errors
/// The headers are there and make no sense: which, and why.
pub fn resynced(record: &Record) -> Result<Option<Resynced>, String> {
    if record.headers.is_empty() {
        return Ok(None);
    }
    let Some(entry) = record.header(ENTRY) else { return Ok(None) };
    let entry = super::position(entry).ok_or_else(|| format!("header {ENTRY}: {entry:?} is no position"))?;
    let index = super::redrive::number(record, super::redrive::INDEX)?;
    let index = index.ok_or_else(|| format!("header {} is missing beside {ENTRY}", super::redrive::INDEX))?;
    Ok(Some(Resynced { entry, index, timestamp: super::redrive::number(record, super::redrive::TIMESTAMP)? }))
}

/// Whether a record is one of a resync, as it lies in the input or put back from the dead letters.
pub fn is_resynced(record: &Record) -> bool {
    record.header(ENTRY).is_some()
}

/// The headers with which an event of a record goes into the input again. `timestamp` is the event's record's, Unix
/// milliseconds.
pub fn resync_headers(record: &Record, entry: Position, index: u32, timestamp: Option<i64>) -> Vec<Header> {
    let mut headers = super::letter::foreign_headers(record);
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(value.into_bytes())));
    add(ENTRY, entry.to_string());
    add(super::redrive::INDEX, index.to_string());
    if let Some(timestamp) = timestamp {
        add(super::redrive::TIMESTAMP, timestamp.to_string());
    }
    headers.extend(super::rekeyed::kept_headers(record));
    headers
}

/// What a dead letter of such a record keeps.
pub(super) fn resync_header(record: &Record) -> Option<Header> {
    record.headers.iter().find(|(name, _)| name == ENTRY).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Letter, Redriven, dead_letter, redrive_headers, redriven};
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
    fn an_event_goes_in_again_with_its_own_headers_and_is_known() {
        let entry = Position::new(2, 44, 0);
        let again = Record { headers: resync_headers(&record(), entry, 3, Some(77)), ..record() };
        assert_eq!(again.header("trace"), Some("1"));
        assert_eq!(again.header("nowbridge-origin"), Some("raw/0/7"));
        assert_eq!(redriven(&again), Ok(None), "it is no redrive any more");
        assert_eq!(resynced(&again), Ok(Some(Resynced { entry, index: 3, timestamp: Some(77) })));
        assert_eq!(resynced(&record()), Ok(None));
        assert!(is_resynced(&again) && !is_resynced(&record()));
    }

    #[test]
    fn a_redrive_of_its_dead_letter_is_one_of_its_values_only() {
        let at = Position::new(2, 50, 3);
        let headers = resync_headers(&record(), Position::new(2, 44, 0), 3, None);
        let (refused, none) = (Record { headers, ..record() }, &[][..]);
        let letter = Letter {
            code: "data_policy",
            explain: "",
            reason: "no",
            position: at,
            key: Some("k"),
            route: "alerts",
            origin: None,
            superseded: none,
        };
        let (key, value, headers) = dead_letter(&refused, &letter, 0);
        let letter = Record { key, value, headers, ..record() };
        let back = Record { headers: redrive_headers(&letter, RedriveId(1), at), ..record() };
        assert!(is_resynced(&back));
        assert!(matches!(redriven(&back), Ok(Some(Redriven::Event { index: Some(3), .. }))));
    }

    #[test]
    fn headers_that_make_no_sense_are_told() {
        let mut headers = resync_headers(&record(), Position::new(2, 44, 0), 3, None);
        headers.retain(|(name, _)| name != "nowbridge-index");
        let without = resynced(&Record { headers, ..record() }).expect_err("refused");
        assert!(without.contains("nowbridge-index is missing"), "{without}");
        let headers = vec![("nowbridge-resync".to_owned(), Some(b"7".to_vec()))];
        assert!(resynced(&Record { headers, ..record() }).expect_err("refused").contains("no position"));
    }
}
