//! The headers of records that a redrive puts back into the input.
//!
//! A redriven record is its dead letter's original, key, value and foreign headers untouched, with `nowbridge-redrive`
//! (the run), `nowbridge-index` (which of the record's events the letter is about: the others are not tried again;
//! it is left out where the record was refused as a whole), `nowbridge-key` (the letter's alert key, where known),
//! `nowbridge-original` (where the event stood first, by which letters of a key are put in order), `nowbridge-redrives`
//! (how often it has been put back) and `nowbridge-timestamp` (the original's, since some formats take an event's time
//! from it) and, of a re-keyed record, its `nowbridge-origin` and `nowbridge-digest`. Behind the last letter of a key comes its release: a record without a value, with
//! `nowbridge-redrive`, `nowbridge-key` and `nowbridge-release` (the position of the newest letter that was put back).

use crate::model::record::Header;
use crate::model::{Position, Record, RedriveId};

const RUN: &str = "nowbridge-redrive";
pub(super) const INDEX: &str = "nowbridge-index";
const ORIGINAL: &str = "nowbridge-original";
const TIMES: &str = "nowbridge-redrives";
pub(super) const TIMESTAMP: &str = "nowbridge-timestamp";
const RELEASE: &str = "nowbridge-release";
const KEY: &str = "nowbridge-key";

/// A record that a redrive has put into the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redriven {
    /// One event of it is to be tried again.
    Event {
        /// The run.
        id: RedriveId,
        /// Which of the record's events; none: all of them.
        index: Option<u32>,
        /// The alert's key, where the letter knew it.
        key: Option<String>,
        /// The original's timestamp, Unix milliseconds.
        timestamp: Option<i64>,
    },
    /// The end of a key's redrive.
    Release {
        /// The run.
        id: RedriveId,
        /// The newest letter that was put back.
        upto: Position,
        /// The alert's key.
        key: String,
    },
}

/// What a redrive has written on a record; `None` where it comes from its source.
///
/// # Errors
/// The headers are there and make no sense: which, and why.
pub fn redriven(record: &Record) -> Result<Option<Redriven>, String> {
    // Nearly all records have no headers at all.
    if record.headers.is_empty() {
        return Ok(None);
    }
    let Some(run) = record.header(RUN) else { return Ok(None) };
    let id = run.parse().map_err(|_| format!("header {RUN}: {run:?} is no id of a redrive"))?;
    if let Some(upto) = record.header(RELEASE) {
        let upto = position(upto).ok_or_else(|| format!("header {RELEASE}: {upto:?} is no position"))?;
        let key = record.header(KEY).ok_or_else(|| format!("header {KEY} is missing beside {RELEASE}"))?;
        return Ok(Some(Redriven::Release { id, upto, key: key.to_owned() }));
    }
    let key = record.header(KEY).map(str::to_owned);
    Ok(Some(Redriven::Event { id, index: number(record, INDEX)?, key, timestamp: number(record, TIMESTAMP)? }))
}

/// How often a record has been put back.
pub fn times_redriven(record: &Record) -> u32 {
    number(record, TIMES).ok().flatten().unwrap_or(0)
}

/// Where the event of a record stood before it was put back for the first time, in the words of the header.
pub fn original(record: &Record) -> Option<&str> {
    record.header(ORIGINAL)
}

/// The headers with which a dead letter about the event at `position` goes back into the input. One without a key is
/// about all events of its record.
pub fn redrive_headers(letter: &Record, id: RedriveId, position: Position) -> Vec<Header> {
    let mut headers = super::letter::foreign_headers(letter);
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(value.into_bytes())));
    add(RUN, id.to_string());
    if let Some(key) = letter.header(KEY) {
        add(KEY, key.to_owned());
        add(INDEX, position.index.to_string());
    }
    add(ORIGINAL, original(letter).map_or_else(|| position.to_string(), str::to_owned));
    add(TIMES, (times_redriven(letter) + 1).to_string());
    if let Some(timestamp) = letter.header(TIMESTAMP) {
        add(TIMESTAMP, timestamp.to_owned());
    }
    headers.extend(super::rekeyed::kept_headers(letter));
    headers.extend(super::resync::resync_header(letter));
    headers
}

