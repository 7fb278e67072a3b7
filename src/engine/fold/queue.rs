//! The folded queue of a lane: its segments in order, and the rules for which may be folded into one.
//!
//! Guarantees: folding never changes the order of events, and never merges events of different origins, events that a
//! previous owner claimed with later ones, or more notes than fit into one write.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{REMEMBERED_IDS, Segment, SegmentEvent};
use crate::model::{EventOrder, Intent, Phase, Position, Record, RecordOrigin};

/// Why an event cannot be decoded or mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidEvent {
    /// Stable code.
    pub code: &'static str,
    /// What failed, where, and what to do.
    pub reason: String,
}

/// The limits of a segment.
#[derive(Debug, Clone, Copy)]
pub struct FoldLimits {
    /// Milliseconds.
    pub reopen_window: i64,
    /// Maximum number of characters of notes in one write. Further notes start a new segment, because the fields and
    /// the state of a write must not be newer than the last event that it contains completely. A note that is longer by
    /// itself is the only one at the end of its segment.
    pub max_note_chars: usize,
    /// Events up to this position are not folded with later ones: a previous owner claimed them, and may have written
    /// dead letters of them, so later events must not change their result.
    pub claimed_up_to: Option<Position>,
    /// Opening events begin a segment of their own: the lane's ticket is being read for those that wait, and what it
    /// was before an opening event does not count for it.
    pub opens_apart: bool,
}

impl FoldLimits {
    /// True if a segment may take in events of `origin` that begin at `first`, have `note_chars` characters of notes,
    /// and first open a ticket at `opens_at`.
    fn allows(
        &self,
        segment: &Segment,
        origin: RecordOrigin,
        first: Option<Position>,
        note_chars: usize,
        opens_at: Option<i64>,
    ) -> bool {
        let last = segment.last_position();
        let same_side = self.claimed_up_to.is_none()
            || last.is_none()
            || (last <= self.claimed_up_to) == (first <= self.claimed_up_to);
        same_side
            && segment.origin.folds_with(origin)
            && segment.invalid.is_none()
            && segment.has_note_room(note_chars, self.max_note_chars)
            && opens_at.is_none_or(|at| !self.opens_apart && segment.accepts_open(at, self.reopen_window))
    }
}

/// The folded queue of a lane.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    segments: VecDeque<Segment>,
    /// Native ids of the last events received, oldest first.
    recent_ids: VecDeque<u64>,
}

impl Queue {
    /// Folds in one more intent. Returns the bytes of an earlier record that it superseded.
    pub fn push(
        &mut self,
        intent: Intent,
        origin: RecordOrigin,
        (raw, bytes): (&Arc<Record>, usize),
        limits: FoldLimits,
        now: u64,
    ) -> usize {
        self.recent_ids.extend(intent.event_id);
        self.trim_recent_ids();
        let note_chars = intent.note.as_ref().map_or(0, |n| n.chars().count());
        let fits = self.segments.back().is_some_and(|s| {
            let opens_at = intent.action.opens().then_some(intent.occurred_at);
            limits.allows(s, origin, Some(intent.position), note_chars, opens_at)
        });
        if !fits {
            self.segments.push_back(Segment::empty(origin, now));
        }
        self.segments.back_mut().map_or(0, |last| last.push(intent, raw, bytes, now))
    }

    /// Appends an event that cannot be decoded or mapped.
    pub fn push_invalid(
        &mut self,
        position: Position,
        origin: RecordOrigin,
        (raw, bytes): (&Arc<Record>, usize),
        invalid: InvalidEvent,
        now: u64,
    ) {
        let mut segment = Segment::empty(origin, now);
        let (raw, columns) = (Some(Arc::clone(raw)), Vec::new());
        segment.events.push(SegmentEvent { position, raw, bytes, event_id: None, pinned: true, columns });
        segment.invalid = Some(Box::new(invalid));
        self.segments.push_back(segment);
    }

    /// Appends the end of a redrive.
    pub fn push_release(&mut self, origin: RecordOrigin, position: Position, now: u64) {
        let mut release = Segment::empty(origin, now);
        let (raw, bytes, columns) = (None, 0, Vec::new());
        release.events.push(SegmentEvent { position, raw, bytes, event_id: None, pinned: true, columns });
        self.segments.push_back(release);
    }

    fn trim_recent_ids(&mut self) {
        let excess = self.recent_ids.len().saturating_sub(REMEMBERED_IDS);
        self.recent_ids.drain(..excess);
    }

