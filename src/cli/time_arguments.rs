//! Parses times, ages and start offsets in arguments, and formats times.

use anyhow::{Context, Result};

use crate::ledger::StartAt;
use crate::runtime::clock;

/// Parses a timestamp (`2026-11-25T10:00:00Z`) or an age (`90m`, `2h`, `3d`); Unix milliseconds.
///
/// # Errors
/// The text is neither.
pub(super) fn parse(text: &str) -> Result<i64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    let age = text.parse::<jiff::SignedDuration>().ok().or_else(|| days(text));
    let age =
        age.with_context(|| format!("{text:?} is neither a time (2026-11-25T10:00:00Z) nor an age (90m, 2h or 3d)"))?;
    Ok(clock::unix() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

fn days(text: &str) -> Option<jiff::SignedDuration> {
    let days: i64 = text.strip_suffix('d')?.trim().parse().ok()?;
    Some(jiff::SignedDuration::from_hours(days.checked_mul(24)?))
}

/// Parses a start offset: `earliest`, `latest`, a timestamp or an age.
///
/// # Errors
/// The text is none of them.
pub(super) fn start_at(text: &str) -> Result<StartAt> {
    Ok(match text {
        "earliest" => StartAt::Earliest,
        "latest" => StartAt::Latest,
        text => StartAt::Time(parse(text)?),
    })
}

/// Formats Unix milliseconds as a timestamp in UTC, in seconds.
pub(super) fn show(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.0}"))
}
