//! The two clocks of the bridge, read once per step and passed on as a value.

/// An instant as the engine sees it.
///
/// `mono` counts milliseconds and never steps; it goes on counting while the machine is suspended
/// (`CLOCK_BOOTTIME`), because leases and settle times must not stretch over a suspend. `unix` is this host's wall
/// clock in milliseconds; it is used only for what is compared across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds on a clock that never steps and counts suspend.
    pub mono: u64,
    /// Milliseconds since the Unix epoch on this host's wall clock.
    pub unix: i64,
}
