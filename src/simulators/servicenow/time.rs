//! Date-times in the instance's format: whole seconds, `YYYY-MM-DD HH:MM:SS`, in UTC or in a user's time zone.

use jiff::tz::TimeZone;

/// Converts days since 1970-01-01 to year, month and day (Howard Hinnant's algorithm). Hand-written because every row
/// creation needs it.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// Converts a date to days since 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// Formats Unix seconds as a raw value.
pub(super) fn format(seconds: i64) -> String {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let rest = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Parses a raw value to Unix seconds; `None` if it is not exactly in the format.
pub(super) fn parse(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    if b.len() != 19 || b[4] != b'-' || b[7] != b'-' || b[10] != b' ' || b[13] != b':' || b[16] != b':' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|c| c.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    valid.then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Converts a raw UTC value to the display value in a time zone. A value in another format is returned unchanged.
pub(super) fn to_zone(raw: &str, zone: &TimeZone) -> String {
    let Some(seconds) = parse(raw) else { return raw.into() };
    let Ok(at) = jiff::Timestamp::from_second(seconds) else { return raw.into() };
    at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Converts a value entered in a time zone to raw UTC.
pub(super) fn from_zone(local: &str, zone: &TimeZone) -> Option<String> {
    let seconds = parse(local)?;
    // First read the text as if it were UTC, then take only its date and time.
    let civil = jiff::Timestamp::from_second(seconds).ok()?.to_zoned_datetime(TimeZone::UTC).datetime();
    Some(format(civil.to_zoned_datetime(zone.clone()).ok()?.timestamp().as_second()))
}

/// Formats Unix seconds for the `Date` header.
pub(super) fn http_date(seconds: i64) -> String {
    let Ok(at) = jiff::Timestamp::from_second(seconds) else { return String::new() };
    at.to_zoned_datetime(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Returns this host's time, Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the simulated instance has its own clock")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_values_round_trip_and_are_converted_to_a_time_zone() {
        for seconds in [0, 951_782_399, 1_709_210_096, 4_102_444_799] {
            assert_eq!(parse(&format(seconds)), Some(seconds));
        }
        assert_eq!(format(1_667_575_760), "2022-11-04 15:29:20");
        assert_eq!(parse("2022-11-04T15:29:20"), None);
        assert_eq!(parse("2022-13-04 15:29:20"), None);
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        assert_eq!(to_zone("2022-11-04 15:29:20", &zone), "2022-11-04 10:29:20");
        assert_eq!(from_zone("2022-11-04 10:29:20", &zone).as_deref(), Some("2022-11-04 15:29:20"));
    }
}
