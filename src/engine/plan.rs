//! What a segment means for the ticket as it is: nothing, a read first, or one write.
//!
//! Pure: the input is the ledger's entry, the row if it was read, and the segment; the result is a [`Decision`].
//! Guarantees: a closed ticket is never written; a value that a user set is kept unless the configuration says
//! otherwise; a write that would change nothing is not made (protocol rules 7, 16).

mod notes;

pub use self::notes::attempt_marker;
use self::notes::{marker, select_notes};
use super::event::MarkedNote;
use super::field_hash::field_hash;
use super::fold::{FoldedChange, Segment};
use super::settings::Settings;
use crate::model::entry::ClaimKind;
use crate::model::{Column, Entry, FieldHash, Phase, Row};

/// Why nothing is done for an opening event although the alert fires.
const SAME_FIRING: &str = "a user closed the ticket, and the alert is still firing for the same time";

/// What to do with a segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Skip the segment, for this reason.
    Skip(&'static str),
    /// Skip an alert that was over within its hold-down.
    SkipShortLived,
    /// The ticket is already up to date.
    Unchanged {
        /// When the ticket was resolved. It may be new although nothing is written to the ticket.
        resolved_at: Option<i64>,
    },
    /// The decision needs the row as it is now: read it, then plan again.
    Read {
        /// True if the row will probably be written; false if a look will probably show that there is nothing to do.
        will_write: bool,
    },
    Write(Box<WritePlan>),
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct WritePlan {
    pub kind: ClaimKind,
    /// The ticket generation after the write.
    pub generation: u32,
    /// Columns and values, sorted by column, including the state column.
    pub fields: Vec<(Column, String)>,
    /// Raw value of the state column, if it is written.
    pub state: Option<String>,
    pub notes: Vec<MarkedNote>,
    /// When the event occurred that leaves the ticket resolved; kept from the entry if the ticket stays resolved.
    pub resolved_at: Option<i64>,
    /// The part of the segment that the write does not contain.
    pub remainder: Remainder,
    /// See [`super::event::WriteResult::outcome`].
    pub outcome: &'static str,
}

/// The part of a segment that is left after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remainder {
    None,
    /// `from_open` is left: it needs a ticket of its own.
    FromOpen,
    Notes {
        /// Number of notes that the write contains completely.
        whole_notes: usize,
        /// Number of parts of the next note that the write contains.
        parts: u32,
        /// True if `from_open` is left as well: it needs a ticket of its own.
        with_from_open: bool,
    },
}

/// What is known of the ticket.
#[derive(Debug, Clone, Copy)]
pub struct PlanContext<'a> {
    /// The settled entry.
    pub entry: Option<&'a Entry>,
    /// The row, if it was seen recently enough.
    pub row: Option<&'a Row>,
    /// True if the row was seen after the segment's newest opening event was received.
    pub seen_after_open: bool,
    /// See [`super::event::LedgerState::topic_generation`].
    pub topic_generation: u32,
}

/// Plans a segment. Appends to `preserved` the columns in which a user's value is kept.
pub fn decide(ctx: PlanContext<'_>, segment: &Segment, settings: &Settings, preserved: &mut Vec<Column>) -> Decision {
    let Some(entry) = ctx.entry else {
        return match &segment.from_open {
            Some(_) if segment.is_short_lived() => Decision::SkipShortLived,
            Some(from_open) => Decision::Write(create(ctx, from_open, segment, settings)),
            None => Decision::Skip("no ticket for this key, and the event does not open one"),
        };
    };
    let decision = decide_for_ticket(ctx, entry, segment, settings, preserved);
    if settings.full_snapshot {
        return decision;
    }
    // What was last seen may be outdated: users resolve, reopen, close and delete tickets. It only tells whether the
    // look is urgent. A look before an alert opened again says nothing of what is to be done then.
    match decision {
        Decision::Unchanged { .. } if segment.from_open.is_none() => decision,
        _ if ctx.row.is_some() && (segment.from_open.is_none() || ctx.seen_after_open) => decision,
        decision => Decision::Read { will_write: matches!(decision, Decision::Write(_)) },
    }
}

