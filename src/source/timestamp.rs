//! ServiceNow's raw date-times: `YYYY-MM-DD HH:MM:SS`, UTC, whole seconds. Converted from and to Unix seconds, so
//! that the rest of the source never compares texts. Display values are never parsed: they follow the user's time
//! zone and format.

use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};

const RAW: &str = "%Y-%m-%d %H:%M:%S";

/// Unix seconds of a raw value; `None` if it is empty or not a raw date-time.
pub fn parse(raw: &str) -> Option<i64> {
    let time = DateTime::strptime(RAW, raw.trim()).ok()?;
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_second())
}

/// The raw value of an instant, for encoded queries. An instant out of range becomes the epoch, so that a query
/// returns more rows rather than fewer.
pub fn to_raw(unix: i64) -> String {
    timestamp(unix).strftime(RAW).to_string()
}

/// RFC 3339 in UTC, as published.
pub fn to_rfc3339(unix: i64) -> String {
    timestamp(unix).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn timestamp(unix: i64) -> Timestamp {
    Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_values_are_parsed_and_formatted_and_other_texts_are_rejected() {
        let at = parse("2026-11-23 23:59:59").expect("a raw value");
        assert_eq!(to_raw(at), "2026-11-23 23:59:59");
        assert_eq!(to_rfc3339(at), "2026-11-23T23:59:59Z");
        for bad in ["", "2026-11-23", "23/11/2026 10:00:00", "2026-11-23 10:00:00 PM", "2026-02-30 00:00:00"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
