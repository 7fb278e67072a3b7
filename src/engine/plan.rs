//! What a segment means for the ticket as it stands: nothing, a read first, or one write.
//!
//! Pure: it takes the ledger's entry, what was read of the row if it was read, and the segment, and gives a
//! [`Decision`]. Guarantees: a closed ticket is never written; a value that a person put into a row is kept unless the
//! policy says otherwise; a write that would change nothing is not made (protocol rules 5a, 14).

use super::event::MarkedNote;
use super::field_hash::field_hash;
use super::fold::{FoldedChange, PendingNote, Segment};
use super::settings::Settings;
use crate::model::entry::ClaimKind;
use crate::model::{AttemptId, Column, Entry, FieldDigest, Phase, Position, Row};

/// What to do with a segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Nothing can come of it; the reason is for people.
    Skip(&'static str),
    /// An alert that was over within its hold-down: nothing shall come of it.
    SkipShortLived,
    /// The ticket already stands so.
    Unchanged {
        /// When the ticket was resolved, which may be news although nothing of it is to be written.
        resolved_at: Option<i64>,
    },
    /// The row was last seen too long ago: read it, then decide again.
    Read,
    /// Write this.
    Write(Box<WritePlan>),
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct WritePlan {
    /// Create or update.
    pub kind: ClaimKind,
    /// Ticket's generation after it.
    pub generation: u32,
    /// Columns and values, sorted, the state column among them.
    pub fields: Vec<(Column, String)>,
    /// Raw state written, if any.
    pub state: Option<String>,
    /// Notes with their markers.
    pub notes: Vec<MarkedNote>,
    /// When the event occurred that leaves the ticket resolved; kept from the entry where it stays resolved.
    pub resolved_at: Option<i64>,
    /// What of the segment the write does not cover.
    pub rest: Rest,
    /// For the report.
    pub outcome: &'static str,
}

/// What is left of a segment after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    None,
    /// Its `post`: it needs a ticket of its own.
    Post,
    /// Notes after the first `keep`; `parts` of the next are written.
    Notes {
        /// Whole notes that the write carries.
        keep: usize,
        /// Parts of the next one that it carries.
        parts: u32,
        /// The segment's `post` is left as well: it needs a ticket of its own.
        apart: bool,
    },
}

/// What is known of the ticket.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The settled entry.
    pub entry: Option<&'a Entry>,
    /// The row, if it was read just now.
    pub row: Option<&'a Row>,
    /// Unix milliseconds now; decides whether the entry's sight of the row is fresh.
    pub now: i64,
    /// Of the positions: see [`super::event::Loaded::topic_generation`].
    pub topic_generation: u32,
}

/// Decides. `kept` receives the columns in which a person's value was kept.
pub fn decide(base: Base<'_>, segment: &Segment, settings: &Settings, kept: &mut Vec<Column>) -> Decision {
    let Some(entry) = base.entry else {
        return match &segment.post {
            Some(_) if segment.is_too_brief() => Decision::SkipShortLived,
            Some(post) => Decision::Write(create(base, post, segment, settings)),
            None => Decision::Skip("no ticket for this key, and the event does not open one"),
        };
    };
    let decision = decide_for_ticket(base, entry, segment, settings, kept);
    let fresh = base.row.is_some()
        || (settings.row_freshness > 0 && base.now.saturating_sub(entry.seen.at) <= to_i64(settings.row_freshness));
    // A closed or deleted row stays so: a new ticket beside it needs no second sight of it.
    let closed = settings.states.phase(&entry.seen.state) == Phase::Closed;
    match decision {
        Decision::Write(_) if !fresh && !closed => Decision::Read,
        decided => decided,
    }
}

