//! Fault injection: draws which fault, if any, disrupts a request, and counts the injected faults.

use std::collections::BTreeMap;

use super::faults::{Faults, GhostResponse};

/// The fault that disrupts one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InjectedFault {
    /// The connection is reset. `commits`: after the commit, otherwise nothing is committed.
    ConnectionReset { commits: bool },
    /// The response is an error status. `commits`: as above.
    Status { status: u16, commits: bool },
    /// A ghost write: connection reset or 504 now, commit after `ms` milliseconds unless `discarded`.
    Ghost { ms: u64, reset_connection: bool, discarded: bool },
    /// 202 with an empty body, not executed.
    Accepted,
    /// 200 with HTML, not executed.
    LoginPage,
    /// Executed; the body is `null`.
    NullBody,
    /// Executed; the body is cut in the middle.
    TruncatedJson,
    /// Executed; the list is cut, and an error object follows it.
    SplicedError,
}

/// The outcome of the batch item that was running when the transaction quota ended the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interruption {
    /// The item is committed.
    pub commits: bool,
    /// The response contains the item, with status 500.
    pub answered_500: bool,
    listed: bool,
}

impl Interruption {
    /// Whether the response lists the item as unserviced; never if it is committed or answered.
    pub fn is_listed_unserviced(self) -> bool {
        self.listed && !self.commits && !self.answered_500
    }
}

/// Number of draws per shuffled deck.
const DECK: u8 = 100;

/// The random draws, and the number of injected faults by name.
pub(super) struct FaultInjector {
    rng: fastrand::Rng,
    /// The hundredths of the next draws, in random order.
    deck: Vec<u8>,
    counts: BTreeMap<&'static str, u64>,
    pub ghost_writes_pending: u64,
}

