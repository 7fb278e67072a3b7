//! How many lanes may be claimed ahead of their permits.
//!
//! A claim is on its way to the ledger for some milliseconds, and a permit that comes free must not wait for that; but
//! what is claimed takes in no further events and is not overtaken by more urgent ones, so no more are claimed than
//! permits will soon come for. As many as the settings say, and one for each permit that is free; where permits stand
//! idle all the same while lanes wait for a turn (an instance that answers more quickly than the ledger), more and more,
//! and fewer again as soon as claims wait for permits.

/// The most that is added, as a multiple of what the settings say.
const MOST: usize = 16;

/// The number of lanes claimed ahead, which follows how quickly permits come.
#[derive(Debug, Clone)]
pub struct Ahead {
    least: usize,
    room: usize,
    more: usize,
}

impl Ahead {
    /// `least` are always claimed ahead.
    pub fn new(least: usize) -> Self {
        Self { least, room: 0, more: 0 }
    }

    /// How many lanes may be prepared and not yet sent.
    pub fn limit(&self) -> usize {
        self.least + self.room + self.more
    }

    /// So many permits are free; `wanting` lanes want one, and others wait for a turn or don't.
    pub fn hear(&mut self, permits: usize, wanting: usize, others_wait: bool) {
        self.room = permits;
        if permits == 0 && wanting > self.least {
            self.more -= self.more.div_ceil(8);
        } else if permits > wanting && others_wait {
            self.more = (self.more + 1).min(MOST * self.least);
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
        ahead.hear(3, 0, false);
        assert_eq!(ahead.limit(), 7, "nobody waits for a turn");
        (0..10).for_each(|_| ahead.hear(3, 0, true));
        assert_eq!(ahead.limit(), 17);
        ahead.hear(0, 4, true);
        assert_eq!(ahead.limit(), 14, "a few claims that wait are as it should be");
        (0..10).for_each(|_| ahead.hear(0, 9, true));
        assert_eq!(ahead.limit(), 4);
        (0..1_000).for_each(|_| ahead.hear(1, 0, true));
        assert_eq!(ahead.limit(), 4 + 1 + 64);
    }
}
