//! Parses durations, sizes and rates with units: `30s`, `5m`, `64MiB`, `1000/hour`.

use std::time::Duration;

/// A number of requests per time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}

/// Parses a duration: `250ms`, `30s`, `5m`, `24h`, `7d`, or several units: `1h30m`. `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{text}` is not a duration; use for example `250ms`, `30s`, `5m`, `24h` or `1h30m`");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or_else(invalid)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let unit: u64 = match unit {
            "ms" => 1,
            "s" | "sec" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(invalid()),
        };
        total = number.checked_mul(unit).and_then(|ms| total.checked_add(ms)).ok_or_else(invalid)?;
        rest = next.trim_start();
    }
    // At most 100 years, so that sums of milliseconds never overflow an i64.
    if total > 100 * 366 * 86_400_000 { Err(invalid()) } else { Ok(Duration::from_millis(total)) }
}

/// Parses a size: `512KiB`, `64MiB`, `1GiB`, `64MB`, or bytes without a unit.
pub fn size(text: &str) -> Result<usize, String> {
    let invalid = || format!("`{text}` is not a size; use for example `512KiB`, `64MiB` or `1GiB`");
    let (number, unit) = number(text.trim()).ok_or_else(invalid)?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        _ => return Err(invalid()),
    };
    number.checked_mul(factor).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(invalid)
}

/// Parses a rate: `1000/hour`, `300/minute`, `50/second`, or with any duration after the slash: `100/10s`.
pub fn rate(text: &str) -> Result<Rate, String> {
    let invalid = || format!("`{text}` is not a rate; use for example `1000/hour`, `300/minute` or `50/second`");
    let (count, per) = text.split_once('/').ok_or_else(invalid)?;
    let count: u32 = count.trim().replace('_', "").parse().map_err(|_| invalid())?;
    let per = match per.trim() {
        "second" | "s" | "sec" => Duration::from_secs(1),
        "minute" | "m" | "min" => Duration::from_secs(60),
        "hour" | "h" => Duration::from_secs(3_600),
        "day" | "d" => Duration::from_secs(86_400),
        other => duration(other).map_err(|_| invalid())?,
    };
    if count == 0 || per.is_zero() { Err(invalid()) } else { Ok(Rate { count, per }) }
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.replace('_', "").parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(duration(" 7d "), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "m", "5 parsecs", "-1s", "1.5h", "99999999999999999999s", "1000000d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_rates() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("10"), Ok(10));
        assert!(size("64 apples").is_err());
        assert_eq!(rate("1000/hour"), Ok(Rate { count: 1000, per: Duration::from_secs(3600) }));
        assert_eq!(rate("100 / 10s"), Ok(Rate { count: 100, per: Duration::from_secs(10) }));
        for bad in ["", "5", "0/s", "5/0s", "5/fortnight"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
