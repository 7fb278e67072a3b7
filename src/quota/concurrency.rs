//! How many requests may be out at once: found out, not configured.
//!
//! An instance serves integrations with a few threads a node (four, typically) and a queue before them; what is sent
//! beyond that waits in the queue, and where the queue is full it is refused with a bare 429. So the limit starts low,
//! doubles with every round of answers while nothing speaks against it, and after the first sign of crowding grows by
//! one a round. It halves where the instance refuses for want of threads or a front end answers 503; it shrinks by a
//! fifth where answers say that they waited for a thread (`Server-Timing: sem_wait`), or where they have become
//! several times slower than they were. It never falls below one, nor rises above what the configuration allows.

use crate::model::HttpMethod;

/// Requests at once in the beginning: the threads of one node.
const START: usize = 4;

/// An answer that waited so long for a thread, milliseconds, says that there are more requests than threads.
const WAITED: u64 = 20;

/// Answers count as slow where their average is this many times the lowest one of the last minutes, and that much more.
const SLOWER: (f64, f64) = (3.0, 100.0);

/// Share of a new answer in the average.
const SHARE: f64 = 0.125;

/// How long the lowest average is remembered at least, milliseconds; twice that at most.
const WINDOW: u64 = 120_000;

/// Between two cuts, milliseconds, or as long as an answer takes: one crowd is answered by one cut.
const CUT_EVERY: u64 = 1_000;

/// What an answer said of the crowd on the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadSignal {
    /// It came after so many milliseconds, of which so many went by waiting for a thread.
    Answered {
        /// Since it was sent.
        latency: u64,
        /// As the instance measured it.
        waited: u64,
    },
    /// The instance or its front end has no room.
    Refused,
}

/// A limit that follows the instance.
#[derive(Debug)]
pub struct Concurrency {
    limit: f64,
    most: usize,
    /// Nothing has spoken against growing yet.
    fresh: bool,
    cut_at: Option<u64>,
    answers: [Answers; 3],
}

/// How quickly requests of one method are answered.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    average: Option<f64>,
    lowest: f64,
    before: f64,
    since: u64,
}

