//! Folding: several intents of one key become one write.
//!
//! An intent is folded on arrival, so the memory used in a storm grows with keys, not with events. A lane contains
//! [`Segment`]s: what the events do to a ticket *in any state of the ticket*, because the state is not known until the
//! lane's turn. The part before the first opening event (`before_open`) applies only to an existing ticket; the part
//! from that event on (`from_open`) creates or reopens one. Guarantees: applying a segment gives the same ticket as
//! applying its events one by one; for each column the last value wins; every note is kept, in order. An opening event
//! that occurs more than the reopen window after a closing one starts a new segment, because it needs a new ticket.

mod open_duration;
mod queue;

use std::sync::Arc;

use crate::model::{Column, EventOrder, Intent, Phase, Position, Record, RecordOrigin};

pub use open_duration::{HoldDown, OpenDuration};
pub use queue::{FoldLimits, InvalidEvent, Queue};

/// Number of native event ids that are remembered per key, to recognize repetitions (protocol rule 8).
pub const REMEMBERED_IDS: usize = 16;

/// Appends ids to the remembered ones, and drops the oldest.
pub fn remember_ids(ids: &mut Vec<u64>, more: impl IntoIterator<Item = u64>) {
    ids.extend(more);
    ids.drain(..ids.len().saturating_sub(REMEMBERED_IDS));
}

/// A note waiting to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingNote {
    /// Position of its event, from which its marker is made.
    pub position: Position,
    pub text: String,
    /// If the note is split: number of its parts that are already written.
    pub parts_written: u32,
}

/// An event of a segment.
#[derive(Debug, Clone)]
pub struct SegmentEvent {
    /// Resolved when the segment is applied.
    pub position: Position,
    /// The original record, for a dead letter; `None` once later events have superseded all its values.
    pub raw: Option<Arc<Record>>,
    /// Size of the original record; 0 once it is dropped.
    pub bytes: usize,
    /// Hash of the native event id.
    pub event_id: Option<u64>,
    /// True if it has a note or may have changed the phase of the ticket: it is never superseded.
    pinned: bool,
    /// The columns it sets; empty once it cannot be superseded any more.
    columns: Vec<Column>,
}

/// What a sequence of events does to a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedChange {
    /// The phase afterwards, indexed by the phase before.
    pub transitions: [Phase; 6],
    /// Last value per column, sorted by column.
    pub fields: Vec<(Column, String)>,
    /// Columns of the last closing event.
    pub closing: Vec<(Column, String)>,
    /// In order.
    pub notes: Vec<PendingNote>,
    /// When the last closing event occurred, unless an opening one followed.
    pub closed_at: Option<i64>,
    /// The newest state-affecting event; unknown if there is none.
    pub order: EventOrder,
    pub open_duration: OpenDuration,
}

impl Default for FoldedChange {
    fn default() -> Self {
        Self {
            transitions: Phase::ALL,
            fields: Vec::new(),
            closing: Vec::new(),
            notes: Vec::new(),
            closed_at: None,
            order: EventOrder::UNKNOWN,
            open_duration: OpenDuration::default(),
        }
    }
}

impl FoldedChange {
    fn add(&mut self, intent: Intent) {
        let Intent { action, fields, closing, order, occurred_at: at, .. } = intent;
        for phase in &mut self.transitions {
            *phase = phase.after(action);
        }
        merge_fields(&mut self.fields, fields);
        if action.affects_state() {
            self.order = self.order.newest(order);
        }
        if action.closes() {
            self.closing = closing;
            self.closed_at = Some(at);
            self.open_duration.close(at);
        } else if action.opens() {
            self.closed_at = None;
            self.open_duration.open(at);
        }
    }

    /// Appends a later change. `opens`: it begins with an opening event.
    fn merge(&mut self, later: FoldedChange, opens: bool) {
        for phase in &mut self.transitions {
            *phase = later.transitions[*phase as usize];
        }
        merge_fields(&mut self.fields, later.fields);
        if !later.closing.is_empty() {
            self.closing = later.closing;
        }
        self.notes.extend(later.notes);
        self.order = self.order.newest(later.order);
        self.open_duration.merge(later.open_duration);
        if later.closed_at.is_some() || opens {
            self.closed_at = later.closed_at;
        }
    }

    /// Appends a change that begins with an opening event.
    pub fn append(&mut self, from_open: FoldedChange) {
        self.merge(from_open, true);
    }

