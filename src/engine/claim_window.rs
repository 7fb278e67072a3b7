//! How many lanes may be claimed ahead of their permits.
//!
//! A claim is on its way to the ledger for some milliseconds, and a permit that comes free must not wait for that; but
//! what is claimed takes in no further events and is not overtaken by more urgent ones, so no more are claimed than
//! permits will soon come for. As many as the settings say, and one for each permit that is free; where permits stand
//! idle all the same while lanes wait for a turn (an instance that answers more quickly than the ledger), more and more,
//! and fewer again as soon as claims wait for permits.

/// The most that is added, as a multiple of what the settings say. A claim takes about 35 ms, so that 500 on their way
/// carry 14,000 creates a second.
const MOST: usize = 64;

/// Acks of claims come in bursts, so that many wait for permits now and then. Too many are claimed where some have waited
/// all this time, milliseconds.
const WINDOW: u64 = 100;

/// The number of lanes claimed ahead, which follows how quickly permits come.
#[derive(Debug, Clone)]
pub struct Ahead {
    least: usize,
    room: usize,
    more: usize,
    /// Fewest claims that waited for a permit since then, on the mono clock.
    waited: (usize, u64),
}

impl Ahead {
    /// `least` are always claimed ahead.
    pub fn new(least: usize) -> Self {
        Self { least, room: 0, more: 0, waited: (usize::MAX, 0) }
    }

    /// How many lanes may be prepared and not yet sent.
    pub fn limit(&self) -> usize {
        self.least + self.room + self.more
    }

    /// So many permits are free; `wanting` lanes want one, and others wait for a turn or don't. `now` on the mono clock.
    pub fn hear(&mut self, permits: usize, wanting: usize, others_wait: bool, now: u64) {
        self.room = permits;
        let (fewest, since) = (self.waited.0.min(wanting), self.waited.1);
        self.waited = (fewest, since);
        if permits > wanting && others_wait {
            self.more = (self.more + 1).min(MOST * self.least);
        }
        if now >= since + WINDOW {
            self.waited = (usize::MAX, now);
            if fewest > self.least {
                self.more -= self.more.div_ceil(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_permits_stand_idle_and_shrinks_while_claims_wait() {
        let mut ahead = Ahead::new(4);
        assert_eq!(ahead.limit(), 4);
        ahead.hear(3, 0, false, 0);
        assert_eq!(ahead.limit(), 7, "nobody waits for a turn");
        (0..10).for_each(|_| ahead.hear(3, 0, true, 0));
        assert_eq!(ahead.limit(), 17);
        (0..10).for_each(|ms| ahead.hear(0, 4, true, ms * 50));
        assert_eq!(ahead.limit(), 14, "a few claims that wait are as it should be");
        (10..14).for_each(|ms| ahead.hear(0, 9, true, ms * 50));
        assert_eq!(ahead.limit(), 9);
        (14..40).for_each(|ms| ahead.hear(0, 9, true, ms * 50));
        assert_eq!(ahead.limit(), 4);
        (0..1_000).for_each(|_| ahead.hear(1, 0, true, 2_000));
        assert_eq!(ahead.limit(), 4 + 1 + 256);
    }

    #[test]
    fn a_burst_of_acks_takes_nothing_away() {
        let mut ahead = Ahead::new(4);
        (0..20).for_each(|_| ahead.hear(3, 0, true, 0));
        for round in 1..20 {
            // All that was claimed wants a permit at once; 30 ms later all of it has left.
            ahead.hear(0, 20, true, round * 30);
            ahead.hear(0, 0, true, round * 30 + 20);
        }
        assert_eq!(ahead.limit(), 4 + 20);
    }
}
