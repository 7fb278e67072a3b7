//! Adaptive concurrency: how many requests may be in flight, adjusted to the instance's responses.
//!
//! An instance serves integrations with a few threads per node (typically four) and a queue. Further requests wait in
//! the queue; if the queue is full, the instance rejects them with a bare 429. So the limit starts low and doubles with
//! every round of responses until the first sign of load; from then on it grows by one per round. It halves where the
//! instance rejects a request for lack of threads or a front end responds with 503. It shrinks by a fifth where a
//! response waited for a thread (`Server-Timing: sem_wait`) or where the average latency has become several times the
//! lowest recent one. It never falls below one and never exceeds the configured maximum.

use crate::model::HttpMethod;

/// The initial limit: the threads of one node.
const INITIAL_LIMIT: usize = 4;

/// A response that waited this long for a thread, milliseconds, shows that there are more requests than threads.
const QUEUED: u64 = 20;

/// Responses count as slow where their average latency exceeds the lowest recent one by this factor ...
const SLOWDOWN_FACTOR: f64 = 3.0;

/// ... and by this many milliseconds.
const SLOWDOWN_MS: f64 = 100.0;

/// The weight of a new response in the moving average.
const SMOOTHING: f64 = 0.125;

/// How long the lowest average is remembered at least, milliseconds; twice that at most.
const LATENCY_WINDOW: u64 = 120_000;

/// Minimum milliseconds between two decreases (or one latency, if longer), so that one overload causes one decrease.
const DECREASE_INTERVAL: u64 = 1_000;

/// What a response says about the load of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadSignal {
    /// The instance processed the request.
    Response {
        /// Milliseconds since the request was sent.
        latency: u64,
        /// Milliseconds of `latency` spent waiting for a thread, as measured by the instance.
        queue_time: u64,
    },
    /// The instance or its front end rejected the request for lack of capacity, or did not respond in time.
    Overloaded,
}

/// The adaptive concurrency limit of an instance.
#[derive(Debug)]
pub struct AdaptiveConcurrency {
    limit: f64,
    max: usize,
    /// No sign of load so far: the limit doubles per round.
    slow_start: bool,
    decreased_at: Option<u64>,
    /// By method.
    latencies: [Latency; 3],
}

/// The latency of requests of one method, milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Latency {
    /// Moving average; `None` before the first response.
    average: Option<f64>,
    /// The lowest average of the current window.
    lowest: f64,
    /// The lowest average of the previous window.
    previous_lowest: f64,
    window_start: u64,
}

