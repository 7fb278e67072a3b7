//! Drawing the faults: which one, if any, strikes a request.

use std::collections::BTreeMap;

use super::faults::{Faults, GhostAnswer};

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    /// The connection is cut, before or after the commit.
    Cut { commits: bool },
    /// An error status, before or after the commit.
    Status { status: u16, commits: bool },
    /// Answered or cut now, executed after so many milliseconds.
    Ghost { ms: u64, cut: bool, refused: bool },
    /// 202 with an empty body, not executed.
    Accepted,
    /// 200 with HTML, not executed.
    Html,
    /// Executed; the body is `null`.
    Null,
    /// Executed; the body ends in the middle.
    CutJson,
    /// Executed; an error object is spliced into the list.
    Spliced,
}

/// What becomes of an item that was running when the quota struck.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    /// It had committed.
    pub commits: bool,
    /// It is answered with 500.
    pub answered: bool,
    named: bool,
}

impl Fate {
    /// It is named among those that were not served; that is said only of what did nothing.
    pub fn is_named(self) -> bool {
        self.named && !self.commits && !self.answered
    }
}

/// Rolls of one deck.
const DECK: u8 = 100;

/// The source of draws, and how often each fault struck.
pub(super) struct Strikes {
    rng: fastrand::Rng,
    /// The hundredths from which the next rolls come, in random order.
    deck: Vec<u8>,
    counts: BTreeMap<&'static str, u64>,
    pub ghosts_pending: u64,
}

