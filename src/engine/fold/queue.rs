//! The folded queue of a lane: segments in order, and which of them may be folded into one.
//!
//! Guarantees that folding never changes the order of events, and that what must stay apart does: events of different
//! origins, what a former owner had claimed and what came later, notes beyond the size of one write.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Contribution, REMEMBERED_IDS, Segment};
use crate::model::{Intent, Phase, Position, Record, RecordOrigin};

/// What bounds a segment.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The reopen window, milliseconds.
    pub window: i64,
    /// Most characters of notes in one write. Notes beyond it begin a new segment, because what a write says of
    /// fields and state must not be newer than the last event it carries in full. A note that is longer by itself
    /// stands alone at the end of its segment.
    pub notes: usize,
    /// Events up to here are not folded with later ones: a former owner claimed them, and if it wrote a dead letter of
    /// them, what comes of them must not change by what came later.
    pub apart: Option<Position>,
}

impl Bounds {
    /// Whether a segment may take in what comes from `origin`, begins at `lo`, has so many characters of notes, and first
    /// opens a ticket at `opens_at`.
    fn allow(
        &self,
        segment: &Segment,
        origin: RecordOrigin,
        lo: Option<Position>,
        note: usize,
        opens_at: Option<i64>,
    ) -> bool {
        let hi = segment.hi();
        let together = self.apart.is_none() || hi.is_none() || (hi <= self.apart) == (lo <= self.apart);
        together
            && segment.origin.folds_with(origin)
            && segment.refusal.is_none()
            && segment.has_room(note, self.notes)
            && opens_at.is_none_or(|at| segment.takes(at, self.window))
    }
}

/// The folded queue of a lane.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    segments: VecDeque<Segment>,
    /// Native ids of the last events that came, oldest first.
    ids: VecDeque<u64>,
}

impl Queue {
    /// Folds one more intent in. Returns the bytes of an earlier original that it superseded.
    pub fn push(
        &mut self,
        intent: Intent,
        origin: RecordOrigin,
        (raw, bytes): (&Arc<Record>, usize),
        bounds: Bounds,
        now: u64,
    ) -> usize {
        self.ids.extend(intent.event_id);
        self.forget_ids();
        let note = intent.note.as_ref().map_or(0, |n| n.chars().count());
        let fits = self.segments.back().is_some_and(|s| {
            let opens_at = intent.action.opens().then_some(intent.occurred_at);
            bounds.allow(s, origin, Some(intent.position), note, opens_at)
        });
        if !fits {
            self.segments.push_back(Segment::empty(origin, now));
        }
        self.segments.back_mut().map_or(0, |last| last.push(intent, raw, bytes, now))
    }

