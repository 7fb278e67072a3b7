//! Folding: several intents of one key become one write.
//!
//! An intent is folded the moment it arrives, so a storm costs memory by key, not by event. What the lane keeps is a
//! [`Segment`]: what the events do to a ticket *whatever state it is in*, because nobody knows the state until the
//! lane's turn comes. The part before the first opening event (`pre`) applies only to a ticket that exists; the part
//! from there on (`post`) makes or reopens one. Folding guarantees: applying a segment gives the same ticket as
//! applying its events one by one; the last value wins for each column; every note is kept, in order. An opening
//! event that occurs more than the reopen window after a closing one starts a new segment, since it needs a new ticket.

mod open_duration;
mod queue;

use std::sync::Arc;

use crate::model::{Action, Column, Intent, Now, Phase, Position, Record, RecordOrigin};

pub use open_duration::Openness;
pub use queue::{Bounds, Queue};

/// Between two looks whether a partition has been read as far as it was written, milliseconds.
const BEHIND: u64 = 50;

/// How many native event ids of a key are remembered against repetition (protocol rule 5b).
pub const REMEMBERED_IDS: usize = 16;

/// Adds ids to those that are remembered, and forgets the oldest.
pub fn remember(ids: &mut Vec<u64>, more: impl IntoIterator<Item = u64>) {
    ids.extend(more);
    ids.drain(..ids.len().saturating_sub(REMEMBERED_IDS));
}

/// A note waiting to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingNote {
    /// The event it came with; its marker is made of this.
    pub position: Position,
    /// The text.
    pub text: String,
    /// Parts of it that are already written, where it is split.
    pub parts_done: u32,
}

/// An event that a segment carries.
#[derive(Debug, Clone)]
pub struct Contribution {
    /// Its position, resolved when the segment is applied.
    pub position: Position,
    /// The original, for a dead letter; `None` once later events have superseded all of it.
    pub raw: Option<Arc<Record>>,
    /// Bytes the original holds.
    pub bytes: usize,
    /// Native event id.
    pub event_id: Option<u64>,
    /// True where it carries a note or may have changed the lifecycle: never superseded.
    pinned: bool,
    /// Its columns, kept only while it may still be superseded.
    columns: Vec<Column>,
}

/// What a run of events does to a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedChange {
    /// The phase after, by the phase before.
    pub map: [Phase; 6],
    /// Last value per column, sorted by column.
    pub fields: Vec<(Column, String)>,
    /// Columns of the last closing event.
    pub closing: Vec<(Column, String)>,
    /// Notes in order.
    pub notes: Vec<PendingNote>,
    /// When the last closing event occurred, unless an opening one followed.
    pub closed_at: Option<i64>,
    /// `occurred_at` of the newest state-bearing event.
    pub occurred_at: i64,
    /// How long the alert was open.
    pub openness: Openness,
}

impl Default for FoldedChange {
    fn default() -> Self {
        Self {
            map: Phase::ALL,
            fields: Vec::new(),
            closing: Vec::new(),
            notes: Vec::new(),
            closed_at: None,
            occurred_at: i64::MIN,
            openness: Openness::default(),
        }
    }
}

impl FoldedChange {
    fn add(&mut self, action: Action, fields: Vec<(Column, String)>, closing: Vec<(Column, String)>, at: i64) {
        for phase in &mut self.map {
            *phase = phase.after(action);
        }
        merge_fields(&mut self.fields, fields);
        if action.affects_state() {
            self.occurred_at = self.occurred_at.max(at);
        }
        if action.closes() {
            self.closing = closing;
            self.closed_at = Some(at);
            self.openness.close(at);
        } else if action.opens() {
            self.closed_at = None;
            self.openness.open(at);
        }
    }

    /// This part and then `later`.
    fn then(&mut self, later: FoldedChange, opens: bool) {
        for phase in &mut self.map {
            *phase = later.map[*phase as usize];
        }
        merge_fields(&mut self.fields, later.fields);
        if !later.closing.is_empty() {
            self.closing = later.closing;
        }
        self.notes.extend(later.notes);
        self.occurred_at = self.occurred_at.max(later.occurred_at);
        self.openness.then(later.openness);
        if later.closed_at.is_some() || opens {
            self.closed_at = later.closed_at;
        }
    }

    /// This part and then `post`.
    pub fn append(&mut self, post: FoldedChange) {
        self.then(post, true);
    }

    /// The phase after, for a ticket in `before`.
    pub fn apply(&self, before: Phase) -> Phase {
        self.map[before as usize]
    }
}

