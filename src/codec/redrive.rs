//! The headers of records that a redrive puts back into the input.
//!
//! A redriven record has key, value and foreign headers of the original record. In addition it has:
//!
//! - `nowbridge-redrive`: the id of the run
//! - `nowbridge-index`: the event of the record that the dead letter was about; the others are not applied again. It is
//!   left out if the whole record was rejected
//! - `nowbridge-key`: the alert's key, if known
//! - `nowbridge-original`: the position of the event before its first redrive, which orders the dead letters of a key
//! - `nowbridge-redrives`: how often it was redriven
//! - `nowbridge-timestamp`: the original's timestamp, from which some formats take an event's time
//! - `nowbridge-origin` and `nowbridge-group-event`, if the record was repartitioned or is an event of a group
//!
//! The last dead letter of a key is followed by a release: a record without a value, with `nowbridge-redrive`,
//! `nowbridge-key` and `nowbridge-release` (the position of the newest redriven dead letter).

use crate::model::record::Header;
use crate::model::{Position, Record, RedriveId};

const RUN: &str = "nowbridge-redrive";
pub(super) const INDEX: &str = "nowbridge-index";
const ORIGINAL: &str = "nowbridge-original";
const REDRIVES: &str = "nowbridge-redrives";
pub(super) const TIMESTAMP: &str = "nowbridge-timestamp";
const RELEASE: &str = "nowbridge-release";
const KEY: &str = "nowbridge-key";

/// The parsed headers of a record that a redrive has put into the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedriveHeaders {
    /// A redriven dead letter.
    Event {
        /// The run.
        id: RedriveId,
        /// The event of the record that is applied again; `None`: all of them.
        index: Option<u32>,
        /// The alert's key; `None` if the dead letter has none.
        key: Option<String>,
        /// The original's timestamp, Unix milliseconds.
        timestamp: Option<i64>,
    },
    /// The end of a key's redrive.
    Release {
        /// The run.
        id: RedriveId,
        /// The position of the newest redriven dead letter.
        newest: Position,
        /// The alert's key.
        key: String,
    },
}

/// Parses the headers that a redrive has added to a record; `None` if it has none.
///
/// # Errors
/// A header is missing or malformed.
pub fn parse_redrive_headers(record: &Record) -> Result<Option<RedriveHeaders>, String> {
    // Nearly all records have no headers at all.
    if record.headers.is_empty() {
        return Ok(None);
    }
    let Some(run) = record.header(RUN) else { return Ok(None) };
    let id = run.parse().map_err(|_| format!("header {RUN}: {run:?} is not a redrive id"))?;
    if let Some(newest) = record.header(RELEASE) {
        let newest = parse_position(newest).ok_or_else(|| format!("header {RELEASE}: {newest:?} is not a position"))?;
        let key = record.header(KEY).ok_or_else(|| format!("header {KEY} is missing although {RELEASE} is set"))?;
        return Ok(Some(RedriveHeaders::Release { id, newest, key: key.to_owned() }));
    }
    let key = record.header(KEY).map(str::to_owned);
    let (index, timestamp) = (parse_number(record, INDEX)?, parse_number(record, TIMESTAMP)?);
    Ok(Some(RedriveHeaders::Event { id, index, key, timestamp }))
}

/// Returns how often a record was redriven.
pub fn redrive_count(record: &Record) -> u32 {
    parse_number(record, REDRIVES).ok().flatten().unwrap_or(0)
}

/// Returns the position of the record's event before its first redrive, in the form of the header.
pub fn original_position(record: &Record) -> Option<&str> {
    record.header(ORIGINAL)
}

/// Returns the headers for the redrive of a dead letter about the event at `position`. A dead letter without a key is
/// about all events of its record.
pub fn redrive_headers(letter: &Record, id: RedriveId, position: Position) -> Vec<Header> {
    let mut headers = super::dead_letter::foreign_headers(letter);
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(value.into_bytes())));
    add(RUN, id.to_string());
    if let Some(key) = letter.header(KEY) {
        add(KEY, key.to_owned());
        add(INDEX, position.index.to_string());
    }
    add(ORIGINAL, original_position(letter).map_or_else(|| position.to_string(), str::to_owned));
    add(REDRIVES, (redrive_count(letter) + 1).to_string());
    if let Some(timestamp) = letter.header(TIMESTAMP) {
        add(TIMESTAMP, timestamp.to_owned());
    }
    headers.extend(super::repartitioned::retained_headers(letter));
    headers.extend(super::resync::resync_header(letter));
    headers
}

