//! The source pays the pace that the sink pays: every request takes a permit first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::servicenow::pace::{Pace, Take};

/// How often a taken slot is asked for again: the pace does not call back.
const BUSY: Duration = Duration::from_millis(20);
/// Longest single sleep, so that a hold that ends early is noticed.
const NAP: u64 = 1_000;

/// Grants requests.
pub trait Gate: Send + Sync + 'static {
    /// Waits until one request may be sent. Cancelling the wait gives nothing away.
    fn permit(&self) -> Pin<Box<dyn Future<Output = Permit> + Send + '_>>;

    /// Tells that the instance asked for silence, in milliseconds.
    fn hold(&self, span: u64);
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

impl Gate for Arc<Pace> {
    fn permit(&self) -> Pin<Box<dyn Future<Output = Permit> + Send + '_>> {
        Box::pin(async move {
            loop {
                match self.try_take(clock::mono()) {
                    Take::Granted { slot } => return Permit { slot, back: Some(Arc::clone(self)) },
                    Take::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms.min(NAP))).await,
                    Take::Busy => tokio::time::sleep(BUSY).await,
                }
            }
        })
    }

    fn hold(&self, span: u64) {
        self.hold_until(clock::mono().saturating_add(span));
    }
}
