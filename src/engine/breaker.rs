//! Whether the route may send requests at all: the breaker (the instance is down), throttling (the instance asked to
//! wait), the credentials (the instance rejects them), and the rejection limit (too many rejections in a row).
//!
//! It has one owner and reads no clock. While the circuit is open because of failures or rejected credentials, one
//! request at a time probes the instance; its answer decides for all. Guarantees: no request of a throttled method is
//! sent; rejected credentials are retried with growing delays, because five failures lock an account; a route stopped
//! by the rejection limit stays stopped until a user resumes it.

use super::event::{BlockReason, RequestId};
use super::retry::Backoff;
use super::settings::Settings;
use crate::model::HttpMethod;

#[derive(Debug)]
enum Circuit {
    Closed,
    Open { blocked_by: BlockReason, until: u64, backoff: Backoff, probe: Option<RequestId> },
}

/// Whether and when a route may send requests to its instance.
#[derive(Debug)]
pub struct Breaker {
    circuit: Circuit,
    failures: u32,
    rejections: u32,
    /// Until when no request of a method is sent, indexed by method, on the mono clock; 0 if it is not throttled.
    throttled_until: [u64; 3],
    rejection_limit_reached: Option<String>,
    draining: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            circuit: Circuit::Closed,
            failures: 0,
            rejections: 0,
            throttled_until: [0; 3],
            rejection_limit_reached: None,
            draining: false,
        }
    }
}

impl Breaker {
    /// True if a request of this method may be sent now.
    pub fn may_send(&self, method: HttpMethod, now: u64) -> bool {
        let closed = match &self.circuit {
            Circuit::Closed => true,
            Circuit::Open { until, probe, .. } => now >= *until && probe.is_none(),
        };
        closed && now >= self.throttled_until[method as usize] && self.may_prepare()
    }

    /// True if lanes may be prepared for sending.
    pub fn may_prepare(&self) -> bool {
        self.rejection_limit_reached.is_none() && !self.draining
    }

    /// A request is being sent. While the circuit is open, it is the probe.
    pub fn sent(&mut self, id: RequestId) {
        if let Circuit::Open { probe, .. } = &mut self.circuit {
            *probe = Some(id);
        }
    }

    /// The instance processed a request and answered it, with whatever result.
    pub fn answered(&mut self) {
        self.circuit = Circuit::Closed;
        self.failures = 0;
    }

    /// A request was not sent.
    pub fn not_sent(&mut self, id: RequestId) {
        if let Circuit::Open { probe, .. } = &mut self.circuit
            && *probe == Some(id)
        {
            *probe = None;
        }
    }

    /// A request failed for a reason that counts against the instance.
    pub fn failed(&mut self, id: RequestId, reason: &str, now: u64, settings: &Settings, seed: u64) {
        self.failures += 1;
        match &mut self.circuit {
            Circuit::Open { until, backoff, probe, .. } if *probe == Some(id) => {
                *until = now + backoff.next_delay();
                *probe = None;
            }
            Circuit::Open { .. } => {}
            Circuit::Closed if self.failures >= settings.breaker_threshold => {
                let mut backoff = Backoff::new(settings.retry, seed);
                let until = now + backoff.next_delay();
                self.circuit = Circuit::Open {
                    blocked_by: BlockReason::Unavailable(reason.to_owned()),
                    until,
                    backoff,
                    probe: None,
                };
            }
            Circuit::Closed => {}
        }
    }

    /// The instance rejected the credentials.
    pub fn unauthorized(&mut self, id: RequestId, reason: &str, now: u64, settings: &Settings, seed: u64) {
        match &mut self.circuit {
            Circuit::Open { blocked_by: BlockReason::Unauthorized(message), until, backoff, probe } => {
                if *probe == Some(id) {
                    reason.clone_into(message);
                    *until = now + backoff.next_delay();
                    *probe = None;
                }
            }
            _ => {
                let mut backoff = Backoff::new(settings.auth_retry, seed);
                let until = now + backoff.next_delay();
                self.circuit = Circuit::Open {
                    blocked_by: BlockReason::Unauthorized(reason.to_owned()),
                    until,
                    backoff,
                    probe: None,
                };
            }
        }
    }

    /// The instance asked to wait so many milliseconds before the next request of this method. Other methods are not
    /// affected, because rate limit rules apply per method.
    pub fn throttled(&mut self, id: RequestId, method: HttpMethod, wait: u64, now: u64) {
        self.not_sent(id);
        let until = &mut self.throttled_until[method as usize];
        *until = (*until).max(now.saturating_add(wait));
    }

    /// A record was rejected, or a ticket is missing: too many of these in a row stop the route.
    pub fn rejected(&mut self, reason: &str, settings: &Settings) {
        self.rejections += 1;
        if self.rejections >= settings.rejection_limit && self.rejection_limit_reached.is_none() {
            self.rejection_limit_reached = Some(format!("{} rejections in a row, last: {reason}", self.rejections));
        }
    }

    /// A write was applied: the rejections are not in a row any more.
    pub fn applied(&mut self) {
        self.rejections = 0;
    }

    /// Stops preparing and sending until the process exits.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// A user asked to resume, or the credentials changed: requests may be sent at once.
    pub fn resume(&mut self) {
        self.rejection_limit_reached = None;
        self.rejections = 0;
        if let Circuit::Open { until, .. } = &mut self.circuit {
            *until = 0;
        }
    }

    /// When a blocked route may send again without a user's action, on the mono clock.
    pub fn next_wake(&self) -> Option<u64> {
        let hold = self.throttled_until.iter().copied().filter(|until| *until > 0).min();
        match &self.circuit {
            Circuit::Open { until, probe: None, .. } => Some((*until).max(hold.unwrap_or(0))),
            _ => hold,
        }
    }

    /// Clears the throttling of methods whose wait is over, so that [`Breaker::next_wake`] does not return it any more.
    pub fn clear_expired_throttling(&mut self, now: u64) {
        for until in self.throttled_until.iter_mut().filter(|until| now >= **until) {
            *until = 0;
        }
    }

    /// Why the route is blocked, if it is.
    pub fn blocked_by(&self, now: u64) -> Option<BlockReason> {
        if self.draining {
            return Some(BlockReason::Draining);
        }
        if let Some(reason) = &self.rejection_limit_reached {
            return Some(BlockReason::RejectionLimit(reason.clone()));
        }
        match &self.circuit {
            Circuit::Open { blocked_by, .. } => Some(blocked_by.clone()),
            Circuit::Closed => {
                self.longest_throttle(now).map(|(method, until)| BlockReason::Throttled { method, until })
            }
        }
    }

    fn longest_throttle(&self, now: u64) -> Option<(HttpMethod, u64)> {
        let holds = HttpMethod::ALL.into_iter().map(|method| (method, self.throttled_until[method as usize]));
        holds.filter(|(_, until)| now < *until).max_by_key(|(_, until)| *until)
    }
}