fn decide_for_ticket(
    ctx: PlanContext<'_>,
    entry: &Entry,
    segment: &Segment,
    settings: &Settings,
    preserved: &mut Vec<Column>,
) -> Decision {
    let phase = ctx.row.map_or_else(|| entry.phase(&settings.states), |row| row.phase(&settings.states));
    match (phase, &segment.from_open) {
        (Phase::Closed | Phase::Resolved, Some(_)) if is_same_firing(entry, segment, settings) => {
            if ctx.row.is_some() {
                preserved.push(settings.states.column.as_str().into());
            }
            if phase == Phase::Closed {
                return Decision::Skip(SAME_FIRING);
            }
            let mut change = merged_change(segment);
            change.transitions = Phase::ALL;
            update(ctx, entry, &change, false, phase, settings, preserved)
        }
        // The alert is over: if it opens again, that is another firing.
        (Phase::Closed, None) if entry.ended_by_user && segment.closed_at().is_some() => {
            Decision::Unchanged { resolved_at: entry.resolved_at }
        }
        (Phase::Closed, None) => Decision::Skip("the ticket is closed, and the event does not open one"),
        (Phase::Closed, Some(_)) if segment.is_short_lived() => Decision::SkipShortLived,
        (Phase::Closed, Some(from_open)) => Decision::Write(create(ctx, from_open, segment, settings)),
        (Phase::Resolved, Some(from_open)) if needs_new_ticket(entry, segment, settings) => {
            match update(ctx, entry, &segment.before_open, false, phase, settings, preserved) {
                // The events before the opening one still belong to the old ticket.
                Decision::Write(mut plan) => {
                    match &mut plan.remainder {
                        Remainder::Notes { with_from_open, .. } => *with_from_open = true,
                        remainder => *remainder = Remainder::FromOpen,
                    }
                    Decision::Write(plan)
                }
                _ if segment.is_short_lived() => Decision::SkipShortLived,
                _ => Decision::Write(create(ctx, from_open, segment, settings)),
            }
        }
        _ => update(ctx, entry, &merged_change(segment), segment.from_open.is_some(), phase, settings, preserved),
    }
}

/// The whole segment as one change, for an existing ticket.
fn merged_change(segment: &Segment) -> FoldedChange {
    let mut change = segment.before_open.clone();
    if let Some(from_open) = &segment.from_open {
        change.append(from_open.clone());
    }
    change
}

/// When the ticket was resolved, Unix milliseconds.
fn resolved_at(entry: &Entry) -> i64 {
    entry.resolved_at.unwrap_or(entry.last_seen.at)
}

fn needs_new_ticket(entry: &Entry, segment: &Segment, settings: &Settings) -> bool {
    if settings.full_snapshot {
        return false;
    }
    let resolved = resolved_at(entry);
    segment.first_open_at.is_some_and(|at| at.saturating_sub(resolved) > to_i64(settings.reopen_window))
}

/// True if a user ended the ticket, and the segment's opening events repeat the firing that the user knew of: they do
/// not open the ticket again, nor create another one.
fn is_same_firing(entry: &Entry, segment: &Segment, settings: &Settings) -> bool {
    entry.ended_by_user
        && segment.before_open.closed_at.is_none()
        && match segment.episode {
            Some(episode) => entry.episode == Some(episode),
            None => !settings.reopen_after_user,
        }
}

