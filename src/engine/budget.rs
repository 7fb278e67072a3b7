//! How much may be received and unresolved at once: events, and bytes of their originals.

use super::event::Effect;

/// The budget of a route. Fetching pauses above it and goes on below half of it, since a pause throws away what the
/// client had fetched ahead.
#[derive(Debug)]
pub struct Budget {
    limit: (usize, usize),
    used: (usize, usize),
    paused: bool,
}

impl Budget {
    /// At most so many events and bytes.
    pub fn new(limit: (usize, usize)) -> Self {
        Self { limit, used: (0, 0), paused: false }
    }

    /// Takes events and bytes. What was received is never refused; the limit only pauses the fetching.
    pub fn take(&mut self, events: usize, bytes: usize) {
        self.used.0 += events;
        self.used.1 += bytes;
    }

    /// Gives events and bytes back.
    pub fn free(&mut self, events: usize, bytes: usize) {
        self.used.0 = self.used.0.saturating_sub(events);
        self.used.1 = self.used.1.saturating_sub(bytes);
    }

    /// Events and bytes in use.
    pub fn used(&self) -> (usize, usize) {
        self.used
    }

    /// The effect of a limit that was crossed since the last call.
    pub fn change(&mut self) -> Option<Effect> {
        let over = self.used.0 > self.limit.0 || self.used.1 > self.limit.1;
        let low = self.used.0 <= self.limit.0 / 2 && self.used.1 <= self.limit.1 / 2;
        if !self.paused && over {
            self.paused = true;
            Some(Effect::Pause)
        } else if self.paused && low {
            self.paused = false;
            Some(Effect::Resume)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_above_and_goes_on_below_half() {
        let mut b = Budget::new((10, 1000));
        b.take(10, 0);
        assert!(b.change().is_none());
        b.take(1, 0);
        assert!(matches!(b.change(), Some(Effect::Pause)));
        b.free(5, 0);
        assert!(b.change().is_none(), "six of ten is not low");
        b.free(1, 0);
        assert!(matches!(b.change(), Some(Effect::Resume)));
    }
}