/// Both sorted by column; the later value wins.
fn merge_fields(into: &mut Vec<(Column, String)>, later: Vec<(Column, String)>) {
    for (column, value) in later {
        match into.binary_search_by(|(c, _)| c.cmp(&column)) {
            Ok(at) => into[at].1 = value,
            Err(at) => into.insert(at, (column, value)),
        }
    }
}

/// A run of events that end in one ticket.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Where its events come from.
    pub origin: RecordOrigin,
    /// Its one event can't be mapped: code and reason.
    pub refusal: Option<Box<(&'static str, String)>>,
    /// Before the first opening event.
    pub pre: FoldedChange,
    /// From the first opening event on.
    pub post: Option<FoldedChange>,
    /// Position of the first opening event: `post` begins with it.
    pub opened_by: Option<Position>,
    /// When the first opening event occurred.
    pub first_open_at: Option<i64>,
    /// When the newest opening event occurred.
    pub last_open_at: Option<i64>,
    /// All events, in order.
    pub events: Vec<Contribution>,
    /// Characters of the notes it carries.
    note_size: usize,
    /// When the first of them was received, on the mono clock.
    pub received_at: u64,
    /// The most urgent priority among them.
    pub priority: u8,
    /// The hold-down of the newest opening event, milliseconds, and when that was received, on the mono clock.
    pub hold_down: (u64, u64),
}

impl Segment {
    fn empty(origin: RecordOrigin, received_at: u64) -> Self {
        Self {
            origin,
            refusal: None,
            pre: FoldedChange::default(),
            post: None,
            opened_by: None,
            first_open_at: None,
            last_open_at: None,
            events: Vec::new(),
            note_size: 0,
            received_at,
            priority: u8::MAX,
            hold_down: (0, received_at),
        }
    }

    /// `occurred_at` of its newest state-bearing event; `i64::MIN` where there is none.
    pub fn occurred_at(&self) -> i64 {
        self.post.as_ref().map_or(i64::MIN, |p| p.occurred_at).max(self.pre.occurred_at)
    }

    /// When the segment leaves the ticket closed by an event of its own, and when that occurred.
    fn closed_at(&self) -> Option<i64> {
        match &self.post {
            Some(post) => post.closed_at,
            None => self.pre.closed_at,
        }
    }

    /// Whether an opening event at `at` belongs to the same ticket as this segment.
    fn takes(&self, at: i64, window: i64) -> bool {
        self.closed_at().is_none_or(|closed| at.saturating_sub(closed) <= window)
    }

    /// Whether events with so many more characters of notes may follow in the same write.
    fn has_room(&self, more: usize, limit: usize) -> bool {
        self.note_size <= limit && (more == 0 || self.note_size + more <= limit || self.note_size == 0)
    }

    /// Folds one more intent in; returns the bytes of an earlier original that it superseded.
    fn push(&mut self, intent: Intent, raw: &Arc<Record>, bytes: usize, now: u64) -> usize {
        let opens = intent.action.opens();
        let lasting = intent.note.is_some() || self.changes_phase(&intent);
        let freed = self.supersede(&intent);
        let columns = if lasting { Vec::new() } else { intent.fields.iter().map(|(c, _)| c.clone()).collect() };
        self.events.push(Contribution {
            position: intent.position,
            raw: Some(Arc::clone(raw)),
            bytes,
            event_id: intent.event_id,
            pinned: lasting,
            columns,
        });
        if opens {
            self.opened_by.get_or_insert(intent.position);
            self.first_open_at.get_or_insert(intent.occurred_at);
            self.last_open_at = self.last_open_at.max(Some(intent.occurred_at));
            self.hold_down = (intent.hold_down, now);
        }
        self.priority = self.priority.min(intent.priority);
        let part = match &mut self.post {
            Some(post) => post,
            None if opens => self.post.insert(FoldedChange::default()),
            None => &mut self.pre,
        };
        if let Some(text) = intent.note {
            self.note_size += text.chars().count();
            part.notes.push(PendingNote { position: intent.position, text, parts_done: 0 });
        }
        part.add(intent.action, intent.fields, intent.closing, intent.occurred_at);
        freed
    }

    /// Whether the action moves any phase that this segment may leave a ticket in.
    fn changes_phase(&self, intent: &Intent) -> bool {
        let part = self.post.as_ref().unwrap_or(&self.pre);
        (self.post.is_none() && intent.action.opens()) || part.map.iter().any(|&p| p.after(intent.action) != p)
    }

