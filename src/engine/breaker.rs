//! Whether the route may send at all: the breaker (the instance is down), the hold (it asked to wait), the credentials
//! (they stopped working) and the brake (too many refusals in a row).
//!
//! One owner, no clock. While the breaker is open or the credentials fail, one request at a time probes; its answer
//! decides for all. Guarantees: a held route sends nothing; credentials that failed are tried again with growing
//! pauses, because five failures lock an account; a braked route stays so until a person says otherwise.

use super::event::{BlockReason, RequestId};
use super::retry::Delays;
use super::settings::Settings;
use crate::model::HttpMethod;

#[derive(Debug)]
enum Circuit {
    Closed,
    Open { blocked_by: BlockReason, until: u64, delays: Delays, probe: Option<RequestId> },
}

/// The state of a route towards its instance.
#[derive(Debug)]
pub struct Breaker {
    circuit: Circuit,
    failures: u32,
    refusals: u32,
    /// Until when no request of a method is sent, by method.
    hold_until: [u64; 3],
    braked: Option<String>,
    draining: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { circuit: Circuit::Closed, failures: 0, refusals: 0, hold_until: [0; 3], braked: None, draining: false }
    }
}

impl Breaker {
    /// True where a request of this method may be sent now.
    pub fn may_send(&self, method: HttpMethod, now: u64) -> bool {
        let closed = match &self.circuit {
            Circuit::Closed => true,
            Circuit::Open { until, probe, .. } => now >= *until && probe.is_none(),
        };
        closed && now >= self.hold_until[method as usize] && self.may_prepare()
    }

    /// True where lanes may be prepared for sending.
    pub fn may_prepare(&self) -> bool {
        self.braked.is_none() && !self.draining
    }

    /// A request leaves. While the circuit is open it is the probe.
    pub fn sent(&mut self, id: RequestId) {
        if let Circuit::Open { probe, .. } = &mut self.circuit {
            *probe = Some(id);
        }
    }

    /// The instance answered a request sensibly, whatever it said.
    pub fn answered(&mut self) {
        self.circuit = Circuit::Closed;
        self.failures = 0;
    }

    /// A request never left.
    pub fn not_sent(&mut self, id: RequestId) {
        if let Circuit::Open { probe, .. } = &mut self.circuit
            && *probe == Some(id)
        {
            *probe = None;
        }
    }

    /// The instance did not answer as an instance should.
    pub fn failed(&mut self, id: RequestId, why: &str, now: u64, settings: &Settings, seed: u64) {
        self.failures += 1;
        match &mut self.circuit {
            Circuit::Open { until, delays, probe, .. } if *probe == Some(id) => {
                *until = now + delays.next_delay();
                *probe = None;
            }
            Circuit::Open { .. } => {}
            Circuit::Closed if self.failures >= settings.breaker => {
                let mut delays = Delays::new(settings.retry, seed);
                let until = now + delays.next_delay();
                self.circuit =
                    Circuit::Open { blocked_by: BlockReason::Unavailable(why.to_owned()), until, delays, probe: None };
            }
            Circuit::Closed => {}
        }
    }

    /// The instance refused the credentials.
    pub fn unauthorised(&mut self, id: RequestId, why: &str, now: u64, settings: &Settings, seed: u64) {
        match &mut self.circuit {
            Circuit::Open { blocked_by: BlockReason::Unauthorised(already_counted), until, delays, probe } => {
                if *probe == Some(id) {
                    why.clone_into(already_counted);
                    *until = now + delays.next_delay();
                    *probe = None;
                }
            }
            _ => {
                let mut delays = Delays::new(settings.auth_retry, seed);
                let until = now + delays.next_delay();
                self.circuit =
                    Circuit::Open { blocked_by: BlockReason::Unauthorised(why.to_owned()), until, delays, probe: None };
            }
        }
    }

    /// The instance asked to wait so many milliseconds with requests of this method: rate-limit rules tell methods
    /// apart.
    pub fn hold(&mut self, id: RequestId, method: HttpMethod, wait: u64, now: u64) {
        self.not_sent(id);
        let until = &mut self.hold_until[method as usize];
        *until = (*until).max(now.saturating_add(wait));
    }

    /// A record was refused, or a ticket was gone: too many in a row stop the route.
    pub fn refused(&mut self, why: &str, settings: &Settings) {
        self.refusals += 1;
        if self.refusals >= settings.brake && self.braked.is_none() {
            self.braked = Some(format!("{} refusals in a row, the last: {why}", self.refusals));
        }
    }

    /// A write was applied: the row of refusals is broken.
    pub fn applied(&mut self) {
        self.refusals = 0;
    }

    /// Stops preparing and sending for good.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// A person, or new credentials: go on at once.
    pub fn retry(&mut self) {
        self.braked = None;
        self.refusals = 0;
        if let Circuit::Open { until, .. } = &mut self.circuit {
            *until = 0;
        }
    }

    /// When the route may go on by itself, where it stands still now.
    pub fn wake(&self) -> Option<u64> {
        let hold = self.hold_until.iter().copied().filter(|until| *until > 0).min();
        match &self.circuit {
            Circuit::Open { until, probe: None, .. } => Some((*until).max(hold.unwrap_or(0))),
            _ => hold,
        }
    }

    /// Time passed: a hold that is over is nothing to wake for any more.
    pub fn pass(&mut self, now: u64) {
        for until in self.hold_until.iter_mut().filter(|until| now >= **until) {
            *until = 0;
        }
    }

    /// Why the route stands still, if it does.
    pub fn blocked_by(&self, now: u64) -> Option<BlockReason> {
        if self.draining {
            return Some(BlockReason::Draining);
        }
        if let Some(why) = &self.braked {
            return Some(BlockReason::Braked(why.clone()));
        }
        match &self.circuit {
            Circuit::Open { blocked_by, .. } => Some(blocked_by.clone()),
            Circuit::Closed => self.longest_hold(now).map(|(method, until)| BlockReason::Throttled(method, until)),
        }
    }

    fn longest_hold(&self, now: u64) -> Option<(HttpMethod, u64)> {
        let holds = HttpMethod::ALL.into_iter().map(|method| (method, self.hold_until[method as usize]));
        holds.filter(|(_, until)| now < *until).max_by_key(|(_, until)| *until)
    }
}