impl Concurrency {
    /// A limit of at most `most`, one at least.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        #[expect(clippy::cast_precision_loss, reason = "START is small")]
        let limit = START.min(most) as f64;
        Self { limit, most, fresh: true, cut_at: None, answers: Default::default() }
    }

    /// Requests that may be out at once now.
    pub fn limit(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between one and `most`")]
        let limit = self.limit as usize;
        limit.clamp(1, self.most)
    }

    /// The average latency of requests of this method, milliseconds, where there were any.
    pub fn latency(&self, method: HttpMethod) -> Option<f64> {
        self.answers[method as usize].average
    }

    /// An answer came while so many requests were out, itself included.
    pub fn record(&mut self, method: HttpMethod, sign: LoadSignal, out: usize, now: u64) {
        match sign {
            LoadSignal::Refused => self.cut(0.5, CUT_EVERY, now),
            LoadSignal::Answered { latency, waited } => {
                let slow = self.answers[method as usize].record(latency, now);
                if slow || waited >= WAITED {
                    self.cut(0.8, CUT_EVERY.max(latency), now);
                } else if out >= self.limit() {
                    // Where fewer are out than may be, nothing was learned of more.
                    self.grow();
                }
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
    fn grow(&mut self) {
        self.limit += if self.fresh { 1.0 } else { 1.0 / self.limit };
        self.limit = self.limit.min(self.most as f64);
    }

    fn cut(&mut self, factor: f64, every: u64, now: u64) {
        self.fresh = false;
        if self.cut_at.is_none_or(|at| now >= at.saturating_add(every)) {
            self.cut_at = Some(now);
            self.limit = (self.limit * factor).max(1.0);
        }
    }
}

impl Answers {
    /// Takes one latency in; true where answers have become slow.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a request")]
    fn record(&mut self, latency: u64, now: u64) -> bool {
        let latency = latency as f64;
        let Some(average) = self.average else {
            *self = Self { average: Some(latency), lowest: latency, before: latency, since: now };
            return false;
        };
        let average = average + (latency - average) * SHARE;
        self.average = Some(average);
        if now >= self.since.saturating_add(WINDOW) {
            *self = Self { average: Some(average), lowest: average, before: self.lowest, since: now };
        }
        self.lowest = self.lowest.min(average);
        let lowest = self.lowest.min(self.before);
        average > lowest * SLOWER.0 && average > lowest + SLOWER.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(latency: u64, waited: u64) -> LoadSignal {
        LoadSignal::Answered { latency, waited }
    }

    /// Rounds of answers at a latency that depends on how many are out.
    fn rounds(concurrency: &mut Concurrency, rounds: usize, from: u64, latency: impl Fn(usize) -> (u64, u64)) -> u64 {
        let mut now = from;
        for _ in 0..rounds {
            let out = concurrency.limit();
            let (slow, waited) = latency(out);
            now += slow;
            for _ in 0..out {
                // What comes free is used at once.
                let out = concurrency.limit();
                concurrency.record(HttpMethod::Patch, answered(slow, waited), out, now);
            }
        }
        now
    }

    #[test]
    fn it_doubles_while_answers_stay_as_quick() {
        let mut c = Concurrency::new(64);
        assert_eq!(c.limit(), 4);
        rounds(&mut c, 2, 0, |_| (150, 0));
        assert_eq!(c.limit(), 16);
        rounds(&mut c, 10, 300, |_| (150, 0));
        assert_eq!(c.limit(), 64, "as far as the configuration allows");
    }

    #[test]
    fn it_settles_near_the_threads_of_the_instance() {
        let mut c = Concurrency::new(64);
        // Six threads of 100 ms: what is more waits in the queue.
        let mut seen = Vec::new();
        let mut now = 0;
        for _ in 0..300 {
            now = rounds(&mut c, 1, now, |out| (100 * out.div_ceil(6) as u64, 100 * (out.div_ceil(6) as u64 - 1)));
            seen.push(c.limit());
        }
        assert!(seen[50..].iter().all(|limit| (4..=8).contains(limit)), "{seen:?}");
    }

    #[test]
    fn a_refusal_halves_it_once_a_crowd_and_never_below_one() {
        let mut c = Concurrency::new(32);
        rounds(&mut c, 5, 0, |_| (100, 0));
        assert_eq!(c.limit(), 32);
        (0..10).for_each(|_| c.record(HttpMethod::Post, LoadSignal::Refused, 32, 5_000));
        assert_eq!(c.limit(), 16);
        (0..20).for_each(|second| c.record(HttpMethod::Post, LoadSignal::Refused, 16, 6_000 + second * 1_000));
        assert_eq!(c.limit(), 1);
        rounds(&mut c, 3, 60_000, |_| (100, 0));
        assert!((2..=4).contains(&c.limit()), "grows slowly again: {}", c.limit());
    }

    #[test]
    fn an_idle_bridge_learns_nothing_of_more() {
        let mut c = Concurrency::new(32);
        (0..100).for_each(|at| c.record(HttpMethod::Post, answered(100, 0), 1, at * 100));
        assert_eq!(c.limit(), 4);
    }

    #[test]
    fn latency_that_varies_is_no_crowd_and_latency_that_multiplies_is() {
        let mut c = Concurrency::new(16);
        rounds(&mut c, 6, 0, |_| (200, 0));
        let varied = |at: u64| if at.is_multiple_of(7) { 900 } else { 150 };
        (0..200).for_each(|at| c.record(HttpMethod::Patch, answered(varied(at), 0), 16, 2_000 + at * 50));
        assert_eq!(c.limit(), 16);
        (0..40).for_each(|at| c.record(HttpMethod::Patch, answered(2_000, 0), 16, 20_000 + at * 500));
        assert!(c.limit() < 8, "{}", c.limit());
    }
}