/// Returns the headers of the release of `key`.
pub fn release_headers(key: &str, id: RedriveId, newest: Position) -> Vec<Header> {
    let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
    vec![header(RUN, id.to_string()), header(RELEASE, newest.to_string()), header(KEY, key.to_owned())]
}

/// Parses a position as headers contain it: `<partition>/<offset>.<index>`.
pub fn parse_position(text: &str) -> Option<Position> {
    let (partition, rest) = text.split_once('/')?;
    let (offset, index) = rest.split_once('.')?;
    Some(Position::new(partition.parse().ok()?, offset.parse().ok()?, index.parse().ok()?))
}

/// Parses a numeric header; `None` if the record does not have it.
pub(super) fn parse_number<T: std::str::FromStr>(record: &Record, name: &str) -> Result<Option<T>, String> {
    let Some(text) = record.header(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("header {name}: {text:?} is not a number, or is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Record {
        let text = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        Record {
            topic: "dead".into(),
            partition: 0,
            offset: 5,
            key: Some(b"k".to_vec()),
            value: Some(b"{}".to_vec()),
            headers: vec![
                text("trace", "1"),
                ("null".into(), None),
                text("nowbridge-code", "rejected"),
                text("nowbridge-key", "k"),
                text("nowbridge-timestamp", "77"),
                text("nowbridge-redrives", "2"),
            ],
            timestamp: Some(99),
        }
    }

    #[test]
    fn a_redriven_dead_letter_keeps_its_foreign_headers_and_is_recognized() {
        let redriven =
            Record { headers: redrive_headers(&letter(), RedriveId(255), Position::new(0, 41, 3)), ..letter() };
        assert_eq!(redriven.header("trace"), Some("1"));
        assert!(redriven.headers.contains(&("null".into(), None)));
        assert_eq!(redriven.header("nowbridge-code"), None, "the reason is not redriven");
        assert_eq!(redrive_count(&redriven), 3);
        assert_eq!(original_position(&redriven), Some("0/41.3"));
        let second = redrive_headers(&redriven, RedriveId(256), Position::new(0, 99, 3));
        assert_eq!(original_position(&Record { headers: second, ..letter() }), Some("0/41.3"));
        let expected =
            RedriveHeaders::Event { id: RedriveId(255), index: Some(3), key: Some("k".into()), timestamp: Some(77) };
        assert_eq!(parse_redrive_headers(&redriven), Ok(Some(expected)));
        assert_eq!(parse_redrive_headers(&letter()), Ok(None));
    }

    #[test]
    fn a_release_names_the_newest_dead_letter() {
        let newest = Position::new(2, 41, 1);
        let headers = release_headers("disk:ä", RedriveId(7), newest);
        let release = Record { headers, value: None, ..letter() };
        let expected = RedriveHeaders::Release { id: RedriveId(7), newest, key: "disk:ä".into() };
        assert_eq!(parse_redrive_headers(&release), Ok(Some(expected)));
    }

    #[test]
    fn malformed_headers_are_errors() {
        let with = |name: &str, value: &str| {
            let mut headers = redrive_headers(&letter(), RedriveId(1), Position::new(0, 1, 0));
            headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
            parse_redrive_headers(&Record { headers, ..letter() }).expect_err("an error")
        };
        assert!(with("nowbridge-redrive", "x!").contains("not a redrive id"));
        assert!(with("nowbridge-index", "-1").contains("nowbridge-index"));
        assert!(with("nowbridge-release", "7").contains("not a position"));
        let mut release = release_headers("k", RedriveId(1), Position::new(0, 1, 0));
        release.retain(|(name, _)| name != "nowbridge-key");
        let keyless = parse_redrive_headers(&Record { headers: release, ..letter() }).expect_err("an error");
        assert!(keyless.contains("nowbridge-key"), "{keyless}");
    }

    #[test]
    fn a_record_that_was_rejected_as_a_whole_is_redriven_as_a_whole() {
        let mut keyless = letter();
        keyless.headers.retain(|(name, _)| name != "nowbridge-key");
        let headers = redrive_headers(&keyless, RedriveId(1), Position::new(0, 1, 0));
        let parsed = parse_redrive_headers(&Record { headers, ..keyless });
        assert!(matches!(parsed, Ok(Some(RedriveHeaders::Event { index: None, .. }))), "{parsed:?}");
    }
}
