//! The one place where clocks are read. Everything below gets an instant as a value.

use crate::model::Now;

/// Milliseconds on `CLOCK_BOOTTIME`: never steps, and counts the time the machine was suspended, so that a lease does
/// not outlive a suspend.
pub fn mono() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Milliseconds since the Unix epoch on this host's wall clock.
pub fn unix() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Both clocks.
pub fn now() -> Now {
    Now { mono: mono(), unix: unix() }
}
