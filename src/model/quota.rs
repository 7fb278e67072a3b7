//! How the quota of an instance is spent and what waits for it, for the page, the metrics and the log.

/// How the quota is spent, for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuotaStatus {
    /// Requests a second that sink routes may make in the long run, where a rate or a rule bounds them.
    pub per_second: Option<f64>,
    /// Writes that one request carries at most, where it is a batch.
    pub per_call: Option<usize>,
    /// Requests that may be out at once now, and the most that the configuration allows.
    pub at_once: (usize, usize),
    /// Requests out.
    pub out: usize,
    /// This member's share of the sink routes' quota, 0 to 1.
    pub share: f64,
    /// Requests made since the start: for plain updates, for urgent ones, for sources.
    pub spent: [u64; 3],
    /// Average latency of writes, milliseconds, where there were any; of a batch, what each has a part in.
    pub latency: Option<f64>,
}

impl QuotaStatus {
    /// Writes a second that can be made: what the quota allows, or else what so many at once are answered in.
    #[expect(clippy::cast_precision_loss, reason = "a number of connections, and of writes")]
    pub fn throughput(&self) -> Option<f64> {
        let by_latency = self.latency.map(|latency| self.at_once.0 as f64 * 1_000.0 / latency.max(1.0));
        let by_quota = self.per_second.map(|calls| calls * self.per_call.unwrap_or(1) as f64);
        match (by_quota, by_latency) {
            (Some(quota), Some(latency)) => Some(quota.min(latency)),
            (one, other) => one.or(other),
        }
    }
}

/// Keys that wait for a request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DrainEstimate {
    /// Keys with something to write or to look for.
    pub keys: usize,
    /// Of them, those that must not wait.
    pub critical: usize,
    /// How long it takes, seconds; `None` while it is not known how quickly requests go.
    pub seconds: Option<f64>,
}