    /// An event that can't be mapped waits behind what came before it.
    pub fn push_refused(
        &mut self,
        position: Position,
        origin: RecordOrigin,
        (raw, bytes): (&Arc<Record>, usize),
        refusal: (&'static str, String),
        now: u64,
    ) {
        let mut refused = Segment::empty(origin, now);
        let (raw, columns) = (Some(Arc::clone(raw)), Vec::new());
        refused.events.push(Contribution { position, raw, bytes, event_id: None, pinned: true, columns });
        refused.refusal = Some(Box::new(refusal));
        self.segments.push_back(refused);
    }

    /// The end of a redrive waits behind what came before it.
    pub fn push_release(&mut self, origin: RecordOrigin, position: Position, now: u64) {
        let mut release = Segment::empty(origin, now);
        let (raw, bytes, columns) = (None, 0, Vec::new());
        release.events.push(Contribution { position, raw, bytes, event_id: None, pinned: true, columns });
        self.segments.push_back(release);
    }

    fn forget_ids(&mut self) {
        let forget = self.ids.len().saturating_sub(REMEMBERED_IDS);
        self.ids.drain(..forget);
    }

    /// Takes the first segment.
    pub fn pop(&mut self) -> Option<Segment> {
        self.segments.pop_front()
    }

    /// Looks at the first segment.
    pub fn first(&self) -> Option<&Segment> {
        self.segments.front()
    }

    /// Puts a segment that was not applied back in front and folds it with what has come since.
    pub fn put_back(&mut self, mut segment: Segment, bounds: Bounds) {
        let joins = match self.segments.front() {
            Some(next) => {
                // What is left without events is the first part of a long note that the next begins with.
                segment.events.is_empty()
                    || next.refusal.is_none()
                        && bounds.allow(&segment, next.origin, next.lo(), next.note_size, next.first_open_at)
            }
            None => false,
        };
        if joins && let Some(next) = self.segments.pop_front() {
            segment.then(next);
        }
        self.segments.push_front(segment);
    }

    /// Puts a segment back in front as it is, because what follows must not be folded into it.
    pub fn put_back_apart(&mut self, segment: Segment) {
        self.segments.push_front(segment);
    }

    /// Puts a whole queue back in front.
    pub fn put_back_all(&mut self, earlier: Queue, bounds: Bounds) {
        for segment in earlier.segments.into_iter().rev() {
            self.put_back(segment, bounds);
        }
        let later = std::mem::replace(&mut self.ids, earlier.ids);
        self.ids.extend(later);
        self.forget_ids();
    }

    /// Notes of which a former owner wrote some parts already go on after them.
    pub fn set_parts_done(&mut self, position: Position, parts: u32) {
        for segment in &mut self.segments {
            let post = segment.post.as_mut().map(|p| &mut p.notes);
            for note in segment.pre.notes.iter_mut().chain(post.into_iter().flatten()) {
                if note.position == position {
                    note.parts_done = parts;
                }
            }
        }
    }

    /// True where nothing waits.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// All events that wait, in order.
    pub fn events(&self) -> impl Iterator<Item = &Contribution> {
        self.segments.iter().flat_map(|s| s.events.iter())
    }

    /// `occurred_at` of the newest state-bearing event that waits and will count. What comes before the first opening
    /// event counts only where there is a `ticket` to apply it to; `ticket` becomes true where the queue makes one.
    /// Events of some origins may not count at all.
    pub fn newest(&self, ticket: &mut bool, counts: impl Fn(RecordOrigin) -> bool) -> Option<i64> {
        let mut newest = None;
        for segment in self.segments.iter().filter(|segment| counts(segment.origin)) {
            if *ticket {
                newest = newest.max(Some(segment.pre.occurred_at));
            }
            if let Some(post) = &segment.post {
                newest = newest.max(Some(post.occurred_at));
                *ticket = true;
            }
        }
        newest
    }

    /// True where an event with this id is among the last that came.
    pub fn has_event(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    /// True where a redriven event with this id waits.
    pub fn has_redriven(&self, id: u64) -> bool {
        let redriven = self.segments.iter().filter(|segment| segment.origin.redrive().is_some());
        redriven.flat_map(|segment| &segment.events).any(|event| event.event_id == Some(id))
    }

    /// Where its first events come from.
    pub fn origin(&self) -> RecordOrigin {
        self.segments.front().map_or(RecordOrigin::Source, |segment| segment.origin)
    }

    /// Takes everything.
    pub fn take(&mut self) -> Queue {
        std::mem::take(self)
    }

    /// The segments, oldest first.
    pub fn into_segments(self) -> VecDeque<Segment> {
        self.segments
    }

    /// Bytes of originals that it holds.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// Whether it makes a ticket or changes the state of one that is in `phase`, which becomes the phase after it.
    pub fn moves(&self, phase: &mut Phase) -> bool {
        let mut moves = false;
        for segment in &self.segments {
            let before = *phase;
            *phase = segment.phase_after(before);
            moves |= *phase != before;
        }
        moves
    }

    /// Most urgent priority and earliest receipt among what waits.
    pub fn urgency(&self) -> Option<(u8, u64)> {
        let priority = self.segments.iter().map(|s| s.priority).min()?;
        self.segments.front().map(|s| (priority, s.received_at))
    }
}