fn create(ctx: PlanContext<'_>, from_open: &FoldedChange, segment: &Segment, settings: &Settings) -> Box<WritePlan> {
    let old = ctx.entry;
    let phase = from_open.apply(Phase::None);
    let mut fields = from_open.fields.clone();
    let state = if settings.full_snapshot {
        Some(snapshot_state(phase, &fields, old, settings))
    } else {
        settings.states.raw(phase).map(str::to_owned)
    };
    set_state(&mut fields, state.as_deref(), settings);
    if phase == Phase::Resolved {
        set_fields(&mut fields, &from_open.closing);
    }
    let mut known_sys_ids: Vec<String> = old.map(|e| e.earlier_tickets.clone()).unwrap_or_default();
    known_sys_ids.extend(old.map(|e| e.sys_id.clone()));
    let before = segment.before_open.notes.len();
    let (mut notes, mut remainder) = select_notes(ctx, &from_open.notes, settings);
    if let Remainder::Notes { whole_notes, .. } = &mut remainder {
        *whole_notes += before;
    }
    if let (Some(old), Some(position), false) = (old, segment.open_position, settings.full_snapshot) {
        let text = format!("Follows {}.", old.number);
        notes.insert(0, MarkedNote { text, marker: marker(ctx, settings, position, Some("follows".into())) });
    }
    Box::new(WritePlan {
        kind: ClaimKind::Create { known_sys_ids },
        generation: old.map_or(1, |e| e.generation + 1),
        fields,
        state,
        notes,
        resolved_at: if phase == Phase::Resolved { from_open.closed_at } else { None },
        remainder,
        outcome: "created",
    })
}

/// `opened`: an opening event in the change takes effect, even on a resolved ticket.
fn update(
    ctx: PlanContext<'_>,
    entry: &Entry,
    change: &FoldedChange,
    opened: bool,
    before: Phase,
    settings: &Settings,
    preserved: &mut Vec<Column>,
) -> Decision {
    let after = next_phase(ctx, entry, change, before, settings);
    let (mut fields, state) = if settings.full_snapshot {
        let state = snapshot_state(after, &change.fields, Some(entry), settings);
        (snapshot_fields(change, &state, entry, settings), Some(state))
    } else {
        let mut fields = changed_fields(&change.fields, entry, ctx.row, settings, preserved);
        let state = if after == before { None } else { settings.states.raw(after).map(str::to_owned) };
        set_state(&mut fields, state.as_deref(), settings);
        (fields, state)
    };
    let resolves = after == Phase::Resolved && before != Phase::Resolved;
    if resolves {
        set_fields(&mut fields, &closing_fields(&change.closing, entry, ctx.row, settings, preserved));
    }
    let (notes, remainder) = select_notes(ctx, &change.notes, settings);
    let resolved_at = match after {
        Phase::Resolved if resolves => change.closed_at,
        // Reopened and resolved again within the fold: the state stays the same, the time changes.
        Phase::Resolved if opened && change.closed_at.is_some() => change.closed_at,
        Phase::Resolved => Some(resolved_at(entry)),
        _ => None,
    };
    if fields.is_empty() && notes.is_empty() {
        return Decision::Unchanged { resolved_at };
    }
    let outcome = match (resolves, before == Phase::Resolved && after.is_open()) {
        (true, _) => "resolved",
        (_, true) => "reopened",
        _ if fields.is_empty() || settings.full_snapshot && change.fields.is_empty() => "noted",
        _ => "updated",
    };
    Decision::Write(Box::new(WritePlan {
        kind: ClaimKind::Update { sys_id: entry.sys_id.clone() },
        generation: entry.generation,
        fields,
        state,
        notes,
        resolved_at,
        remainder,
        outcome,
    }))
}

/// The state column of a full snapshot: the resolved value if the alert is over, else the value from the events, else
/// the one last seen.
fn snapshot_state(after: Phase, fields: &[(Column, String)], old: Option<&Entry>, settings: &Settings) -> String {
    let states = &settings.states;
    if after == Phase::Resolved {
        return states.resolved.clone();
    }
    let mapped = fields.iter().find(|(column, _)| **column == *states.column).map(|(_, value)| value);
    let last_seen = old.map(|entry| &entry.last_seen.state).filter(|state| states.phase(state).is_open());
    mapped.or(last_seen).unwrap_or(&states.new).clone()
}

