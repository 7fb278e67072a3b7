//! Rate limiting of a source: every request takes a permit first, from the same limiter as the requests of the sinks.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::model::HttpMethod;
use crate::quota::{LoadFeedback, PermitDecision, PermitRequest, RequestClass, RequestLimiter};
use crate::runtime::clock;

/// Interval at which a permit is requested again at the concurrency limit: the limiter does not notify waiters.
const CONCURRENCY_RETRY_DELAY: Duration = Duration::from_millis(20);
/// Longest single sleep, in milliseconds, so that a block that ends early is noticed.
const MAX_SLEEP_MS: u64 = 1_000;

/// Grants permits for requests.
pub trait PermitProvider: Send + Sync + 'static {
    /// Waits until one request to read this table may be sent. Canceling the wait loses no permit.
    fn acquire<'a>(&'a self, table: &'a str) -> Pin<Box<dyn Future<Output = Permit> + Send + 'a>>;

    /// Records what the response to a request for this table says about the instance's load and quota.
    fn record(&self, table: &str, feedback: &LoadFeedback);
}

/// The permission to send one request. It ends when it is dropped.
pub struct Permit {
    slot: usize,
    limiter: Option<Arc<RequestLimiter>>,
}

impl Permit {
    /// A permit that no limiter counts.
    pub fn free(slot: usize) -> Self {
        Self { slot, limiter: None }
    }

    /// The client's slot to use.
    pub fn slot(&self) -> usize {
        self.slot
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(limiter) = &self.limiter {
            limiter.release(self.slot);
        }
    }
}

fn permit_request(table: &str) -> PermitRequest<'_> {
    PermitRequest { table, method: HttpMethod::Get, class: RequestClass::Source }
}

impl PermitProvider for Arc<RequestLimiter> {
    fn acquire<'a>(&'a self, table: &'a str) -> Pin<Box<dyn Future<Output = Permit> + Send + 'a>> {
        Box::pin(async move {
            loop {
                match self.try_acquire(permit_request(table), clock::mono()) {
                    PermitDecision::Granted { slot } => return Permit { slot, limiter: Some(Arc::clone(self)) },
                    PermitDecision::RateLimited(ms) | PermitDecision::RuleLimited(ms) => {
                        tokio::time::sleep(Duration::from_millis(ms.min(MAX_SLEEP_MS))).await;
                    }
                    PermitDecision::AtConcurrencyLimit => tokio::time::sleep(CONCURRENCY_RETRY_DELAY).await,
                }
            }
        })
    }

    fn record(&self, table: &str, feedback: &LoadFeedback) {
        RequestLimiter::record(self, permit_request(table), feedback, clock::mono());
    }
}
