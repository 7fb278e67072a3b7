//! When the next request may leave, and on which slot: a rate limit and a number of concurrency slots.
//!
//! Whoever asks passes the instant in; nothing here reads a clock or sleeps, so the same calls always give the same
//! answers. A slot is a permit and a number at once: the client keeps one connection and one session per slot. The
//! slot given back last is given out first, which keeps sessions warm and leaves the others to close.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// How much may be asked of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaceSettings {
    /// Most requests in any window of `per`, the burst included; `None`: as many as the slots carry.
    pub rate: Option<NonZeroU32>,
    /// The window: a second, a minute, an hour. Rate-limit rules of an instance count hours.
    pub per: Duration,
    /// Requests that may leave at once after a quiet time; taken out of `rate`, at most half of it.
    pub burst: u32,
    /// Concurrency slots, at least one. An instance's integration pool has typically four threads a node.
    pub slots: usize,
}

impl Default for PaceSettings {
    fn default() -> Self {
        Self { rate: None, per: Duration::from_secs(1), burst: 1, slots: 4 }
    }
}

/// The answer to [`Pace::try_take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// One request may leave now on this slot; give it back with [`Pace::release`].
    Granted {
        /// The slot.
        slot: usize,
    },
    /// Ask again after so many milliseconds.
    Wait(u64),
    /// All slots are taken: ask again after a release.
    Busy,
}

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

type Limiter = RateLimiter<NotKeyed, InMemoryState, Hand, NoOpMiddleware<Instant>>;

/// A rate limit and concurrency slots, shared by all that ask one instance.
#[derive(Debug)]
pub struct Pace {
    hand: Hand,
    limiter: Option<Limiter>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: Vec<usize>,
    slots: usize,
    hold_until: u64,
}

impl Pace {
    /// A pace with all slots free.
    pub fn new(settings: &PaceSettings) -> Self {
        let slots = settings.slots.max(1);
        let hand = Hand::default();
        let limiter = settings
            .rate
            .and_then(|rate| quota(rate.get(), settings.per, settings.burst))
            .map(|quota| RateLimiter::direct_with_clock(quota, hand.clone()));
        Self { hand, limiter, inner: Mutex::new(Inner { free: (0..slots).rev().collect(), slots, hold_until: 0 }) }
    }

    /// Asks to send one request at `now`, milliseconds on a clock that never steps. A token of the rate is spent only
    /// where a slot is free as well.
    pub fn try_take(&self, now: u64) -> Take {
        let mut inner = self.lock();
        if now < inner.hold_until {
            return Take::Wait(inner.hold_until - now);
        }
        let Some(&slot) = inner.free.last() else { return Take::Busy };
        if let Some(limiter) = &self.limiter {
            // The hand only moves forward, whatever order callers read their clocks in.
            self.hand.0.fetch_max(now.saturating_mul(1_000_000), Ordering::AcqRel);
            if let Err(not_yet) = limiter.check() {
                let wait = not_yet.wait_time_from(self.hand.now());
                return Take::Wait(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1));
            }
        }
        inner.free.pop();
        Take::Granted { slot }
    }

    /// How many requests could leave at `now`, as far as is known without asking for them. Under a rate limit it says
    /// none: then tokens, not slots, are what is waited for.
    pub fn room(&self, now: u64) -> usize {
        let inner = self.lock();
        if now < inner.hold_until || self.limiter.is_some() { 0 } else { inner.free.len() }
    }

    /// Gives a slot back. One that was not taken is ignored.
    pub fn release(&self, slot: usize) {
        let mut inner = self.lock();
        if slot < inner.slots && !inner.free.contains(&slot) {
            inner.free.push(slot);
        }
    }

    /// Grants nothing before `until`, milliseconds on the same clock; an earlier hold that ends later stays.
    pub fn hold_until(&self, until: u64) {
        let mut inner = self.lock();
        inner.hold_until = inner.hold_until.max(until);
    }

    /// Ends a hold.
    pub fn resume(&self) {
        self.lock().hold_until = 0;
    }

    /// Slots in use.
    pub fn in_flight(&self) -> usize {
        let inner = self.lock();
        inner.slots - inner.free.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A governor quota that lets at most `rate` requests through in any window of `per`: a bucket of `burst` lets
/// through the burst and what is replenished meanwhile, so only `rate - burst` are replenished.
fn quota(rate: u32, per: Duration, burst: u32) -> Option<Quota> {
    let burst = burst.clamp(1, (rate / 2).max(1));
    let refill = (rate - burst).max(1);
    Quota::with_period(per / refill).map(|quota| quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(rate: u32, per: Duration, burst: u32, slots: usize) -> PaceSettings {
        PaceSettings { rate: NonZeroU32::new(rate), per, burst, slots }
    }

    #[test]
    fn slots_are_given_once_each_and_the_warm_one_first() {
        let pace = Pace::new(&settings(0, Duration::from_secs(1), 1, 2));
        assert_eq!(pace.try_take(0), Take::Granted { slot: 0 });
        assert_eq!(pace.try_take(0), Take::Granted { slot: 1 });
        assert_eq!(pace.try_take(0), Take::Busy);
        pace.release(1);
        pace.release(1);
        pace.release(7);
        assert_eq!(pace.in_flight(), 1);
        assert_eq!(pace.try_take(0), Take::Granted { slot: 1 });
    }

    #[test]
    fn a_hold_of_any_length_is_kept_and_the_longest_counts() {
        let pace = Pace::new(&PaceSettings::default());
        pace.hold_until(3_600_000);
        pace.hold_until(10);
        assert_eq!(pace.try_take(1_000), Take::Wait(3_599_000));
        assert_eq!(pace.try_take(3_600_000), Take::Granted { slot: 0 });
        pace.hold_until(u64::MAX);
        pace.resume();
        assert_eq!(pace.try_take(3_600_000), Take::Granted { slot: 1 });
    }

    #[test]
    fn a_busy_pace_spends_no_token() {
        let pace = Pace::new(&settings(2, Duration::from_secs(1), 1, 1));
        assert_eq!(pace.try_take(5_000), Take::Granted { slot: 0 });
        for _ in 0..100 {
            assert_eq!(pace.try_take(6_000), Take::Busy);
        }
        pace.release(0);
        assert_eq!(pace.try_take(6_000), Take::Granted { slot: 0 });
        pace.release(0);
        assert_eq!(pace.try_take(6_000), Take::Wait(1_000));
    }

    proptest! {
        /// Whoever asks as often as he can gets at most `rate` in any window, and nearly that over a long time.
        #[test]
        fn no_window_holds_more_than_the_rate(rate in 2_u32..60, burst in 1_u32..80, start in 0_u64..10_000_000, idle in 0_u64..3) {
            let pace = Pace::new(&settings(rate, Duration::from_secs(1), burst, 1));
            let (mut now, mut granted) = (start, Vec::new());
            let end = start + 20_000;
            while now < end {
                match pace.try_take(now) {
                    Take::Granted { slot } => { granted.push(now); pace.release(slot); }
                    Take::Wait(wait) => now += wait + idle,
                    Take::Busy => unreachable!(),
                }
            }
            for (i, first) in granted.iter().enumerate() {
                let inside = granted[i..].iter().take_while(|at| **at < first + 1_000).count();
                prop_assert!(inside <= rate as usize, "{} in a window of {}", inside, rate);
            }
            // At least 80 % of half the quota in 20 s: the burst may cost the other half.
            prop_assert!(granted.len() >= rate as usize * 8, "{} at {}", granted.len(), rate);
        }
    }
}
