//! What an entry records of a write and of the row after it (protocol rules 7, 9).

use crate::engine::field_hash::field_hash;
use crate::engine::fold::remember_ids;
use crate::engine::settings::Settings;
use crate::model::entry::ClaimKind;
use crate::model::{Claim, Column, Entry, EventOrder, FieldHash, LastSeen, Now, Row, StateModel, Token};

pub(super) fn last_seen(row: &Row, now: Now) -> LastSeen {
    LastSeen {
        state: row.state.clone(),
        mod_count: row.mod_count,
        updated_by: row.updated_by.clone(),
        inactive: row.inactive,
        at: now.unix,
    }
}

/// When a ticket that was last seen open was resolved or closed by somebody else, Unix milliseconds: what the row says,
/// else, if only one version was made since, the time of that one, else the last time at which it was seen open.
pub(super) fn ended_at(row: &Row, old: Option<&Entry>, states: &StateModel, clock_skew: i64) -> i64 {
    let next_version = old.is_some_and(|old| row.mod_count == old.last_seen.mod_count + 1);
    let by_row = row.ended_at(states).or(next_version.then_some(row.updated_on));
    let local = |at: i64| at.saturating_mul(1000).saturating_sub(clock_skew);
    by_row.map_or_else(|| old.map_or_else(|| local(row.created_on), |old| old.last_seen.at), local)
}

/// Records the values that a row shows in columns of the mapping. `by_bridge`: nobody but the bridge, and rules of the
/// instance that its writes triggered, changed the row since it was last seen; otherwise, a value that is not the
/// bridge's is a user's, and is kept.
pub(super) fn record_values(entry: &mut Entry, row: &Row, by_bridge: bool, settings: &Settings) {
    let written = |column: &str| entry.fields.iter().any(|(known, _)| **known == *column);
    let columns: Vec<Column> = row
        .values
        .keys()
        .filter(|column| **column != settings.states.column)
        .filter_map(|column| {
            let mapped = settings.columns.iter().find(|known| ***known == **column).cloned();
            mapped.or_else(|| written(column).then(|| Column::from(column.as_str())))
        })
        .collect();
    for column in columns {
        let Some(value) = row.values.get(&*column) else { continue };
        let hash = field_hash(value);
        match entry.fields.binary_search_by(|(known, _)| known.cmp(&column)) {
            Ok(at) => {
                let known = &mut entry.fields[at].1;
                if known.sent == hash || known.stored == Some(hash) {
                    known.kept = None;
                } else if known.kept == Some(hash) {
                } else if by_bridge {
                    known.stored = Some(hash);
                } else {
                    known.kept = Some(hash);
                }
            }
            Err(_) if value.is_empty() => {}
            Err(at) => {
                let (stored, kept) = if by_bridge { (Some(hash), None) } else { (None, Some(hash)) };
                entry.fields.insert(at, (column, FieldHash { sent: field_hash(""), stored, kept }));
            }
        }
    }
}

/// The entry of a claim whose write was applied.
pub(super) fn make_entry(
    token: Token,
    old: Option<&Entry>,
    claim: &Claim,
    row: &Row,
    (settings, clock_skew): (&Settings, i64),
    now: Now,
) -> Entry {
    let by_bridge = row.updated_by == settings.bridge_user;
    let creates = matches!(claim.kind, ClaimKind::Create { .. });
    let same = old.filter(|_| !creates);
    let fields = written_fields(same, claim, row, by_bridge);
    let mut earlier_tickets = old.map(|e| e.earlier_tickets.clone()).unwrap_or_default();
    if creates && let Some(old) = old {
        earlier_tickets.push(old.sys_id.clone());
    }
    let mut event_ids = old.map(|e| e.event_ids.clone()).unwrap_or_default();
    remember_ids(&mut event_ids, claim.event_ids.iter().copied());
    let is_next = |e: &Entry| row.mod_count == e.last_seen.mod_count + 1 && !e.last_seen.updated_by.is_empty();
    let only_bridge = by_bridge && same.is_none_or(is_next);
    let mut last_seen = last_seen(row, now);
    if !only_bridge {
        // Somebody else wrote the row since it was last seen: which values are whose is decided at the next look.
        last_seen.updated_by.clear();
    }
    let (resolved_at, ended_by_user) = end_of_ticket(same, claim, row, settings, clock_skew);
    let mut entry = Entry {
        token,
        attempt: claim.attempt,
        sys_id: row.sys_id.clone(),
        number: row.number.clone(),
        generation: claim.generation,
        position: claim.last_position,
        partial_note: claim.partial_note,
        fields,
        earlier_tickets,
        order: old.map_or(EventOrder::UNKNOWN, |old| old.order).newest(claim.order),
        resolved_at,
        event_ids,
        episode: claim.episode.or(old.and_then(|old| old.episode)),
        ended_by_user,
        last_seen,
        written_at: now.unix,
    };
    if only_bridge && !settings.full_snapshot {
        record_values(&mut entry, row, true, settings);
    }
    entry
}

/// The field hashes after a write.
fn written_fields(same: Option<&Entry>, claim: &Claim, row: &Row, by_bridge: bool) -> Vec<(Column, FieldHash)> {
    let mut fields = same.map(|e| e.fields.clone()).unwrap_or_default();
    for (column, sent) in &claim.fields {
        // If a user wrote last, a difference comes from the user and not from a business rule.
        let stored = row.values.get(&**column).filter(|_| by_bridge);
        let stored = stored.map(|v| field_hash(v)).filter(|d| d != sent);
        let value = FieldHash { sent: *sent, stored, kept: None };
        match fields.binary_search_by(|(c, _)| c.cmp(column)) {
            Ok(at) => fields[at].1 = value,
            Err(at) => fields.insert(at, (column.clone(), value)),
        }
    }
    fields
}

/// When the ticket was resolved, and whether a user ended it, who may have done so before the write, which had nothing
/// to do with it.
fn end_of_ticket(
    same: Option<&Entry>,
    claim: &Claim,
    row: &Row,
    settings: &Settings,
    clock_skew: i64,
) -> (Option<i64>, bool) {
    let states = &settings.states;
    if row.phase(states).is_open() || settings.full_snapshot {
        return (claim.resolved_at, false);
    }
    let was_open = same.is_none_or(|old| old.phase(states).is_open());
    let resolved_at = match same {
        _ if claim.resolved_at.is_some() => claim.resolved_at,
        Some(old) if !was_open => old.resolved_at,
        _ => Some(ended_at(row, same, states, clock_skew)),
    };
    let by_bridge = claim.alert_over || claim.state.as_ref() == Some(&states.resolved);
    (resolved_at, !by_bridge && (was_open || same.is_some_and(|old| old.ended_by_user)))
}
