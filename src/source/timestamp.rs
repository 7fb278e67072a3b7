//! ServiceNow's raw date-times: `YYYY-MM-DD HH:MM:SS`, UTC, whole seconds. Read and written here as Unix seconds, so
//! that nothing else in the source compares texts. Display values are never parsed: they follow the user's time zone
//! and format.

use jiff::civil::DateTime;
use jiff::{Timestamp, tz::TimeZone};

const RAW: &str = "%Y-%m-%d %H:%M:%S";

/// Unix seconds of a raw value; `None` where it is empty or not a raw date-time.
pub fn parse(raw: &str) -> Option<i64> {
    let time = DateTime::strptime(RAW, raw.trim()).ok()?;
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_second())
}

/// The raw value of an instant, as an encoded query wants it. An instant out of range is written as the epoch, which
/// reads more rather than fewer rows.
pub fn raw(unix: i64) -> String {
    timestamp(unix).strftime(RAW).to_string()
}

/// RFC 3339 in UTC, as published.
pub fn rfc3339(unix: i64) -> String {
    timestamp(unix).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn timestamp(unix: i64) -> Timestamp {
    Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_values_go_both_ways_and_anything_else_is_refused() {
        let at = parse("2026-11-23 23:59:59").expect("a raw value");
        assert_eq!(raw(at), "2026-11-23 23:59:59");
        assert_eq!(rfc3339(at), "2026-11-23T23:59:59Z");
        for bad in ["", "2026-11-23", "23/11/2026 10:00:00", "2026-11-23 10:00:00 PM", "2026-02-30 00:00:00"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
