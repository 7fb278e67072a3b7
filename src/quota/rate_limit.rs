//! The configured rate limit: a token bucket that allows a maximum number of requests in any window.
//!
//! Governor implements the bucket. This module adds what governor lacks: a reserve that only urgent requests may use,
//! requests that were sent before they were paid for, and a rate that changes with the member's share, where the new
//! bucket inherits the tokens left in the old one. The caller passes the time.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// A governor clock that shows the time last set.
#[derive(Debug, Clone, Default)]
struct ManualClock(Arc<AtomicU64>);

/// Nanoseconds since the epoch of the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Instant(u64);

impl std::ops::Add<Nanos> for Instant {
    type Output = Self;

    fn add(self, other: Nanos) -> Self {
        Self(self.0.saturating_add(other.as_u64()))
    }
}

impl Reference for Instant {
    fn duration_since(&self, earlier: Self) -> Nanos {
        Nanos::new(self.0.saturating_sub(earlier.0))
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.as_u64()).unwrap_or(self.0))
    }
}

impl Clock for ManualClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::Acquire))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, ManualClock, StateInformationMiddleware>;

/// A rate limit and its token bucket.
#[derive(Debug)]
pub struct RateLimit {
    rate: u32,
    per: Duration,
    share: f64,
    clock: ManualClock,
    bucket: Option<Bucket>,
    /// Requests sent without a token.
    debt: u32,
}

#[derive(Debug)]
struct Bucket {
    limiter: Limiter,
    quota: Quota,
    /// Tokens left at `updated_at`.
    left: f64,
    /// Milliseconds.
    updated_at: u64,
}

impl RateLimit {
    /// At most `rate` requests in any window of `per`, bursts included.
    pub fn new(rate: NonZeroU32, per: Duration) -> Self {
        let clock = ManualClock::default();
        let mut rate_limit = Self { rate: rate.get(), per, share: 1.0, clock, bucket: None, debt: 0 };
        rate_limit.replace_bucket(0.0, 0);
        rate_limit
    }

    /// Sets the share of the configured rate that applies from now on.
    pub fn set_share(&mut self, share: f64, now: u64) {
        if (share - self.share).abs() > f64::EPSILON {
            let left = self.bucket.as_ref().map_or(0.0, |bucket| bucket.tokens(now));
            self.share = share;
            self.replace_bucket(left, now);
        }
    }

    /// Requests per second in the long run.
    pub fn per_second(&self) -> f64 {
        let period = self.bucket.as_ref().map_or(Duration::MAX, |bucket| bucket.quota.replenish_interval());
        1.0 / period.as_secs_f64()
    }

    /// Takes one token. Requests that are not `urgent` leave the reserve in the bucket.
    ///
    /// # Errors
    /// No token is available; the number is the milliseconds until there is one.
    pub fn try_acquire(&mut self, urgent: bool, now: u64) -> Result<(), u64> {
        // Callers may read their clocks in any order; this clock only moves forward.
        self.clock.0.fetch_max(now.saturating_mul(1_000_000), Ordering::AcqRel);
        let Some(bucket) = &mut self.bucket else { return Ok(()) };
        while self.debt > 0 {
            bucket.try_acquire(&self.clock, now)?;
            self.debt -= 1;
        }
        if !urgent {
            bucket.check_above(bucket.urgent_reserve(), now)?;
        }
        bucket.try_acquire(&self.clock, now)
    }

    /// Records requests that were sent without a token; later acquisitions pay for them first.
    pub fn add_debt(&mut self, requests: u32) {
        self.debt = self.debt.saturating_add(requests);
    }

    /// Replaces the bucket with one for the current share that contains this many tokens.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
    fn replace_bucket(&mut self, tokens: f64, now: u64) {
        let rate = ((f64::from(self.rate) * self.share).floor() as u32).max(1);
        self.bucket = quota(rate, self.per).map(|quota| {
            let limiter = RateLimiter::direct_with_clock(quota, self.clock.clone())
                .with_middleware::<StateInformationMiddleware>();
            let burst = f64::from(quota.burst_size().get());
            let mut bucket = Bucket { limiter, quota, left: burst, updated_at: now };
            let mut spend = if self.share < 1.0 || now > 0 { (burst - tokens).max(0.0) as u32 } else { 0 };
            while spend > 0 && bucket.try_acquire(&self.clock, now).is_ok() {
                spend -= 1;
            }
            bucket
        });
    }
}