    /// Drops the bytes of the last event where the new one says all that it said.
    fn supersede(&mut self, intent: &Intent) -> usize {
        // An opening event may turn out to need a ticket of its own, and then says nothing of what came before it.
        if self.post.is_none() && intent.action.opens() {
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

    /// This segment and then `later`, which [`Segment::takes`] allowed.
    fn then(&mut self, later: Segment) {
        self.opened_by = self.opened_by.or(later.opened_by);
        self.first_open_at = self.first_open_at.or(later.first_open_at);
        match (&mut self.post, later.post) {
            (None, None) => self.pre.then(later.pre, false),
            (None, Some(post)) => {
                self.pre.then(later.pre, false);
                self.post = Some(post);
            }
            (Some(mine), post) => {
                mine.then(later.pre, false);
                if let Some(post) = post {
                    mine.then(post, true);
                }
            }
        }
        self.last_open_at = self.last_open_at.max(later.last_open_at);
        self.note_size += later.note_size;
        self.priority = self.priority.min(later.priority);
        if later.last_open_at.is_some() {
            self.hold_down = later.hold_down;
        }
        self.events.extend(later.events);
    }

    /// Splits off `post`, for a ticket of its own. `None` where there is no `post`.
    pub fn split_post(&mut self) -> Option<Segment> {
        let post = self.post.take()?;
        let from = self.opened_by.take()?;
        let at = self.events.partition_point(|e| e.position < from);
        let rest = Segment {
            origin: self.origin,
            refusal: None,
            pre: FoldedChange::default(),
            post: Some(post),
            opened_by: Some(from),
            first_open_at: self.first_open_at.take(),
            last_open_at: self.last_open_at.take(),
            events: self.events.split_off(at),
            note_size: self.note_size,
            received_at: self.received_at,
            priority: self.priority,
            hold_down: self.hold_down,
        };
        Some(rest)
    }

    /// Splits off the notes after the first `keep`, which are then written by another request, and the events from
    /// the first such note on. `parts` of that note are written with what is kept.
    pub fn split_notes(&mut self, keep: usize, parts: u32) -> Segment {
        let mut rest = Segment::empty(self.origin, self.received_at);
        rest.priority = self.priority;
        rest.note_size = self.note_size;
        let in_pre = self.pre.notes.len();
        let post_notes = self.post.as_mut().map(|p| p.notes.split_off(keep.saturating_sub(in_pre).min(p.notes.len())));
        rest.pre.notes = self.pre.notes.split_off(keep.min(in_pre));
        rest.pre.notes.extend(post_notes.unwrap_or_default());
        if let Some(first) = rest.pre.notes.first_mut() {
            first.parts_done = parts;
            let from = first.position;
            let at = self.events.partition_point(|e| e.position < from);
            rest.events = self.events.split_off(at);
        }
        rest
    }

    /// The phase of a ticket after it, of one that is in `phase` before. What is closed stays so and gets a successor.
    pub fn phase_after(&self, phase: Phase) -> Phase {
        let phase = self.pre.apply(phase);
        match &self.post {
            Some(post) => post.apply(if phase == Phase::Closed { Phase::None } else { phase }),
            None => phase,
        }
    }

    /// Whether it opens an alert that is over again before it lasted as long as its hold-down.
    pub fn is_too_brief(&self) -> bool {
        let Some(post) = &self.post else { return false };
        let hold = i64::try_from(self.hold_down.0).unwrap_or(i64::MAX);
        post.apply(Phase::None) == Phase::Resolved && post.openness.longest < hold
    }

    /// How long to wait until the alert has been open as long as its hold-down, milliseconds; `None` where it has, or is
    /// over. `now` on both clocks: an event's time may be wrong, and then its receipt counts. While the partition is `behind`
    /// with reading, the alert's end may be among the records to come, however long ago it began; a former owner may have
    /// seen it and left the alert out.
    pub fn held_down(&self, now: Now, behind: bool) -> Option<u64> {
        let (hold, received) = self.hold_down;
        let openness = self.post.as_ref()?.openness;
        let wanted = i64::try_from(hold).unwrap_or(i64::MAX);
        if openness.longest >= wanted {
            return None;
        }
        let by_event = openness.since?.saturating_add(wanted).saturating_sub(now.unix);
        let by_event = u64::try_from(by_event).unwrap_or(0).max(if behind { BEHIND } else { 0 });
        let by_receipt = received.saturating_add(hold).saturating_sub(now.mono);
        let wait = by_event.min(by_receipt);
        (wait > 0).then_some(wait)
    }

    /// Bytes of originals it still holds.
    pub fn bytes(&self) -> usize {
        self.events.iter().filter(|e| e.raw.is_some()).map(|e| e.bytes).sum()
    }

    /// Position of its first event.
    pub fn lo(&self) -> Option<Position> {
        self.events.first().map(|e| e.position)
    }

    /// Position of its last event.
    pub fn hi(&self) -> Option<Position> {
        self.events.last().map(|e| e.position)
    }
}