    /// The phase afterwards of a ticket that is in `before`.
    pub fn apply(&self, before: Phase) -> Phase {
        self.transitions[before as usize]
    }
}

/// Merges two lists that are sorted by column; the later value wins.
fn merge_fields(into: &mut Vec<(Column, String)>, later: Vec<(Column, String)>) {
    for (column, value) in later {
        match into.binary_search_by(|(c, _)| c.cmp(&column)) {
            Ok(at) => into[at].1 = value,
            Err(at) => into.insert(at, (column, value)),
        }
    }
}

/// A sequence of events that end in one ticket.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Common to all its events.
    pub origin: RecordOrigin,
    /// Set if its only event cannot be decoded or mapped.
    pub invalid: Option<Box<InvalidEvent>>,
    /// The events before the first opening one.
    pub before_open: FoldedChange,
    /// The events from the first opening one on.
    pub from_open: Option<FoldedChange>,
    /// Position of the first opening event.
    pub open_position: Option<Position>,
    /// When the first opening event occurred.
    pub first_open_at: Option<i64>,
    /// The episode of the last opening event.
    pub episode: Option<u64>,
    /// All events, in order.
    pub events: Vec<SegmentEvent>,
    /// Number of characters of its notes.
    note_chars: usize,
    /// When the first event was received, on the mono clock.
    pub received_at: u64,
    /// The highest priority of its events.
    pub priority: u8,
    /// Of the newest opening event.
    pub hold_down: HoldDown,
}

impl Segment {
    fn empty(origin: RecordOrigin, received_at: u64) -> Self {
        Self {
            origin,
            invalid: None,
            before_open: FoldedChange::default(),
            from_open: None,
            open_position: None,
            first_open_at: None,
            episode: None,
            events: Vec::new(),
            note_chars: 0,
            received_at,
            priority: u8::MAX,
            hold_down: HoldDown { duration: 0, received_at },
        }
    }

    /// Its newest state-affecting event; unknown if there is none.
    pub fn order(&self) -> EventOrder {
        let from_open = self.from_open.as_ref().map_or(EventOrder::UNKNOWN, |change| change.order);
        self.before_open.order.newest(from_open)
    }

    /// When its last closing event occurred, if the segment leaves the ticket closed by it.
    pub fn closed_at(&self) -> Option<i64> {
        match &self.from_open {
            Some(from_open) => from_open.closed_at,
            None => self.before_open.closed_at,
        }
    }

    /// True if an opening event at `at` belongs to the same ticket as this segment.
    fn accepts_open(&self, at: i64, window: i64) -> bool {
        self.closed_at().is_none_or(|closed| at.saturating_sub(closed) <= window)
    }

    /// True if events with `more` characters of notes may follow in the same write.
    fn has_note_room(&self, more: usize, limit: usize) -> bool {
        self.note_chars <= limit && (more == 0 || self.note_chars + more <= limit || self.note_chars == 0)
    }

    /// Folds in one more intent. Returns the bytes of an earlier record that it superseded.
    fn push(&mut self, mut intent: Intent, raw: &Arc<Record>, bytes: usize, now: u64) -> usize {
        let opens = intent.action.opens();
        let pinned = intent.note.is_some() || self.changes_phase(&intent);
        let freed = self.supersede_last(&intent);
        let columns = if pinned { Vec::new() } else { intent.fields.iter().map(|(c, _)| c.clone()).collect() };
        self.events.push(SegmentEvent {
            position: intent.position,
            raw: Some(Arc::clone(raw)),
            bytes,
            event_id: intent.event_id,
            pinned,
            columns,
        });
        if opens {
            self.open_position.get_or_insert(intent.position);
            self.first_open_at.get_or_insert(intent.occurred_at);
            self.episode = intent.episode;
            self.hold_down = HoldDown { duration: intent.hold_down, received_at: now };
        }
        self.priority = self.priority.min(intent.priority);
        let change = match &mut self.from_open {
            Some(from_open) => from_open,
            None if opens => self.from_open.insert(FoldedChange::default()),
            None => &mut self.before_open,
        };
        if let Some(text) = intent.note.take() {
            self.note_chars += text.chars().count();
            change.notes.push(PendingNote { position: intent.position, text, parts_written: 0 });
        }
        change.add(intent);
        freed
    }

