//! How many lanes may be claimed before they have a permit.
//!
//! The ack of a claim takes some milliseconds, and a free permit must not wait for it. But a claimed write takes in no
//! further events, and more urgent lanes cannot overtake it, so no more lanes are claimed than permits will soon come
//! for: as many as configured, and one for each free permit. If permits are nevertheless unused while lanes are ready
//! (an instance that answers faster than the ledger), the number grows; it shrinks again as soon as claims wait for
//! permits.

/// Maximum number of lanes added, as a multiple of the configured number. The ack of a claim takes about 35 ms, so that
/// 500 pending claims allow 14,000 creates per second.
const MAX_EXTRA_FACTOR: usize = 64;

/// Milliseconds. Acks of claims come in bursts, so that many claims wait for permits now and then. Too many are claimed
/// if some have waited for all of this time.
const WINDOW: u64 = 100;

/// The number of lanes that are claimed in advance. It follows how quickly permits come.
#[derive(Debug, Clone)]
pub struct ClaimWindow {
    minimum: usize,
    free_permits: usize,
    extra: usize,
    /// Fewest claims that waited for a permit at any time since `measured_since`.
    fewest_waiting: usize,
    /// Start of the current measurement, on the mono clock.
    measured_since: u64,
}

impl ClaimWindow {
    /// A window of `minimum` lanes and more.
    pub fn new(minimum: usize) -> Self {
        Self { minimum, free_permits: 0, extra: 0, fewest_waiting: usize::MAX, measured_since: 0 }
    }

    /// How many lanes may be prepared and not yet sent.
    pub fn limit(&self) -> usize {
        self.minimum + self.free_permits + self.extra
    }

    /// Records that `permits` are free, that `waiting_for_permit` lanes wait for one, and whether others are ready for
    /// their turn. `now` is on the mono clock.
    pub fn record(&mut self, permits: usize, waiting_for_permit: usize, other_lanes_ready: bool, now: u64) {
        self.free_permits = permits;
        self.fewest_waiting = self.fewest_waiting.min(waiting_for_permit);
        if permits > waiting_for_permit && other_lanes_ready {
            self.extra = (self.extra + 1).min(MAX_EXTRA_FACTOR * self.minimum);
        }
        if now >= self.measured_since + WINDOW {
            let fewest = std::mem::replace(&mut self.fewest_waiting, usize::MAX);
            self.measured_since = now;
            if fewest > self.minimum {
                self.extra -= self.extra.div_ceil(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_while_permits_are_unused_and_shrinks_while_claims_wait() {
        let mut claim_window = ClaimWindow::new(4);
        assert_eq!(claim_window.limit(), 4);
        claim_window.record(3, 0, false, 0);
        assert_eq!(claim_window.limit(), 7, "no lane is ready");
        (0..10).for_each(|_| claim_window.record(3, 0, true, 0));
        assert_eq!(claim_window.limit(), 17);
        (0..10).for_each(|ms| claim_window.record(0, 4, true, ms * 50));
        assert_eq!(claim_window.limit(), 14, "a few waiting claims are intended");
        (10..14).for_each(|ms| claim_window.record(0, 9, true, ms * 50));
        assert_eq!(claim_window.limit(), 9);
        (14..40).for_each(|ms| claim_window.record(0, 9, true, ms * 50));
        assert_eq!(claim_window.limit(), 4);
        (0..1_000).for_each(|_| claim_window.record(1, 0, true, 2_000));
        assert_eq!(claim_window.limit(), 4 + 1 + 256);
    }

    #[test]
    fn a_burst_of_acks_does_not_shrink_the_window() {
        let mut claim_window = ClaimWindow::new(4);
        (0..20).for_each(|_| claim_window.record(3, 0, true, 0));
        for round in 1..20 {
            // All claimed lanes want a permit at once; 30 ms later all are sent.
            claim_window.record(0, 20, true, round * 30);
            claim_window.record(0, 0, true, round * 30 + 20);
        }
        assert_eq!(claim_window.limit(), 4 + 20);
    }
}
