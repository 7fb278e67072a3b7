//! Delays between attempts: backon's exponential backoff with jitter, as an iterator without a clock.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The shortest and the longest delay between attempts, milliseconds, without jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryDelays {
    pub first: u64,
    pub max: u64,
}

/// The delays of one operation that is retried.
#[derive(Debug)]
pub struct Backoff {
    inner: ExponentialBackoff,
    max: u64,
}

impl Backoff {
    /// Delays that double from `first` to `max`, each with jitter from `seed`, without end.
    pub fn new(RetryDelays { first, max }: RetryDelays, seed: u64) -> Self {
        let inner = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(first))
            .with_max_delay(Duration::from_millis(max))
            .with_factor(2.0)
            .with_jitter()
            .with_jitter_seed(seed)
            .without_max_times()
            .build();
        Self { inner, max }
    }

    /// The next delay in milliseconds.
    pub fn next_delay(&mut self) -> u64 {
        self.inner.next().map_or(self.max, |d| u64::try_from(d.as_millis()).unwrap_or(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_never_end() {
        let mut d = Backoff::new(RetryDelays { first: 100, max: 1_000 }, 7);
        let first = d.next_delay();
        assert!((100..=200).contains(&first), "{first}");
        for _ in 0..50 {
            assert!(d.next_delay() <= 2_000);
        }
        let same: Vec<u64> = (0..5)
            .map({
                let mut d = Backoff::new(RetryDelays { first: 100, max: 1_000 }, 7);
                move |_| d.next_delay()
            })
            .collect();
        assert_eq!(same[0], first, "the same seed gives the same delays");
    }
}
