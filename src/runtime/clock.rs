//! The only place that reads clocks. All other code gets the time as a value.

use crate::model::Now;

/// Returns milliseconds on `CLOCK_BOOTTIME`, which never steps and also counts while the machine is suspended: a lease
/// must not outlive a suspend.
pub fn mono() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Returns milliseconds since the Unix epoch on this host's wall clock.
pub fn unix() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Returns the time of both clocks.
pub fn now() -> Now {
    Now { mono: mono(), unix: unix() }
}
