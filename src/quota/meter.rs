//! The configured rate: so many requests in any window, spent token by token.
//!
//! Governor keeps the account; here is what it lacks: a part of the bucket that only urgent requests may take, requests
//! that were made before they were paid for, and a rate that changes with the member's share, where the new account
//! inherits what the old one had left. Whoever asks passes the instant in.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// A governor clock that shows what it was last told.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

/// Nanoseconds since the caller's clock began.
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

impl Clock for Hand {
    type Instant = Instant;

    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::Acquire))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, Hand, StateInformationMiddleware>;

/// A rate and what is left of it.
#[derive(Debug)]
pub struct Meter {
    rate: u32,
    per: Duration,
    share: f64,
    hand: Hand,
    account: Option<Account>,
    /// Requests made and not paid for.
    owed: u32,
}

#[derive(Debug)]
struct Account {
    limiter: Limiter,
    quota: Quota,
    /// Tokens that were left at an instant, milliseconds.
    left: (f64, u64),
}

impl Meter {
    /// At most `rate` requests in any window of `per`, the burst included.
    pub fn new(rate: NonZeroU32, per: Duration) -> Self {
        let mut meter = Self { rate: rate.get(), per, share: 1.0, hand: Hand::default(), account: None, owed: 0 };
        meter.open(0.0, 0);
        meter
    }

    /// From now on the rate is this share of what was configured.
    pub fn set_share(&mut self, share: f64, now: u64) {
        if (share - self.share).abs() > f64::EPSILON {
            let left = self.account.as_ref().map_or(0.0, |account| account.tokens(now));
            self.share = share;
            self.open(left, now);
        }
    }

    /// Requests a second in the long run.
    pub fn per_second(&self) -> f64 {
        let period = self.account.as_ref().map_or(Duration::MAX, |account| account.quota.replenish_interval());
        1.0 / period.as_secs_f64()
    }

    /// Takes one token, or says in how many milliseconds there is one. Of those that are not `urgent` some are left.
    pub fn take(&mut self, urgent: bool, now: u64) -> Result<(), u64> {
        // The hand only moves forward, whatever order callers read their clocks in.
        self.hand.0.fetch_max(now.saturating_mul(1_000_000), Ordering::AcqRel);
        let Some(account) = &mut self.account else { return Ok(()) };
        while self.owed > 0 {
            account.take(&self.hand, now)?;
            self.owed -= 1;
        }
        if !urgent {
            account.wait_for_more_than(account.kept(), now)?;
        }
        account.take(&self.hand, now)
    }

    /// So many requests were made without a token.
    pub fn owe(&mut self, requests: u32) {
        self.owed = self.owed.saturating_add(requests);
    }

    /// Opens an account with this share of the rate and so many tokens in it.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
    fn open(&mut self, tokens: f64, now: u64) {
        let rate = ((f64::from(self.rate) * self.share).floor() as u32).max(1);
        self.account = quota(rate, self.per).map(|quota| {
            let limiter = RateLimiter::direct_with_clock(quota, self.hand.clone())
                .with_middleware::<StateInformationMiddleware>();
            let burst = f64::from(quota.burst_size().get());
            let mut account = Account { limiter, quota, left: (burst, now) };
            let mut spend = if self.share < 1.0 || now > 0 { (burst - tokens).max(0.0) as u32 } else { 0 };
            while spend > 0 && account.take(&self.hand, now).is_ok() {
                spend -= 1;
            }
            account
        });
    }
}

impl Account {
    fn take(&mut self, hand: &Hand, now: u64) -> Result<(), u64> {
        match self.limiter.check() {
            Ok(state) => {
                self.left = (f64::from(state.remaining_burst_capacity()), now);
                Ok(())
            }
            Err(not_yet) => {
                let wait = not_yet.wait_time_from(hand.now());
                Err(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1))
            }
        }
    }

    /// Tokens that are left now, a fraction of the next one included.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    fn tokens(&self, now: u64) -> f64 {
        let (tokens, at) = self.left;
        let more = now.saturating_sub(at) as f64 / 1_000.0 / self.quota.replenish_interval().as_secs_f64();
        (tokens + more).min(f64::from(self.quota.burst_size().get()))
    }

    /// Tokens that only urgent requests may take: a third of the bucket.
    fn kept(&self) -> f64 {
        f64::from(self.quota.burst_size().get() / 3)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive wait")]
    fn wait_for_more_than(&self, kept: f64, now: u64) -> Result<(), u64> {
        let lacking = kept + 1.0 - self.tokens(now);
        if kept < 1.0 || lacking <= 1e-6 {
            return Ok(());
        }
        Err(((lacking * self.quota.replenish_interval().as_secs_f64() * 1_000.0).ceil() as u64).max(1))
    }
}

/// A governor quota that lets at most `rate` requests through in any window of `per`: a bucket of `burst` lets
/// through the burst and what is replenished meanwhile, so only `rate - burst` are replenished. A little more than
/// one at once saves wake-ups, and leaves something for the urgent.
fn quota(rate: u32, per: Duration) -> Option<Quota> {
    let burst = (rate / 50).clamp(3, 20).min(rate / 4).max(1);
    let refill = (rate - burst).max(1);
    Quota::with_period(per / refill).map(|quota| quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meter(rate: u32, per: u64) -> Meter {
        Meter::new(NonZeroU32::new(rate).expect("a rate"), Duration::from_millis(per))
    }

    #[test]
    fn an_urgent_request_finds_a_token_in_the_worst_storm() {
        let mut meter = meter(300, 60_000);
        let mut now = 10_000;
        for _ in 0..1_000 {
            now += meter.take(false, now).err().unwrap_or(0);
        }
        assert!(meter.take(false, now).is_err(), "the storm has taken what it may");
        assert_eq!(meter.take(true, now), Ok(()));
    }

    #[test]
    fn what_was_made_without_a_token_is_paid_first() {
        let mut meter = meter(60, 60_000);
        meter.owe(20);
        let wait = meter.take(true, 1_000).expect_err("it owes more than the bucket holds");
        assert!(wait <= 1_100, "{wait}");
        let mut now = 1_000;
        while let Err(wait) = meter.take(true, now) {
            now += wait;
        }
        assert!((17_000..=21_000).contains(&(now - 1_000)), "{now}");
    }

    #[test]
    fn a_new_share_gives_no_tokens_for_nothing() {
        let mut meter = meter(600, 60_000);
        while meter.take(true, 5_000).is_ok() {}
        meter.set_share(0.5, 5_000);
        assert!(meter.take(true, 5_000).is_err(), "nothing was left, so nothing is inherited");
        assert!((4.5..=5.0).contains(&meter.per_second()), "{}", meter.per_second());
        meter.set_share(1.0, 5_000);
        assert!(meter.take(true, 5_000).is_err());
    }

    proptest! {
        /// Whoever asks as often as he can gets at most `rate` in any window, and nearly that over a long time.
        #[test]
        fn no_window_holds_more_than_the_rate(rate in 2_u32..60, start in 0_u64..10_000_000, idle in 0_u64..3, urgent: bool) {
            let mut meter = meter(rate, 1_000);
            let (mut now, mut granted) = (start, Vec::new());
            let end = start + 20_000;
            while now < end {
                match meter.take(urgent, now) {
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
