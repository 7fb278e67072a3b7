//! The state of an instance's quota, and the estimate of when the waiting keys are written: for the console, the
//! metrics and the log.

/// How the request quota of an instance is used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuotaStatus {
    /// Requests per second that sink routes may send in the long run; `None` without a configured rate or a known rule.
    pub requests_per_second: Option<f64>,
    /// Maximum number of writes that one request carries; `None` if requests are not batches.
    pub batch_size: Option<usize>,
    /// Requests that may be in flight at present. Follows the load of the instance.
    pub concurrency_limit: usize,
    /// The configured upper bound of `concurrency_limit`.
    pub max_concurrency: usize,
    /// Requests without a response yet.
    pub in_flight: usize,
    /// This member's share of the sink routes' quota, 0 to 1.
    pub share: f64,
    /// Requests sent since the start.
    pub requests: RequestCounts,
    /// Average latency of writes in milliseconds; `None` before the first. Of a batch: its latency divided by its
    /// writes.
    pub write_latency_ms: Option<f64>,
}

/// Requests sent since the start, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// For plain updates of sink routes.
    pub normal: u64,
    /// For new tickets and changes of state.
    pub urgent: u64,
    /// For source routes.
    pub source: u64,
}

impl QuotaStatus {
    /// Writes per second that the quota allows, or that the concurrency limit and the latency allow if that is less.
    #[expect(clippy::cast_precision_loss, reason = "a number of connections, and of writes")]
    pub fn throughput(&self) -> Option<f64> {
        let by_latency =
            self.write_latency_ms.map(|latency| self.concurrency_limit as f64 * 1_000.0 / latency.max(1.0));
        let by_quota = self.requests_per_second.map(|requests| requests * self.batch_size.unwrap_or(1) as f64);
        match (by_quota, by_latency) {
            (Some(quota), Some(latency)) => Some(quota.min(latency)),
            (quota, latency) => quota.or(latency),
        }
    }
}

/// The keys that wait for a request, and an estimate of when they are written.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DrainEstimate {
    /// Keys that wait for a write or a read.
    pub keys: usize,
    /// The critical ones among them.
    pub critical_keys: usize,
    /// Estimated time until all are written, in seconds; `None` if the rate of requests is unknown.
    pub seconds: Option<f64>,
}
