//! What the ledger remembers, key by key, filtered and counted.

use std::collections::BTreeMap;

use crate::ledger::Survey;
use crate::mapping::matches;
use crate::model::{Key, Phase, StateModel};

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// Its ticket is neither resolved nor closed, as far as was last seen.
    Open,
    /// Its ticket is resolved, and may be reopened.
    Resolved,
    /// Its ticket is closed or gone.
    Closed,
    /// Refused records lie before newer ones, which wait behind them in the dead letters.
    Parked,
    /// Its last write is not settled.
    Ambiguous,
}

impl KeyState {
    /// All of them.
    pub const ALL: [KeyState; 5] =
        [KeyState::Open, KeyState::Resolved, KeyState::Closed, KeyState::Parked, KeyState::Ambiguous];

    /// For people and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
            Self::Parked => "parked",
            Self::Ambiguous => "in-doubt",
        }
    }
}

/// Which keys.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The key; `*` stands for any text.
    pub key: Option<String>,
    /// How it stands.
    pub state: Option<KeyState>,
    /// Last written before this instant, Unix milliseconds.
    pub before: Option<i64>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The key.
    pub key: Key,
    /// The partition that it belongs to.
    pub partition: i32,
    /// How it stands.
    pub state: KeyState,
    /// Number and sys_id of its ticket; empty where none is known.
    pub number: String,
    /// See `number`.
    pub sys_id: String,
    /// How many tickets it has had.
    pub generation: u32,
    /// Raw state of the ticket, as last seen.
    pub ticket_state: String,
    /// When the ledger last wrote of it, Unix milliseconds; 0 where no ticket is known.
    pub written_at: i64,
    /// Why it is parked.
    pub reason: Option<String>,
}

/// What a partition, or all of them, comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Keys by how they stand, of all keys.
    pub keys: BTreeMap<KeyState, usize>,
    /// Partitions without a header: never taken over, or lost.
    pub unclaimed: usize,
    /// Partitions whose ledger does not know every key.
    pub incomplete: usize,
}

/// The keys of a partition that the filter lets through, in no order; all are counted in the summary.
pub fn lines<'a>(
    partition: i32,
    survey: &'a Survey,
    states: &'a StateModel,
    filter: &'a Filter,
    summary: &mut Summary,
) -> Vec<Line> {
    summary.unclaimed += usize::from(survey.header.is_none());
    summary.incomplete += usize::from(survey.header.as_ref().is_some_and(|header| header.incomplete));
    let loaded = &survey.loaded;
    let ticketed = loaded.entries.iter().map(|(key, entry)| {
        let state = match states.phase(&entry.seen.state) {
            Phase::Resolved => KeyState::Resolved,
            Phase::Closed => KeyState::Closed,
            _ => KeyState::Open,
        };
        let (number, sys_id, ticket_state) = (entry.number, entry.sys_id, entry.seen.state);
        let (generation, written_at) = (entry.generation, entry.written_at);
        Line { key, partition, state, number, sys_id, generation, ticket_state, written_at, reason: None }
    });
    let other = loaded.claims.keys().chain(loaded.parks.keys()).filter(|key| !loaded.entries.contains_key(key));
    let mut other: Vec<Key> = other.cloned().collect();
    other.sort();
    other.dedup();
    let ticketless = other.into_iter().map(|key| Line {
        key,
        partition,
        state: KeyState::Open,
        number: String::new(),
        sys_id: String::new(),
        generation: 0,
        ticket_state: String::new(),
        written_at: 0,
        reason: None,
    });
    let mut chosen = Vec::new();
    for mut line in ticketed.chain(ticketless) {
        if let Some(park) = loaded.parks.get(&line.key) {
            (line.state, line.reason) = (KeyState::Parked, Some(park.reason.clone()));
        } else if loaded.claims.contains_key(&line.key) {
            line.state = KeyState::Ambiguous;
        }
        *summary.keys.entry(line.state).or_default() += 1;
        if filter.fits(&line) {
            chosen.push(line);
        }
    }
    chosen
}

impl Filter {
    fn fits(&self, line: &Line) -> bool {
        self.key.as_ref().is_none_or(|pattern| matches(pattern, &line.key))
            && self.state.is_none_or(|state| state == line.state)
            && self.before.is_none_or(|before| line.written_at < before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::Loaded;
    use crate::model::{AttemptId, Entry, Park, Position, Seen, Token};

    fn entry(state: &str, written_at: i64) -> Entry {
        Entry {
            token: Token(1),
            attempt: AttemptId { token: Token(1), number: 1 },
            sys_id: "0".repeat(32),
            number: "INC1".into(),
            generation: 1,
            position: Position::new(0, 1, 0),
            partial: None,
            fields: Vec::new(),
            earlier: Vec::new(),
            occurred_at: 0,
            resolved_at: None,
            event_ids: Vec::new(),
            seen: Seen { state: state.into(), ..Seen::default() },
            written_at,
        }
    }

    fn park() -> Park {
        Park {
            token: Token(1),
            position: Position::new(0, 1, 0),
            newest: None,
            occurred_at: None,
            event_ids: Vec::new(),
            failed: None,
            redriving: None,
            announced: false,
            code: "acl".into(),
            reason: "no".into(),
        }
    }

    #[test]
    fn every_key_is_counted_by_how_it_stands_and_those_that_fit_are_shown() {
        let entries = [("open", "2"), ("done", "6"), ("shut", "7"), ("held", "2")];
        let loaded = Loaded {
            entries: entries.into_iter().zip(1..).map(|((key, state), at)| (key.into(), entry(state, at))).collect(),
            parks: ["held", "never made"].into_iter().map(|key| (key.into(), park())).collect(),
            ..Loaded::default()
        };
        let survey = Survey { header: None, mark: None, loaded };
        let shown = |filter: &Filter| {
            let mut summary = Summary::default();
            let lines = lines(0, &survey, &StateModel::default(), filter, &mut summary);
            let mut keys: Vec<String> = lines.into_iter().map(|line| line.key.to_string()).collect();
            keys.sort();
            (keys, summary)
        };
        let (all, summary) = shown(&Filter::default());
        assert_eq!(all, ["done", "held", "never made", "open", "shut"]);
        let counted: Vec<usize> = summary.keys.values().copied().collect();
        assert_eq!((counted, summary.unclaimed), (vec![1, 1, 1, 2], 1), "open, resolved, closed, parked");
        assert_eq!(shown(&Filter { state: Some(KeyState::Parked), ..Filter::default() }).0, ["held", "never made"]);
        assert_eq!(
            shown(&Filter { key: Some("*e*".into()), before: Some(3), ..Filter::default() }).0,
            ["done", "never made", "open"]
        );
    }
}
