//! Workloads that are the same for the same seed: events of a few alerts, each with the time of its publication. Every
//! alert opens first. Now and then a new critical alert opens and is not changed any more; the benchmark measures how
//! long its ticket takes.

use std::time::Duration;

use super::reference::Event;

/// How alerts behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Alerts open, change, get notes, and resolve.
    Calm,
    /// Alerts resolve and open again all the time.
    Flap,
    /// Alerts change far more often than anyone can read.
    Storm,
}

/// Parameters of a workload.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub pattern: Pattern,
    pub events: usize,
    /// Number of alerts, without the critical ones.
    pub keys: usize,
    pub duration: Duration,
    /// One event in this many opens a new critical alert.
    pub critical_every: usize,
}

/// Events, and when to publish each, counted from the start.
#[derive(Debug, Clone)]
pub struct Workload {
    pub events: Vec<Event>,
    pub publish_at: Vec<Duration>,
}

/// Prefix of the keys of critical alerts.
pub const CRITICAL: &str = "critical";

impl Profile {
    /// Generates the workload. The `occurred_at` of its events starts at `start`, in Unix milliseconds, and rises.
    pub fn generate(&self, seed: u64, start: i64) -> Workload {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut open = vec![false; self.keys];
        let total = u32::try_from(self.events).unwrap_or(u32::MAX).max(1);
        let (mut events, mut publish_at) = (Vec::new(), Vec::new());
        for number in 0..total {
            let at = self.duration * number / total;
            let index = usize::try_from(number).unwrap_or(0);
            let occurred_at = start + i64::try_from(at.as_millis()).unwrap_or(0);
            let event = if index % self.critical_every == self.critical_every / 2 {
                let (key, title) = (format!("{CRITICAL}-{index:05}"), format!("site down #{index}"));
                Event { key, action: "open", title, severity: "critical", note: None, occurred_at }
            } else {
                let key = random.usize(0..self.keys);
                let action = if open[key] { self.pattern.next_action(&mut random) } else { "open" };
                open[key] = action != "resolve";
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
            publish_at.push(at);
        }
        Workload { events, publish_at }
    }
}

impl Pattern {
    /// The next action of an open alert.
    fn next_action(self, random: &mut fastrand::Rng) -> &'static str {
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

    const FLAP: Profile = Profile {
        pattern: Pattern::Flap,
        events: 600,
        keys: 20,
        duration: Duration::from_secs(60),
        critical_every: 30,
    };

    #[test]
    fn a_workload_depends_only_on_its_seed() {
        let bodies = |seed| FLAP.generate(seed, 5).events.iter().map(Event::body).collect::<Vec<_>>();
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn a_workload_matches_its_profile() {
        let Workload { events, publish_at } = FLAP.generate(1, 5);
        assert_eq!((events.len(), publish_at.len()), (600, 600));
        assert!(publish_at.windows(2).all(|pair| pair[0] < pair[1]) && publish_at[599] < FLAP.duration);
        let critical: BTreeSet<&str> =
            events.iter().filter(|e| e.severity == "critical").map(|e| e.key.as_str()).collect();
        assert_eq!(critical.len(), 20);
        let mut seen = BTreeSet::new();
        assert!(events.iter().all(|event| !seen.insert(&event.key) || event.action == "open"), "alerts open first");
        let resolved = events.iter().filter(|event| event.action == "resolve").count();
        assert!((150..350).contains(&resolved), "alerts flap: {resolved}");
        let notes: Vec<&String> = events.iter().filter_map(|event| event.note.as_ref()).collect();
        assert_eq!(notes.iter().collect::<BTreeSet<_>>().len(), notes.len(), "no note twice");
    }

    #[test]
    fn a_storm_has_more_updates_per_resolve_than_a_calm_workload() {
        let count = |pattern, action| {
            let events = Profile { pattern, events: 4_000, ..FLAP }.generate(1, 5).events;
            events.iter().filter(|event| event.action == action).count()
        };
        assert!(count(Pattern::Storm, "update") > 5 * count(Pattern::Storm, "resolve"));
        assert!(count(Pattern::Calm, "update") < 5 * count(Pattern::Calm, "resolve"));
    }
}