fn decide_for_ticket(
    base: Base<'_>,
    entry: &Entry,
    segment: &Segment,
    settings: &Settings,
    kept: &mut Vec<Column>,
) -> Decision {
    let phase = settings.states.phase(base.row.map_or(&entry.seen.state, |r| &r.state));
    match (phase, &segment.post) {
        (Phase::Closed, None) => Decision::Skip("the ticket is closed, and the event does not open one"),
        (Phase::Closed, Some(_)) if segment.is_too_brief() => Decision::SkipShortLived,
        (Phase::Closed, Some(post)) => Decision::Write(create(base, post, segment, settings)),
        (Phase::Resolved, Some(post)) if needs_new_ticket(entry, base.row, segment, settings) => {
            match update(base, entry, &segment.pre, false, phase, settings, kept) {
                // What came before the opening event still belongs to the old ticket.
                Decision::Write(mut plan) => {
                    match &mut plan.rest {
                        Rest::Notes { apart, .. } => *apart = true,
                        rest => *rest = Rest::Post,
                    }
                    Decision::Write(plan)
                }
                _ if segment.is_too_brief() => Decision::SkipShortLived,
                _ => Decision::Write(create(base, post, segment, settings)),
            }
        }
        (Phase::Resolved, Some(_)) if is_older_than_resolution(entry, base.row, segment) => {
            // The alert fired before the ticket was resolved: its values are news, its opening is not.
            let mut part = whole(segment);
            part.map = Phase::ALL;
            update(base, entry, &part, false, phase, settings, kept)
        }
        _ => update(base, entry, &whole(segment), segment.post.is_some(), phase, settings, kept),
    }
}

/// The segment as one part, for a ticket that exists.
fn whole(segment: &Segment) -> FoldedChange {
    let mut one = segment.pre.clone();
    if let Some(post) = &segment.post {
        one.append(post.clone());
    }
    one
}

/// When the ticket was resolved, in Unix milliseconds: by an event of ours, else when the row last changed.
fn resolved_at(entry: &Entry, row: Option<&Row>) -> i64 {
    entry.resolved_at.or(row.map(|r| r.updated_on.saturating_mul(1000))).unwrap_or(entry.seen.at)
}

fn needs_new_ticket(entry: &Entry, row: Option<&Row>, segment: &Segment, settings: &Settings) -> bool {
    if settings.whole {
        return false;
    }
    let resolved = resolved_at(entry, row);
    segment.first_open_at.is_some_and(|at| at.saturating_sub(resolved) > to_i64(settings.reopen_window))
}

fn is_older_than_resolution(entry: &Entry, row: Option<&Row>, segment: &Segment) -> bool {
    segment.last_open_at.is_some_and(|at| at < resolved_at(entry, row))
}

fn create(base: Base<'_>, post: &FoldedChange, segment: &Segment, settings: &Settings) -> Box<WritePlan> {
    let old = base.entry;
    let phase = post.apply(Phase::None);
    let mut fields = post.fields.clone();
    let state = if settings.whole {
        Some(whole_state(phase, &fields, old, settings))
    } else {
        settings.states.raw(phase).map(str::to_owned)
    };
    add_state(&mut fields, state.as_deref(), settings);
    if phase == Phase::Resolved {
        add_all(&mut fields, &post.closing);
    }
    let mut known: Vec<String> = old.map(|e| e.earlier.clone()).unwrap_or_default();
    known.extend(old.map(|e| e.sys_id.clone()));
    let before = segment.pre.notes.len();
    let (mut notes, mut rest) = take_notes(base, &post.notes, settings);
    if let Rest::Notes { keep, .. } = &mut rest {
        *keep += before;
    }
    if let (Some(old), Some(by), false) = (old, segment.opened_by, settings.whole) {
        let text = format!("Follows {}.", old.number);
        notes.insert(0, MarkedNote { text, marker: marker(base, settings, by, Some("follows".into())) });
    }
    Box::new(WritePlan {
        kind: ClaimKind::Create { known },
        generation: old.map_or(1, |e| e.generation + 1),
        fields,
        state,
        notes,
        resolved_at: if phase == Phase::Resolved { post.closed_at } else { None },
        rest,
        outcome: "created",
    })
}