    /// Removes the first segment and returns it.
    pub fn pop(&mut self) -> Option<Segment> {
        self.segments.pop_front()
    }

    /// The first segment.
    pub fn first(&self) -> Option<&Segment> {
        self.segments.front()
    }

    /// Returns a segment that was not applied to the front, and folds it with the events that arrived since.
    pub fn requeue(&mut self, mut segment: Segment, limits: FoldLimits) {
        let joins = match self.segments.front() {
            Some(next) => {
                // A segment without events is the first part of a long note, with which the next segment begins.
                segment.events.is_empty()
                    || next.invalid.is_none()
                        && limits.allows(
                            &segment,
                            next.origin,
                            next.first_position(),
                            next.note_chars,
                            next.first_open_at,
                        )
            }
            None => false,
        };
        if joins && let Some(next) = self.segments.pop_front() {
            segment.merge(next);
        }
        self.segments.push_front(segment);
    }

    /// Returns a segment to the front as it is, if the next one must not be folded into it.
    pub fn requeue_unfolded(&mut self, segment: Segment) {
        self.segments.push_front(segment);
    }

    /// Returns all segments of a queue to the front, and folds each with the next where allowed.
    pub fn requeue_all(&mut self, earlier: Queue, limits: FoldLimits) {
        for segment in earlier.segments.into_iter().rev() {
            self.requeue(segment, limits);
        }
        let later = std::mem::replace(&mut self.recent_ids, earlier.recent_ids);
        self.recent_ids.extend(later);
        self.trim_recent_ids();
    }

    /// Sets the number of already written parts of the note at this position.
    pub fn set_written_parts(&mut self, position: Position, parts: u32) {
        for segment in &mut self.segments {
            let from_open = segment.from_open.as_mut().map(|p| &mut p.notes);
            for note in segment.before_open.notes.iter_mut().chain(from_open.into_iter().flatten()) {
                if note.position == position {
                    note.parts_written = parts;
                }
            }
        }
    }

    /// True if the queue has no segments.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// All events, in order.
    pub fn events(&self) -> impl Iterator<Item = &SegmentEvent> {
        self.segments.iter().flat_map(|s| s.events.iter())
    }

    /// The newest state-affecting event that will be applied. Events before the first opening one count only if there is
    /// a `ticket` to apply them to; `ticket` becomes true where the queue creates one. Only events of origins for which
    /// `counts` returns true count.
    pub fn newest_order(&self, ticket: &mut bool, counts: impl Fn(RecordOrigin) -> bool) -> EventOrder {
        let mut newest = EventOrder::UNKNOWN;
        for segment in self.segments.iter().filter(|segment| counts(segment.origin)) {
            if *ticket {
                newest = newest.newest(segment.before_open.order);
            }
            if let Some(from_open) = &segment.from_open {
                newest = newest.newest(from_open.order);
                *ticket = true;
            }
        }
        newest
    }

    /// True if an event with this id is among the last ones received.
    pub fn has_recent_id(&self, id: u64) -> bool {
        self.recent_ids.contains(&id)
    }

    /// True if the queue has a redriven event with this id.
    pub fn has_redriven_id(&self, id: u64) -> bool {
        let redriven = self.segments.iter().filter(|segment| segment.origin.redrive().is_some());
        redriven.flat_map(|segment| &segment.events).any(|event| event.event_id == Some(id))
    }

    /// The origin of the first segment; the source if there is none.
    pub fn first_origin(&self) -> RecordOrigin {
        self.segments.front().map_or(RecordOrigin::Source, |segment| segment.origin)
    }

    /// Removes all segments and returns them.
    pub fn take(&mut self) -> Queue {
        std::mem::take(self)
    }

    /// The segments, oldest first.
    pub fn into_segments(self) -> VecDeque<Segment> {
        self.segments
    }

    /// Bytes of the original records that it holds.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// True if the queue creates a ticket, or changes the state of one in `phase`, which is set to the phase
    /// afterwards.
    pub fn changes_state(&self, phase: &mut Phase) -> bool {
        let mut changes_state = false;
        for segment in &self.segments {
            let before = *phase;
            *phase = segment.phase_after(before);
            changes_state |= *phase != before;
        }
        changes_state
    }

    /// The highest priority, and when the first event was received, on the mono clock; `None` if the queue is empty.
    pub fn priority_and_receipt(&self) -> Option<(u8, u64)> {
        let priority = self.segments.iter().map(|s| s.priority).min()?;
        self.segments.front().map(|s| (priority, s.received_at))
    }
}
