//! Delays between tries: backon's exponential backoff with jitter, as an iterator without a clock.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The delays of one thing that is tried again and again.
#[derive(Debug)]
pub struct Delays {
    inner: ExponentialBackoff,
    max: u64,
}

impl Delays {
    /// Doubling from `first` to `max` milliseconds, each with jitter from `seed`, without end.
    pub fn new((first, max): (u64, u64), seed: u64) -> Self {
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
    fn grows_and_never_ends() {
        let mut d = Delays::new((100, 1_000), 7);
        let first = d.next_delay();
        assert!((100..=200).contains(&first), "{first}");
        for _ in 0..50 {
            assert!(d.next_delay() <= 2_000);
        }
        let same: Vec<u64> = (0..5)
            .map({
                let mut d = Delays::new((100, 1_000), 7);
                move |_| d.next_delay()
            })
            .collect();
        assert_eq!(same[0], first, "the seed decides");
    }
}