impl Bucket {
    fn try_acquire(&mut self, clock: &ManualClock, now: u64) -> Result<(), u64> {
        match self.limiter.check() {
            Ok(state) => {
                self.left = f64::from(state.remaining_burst_capacity());
                self.updated_at = now;
                Ok(())
            }
            Err(not_until) => {
                let wait = not_until.wait_time_from(clock.now());
                Err(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1))
            }
        }
    }

    /// Tokens left now, including a fraction of the next one.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    fn tokens(&self, now: u64) -> f64 {
        let elapsed = now.saturating_sub(self.updated_at) as f64;
        let replenished = elapsed / 1_000.0 / self.quota.replenish_interval().as_secs_f64();
        (self.left + replenished).min(f64::from(self.quota.burst_size().get()))
    }

    /// Tokens that only urgent requests may take: a third of the bucket.
    fn urgent_reserve(&self) -> f64 {
        f64::from(self.quota.burst_size().get() / 3)
    }

    /// Fails with the milliseconds to wait unless a token can be taken with `reserve` tokens left.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive wait")]
    fn check_above(&self, reserve: f64, now: u64) -> Result<(), u64> {
        let lacking = reserve + 1.0 - self.tokens(now);
        if reserve < 1.0 || lacking <= 1e-6 {
            return Ok(());
        }
        Err(((lacking * self.quota.replenish_interval().as_secs_f64() * 1_000.0).ceil() as u64).max(1))
    }
}

/// A governor quota that allows at most `rate` requests in any window of `per`. A bucket of `burst` tokens allows the
/// burst plus the tokens replenished in the window, so only `rate - burst` tokens are replenished per window. A burst
/// above one saves wake-ups and leaves room for the urgent reserve.
fn quota(rate: u32, per: Duration) -> Option<Quota> {
    let burst = (rate / 50).clamp(3, 20).min(rate / 4).max(1);
    let refill = (rate - burst).max(1);
    Quota::with_period(per / refill).map(|quota| quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate_limit(rate: u32, per: u64) -> RateLimit {
        RateLimit::new(NonZeroU32::new(rate).expect("a rate"), Duration::from_millis(per))
    }

    #[test]
    fn an_urgent_request_gets_a_token_under_the_heaviest_load() {
        let mut limit = rate_limit(300, 60_000);
        let mut now = 10_000;
        for _ in 0..1_000 {
            now += limit.try_acquire(false, now).err().unwrap_or(0);
        }
        assert!(limit.try_acquire(false, now).is_err(), "the other requests have used all but the reserve");
        assert_eq!(limit.try_acquire(true, now), Ok(()));
    }

    #[test]
    fn debt_is_paid_before_new_requests_are_permitted() {
        let mut limit = rate_limit(60, 60_000);
        limit.add_debt(20);
        let wait = limit.try_acquire(true, 1_000).expect_err("the debt exceeds the bucket");
        assert!(wait <= 1_100, "{wait}");
        let mut now = 1_000;
        while let Err(wait) = limit.try_acquire(true, now) {
            now += wait;
        }
        assert!((17_000..=21_000).contains(&(now - 1_000)), "{now}");
    }

    #[test]
    fn a_changed_share_adds_no_tokens() {
        let mut limit = rate_limit(600, 60_000);
        while limit.try_acquire(true, 5_000).is_ok() {}
        limit.set_share(0.5, 5_000);
        assert!(limit.try_acquire(true, 5_000).is_err(), "the old bucket was empty, so the new one is");
        assert!((4.5..=5.0).contains(&limit.per_second()), "{}", limit.per_second());
        limit.set_share(1.0, 5_000);
        assert!(limit.try_acquire(true, 5_000).is_err());
    }

    proptest! {
        /// A caller that asks as often as possible gets at most `rate` tokens in any window, and nearly that many over
        /// a long time.
        #[test]
        fn no_window_exceeds_the_rate(rate in 2_u32..60, start in 0_u64..10_000_000, idle in 0_u64..3, urgent: bool) {
            let mut limit = rate_limit(rate, 1_000);
            let (mut now, mut granted) = (start, Vec::new());
            let end = start + 20_000;
            while now < end {
                match limit.try_acquire(urgent, now) {
                    Ok(()) => granted.push(now),
                    Err(wait) => now += wait + idle,
                }
            }
            for (i, first) in granted.iter().enumerate() {
                let inside = granted[i..].iter().take_while(|at| **at < first + 1_000).count();
                prop_assert!(inside <= rate as usize, "{} in a window of {}", inside, rate);
            }
            // At least 90 % of half the quota in 20 s: the burst may cost the other half where the rate is tiny.
            prop_assert!(granted.len() >= rate as usize * 9, "{} at {}", granted.len(), rate);
        }
    }
}