/// `opened` says that an opening event in the part takes effect, on a resolved ticket too.
fn update(
    base: Base<'_>,
    entry: &Entry,
    part: &FoldedChange,
    opened: bool,
    before: Phase,
    settings: &Settings,
    kept: &mut Vec<Column>,
) -> Decision {
    let after = next_phase(base, entry, part, before, settings);
    let (mut fields, state) = if settings.whole {
        let state = whole_state(after, &part.fields, Some(entry), settings);
        (changed_or_all(part, &state, entry, settings), Some(state))
    } else {
        let mut fields = changed_fields(&part.fields, entry, base.row, settings, kept);
        let state = if after == before { None } else { settings.states.raw(after).map(str::to_owned) };
        add_state(&mut fields, state.as_deref(), settings);
        (fields, state)
    };
    let resolves = after == Phase::Resolved && before != Phase::Resolved;
    if resolves {
        add_all(&mut fields, &part.closing);
    }
    let (notes, rest) = take_notes(base, &part.notes, settings);
    let resolved_at = match after {
        Phase::Resolved if resolves => part.closed_at,
        // Reopened and resolved again in one fold: the state does not change, the time does.
        Phase::Resolved if opened && part.closed_at.is_some() => part.closed_at,
        Phase::Resolved => Some(resolved_at(entry, base.row)),
        _ => None,
    };
    if fields.is_empty() && notes.is_empty() {
        return Decision::Unchanged { resolved_at };
    }
    let outcome = match (resolves, before == Phase::Resolved && after.is_open()) {
        (true, _) => "resolved",
        (_, true) => "reopened",
        _ if fields.is_empty() || settings.whole && part.fields.is_empty() => "noted",
        _ => "updated",
    };
    Decision::Write(Box::new(WritePlan {
        kind: ClaimKind::Update { sys_id: entry.sys_id.clone() },
        generation: entry.generation,
        fields,
        state,
        notes,
        resolved_at,
        rest,
        outcome,
    }))
}

/// What stands in the state column of a write that stands for itself: that the alert is over; else what its events say;
/// else what stood there before.
fn whole_state(after: Phase, fields: &[(Column, String)], old: Option<&Entry>, settings: &Settings) -> String {
    let states = &settings.states;
    if after == Phase::Resolved {
        return states.resolved.clone();
    }
    let told = fields.iter().find(|(column, _)| **column == *states.column).map(|(_, value)| value);
    let stood = old.map(|entry| &entry.seen.state).filter(|state| states.phase(state).is_open());
    told.or(stood).unwrap_or(&states.new).clone()
}

/// All columns of a part that has a note, or that would change one of them; else none.
fn changed_or_all(part: &FoldedChange, state: &str, entry: &Entry, settings: &Settings) -> Vec<(Column, String)> {
    let mut all = part.fields.clone();
    add_state(&mut all, Some(state), settings);
    let mut nobody = Vec::new();
    let changes = !changed_fields(&all, entry, None, settings, &mut nobody).is_empty();
    if changes || !part.notes.is_empty() { all } else { Vec::new() }
}

/// The phase after, with one exception to the table: "not acknowledged any more" takes back only a state that we set.
fn next_phase(base: Base<'_>, entry: &Entry, part: &FoldedChange, before: Phase, settings: &Settings) -> Phase {
    let after = part.apply(before);
    if before == Phase::InProgress && after == Phase::New {
        let stands = base.row.map_or(&entry.seen.state, |r| &r.state);
        let ours = entry.field(&settings.states.column);
        if ours.is_none_or(|d| d.sent != field_hash(stands)) {
            return before;
        }
    }
    after
}

