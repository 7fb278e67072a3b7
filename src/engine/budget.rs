//! How much may be received and unresolved at once: events, and bytes of their records.

use super::event::Effect;

/// A number of events, and the bytes of their original records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferSize {
    pub events: usize,
    pub bytes: usize,
}

/// The buffer budget of a route. Fetching pauses above it and resumes below half of it, because a pause discards what
/// the client has prefetched.
#[derive(Debug)]
pub struct Budget {
    limit: BufferSize,
    used: BufferSize,
    paused: bool,
}

impl Budget {
    /// A budget of at most so many events and bytes.
    pub fn new(limit: BufferSize) -> Self {
        Self { limit, used: BufferSize::default(), paused: false }
    }

    /// Adds events and bytes. Received events are never rejected; the limit only pauses fetching.
    pub fn add(&mut self, events: usize, bytes: usize) {
        self.used.events += events;
        self.used.bytes += bytes;
    }

    /// Subtracts resolved events and their bytes.
    pub fn free(&mut self, events: usize, bytes: usize) {
        self.used.events = self.used.events.saturating_sub(events);
        self.used.bytes = self.used.bytes.saturating_sub(bytes);
    }

    /// Events and bytes in use.
    pub fn used(&self) -> BufferSize {
        self.used
    }

    /// Returns a pause or a resume if a limit was crossed since the last call.
    pub fn fetch_effect(&mut self) -> Option<Effect> {
        let over = self.used.events > self.limit.events || self.used.bytes > self.limit.bytes;
        let low = self.used.events <= self.limit.events / 2 && self.used.bytes <= self.limit.bytes / 2;
        if !self.paused && over {
            self.paused = true;
            Some(Effect::PauseFetching)
        } else if self.paused && low {
            self.paused = false;
            Some(Effect::ResumeFetching)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetching_pauses_above_the_limit_and_resumes_below_half_of_it() {
        let mut b = Budget::new(BufferSize { events: 10, bytes: 1000 });
        b.add(10, 0);
        assert!(b.fetch_effect().is_none());
        b.add(1, 0);
        assert!(matches!(b.fetch_effect(), Some(Effect::PauseFetching)));
        b.free(5, 0);
        assert!(b.fetch_effect().is_none(), "six of ten is above half");
        b.free(1, 0);
        assert!(matches!(b.fetch_effect(), Some(Effect::ResumeFetching)));
    }
}
