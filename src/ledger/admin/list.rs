//! Lists the keys of a ledger, filtered, and counts them by state.

use std::collections::BTreeMap;

use crate::ledger::LedgerContent;
use crate::mapping::key_matches;
use crate::model::{Key, Phase, StateModel};

/// The state of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// Its ticket is neither resolved nor closed, as last seen; or it has no ticket yet.
    Open,
    /// Its ticket is resolved and may be reopened.
    Resolved,
    /// Its ticket is closed or deleted.
    Closed,
    /// One of its records was rejected; the later ones are dead letters too.
    Parked,
    /// Its last write is ambiguous.
    Ambiguous,
}

impl KeyState {
    /// All states.
    pub const ALL: [KeyState; 5] =
        [KeyState::Open, KeyState::Resolved, KeyState::Closed, KeyState::Parked, KeyState::Ambiguous];

    /// Returns the name, as printed and as the value of the `--state` filter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
            Self::Parked => "parked",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// Selects keys. A key must match all conditions that are set.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    /// Pattern of the key; `*` matches any text.
    pub key: Option<String>,
    /// State of the key.
    pub state: Option<KeyState>,
    /// Upper bound (exclusive) of the time of the last write, Unix milliseconds.
    pub before: Option<i64>,
}

/// A key of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// The alert's key.
    pub key: Key,
    /// Partition of the ledger.
    pub partition: i32,
    /// State of the key.
    pub state: KeyState,
    /// Number of its ticket; empty without a ticket.
    pub number: String,
    /// sys_id of its ticket; empty without a ticket.
    pub sys_id: String,
    /// Ticket generation: how many tickets the key has had.
    pub generation: u32,
    /// Raw state of the ticket as last seen.
    pub ticket_state: String,
    /// When the entry was last written, Unix milliseconds; 0 without a ticket.
    pub written_at: i64,
    /// Why the key is parked; `None` if it is not.
    pub reason: Option<String>,
}

/// Counts over one or more partitions of a ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of keys by state, without regard to the filter.
    pub keys: BTreeMap<KeyState, usize>,
    /// Partitions without a header: never taken over, or the header was lost.
    pub without_header: usize,
    /// Partitions that may lack keys.
    pub incomplete: usize,
}

/// Returns the keys of a partition that match the filter, in no order. Adds all keys to the summary.
pub fn list_keys<'a>(
    partition: i32,
    content: &'a LedgerContent,
    states: &'a StateModel,
    filter: &'a KeyFilter,
    summary: &mut Summary,
) -> Vec<ListedKey> {
    summary.without_header += usize::from(content.header.is_none());
    summary.incomplete += usize::from(content.header.as_ref().is_some_and(|header| header.incomplete));
    let loaded = &content.state;
    let with_ticket = loaded.entries.iter().map(|(key, entry)| {
        let state = match entry.phase(states) {
            Phase::Resolved => KeyState::Resolved,
            Phase::Closed => KeyState::Closed,
            _ => KeyState::Open,
        };
        let (number, sys_id, ticket_state) = (entry.number, entry.sys_id, entry.last_seen.state);
        let (generation, written_at) = (entry.generation, entry.written_at);
        ListedKey { key, partition, state, number, sys_id, generation, ticket_state, written_at, reason: None }
    });
    let without_entry = loaded.claims.keys().chain(loaded.parks.keys()).filter(|key| !loaded.entries.contains_key(key));
    let mut without_entry: Vec<Key> = without_entry.cloned().collect();
    without_entry.sort();
    without_entry.dedup();
    let without_ticket = without_entry.into_iter().map(|key| ListedKey {
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
    let mut selected = Vec::new();
    for mut listed in with_ticket.chain(without_ticket) {
        if let Some(park) = loaded.parks.get(&listed.key) {
            (listed.state, listed.reason) = (KeyState::Parked, Some(park.reason.clone()));
        } else if loaded.claims.contains_key(&listed.key) {
            listed.state = KeyState::Ambiguous;
        }
        *summary.keys.entry(listed.state).or_default() += 1;
        if filter.matches(&listed) {
            selected.push(listed);
        }
    }
    selected
}

impl KeyFilter {
    fn matches(&self, listed: &ListedKey) -> bool {
        self.key.as_ref().is_none_or(|pattern| key_matches(pattern, &listed.key))
            && self.state.is_none_or(|state| state == listed.state)
            && self.before.is_none_or(|before| listed.written_at < before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::LedgerState;
    use crate::model::EventOrder;
    use crate::model::{AttemptId, Entry, LastSeen, Park, Position, Token};

    fn entry(state: &str, written_at: i64) -> Entry {
        Entry {
            token: Token(1),
            attempt: AttemptId { token: Token(1), number: 1 },
            sys_id: "0".repeat(32),
            number: "INC1".into(),
            generation: 1,
            position: Position::new(0, 1, 0),
            partial_note: None,
            fields: Vec::new(),
            earlier_tickets: Vec::new(),
            order: EventOrder::UNKNOWN,
            resolved_at: None,
            event_ids: Vec::new(),
            episode: None,
            ended_by_user: false,
            last_seen: LastSeen { state: state.into(), ..LastSeen::default() },
            written_at,
        }
    }

    fn park() -> Park {
        Park {
            token: Token(1),
            position: Position::new(0, 1, 0),
            newest_letter: None,
            order: EventOrder::UNKNOWN,
            event_ids: Vec::new(),
            rejected_run: None,
            active_run: None,
            announced: false,
            code: "acl".into(),
            reason: "no".into(),
        }
    }

    #[test]
    fn every_key_is_counted_by_state_and_those_that_match_the_filter_are_listed() {
        let entries = [("open", "2"), ("resolved", "6"), ("closed", "7"), ("parked", "2")];
        let state = LedgerState {
            entries: entries.into_iter().zip(1..).map(|((key, state), at)| (key.into(), entry(state, at))).collect(),
            parks: ["parked", "no ticket"].into_iter().map(|key| (key.into(), park())).collect(),
            ..LedgerState::default()
        };
        let content = LedgerContent { header: None, watermark: None, state };
        let shown = |filter: &KeyFilter| {
            let mut summary = Summary::default();
            let listed_keys = list_keys(0, &content, &StateModel::default(), filter, &mut summary);
            let mut keys: Vec<String> = listed_keys.into_iter().map(|listed| listed.key.to_string()).collect();
            keys.sort();
            (keys, summary)
        };
        let (all, summary) = shown(&KeyFilter::default());
        assert_eq!(all, ["closed", "no ticket", "open", "parked", "resolved"]);
        let counted: Vec<usize> = summary.keys.values().copied().collect();
        assert_eq!((counted, summary.without_header), (vec![1, 1, 1, 2], 1), "open, resolved, closed, parked");
        assert_eq!(
            shown(&KeyFilter { state: Some(KeyState::Parked), ..KeyFilter::default() }).0,
            ["no ticket", "parked"]
        );
        assert_eq!(
            shown(&KeyFilter { key: Some("*e*".into()), before: Some(3), ..KeyFilter::default() }).0,
            ["no ticket", "open", "resolved"]
        );
    }
}
