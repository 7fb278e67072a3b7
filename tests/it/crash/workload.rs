//! What a day may bring, as a trace that is the same for the same seed: events of few alerts with the time at which
//! each is published. Every alert is opened first; and now and then comes a new one that is critical, which is opened
//! once and left so: what its ticket took is what the benchmark measures.

use std::time::Duration;

use super::reference::Event;

/// What kind of day it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Alerts open, change, get notes, and resolve.
    Calm,
    /// They resolve and open again, all the time.
    Flap,
    /// They change far more often than anyone can read.
    Storm,
}

/// A trace's measures.
#[derive(Debug, Clone, Copy)]
pub struct Measures {
    pub kind: Kind,
    pub events: usize,
    /// Alerts, beside the critical ones.
    pub keys: usize,
    pub lasts: Duration,
    /// Of so many events one is a new critical alert.
    pub critical_every: usize,
}

/// Events, and when each is published.
#[derive(Debug, Clone)]
pub struct Trace {
    pub events: Vec<Event>,
    pub due: Vec<Duration>,
}

/// What begins the keys of critical alerts.
pub const CRITICAL: &str = "critical";

impl Measures {
    /// The trace; its events' own times begin at `start`, in Unix milliseconds, and rise.
    pub fn trace(&self, seed: u64, start: i64) -> Trace {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut firing = vec![false; self.keys];
        let total = u32::try_from(self.events).unwrap_or(u32::MAX).max(1);
        let (mut events, mut due) = (Vec::new(), Vec::new());
        for number in 0..total {
            let at = self.lasts * number / total;
            let index = usize::try_from(number).unwrap_or(0);
            let occurred_at = start + i64::try_from(at.as_millis()).unwrap_or(0);
            let event = if index % self.critical_every == self.critical_every / 2 {
                let (key, title) = (format!("{CRITICAL}-{index:05}"), format!("site down #{index}"));
                Event { key, action: "open", title, severity: "critical", note: None, occurred_at }
            } else {
                let key = random.usize(0..self.keys);
                let action = if firing[key] { self.kind.next(&mut random) } else { "open" };
                firing[key] = action != "resolve";
                let note = match action {
                    "note" => Some(format!("note {index}")),
                    "resolve" if random.u8(0..2) == 0 => Some(format!("over {index}")),
                    _ => None,
                };
                let severity = ["high", "medium", "low"][random.usize(0..3)];
                let (key, title) = (format!("disk-{key:04}"), format!("disk {key} #{index}"));
                Event { key, action, title, severity, note, occurred_at }
            };
            events.push(event);
            due.push(at);
        }
        Trace { events, due }
    }
}

impl Kind {
    /// What an open alert does next.
    fn next(self, random: &mut fastrand::Rng) -> &'static str {
        let [resolve, note, acknowledge] = match self {
            Self::Calm => [20, 40, 50],
            Self::Flap => [70, 80, 85],
            Self::Storm => [8, 10, 12],
        };
        match random.u8(0..100) {
            at if at < resolve => "resolve",
            at if at < note => "note",
            at if at < acknowledge => "acknowledge",
            _ => "update",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FLAP: Measures =
        Measures { kind: Kind::Flap, events: 600, keys: 20, lasts: Duration::from_secs(60), critical_every: 30 };

    #[test]
    fn a_trace_follows_from_its_seed() {
        let told = |seed| FLAP.trace(seed, 5).events.iter().map(Event::body).collect::<Vec<_>>();
        assert_eq!(told(1), told(1));
        assert_ne!(told(1), told(2));
    }

    #[test]
    fn a_trace_is_what_its_measures_say() {
        let Trace { events, due } = FLAP.trace(1, 5);
        assert_eq!((events.len(), due.len()), (600, 600));
        assert!(due.windows(2).all(|pair| pair[0] < pair[1]) && due[599] < FLAP.lasts);
        let critical: BTreeSet<&str> =
            events.iter().filter(|e| e.severity == "critical").map(|e| e.key.as_str()).collect();
        assert_eq!(critical.len(), 20);
        let mut seen = BTreeSet::new();
        assert!(events.iter().all(|event| !seen.insert(&event.key) || event.action == "open"), "opened first");
        let resolved = events.iter().filter(|event| event.action == "resolve").count();
        assert!((150..350).contains(&resolved), "they flap: {resolved}");
        let notes: Vec<&String> = events.iter().filter_map(|event| event.note.as_ref()).collect();
        assert_eq!(notes.iter().collect::<BTreeSet<_>>().len(), notes.len(), "no text twice");
    }

    #[test]
    fn a_storm_changes_more_than_it_resolves_and_a_calm_day_less() {
        let share = |kind, action| {
            let events = Measures { kind, events: 4_000, ..FLAP }.trace(1, 5).events;
            events.iter().filter(|event| event.action == action).count()
        };
        assert!(share(Kind::Storm, "update") > 5 * share(Kind::Storm, "resolve"));
        assert!(share(Kind::Calm, "update") < 5 * share(Kind::Calm, "resolve"));
    }
}
