//! The two clocks of the bridge, read once per step and passed on as a value.

/// The present time as the engine gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds on a clock that never steps and also counts while the machine is suspended (`CLOCK_BOOTTIME`),
    /// because a suspend must not extend leases and waits.
    pub mono: u64,
    /// Milliseconds since the Unix epoch on this host's wall clock. Used only for times that are compared across
    /// restarts.
    pub unix: i64,
}