/// All columns of the change if one of them would change, or if it has a note; otherwise none.
fn snapshot_fields(change: &FoldedChange, state: &str, entry: &Entry, settings: &Settings) -> Vec<(Column, String)> {
    let mut all = change.fields.clone();
    set_state(&mut all, Some(state), settings);
    let changes = !changed_fields(&all, entry, None, settings, &mut Vec::new()).is_empty();
    if changes || !change.notes.is_empty() { all } else { Vec::new() }
}

/// The phase afterwards, with one exception to the table: an unacknowledge event reverts only a state that we set.
fn next_phase(ctx: PlanContext<'_>, entry: &Entry, change: &FoldedChange, before: Phase, settings: &Settings) -> Phase {
    let after = change.apply(before);
    if before == Phase::InProgress && after == Phase::New {
        let present = ctx.row.map_or(&entry.last_seen.state, |r| &r.state);
        let ours = entry.field(&settings.states.column);
        if ours.is_none_or(|d| d.sent != field_hash(present)) {
            return before;
        }
    }
    after
}

/// Columns whose value differs from the one last written, except those in which a user's value is kept.
fn changed_fields(
    wanted: &[(Column, String)],
    entry: &Entry,
    row: Option<&Row>,
    settings: &Settings,
    preserved: &mut Vec<Column>,
) -> Vec<(Column, String)> {
    let mut changed = Vec::new();
    for (column, value) in wanted {
        let hash = field_hash(value);
        let known = entry.field(column);
        if known.is_some_and(|d| d.sent == hash) {
            continue;
        }
        if let Some(row) = row
            && let Some(present) = row.values.get(&**column)
        {
            if field_hash(present) == hash {
                continue;
            }
            if keeps_user_value(column, present, known, row, settings) {
                preserved.push(column.clone());
                continue;
            }
        }
        changed.push((column.clone(), value.clone()));
    }
    changed
}

/// The closing columns to write when a ticket is resolved. Each is written although the bridge may have written the
/// same value before, because reopening may have emptied it; except where a user has set a value.
fn closing_fields(
    wanted: &[(Column, String)],
    entry: &Entry,
    row: Option<&Row>,
    settings: &Settings,
    preserved: &mut Vec<Column>,
) -> Vec<(Column, String)> {
    let mut fields = Vec::with_capacity(wanted.len());
    for (column, value) in wanted {
        let present = row.and_then(|row| row.values.get(&**column).map(|present| (row, present)));
        if let Some((row, present)) = present
            && !present.is_empty()
            && present != value
            && keeps_user_value(column, present, entry.field(column), row, settings)
        {
            preserved.push(column.clone());
            continue;
        }
        fields.push((column.clone(), value.clone()));
    }
    fields
}

/// True if someone other than the bridge set the present value of a column, after the bridge or instead of it, and it is
/// to be kept.
fn keeps_user_value(column: &Column, present: &str, known: Option<FieldHash>, row: &Row, settings: &Settings) -> bool {
    let is_user_value = match known {
        Some(known) => field_hash(present) != known.sent && Some(field_hash(present)) != known.stored,
        None => !present.is_empty() && row.updated_by != settings.bridge_user,
    };
    is_user_value && !settings.overwrite_columns.contains(column)
}

fn set_state(fields: &mut Vec<(Column, String)>, state: Option<&str>, settings: &Settings) {
    if let Some(state) = state {
        let column: Column = settings.states.column.as_str().into();
        set_fields(fields, &[(column, state.to_owned())]);
    }
}

fn set_fields(fields: &mut Vec<(Column, String)>, more: &[(Column, String)]) {
    for (column, value) in more {
        match fields.binary_search_by(|(c, _)| c.cmp(column)) {
            Ok(at) => fields[at].1.clone_from(value),
            Err(at) => fields.insert(at, (column.clone(), value.clone())),
        }
    }
}

fn to_i64(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