    /// True if the action changes any phase in which this segment may leave a ticket.
    fn changes_phase(&self, intent: &Intent) -> bool {
        let change = self.from_open.as_ref().unwrap_or(&self.before_open);
        (self.from_open.is_none() && intent.action.opens())
            || change.transitions.iter().any(|&p| p.after(intent.action) != p)
    }

    /// Drops the record of the last event if the new one sets all its columns. Returns its bytes.
    fn supersede_last(&mut self, intent: &Intent) -> usize {
        // An opening event may turn out to need a ticket of its own; then it supersedes nothing that came before it.
        if self.from_open.is_none() && intent.action.opens() {
            return 0;
        }
        let Some(last) = self.events.last_mut() else { return 0 };
        let covered = last.columns.iter().all(|c| intent.fields.binary_search_by(|(f, _)| f.cmp(c)).is_ok());
        if !last.pinned && last.raw.is_some() && covered {
            last.raw = None;
            last.columns = Vec::new();
            return std::mem::take(&mut last.bytes);
        }
        0
    }

    /// Appends a later segment, which [`FoldLimits`] allowed.
    fn merge(&mut self, later: Segment) {
        let later_opens = later.from_open.is_some();
        self.open_position = self.open_position.or(later.open_position);
        self.first_open_at = self.first_open_at.or(later.first_open_at);
        match (&mut self.from_open, later.from_open) {
            (None, None) => self.before_open.merge(later.before_open, false),
            (None, Some(from_open)) => {
                self.before_open.merge(later.before_open, false);
                self.from_open = Some(from_open);
            }
            (Some(own), from_open) => {
                own.merge(later.before_open, false);
                if let Some(from_open) = from_open {
                    own.merge(from_open, true);
                }
            }
        }
        self.note_chars += later.note_chars;
        self.priority = self.priority.min(later.priority);
        if later_opens {
            self.hold_down = later.hold_down;
            self.episode = later.episode;
        }
        self.events.extend(later.events);
    }

    /// Splits off `from_open`, for a ticket of its own; `None` if there is none.
    pub fn split_from_open(&mut self) -> Option<Segment> {
        let from_open = self.from_open.take()?;
        let open_position = self.open_position.take()?;
        let at = self.events.partition_point(|e| e.position < open_position);
        let rest = Segment {
            origin: self.origin,
            invalid: None,
            before_open: FoldedChange::default(),
            from_open: Some(from_open),
            open_position: Some(open_position),
            first_open_at: self.first_open_at.take(),
            episode: self.episode.take(),
            events: self.events.split_off(at),
            note_chars: self.note_chars,
            received_at: self.received_at,
            priority: self.priority,
            hold_down: self.hold_down,
        };
        Some(rest)
    }

    /// Splits off the notes after the first `keep`, which need another request, and the events from the first such note
    /// on. `parts` of that note are written with the notes that are kept.
    pub fn split_notes(&mut self, keep: usize, parts: u32) -> Segment {
        let mut rest = Segment::empty(self.origin, self.received_at);
        rest.priority = self.priority;
        rest.note_chars = self.note_chars;
        let before = self.before_open.notes.len();
        let from_open =
            self.from_open.as_mut().map(|p| p.notes.split_off(keep.saturating_sub(before).min(p.notes.len())));
        rest.before_open.notes = self.before_open.notes.split_off(keep.min(before));
        rest.before_open.notes.extend(from_open.unwrap_or_default());
        if let Some(first) = rest.before_open.notes.first_mut() {
            first.parts_written = parts;
            let from = first.position;
            let at = self.events.partition_point(|e| e.position < from);
            rest.events = self.events.split_off(at);
        }
        rest
    }

    /// The phase afterwards of the key's ticket that is in `phase` before. A closed ticket stays closed and gets a
    /// successor.
    pub fn phase_after(&self, phase: Phase) -> Phase {
        let phase = self.before_open.apply(phase);
        match &self.from_open {
            Some(from_open) => from_open.apply(if phase == Phase::Closed { Phase::None } else { phase }),
            None => phase,
        }
    }

    /// Bytes of the original records that it still holds.
    pub fn bytes(&self) -> usize {
        self.events.iter().filter(|e| e.raw.is_some()).map(|e| e.bytes).sum()
    }

    /// Position of the first event.
    pub fn first_position(&self) -> Option<Position> {
        self.events.first().map(|e| e.position)
    }

    /// Position of the last event.
    pub fn last_position(&self) -> Option<Position> {
        self.events.last().map(|e| e.position)
    }
}