/// Columns whose value differs from what we last wrote, less those in which a person's value is kept.
fn changed_fields(
    wanted: &[(Column, String)],
    entry: &Entry,
    row: Option<&Row>,
    settings: &Settings,
    kept: &mut Vec<Column>,
) -> Vec<(Column, String)> {
    let mut changed = Vec::new();
    for (column, value) in wanted {
        let wants = field_hash(value);
        let known = entry.field(column);
        if known.is_some_and(|d| d.sent == wants) {
            continue;
        }
        if let Some(row) = row
            && let Some(stands) = row.values.get(&**column)
        {
            if field_hash(stands) == wants {
                continue;
            }
            if is_persons(stands, known, row, settings) && !settings.overwrite.contains(column) {
                kept.push(column.clone());
                continue;
            }
        }
        changed.push((column.clone(), value.clone()));
    }
    changed
}

/// Whether a value in a row was put there by somebody else than the bridge, after the bridge or instead of it.
fn is_persons(stands: &str, known: Option<FieldDigest>, row: &Row, settings: &Settings) -> bool {
    match known {
        Some(known) => field_hash(stands) != known.sent && Some(field_hash(stands)) != known.stood,
        None => !stands.is_empty() && row.updated_by != settings.bridge_user,
    }
}

fn add_state(fields: &mut Vec<(Column, String)>, state: Option<&str>, settings: &Settings) {
    if let Some(state) = state {
        let column: Column = settings.states.column.as_str().into();
        add_all(fields, &[(column, state.to_owned())]);
    }
}

fn add_all(fields: &mut Vec<(Column, String)>, more: &[(Column, String)]) {
    for (column, value) in more {
        match fields.binary_search_by(|(c, _)| c.cmp(column)) {
            Ok(at) => fields[at].1.clone_from(value),
            Err(at) => fields.insert(at, (column.clone(), value.clone())),
        }
    }
}

/// As many notes as one write carries, each with its marker; a note longer than the limit is split into parts.
fn take_notes(base: Base<'_>, notes: &[PendingNote], settings: &Settings) -> (Vec<MarkedNote>, Rest) {
    let mut taken = Vec::new();
    let mut room = settings.note_limit;
    for (at, note) in notes.iter().enumerate() {
        let parts = split_text(&note.text, settings.note_limit);
        for (number, text) in parts.iter().enumerate().skip(note.parts_done as usize) {
            let size = text.chars().count();
            if size > room && !taken.is_empty() {
                let parts = u32::try_from(number).unwrap_or(u32::MAX);
                return (taken, Rest::Notes { keep: at, parts, apart: false });
            }
            room = room.saturating_sub(size);
            let part = (parts.len() > 1).then(|| format!("{}/{}", number + 1, parts.len()));
            taken.push(MarkedNote { text: (*text).to_owned(), marker: marker(base, settings, note.position, part) });
        }
    }
    (taken, Rest::None)
}

/// Cuts at characters, never inside one.
fn split_text(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((at, _)) = rest.char_indices().nth(limit.max(1)) {
        let (part, tail) = rest.split_at(at);
        parts.push(part);
        rest = tail;
    }
    parts.push(rest);
    parts
}

/// The text by which a note is recognised in the journal. It is stored in tickets: never change its form.
fn marker(base: Base<'_>, settings: &Settings, at: Position, part: Option<String>) -> String {
    let part = part.map_or_else(String::new, |p| format!(" {p}"));
    let topic_generation =
        if base.topic_generation == 0 { String::new() } else { format!("@{:x}", base.topic_generation) };
    format!("[{}{topic_generation}/{}/{}.{}{part}]", settings.marker_prefix, at.partition, at.offset, at.index)
}

/// The text by which one attempt is recognised, where each write carries one. Its time tells it from attempts of an earlier
/// ledger, whose tokens may be the same.
pub fn attempt_marker(settings: &Settings, partition: i32, attempt: AttemptId, time: i64) -> String {
    let AttemptId { token, number } = attempt;
    format!("[{}/{partition} {}.{number} {time}]", settings.marker_prefix, token.0)
}

fn to_i64(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
