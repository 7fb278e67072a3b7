//! What decides which of two events of a key is the newer one (protocol rule 8).

use serde::{Deserialize, Serialize};

use super::Position;

/// The place of an event in the order of its key's events: its place in the log or, where a route is configured so,
/// its publisher's time. Two places, or two times, can be compared; a place says nothing about a time.
///
/// Stored as one number: 0 is unknown, a place is positive, and a time is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventOrder(i64);

/// Which order a route's events have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventOrdering {
    /// That of the log.
    #[default]
    Log,
    /// That of their `occurred_at`.
    OccurredAt,
}

impl EventOrdering {
    /// The order of an event by this rule. `occurred_at` in Unix milliseconds.
    pub fn order(self, position: Position, occurred_at: i64) -> EventOrder {
        match self {
            Self::Log => EventOrder::of_place(position),
            Self::OccurredAt => EventOrder::of_time(occurred_at),
        }
    }
}

/// Bits for the index within a record. Higher indexes count as the highest.
const INDEX_BITS: u32 = 16;

impl EventOrder {
    /// Before every event.
    pub const UNKNOWN: Self = Self(0);

    /// The order of the event at this position. Offsets up to 2^47 can be told apart.
    pub fn of_place(position: Position) -> Self {
        let highest = (1_i64 << INDEX_BITS) - 1;
        let index = i64::from(position.index).min(highest);
        let offset = position.offset.clamp(0, (i64::MAX >> INDEX_BITS) - 1);
        Self((offset << INDEX_BITS | index) + 1)
    }

    /// The order of an event of this time, in Unix milliseconds.
    pub fn of_time(occurred_at: i64) -> Self {
        Self(-occurred_at.max(1))
    }

    /// True if this is the order by time.
    pub fn is_time(self) -> bool {
        self.0 < 0
    }

    /// True if nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.0 == 0
    }

    /// True if this event is certainly older than the other.
    pub fn is_before(self, other: Self) -> bool {
        self.0.signum() == other.0.signum() && self.0.unsigned_abs() < other.0.unsigned_abs()
    }

    /// True if an event of this order may be the newest one applied, where an entry says that this is `applied`. A place
    /// that is later may belong to an event that changed nothing; an event of a later time was skipped.
    pub fn may_be_newest(self, applied: Self) -> bool {
        if self.is_time() { self == applied } else { !self.is_before(applied) }
    }

    /// The newer one of two; if they can't be compared, `later`, which arrived later.
    #[must_use]
    pub fn newest(self, later: Self) -> Self {
        if later.is_unknown() || later.is_before(self) { self } else { later }
    }

    /// The number that stands for it.
    pub fn to_number(self) -> i64 {
        self.0
    }

    /// What [`EventOrder::to_number`] returned.
    pub fn from_number(number: i64) -> Self {
        Self(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_times_are_compared_among_themselves() {
        let place = |offset, index| EventOrder::of_place(Position::new(0, offset, index));
        assert!(place(3, 1).is_before(place(3, 2)) && place(3, u32::MAX).is_before(place(4, 0)));
        assert!(!place(3, 1).is_before(place(3, 1)));
        let time = EventOrder::of_time;
        assert!(time(1_000).is_before(time(1_001)) && !time(1_001).is_before(time(1_000)));
        for (one, other) in [(place(3, 1), time(1)), (EventOrder::UNKNOWN, time(1)), (EventOrder::UNKNOWN, place(0, 0))]
        {
            assert!(!one.is_before(other) && !other.is_before(one));
        }
    }

    #[test]
    fn the_newest_is_the_later_one_where_nothing_else_is_known() {
        let (place, time) = (EventOrder::of_place(Position::new(0, 9, 0)), EventOrder::of_time(5));
        assert_eq!((place.newest(time), time.newest(place)), (time, place));
        assert_eq!((place.newest(EventOrder::UNKNOWN), EventOrder::UNKNOWN.newest(place)), (place, place));
        assert_eq!(time.newest(EventOrder::of_time(4)), time);
    }
}