/// The headers of the release of `key`.
pub fn release_headers(key: &str, id: RedriveId, upto: Position) -> Vec<Header> {
    let header = |name: &str, value: String| (name.to_owned(), Some(value.into_bytes()));
    vec![header(RUN, id.to_string()), header(RELEASE, upto.to_string()), header(KEY, key.to_owned())]
}

/// A position as it stands in headers: `<partition>/<offset>.<index>`.
pub fn position(text: &str) -> Option<Position> {
    let (partition, rest) = text.split_once('/')?;
    let (offset, index) = rest.split_once('.')?;
    Some(Position::new(partition.parse().ok()?, offset.parse().ok()?, index.parse().ok()?))
}

pub(super) fn number<T: std::str::FromStr>(record: &Record, name: &str) -> Result<Option<T>, String> {
    let Some(text) = record.header(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("header {name}: {text:?} is no number of the right size"))
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
    fn a_letter_goes_back_with_its_own_headers_and_is_known_again() {
        let again = Record { headers: redrive_headers(&letter(), RedriveId(255), Position::new(0, 41, 3)), ..letter() };
        assert_eq!(again.header("trace"), Some("1"));
        assert!(again.headers.contains(&("null".into(), None)));
        assert_eq!(again.header("nowbridge-code"), None, "what was said of it does not go back");
        assert_eq!(times_redriven(&again), 3);
        assert_eq!(original(&again), Some("0/41.3"));
        let once_more = redrive_headers(&again, RedriveId(256), Position::new(0, 99, 3));
        assert_eq!(original(&Record { headers: once_more, ..letter() }), Some("0/41.3"));
        let expected =
            Redriven::Event { id: RedriveId(255), index: Some(3), key: Some("k".into()), timestamp: Some(77) };
        assert_eq!(redriven(&again), Ok(Some(expected)));
        assert_eq!(redriven(&letter()), Ok(None));
    }

    #[test]
    fn a_release_says_how_far() {
        let upto = Position::new(2, 41, 1);
        let headers = release_headers("disk:ä", RedriveId(7), upto);
        let release = Record { headers, value: None, ..letter() };
        let expected = Redriven::Release { id: RedriveId(7), upto, key: "disk:ä".into() };
        assert_eq!(redriven(&release), Ok(Some(expected)));
    }

    #[test]
    fn headers_that_make_no_sense_are_told() {
        let with = |name: &str, value: &str| {
            let mut headers = redrive_headers(&letter(), RedriveId(1), Position::new(0, 1, 0));
            headers.push((name.to_owned(), Some(value.as_bytes().to_vec())));
            redriven(&Record { headers, ..letter() }).expect_err("refused")
        };
        assert!(with("nowbridge-redrive", "x!").contains("no id"));
        assert!(with("nowbridge-index", "-1").contains("nowbridge-index"));
        assert!(with("nowbridge-release", "7").contains("no position"));
        let mut release = release_headers("k", RedriveId(1), Position::new(0, 1, 0));
        release.retain(|(name, _)| name != "nowbridge-key");
        let keyless = redriven(&Record { headers: release, ..letter() }).expect_err("refused");
        assert!(keyless.contains("nowbridge-key"), "{keyless}");
    }

    #[test]
    fn a_record_that_was_refused_as_a_whole_goes_back_as_a_whole() {
        let mut keyless = letter();
        keyless.headers.retain(|(name, _)| name != "nowbridge-key");
        let headers = redrive_headers(&keyless, RedriveId(1), Position::new(0, 1, 0));
        let again = redriven(&Record { headers, ..keyless });
        assert!(matches!(again, Ok(Some(Redriven::Event { index: None, .. }))), "{again:?}");
    }
}