impl Strikes {
    pub fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), deck: Vec::new(), counts: BTreeMap::new(), ghosts_pending: 0 }
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
        let struck = self.counts.get(name).copied().unwrap_or(0);
        faults.limits.get(name).is_none_or(|limit| struck < *limit)
    }

    fn chance(&mut self, faults: &Faults, name: &'static str, probability: f64) -> bool {
        let hit = probability > 0.0 && self.rng.f64() < probability && self.allowed(faults, name);
        if hit {
            self.count(name);
        }
        hit
    }

    /// Evenly spread over 0 to 1, and over any hundred rolls too: a fault of 3 % strikes two to four times in them.
    /// Independent rolls would leave a fault out of a short run now and then.
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

    /// The extra milliseconds of a slow request.
    pub fn slow(&mut self, faults: &Faults) -> u64 {
        if self.chance(faults, "slow", faults.slow) { faults.slow_ms } else { 0 }
    }

    /// Latency between base and base + jitter, split before and after the commit.
    pub fn split(&mut self, total_ms: u64) -> (u64, u64) {
        let before = self.rng.u64(0..=total_ms);
        (before, total_ms - before)
    }

    pub fn jitter(&mut self, most: u64) -> u64 {
        self.rng.u64(0..=most)
    }

    /// How late a write becomes visible, if it does.
    pub fn late(&mut self, faults: &Faults) -> Option<u64> {
        self.chance(faults, "late_visible", faults.late_visible).then(|| self.between(faults.late_ms))
    }

    /// The item at which the quota ends a batch of so many, if it does.
    pub fn ends_batch(&mut self, faults: &Faults, items: usize) -> Option<usize> {
        (items > 0 && self.chance(faults, "batch_quota", faults.batch_quota)).then(|| self.rng.usize(0..items))
    }

    /// What becomes of the item that was running when the quota ended its batch.
    pub fn fate(&mut self) -> Fate {
        Fate { commits: self.rng.bool(), answered: self.rng.u8(0..3) == 0, named: self.rng.bool() }
    }

    /// Whether an item of a batch is answered with 500 by itself.
    pub fn strikes_item(&mut self, faults: &Faults) -> bool {
        self.chance(faults, "batch_item_500", faults.batch_item_500)
    }

    /// Whether a row of an import set ends in an error: after its commit, or before.
    pub fn breaks_row(&mut self, faults: &Faults) -> Option<bool> {
        if self.chance(faults, "import_error_after_commit", faults.import_error_after_commit) {
            return Some(true);
        }
        self.chance(faults, "import_error_before_commit", faults.import_error_before_commit).then_some(false)
    }

    /// Whether an event among several is not taken.
    pub fn loses_event(&mut self, faults: &Faults) -> bool {
        self.chance(faults, "event_not_taken", faults.event_not_taken)
    }

    /// Puts a list into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        self.rng.shuffle(list);
    }

    /// At most one of the disruptive faults.
    pub fn draw(&mut self, faults: &Faults, is_write: bool, is_list: bool) -> Option<Strike> {
        let status = |status, commits| Strike::Status { status, commits };
        let ghost = |refused| Strike::Ghost { ms: 0, cut: false, refused };
        let all = [
            ("drop_after_commit", faults.drop_after_commit, Strike::Cut { commits: true }),
            ("drop_before_commit", faults.drop_before_commit, Strike::Cut { commits: false }),
            ("error_500_after_commit", faults.error_500_after_commit, status(500, true)),
            ("error_500_before_commit", faults.error_500_before_commit, status(500, false)),
            ("gateway_502_after_commit", faults.gateway_502_after_commit, status(502, true)),
            ("gateway_502_before_commit", faults.gateway_502_before_commit, status(502, false)),
            ("gateway_503_after_commit", faults.gateway_503_after_commit, status(503, true)),
            ("gateway_503_before_commit", faults.gateway_503_before_commit, status(503, false)),
            ("gateway_504_after_commit", faults.gateway_504_after_commit, status(504, true)),
            ("gateway_504_before_commit", faults.gateway_504_before_commit, status(504, false)),
            ("ghost", faults.ghost, ghost(false)),
            ("ghost_refused", faults.ghost_refused, ghost(true)),
            ("accepted_202", faults.accepted_202, Strike::Accepted),
            ("html_200", faults.html_200, Strike::Html),
            ("null_body", faults.null_body, Strike::Null),
            ("cut_json", faults.cut_json, Strike::CutJson),
            ("spliced_error", faults.spliced_error, Strike::Spliced),
        ];
        if all.iter().all(|(_, probability, _)| *probability <= 0.0) || !(is_write || faults.reads) {
            return None;
        }
        let mut roll = self.roll();
        for (name, probability, strike) in all {
            let fits = match strike {
                Strike::Ghost { .. } => is_write,
                Strike::Spliced => is_list,
                _ => true,
            };
            if roll < probability {
                if !fits || !self.allowed(faults, name) {
                    return None;
                }
                self.count(name);
                let Strike::Ghost { refused, .. } = strike else { return Some(strike) };
                let cut = match faults.ghost_answer {
                    GhostAnswer::Cut => true,
                    GhostAnswer::Gateway => false,
                    GhostAnswer::Mixed => self.rng.bool(),
                };
                return Some(Strike::Ghost { ms: self.between(faults.ghost_ms), cut, refused });
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
    fn in_a_hundred_draws_each_fault_has_its_share() {
        let faults = Faults { drop_after_commit: 0.021, ghost: 0.03, error_500_after_commit: 0.3, ..Faults::default() };
        for seed in 0..200 {
            let mut strikes = Strikes::new(seed);
            (0..100).for_each(|_| {
                strikes.draw(&faults, true, false);
            });
            let struck = |name| strikes.counts().get(name).copied().unwrap_or(0);
            assert!((1..=4).contains(&struck("drop_after_commit")), "{seed}: {:?}", strikes.counts());
            assert!((2..=4).contains(&struck("ghost")), "{seed}: {:?}", strikes.counts());
            assert!((28..=32).contains(&struck("error_500_after_commit")), "{seed}: {:?}", strikes.counts());
        }
    }

    #[test]
    fn draws_follow_the_seed_and_stop_at_their_limit() {
        let faults = Faults {
            ghost: 0.3,
            drop_after_commit: 0.3,
            limits: BTreeMap::from([("ghost".to_owned(), 5)]),
            ..Faults::default()
        };
        let run = |seed| {
            let mut strikes = Strikes::new(seed);
            let drawn: Vec<_> = (0..200).map(|_| strikes.draw(&faults, true, false)).collect();
            (drawn, strikes.counts().clone())
        };
        let (drawn, counts) = run(7);
        assert_eq!(drawn, run(7).0);
        assert_ne!(drawn, run(8).0);
        assert_eq!(counts.get("ghost"), Some(&5));
        assert!(counts.get("drop_after_commit").is_some_and(|count| (30..90).contains(count)));
        assert_eq!(Strikes::new(7).draw(&faults, false, true), None);
    }
}