impl AdaptiveConcurrency {
    /// A limit between one and `max`.
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        #[expect(clippy::cast_precision_loss, reason = "INITIAL_LIMIT is small")]
        let limit = INITIAL_LIMIT.min(max) as f64;
        Self { limit, max, slow_start: true, decreased_at: None, latencies: Default::default() }
    }

    /// The current limit: requests that may be in flight.
    pub fn limit(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between one and `max`")]
        let limit = self.limit as usize;
        limit.clamp(1, self.max)
    }

    /// The average latency of requests of this method, milliseconds; `None` before the first response.
    pub fn latency(&self, method: HttpMethod) -> Option<f64> {
        self.latencies[method as usize].average
    }

    /// Records a response that arrived while `in_flight` requests were in flight, itself included.
    pub fn record(&mut self, method: HttpMethod, signal: LoadSignal, in_flight: usize, now: u64) {
        match signal {
            LoadSignal::Overloaded => self.decrease(0.5, DECREASE_INTERVAL, now),
            LoadSignal::Response { latency, queue_time } => {
                let slow = self.latencies[method as usize].record(latency, now);
                if slow || queue_time >= QUEUED {
                    self.decrease(0.8, DECREASE_INTERVAL.max(latency), now);
                } else if in_flight >= self.limit() {
                    // Below the limit, a response says nothing about a higher one.
                    self.increase();
                }
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
    fn increase(&mut self) {
        self.limit += if self.slow_start { 1.0 } else { 1.0 / self.limit };
        self.limit = self.limit.min(self.max as f64);
    }

    fn decrease(&mut self, factor: f64, interval: u64, now: u64) {
        self.slow_start = false;
        if self.decreased_at.is_none_or(|at| now >= at.saturating_add(interval)) {
            self.decreased_at = Some(now);
            self.limit = (self.limit * factor).max(1.0);
        }
    }
}

impl Latency {
    /// Records one latency; true where responses have become slow.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a request")]
    fn record(&mut self, latency: u64, now: u64) -> bool {
        let latency = latency as f64;
        let Some(average) = self.average else {
            *self = Self { average: Some(latency), lowest: latency, previous_lowest: latency, window_start: now };
            return false;
        };
        let average = average + (latency - average) * SMOOTHING;
        self.average = Some(average);
        if now >= self.window_start.saturating_add(LATENCY_WINDOW) {
            *self = Self { average: Some(average), lowest: average, previous_lowest: self.lowest, window_start: now };
        }
        self.lowest = self.lowest.min(average);
        let lowest = self.lowest.min(self.previous_lowest);
        average > lowest * SLOWDOWN_FACTOR && average > lowest + SLOWDOWN_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(latency: u64, queue_time: u64) -> LoadSignal {
        LoadSignal::Response { latency, queue_time }
    }

    /// Rounds of responses; `latency` returns latency and queue time for a number of requests in flight.
    fn rounds(
        concurrency: &mut AdaptiveConcurrency,
        rounds: usize,
        from: u64,
        latency: impl Fn(usize) -> (u64, u64),
    ) -> u64 {
        let mut now = from;
        for _ in 0..rounds {
            let in_flight = concurrency.limit();
            let (latency, queue_time) = latency(in_flight);
            now += latency;
            for _ in 0..in_flight {
                // A released slot is used again at once.
                let in_flight = concurrency.limit();
                concurrency.record(HttpMethod::Patch, response(latency, queue_time), in_flight, now);
            }
        }
        now
    }

    #[test]
    fn the_limit_doubles_while_latency_stays_low() {
        let mut c = AdaptiveConcurrency::new(64);
        assert_eq!(c.limit(), 4);
        rounds(&mut c, 2, 0, |_| (150, 0));
        assert_eq!(c.limit(), 16);
        rounds(&mut c, 10, 300, |_| (150, 0));
        assert_eq!(c.limit(), 64, "the configured maximum");
    }

    #[test]
    fn the_limit_settles_near_the_threads_of_the_instance() {
        let mut c = AdaptiveConcurrency::new(64);
        // Six threads of 100 ms: further requests wait in the queue.
        let mut seen = Vec::new();
        let mut now = 0;
        for _ in 0..300 {
            now = rounds(&mut c, 1, now, |in_flight| {
                (100 * in_flight.div_ceil(6) as u64, 100 * (in_flight.div_ceil(6) as u64 - 1))
            });
            seen.push(c.limit());
        }
        assert!(seen[50..].iter().all(|limit| (4..=8).contains(limit)), "{seen:?}");
    }

    #[test]
    fn an_overload_halves_the_limit_once_and_never_below_one() {
        let mut c = AdaptiveConcurrency::new(32);
        rounds(&mut c, 5, 0, |_| (100, 0));
        assert_eq!(c.limit(), 32);
        (0..10).for_each(|_| c.record(HttpMethod::Post, LoadSignal::Overloaded, 32, 5_000));
        assert_eq!(c.limit(), 16);
        (0..20).for_each(|second| c.record(HttpMethod::Post, LoadSignal::Overloaded, 16, 6_000 + second * 1_000));
        assert_eq!(c.limit(), 1);
        rounds(&mut c, 3, 60_000, |_| (100, 0));
        assert!((2..=4).contains(&c.limit()), "grows slowly again: {}", c.limit());
    }

    #[test]
    fn the_limit_does_not_grow_while_it_is_not_used() {
        let mut c = AdaptiveConcurrency::new(32);
        (0..100).for_each(|at| c.record(HttpMethod::Post, response(100, 0), 1, at * 100));
        assert_eq!(c.limit(), 4);
    }

    #[test]
    fn varying_latency_keeps_the_limit_and_multiplied_latency_reduces_it() {
        let mut c = AdaptiveConcurrency::new(16);
        rounds(&mut c, 6, 0, |_| (200, 0));
        let varied = |at: u64| if at.is_multiple_of(7) { 900 } else { 150 };
        (0..200).for_each(|at| c.record(HttpMethod::Patch, response(varied(at), 0), 16, 2_000 + at * 50));
        assert_eq!(c.limit(), 16);
        (0..40).for_each(|at| c.record(HttpMethod::Patch, response(2_000, 0), 16, 20_000 + at * 500));
        assert!(c.limit() < 8, "{}", c.limit());
    }
}