impl FaultInjector {
    pub fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), deck: Vec::new(), counts: BTreeMap::new(), ghost_writes_pending: 0 }
    }

    pub fn reseed(&mut self, seed: u64) {
        self.rng = fastrand::Rng::with_seed(seed);
        self.deck.clear();
    }

    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    pub fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    fn allowed(&self, faults: &Faults, name: &str) -> bool {
        let count = self.counts.get(name).copied().unwrap_or(0);
        faults.max_occurrences.get(name).is_none_or(|max| count < *max)
    }

    fn chance(&mut self, faults: &Faults, name: &'static str, probability: f64) -> bool {
        let hit = probability > 0.0 && self.rng.f64() < probability && self.allowed(faults, name);
        if hit {
            self.count(name);
        }
        hit
    }

    /// Draws a number from 0 to 1, evenly spread also over each hundred draws: a fault of 3 % occurs two to four times
    /// in them. With independent draws a short run would now and then contain none.
    fn roll(&mut self) -> f64 {
        if self.deck.is_empty() {
            self.deck.extend(0..DECK);
            self.rng.shuffle(&mut self.deck);
        }
        let hundredth = self.deck.pop().unwrap_or(0);
        (f64::from(hundredth) + self.rng.f64()) / f64::from(DECK)
    }

    fn between(&mut self, range: [u64; 2]) -> u64 {
        self.rng.u64(range[0]..=range[1].max(range[0]))
    }

    /// Draws the extra time of a request, milliseconds; 0 if it is not slow.
    pub fn slow(&mut self, faults: &Faults) -> u64 {
        if self.chance(faults, "slow", faults.slow) { faults.slow_ms } else { 0 }
    }

    /// Splits a latency at random into the time before the commit and the time after it.
    pub fn split_latency(&mut self, total_ms: u64) -> (u64, u64) {
        let before = self.rng.u64(0..=total_ms);
        (before, total_ms - before)
    }

    pub fn jitter(&mut self, max: u64) -> u64 {
        self.rng.u64(0..=max)
    }

    /// Draws the delay until list queries see a write, milliseconds; `None` if they see it at once.
    pub fn visibility_delay(&mut self, faults: &Faults) -> Option<u64> {
        self.chance(faults, "delayed_visibility", faults.delayed_visibility)
            .then(|| self.between(faults.visibility_delay_ms))
    }

    /// Draws the index of the item at which the transaction quota ends a batch; `None` if it does not.
    pub fn batch_cutoff(&mut self, faults: &Faults, items: usize) -> Option<usize> {
        (items > 0 && self.chance(faults, "batch_quota_exceeded", faults.batch_quota_exceeded))
            .then(|| self.rng.usize(0..items))
    }

    /// Draws the outcome of the item that was running when the quota ended its batch.
    pub fn interruption(&mut self) -> Interruption {
        Interruption { commits: self.rng.bool(), answered_500: self.rng.u8(0..3) == 0, listed: self.rng.bool() }
    }

    /// Draws whether an item of a batch returns 500.
    pub fn batch_item_fails(&mut self, faults: &Faults) -> bool {
        self.chance(faults, "batch_item_500", faults.batch_item_500)
    }

    /// Draws whether a row of an import set returns an error: `Some(true)` after its commit, `Some(false)` before it.
    pub fn import_row_error(&mut self, faults: &Faults) -> Option<bool> {
        if self.chance(faults, "import_error_after_commit", faults.import_error_after_commit) {
            return Some(true);
        }
        self.chance(faults, "import_error_before_commit", faults.import_error_before_commit).then_some(false)
    }

    /// Draws whether one of several events is not inserted.
    pub fn drops_event(&mut self, faults: &Faults) -> bool {
        self.chance(faults, "event_not_inserted", faults.event_not_inserted)
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        self.rng.shuffle(list);
    }

    /// Draws at most one fault for a request.
    pub fn draw(&mut self, faults: &Faults, is_write: bool, is_list: bool) -> Option<InjectedFault> {
        let status = |status, commits| InjectedFault::Status { status, commits };
        let ghost = |discarded| InjectedFault::Ghost { ms: 0, reset_connection: false, discarded };
        let all = [
            ("drop_after_commit", faults.drop_after_commit, InjectedFault::ConnectionReset { commits: true }),
            ("drop_before_commit", faults.drop_before_commit, InjectedFault::ConnectionReset { commits: false }),
            ("error_500_after_commit", faults.error_500_after_commit, status(500, true)),
            ("error_500_before_commit", faults.error_500_before_commit, status(500, false)),
            ("gateway_502_after_commit", faults.gateway_502_after_commit, status(502, true)),
            ("gateway_502_before_commit", faults.gateway_502_before_commit, status(502, false)),
            ("gateway_503_after_commit", faults.gateway_503_after_commit, status(503, true)),
            ("gateway_503_before_commit", faults.gateway_503_before_commit, status(503, false)),
            ("gateway_504_after_commit", faults.gateway_504_after_commit, status(504, true)),
            ("gateway_504_before_commit", faults.gateway_504_before_commit, status(504, false)),
            ("ghost", faults.ghost, ghost(false)),
            ("ghost_discarded", faults.ghost_discarded, ghost(true)),
            ("accepted_202", faults.accepted_202, InjectedFault::Accepted),
            ("html_200", faults.html_200, InjectedFault::LoginPage),
            ("null_body", faults.null_body, InjectedFault::NullBody),
            ("truncated_json", faults.truncated_json, InjectedFault::TruncatedJson),
            ("spliced_error", faults.spliced_error, InjectedFault::SplicedError),
        ];
        if all.iter().all(|(_, probability, _)| *probability <= 0.0) || !(is_write || faults.include_reads) {
            return None;
        }
        let mut roll = self.roll();
        for (name, probability, fault) in all {
            let applicable = match fault {
                InjectedFault::Ghost { .. } => is_write,
                InjectedFault::SplicedError => is_list,
                _ => true,
            };
            if roll < probability {
                if !applicable || !self.allowed(faults, name) {
                    return None;
                }
                self.count(name);
                let InjectedFault::Ghost { discarded, .. } = fault else { return Some(fault) };
                let reset_connection = match faults.ghost_response {
                    GhostResponse::ConnectionReset => true,
                    GhostResponse::GatewayTimeout => false,
                    GhostResponse::Mixed => self.rng.bool(),
                };
                return Some(InjectedFault::Ghost {
                    ms: self.between(faults.ghost_delay_ms),
                    reset_connection,
                    discarded,
                });
            }
            roll -= probability;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_occurs_at_its_probability_within_a_hundred_draws() {
        let faults = Faults { drop_after_commit: 0.021, ghost: 0.03, error_500_after_commit: 0.3, ..Faults::default() };
        for seed in 0..200 {
            let mut fault_injector = FaultInjector::new(seed);
            (0..100).for_each(|_| {
                fault_injector.draw(&faults, true, false);
            });
            let count = |name| fault_injector.counts().get(name).copied().unwrap_or(0);
            assert!((1..=4).contains(&count("drop_after_commit")), "{seed}: {:?}", fault_injector.counts());
            assert!((2..=4).contains(&count("ghost")), "{seed}: {:?}", fault_injector.counts());
            assert!((28..=32).contains(&count("error_500_after_commit")), "{seed}: {:?}", fault_injector.counts());
        }
    }

    #[test]
    fn draws_depend_on_the_seed_and_stop_at_max_occurrences() {
        let faults = Faults {
            ghost: 0.3,
            drop_after_commit: 0.3,
            max_occurrences: BTreeMap::from([("ghost".to_owned(), 5)]),
            ..Faults::default()
        };
        let run = |seed| {
            let mut fault_injector = FaultInjector::new(seed);
            let drawn: Vec<_> = (0..200).map(|_| fault_injector.draw(&faults, true, false)).collect();
            (drawn, fault_injector.counts().clone())
        };
        let (drawn, counts) = run(7);
        assert_eq!(drawn, run(7).0);
        assert_ne!(drawn, run(8).0);
        assert_eq!(counts.get("ghost"), Some(&5));
        assert!(counts.get("drop_after_commit").is_some_and(|count| (30..90).contains(count)));
        assert_eq!(FaultInjector::new(7).draw(&faults, false, true), None);
    }
}
