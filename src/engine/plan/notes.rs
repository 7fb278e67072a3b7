//! Which notes one write contains, and the markers by which they are recognized in a journal.

use super::super::event::MarkedNote;
use super::super::fold::PendingNote;
use super::super::settings::Settings;
use super::{PlanContext, Remainder};
use crate::model::{AttemptId, Position};

/// As many notes as fit into one write, each with its marker. A note longer than the limit is split into parts.
pub(super) fn select_notes(
    ctx: PlanContext<'_>,
    notes: &[PendingNote],
    settings: &Settings,
) -> (Vec<MarkedNote>, Remainder) {
    let mut taken = Vec::new();
    let mut room = settings.note_limit;
    for (at, note) in notes.iter().enumerate() {
        let parts = split_text(&note.text, settings.note_limit);
        for (number, text) in parts.iter().enumerate().skip(note.parts_written as usize) {
            let size = text.chars().count();
            if size > room && !taken.is_empty() {
                let parts = u32::try_from(number).unwrap_or(u32::MAX);
                return (taken, Remainder::Notes { whole_notes: at, parts, with_from_open: false });
            }
            room = room.saturating_sub(size);
            let part = (parts.len() > 1).then(|| format!("{}/{}", number + 1, parts.len()));
            taken.push(MarkedNote { text: (*text).to_owned(), marker: marker(ctx, settings, note.position, part) });
        }
    }
    (taken, Remainder::None)
}

/// Splits a text into parts of at most `limit` characters.
fn split_text(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut remainder = text;
    while let Some((at, _)) = remainder.char_indices().nth(limit.max(1)) {
        let (part, tail) = remainder.split_at(at);
        parts.push(part);
        remainder = tail;
    }
    parts.push(remainder);
    parts
}

/// The text by which a note is recognized in the journal. Tickets contain it: never change its form.
pub(super) fn marker(ctx: PlanContext<'_>, settings: &Settings, at: Position, part: Option<String>) -> String {
    let part = part.map_or_else(String::new, |p| format!(" {p}"));
    let topic_generation =
        if ctx.topic_generation == 0 { String::new() } else { format!("@{:x}", ctx.topic_generation) };
    format!("[{}{topic_generation}/{}/{}.{}{part}]", settings.marker_prefix, at.partition, at.offset, at.index)
}

/// The text by which an attempt is recognized, for full snapshots. Its time distinguishes it from attempts of an
/// earlier ledger, which may have the same tokens.
pub fn attempt_marker(settings: &Settings, partition: i32, attempt: AttemptId, time: i64) -> String {
    let AttemptId { token, number } = attempt;
    format!("[{}/{partition} {}.{number} {time}]", settings.marker_prefix, token.0)
}
