//! The source pays the pace that the sink pays: every request takes a permit first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::model::HttpMethod;
use crate::quota::{LoadFeedback, Pace, PermitDecision, PermitRequest, RequestClass};
use crate::runtime::clock;

/// How often a taken slot is asked for again: the pace does not call back.
const BUSY: Duration = Duration::from_millis(20);
/// Longest single sleep, so that a hold that ends early is noticed.
const NAP: u64 = 1_000;

/// Grants requests.
pub trait Gate: Send + Sync + 'static {
    /// Waits until one request to read this table may be sent. Cancelling the wait gives nothing away.
    fn permit<'a>(&'a self, table: &'a str) -> Pin<Box<dyn Future<Output = Permit> + Send + 'a>>;

    /// Takes in what a request to read this table told of the instance's quota.
    fn record(&self, table: &str, feedback: &LoadFeedback);
}

/// One request's permission; ends when dropped.
pub struct Permit {
    slot: usize,
    back: Option<Arc<Pace>>,
}

impl Permit {
    /// A permit that is counted nowhere.
    pub fn free(slot: usize) -> Self {
        Self { slot, back: None }
    }

    /// The client's slot to use.
    pub fn slot(&self) -> usize {
        self.slot
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pace) = &self.back {
            pace.release(self.slot);
        }
    }
}

fn ask(table: &str) -> PermitRequest<'_> {
    PermitRequest { table, method: HttpMethod::Get, class: RequestClass::Source }
}

impl Gate for Arc<Pace> {
    fn permit<'a>(&'a self, table: &'a str) -> Pin<Box<dyn Future<Output = Permit> + Send + 'a>> {
        Box::pin(async move {
            loop {
                match self.try_take(ask(table), clock::mono()) {
                    PermitDecision::Granted { slot } => return Permit { slot, back: Some(Arc::clone(self)) },
                    PermitDecision::Wait(ms) | PermitDecision::Held(ms) => {
                        tokio::time::sleep(Duration::from_millis(ms.min(NAP))).await
                    }
                    PermitDecision::Busy => tokio::time::sleep(BUSY).await,
                }
            }
        })
    }

    fn record(&self, table: &str, feedback: &LoadFeedback) {
        Pace::record(self, ask(table), feedback, clock::mono());
    }
}
