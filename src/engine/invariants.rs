//! The guarantees as pure functions over plain values. The simulation and the property tests call the same functions,
//! so that both check the same definition of each guarantee.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::model::Position;

/// A violated guarantee.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// Guarantee 1: one alert, one ticket.
    #[error("{0} tickets of one key are open at once")]
    OpenTickets(usize),
    /// Guarantee 3: at most one write of a key can still take effect at any time.
    #[error("{0} writes of one key are in flight at once")]
    ConcurrentWrites(usize),
    /// Guarantee 2: the watermark passed an unresolved offset.
    #[error("the watermark {watermark} has passed offset {unresolved}, which is unresolved")]
    Watermark {
        watermark: i64,
        /// The lowest unresolved offset.
        unresolved: i64,
    },
    /// An event was resolved twice within one assignment.
    #[error("{0} was resolved twice")]
    ResolvedTwice(Position),
    /// Guarantee 4: a note was written after a newer one.
    #[error("the note of {1} was written after that of {0}")]
    NoteOrder(Position, Position),
    /// Guarantee 4: a note was written twice.
    #[error("the note of {0} was written twice")]
    DuplicateNote(Position),
    /// Guarantee 3: a write contained older events than one committed before it.
    #[error("a write up to {later} was committed after one up to {earlier}")]
    Regression {
        /// Last position of the write that was committed first.
        earlier: Position,
        /// Last position of the write that was committed after it.
        later: Position,
    },
}

/// At most one ticket of a key is open.
///
/// # Errors
/// If more tickets are open.
pub fn one_open_ticket(open: usize) -> Result<(), Violation> {
    if open > 1 { Err(Violation::OpenTickets(open)) } else { Ok(()) }
}

/// At most one write of a key can still take effect.
///
/// # Errors
/// If more writes can.
pub fn one_unsettled_write(writes: usize) -> Result<(), Violation> {
    if writes > 1 { Err(Violation::ConcurrentWrites(writes)) } else { Ok(()) }
}

/// The watermark is at or below the lowest unresolved offset.
///
/// # Errors
/// If it is above.
pub fn watermark_not_past_unresolved(watermark: i64, lowest_unresolved: Option<i64>) -> Result<(), Violation> {
    match lowest_unresolved {
        Some(unresolved) if watermark > unresolved => Err(Violation::Watermark { watermark, unresolved }),
        _ => Ok(()),
    }
}

/// Nothing is resolved twice within one assignment.
///
/// # Errors
/// If an event is.
pub fn resolved_once(resolved: &mut BTreeSet<Position>, positions: &[Position]) -> Result<(), Violation> {
    positions.iter().try_for_each(|p| if resolved.insert(*p) { Ok(()) } else { Err(Violation::ResolvedTwice(*p)) })
}

/// Notes of one key, in the order of their commits over all of its tickets, have ascending positions, each once. Parts
/// of one long note count as one and follow each other.
///
/// # Errors
/// If a note occurs twice, or after a newer one.
pub fn notes_in_order(positions: impl IntoIterator<Item = Position>) -> Result<(), Violation> {
    let mut last: Option<Position> = None;
    for position in positions {
        if let Some(before) = last {
            if position == before {
                return Err(Violation::DuplicateNote(position));
            }
            if position < before {
                return Err(Violation::NoteOrder(before, position));
            }
        }
        last = Some(position);
    }
    Ok(())
}

/// Writes of a key take effect in the order of their events.
///
/// # Errors
/// If a write contains older events than one before it.
pub fn writes_in_order(earlier: Option<Position>, later: Position) -> Result<(), Violation> {
    match earlier {
        Some(earlier) if later < earlier => Err(Violation::Regression { earlier, later }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Position {
        Position::new(0, offset, 0)
    }

    #[test]
    fn notes_ascend_and_occur_once() {
        assert_eq!(notes_in_order([at(1), at(2), at(9)]), Ok(()));
        assert_eq!(notes_in_order([at(1), at(1)]), Err(Violation::DuplicateNote(at(1))));
        assert_eq!(notes_in_order([at(2), at(1)]), Err(Violation::NoteOrder(at(2), at(1))));
    }

    #[test]
    fn a_watermark_may_equal_an_unresolved_offset_but_not_exceed_it() {
        assert_eq!(watermark_not_past_unresolved(5, Some(5)), Ok(()));
        assert_eq!(watermark_not_past_unresolved(5, None), Ok(()));
        assert!(watermark_not_past_unresolved(6, Some(5)).is_err());
    }

    #[test]
    fn resolving_twice_is_a_violation() {
        let mut resolved = BTreeSet::new();
        assert_eq!(resolved_once(&mut resolved, &[at(1), at(2)]), Ok(()));
        assert_eq!(resolved_once(&mut resolved, &[at(2)]), Err(Violation::ResolvedTwice(at(2))));
    }
}
