//! What must hold whatever happens, as pure functions over plain values. The simulation and the property tests ask the
//! same functions, so that both mean the same by each promise.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::model::Position;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Broken {
    /// Guarantee 1: one alert, one ticket.
    #[error("{0} tickets of one key are open at once")]
    Tickets(usize),
    /// Guarantee 3: at most one write of a key can still take effect at any time.
    #[error("{0} writes of one key are under way at once")]
    Writes(usize),
    /// Guarantee 2: the watermark passed something unresolved.
    #[error("the watermark {watermark} has passed offset {unresolved}, which is unresolved")]
    Watermark {
        /// The watermark.
        watermark: i64,
        /// Lowest unresolved offset.
        unresolved: i64,
    },
    /// Something was resolved twice within one assignment.
    #[error("{0} was resolved twice")]
    Twice(Position),
    /// Guarantee 4: a note came before an older one.
    #[error("the note of {0} stands behind that of {1}")]
    Order(Position, Position),
    /// Guarantee 4: a note stands twice.
    #[error("the note of {0} stands twice")]
    Note(Position),
    /// Guarantee 3: a write carried older events than one committed before it.
    #[error("a write up to {later} was committed after one up to {earlier}")]
    Regression {
        /// Up to where the earlier commit went.
        earlier: Position,
        /// Up to where the later one went.
        later: Position,
    },
}

/// At most one ticket of a key is open.
///
/// # Errors
/// Where more are.
pub fn one_open_ticket(open: usize) -> Result<(), Broken> {
    if open > 1 { Err(Broken::Tickets(open)) } else { Ok(()) }
}

/// At most one write of a key can still take effect.
///
/// # Errors
/// Where more can.
pub fn one_write(under_way: usize) -> Result<(), Broken> {
    if under_way > 1 { Err(Broken::Writes(under_way)) } else { Ok(()) }
}

/// The watermark stands at or below the lowest unresolved offset.
///
/// # Errors
/// Where it has passed one.
pub fn watermark(watermark: i64, lowest_unresolved: Option<i64>) -> Result<(), Broken> {
    match lowest_unresolved {
        Some(unresolved) if watermark > unresolved => Err(Broken::Watermark { watermark, unresolved }),
        _ => Ok(()),
    }
}

/// Nothing is resolved twice within one assignment.
///
/// # Errors
/// Where something is.
pub fn resolved_once(resolved: &mut BTreeSet<Position>, positions: &[Position]) -> Result<(), Broken> {
    positions.iter().try_for_each(|p| if resolved.insert(*p) { Ok(()) } else { Err(Broken::Twice(*p)) })
}

/// Notes of one key, in the order of their commits over all of its tickets: rising, each once. Parts of one long note
/// count as one and follow each other.
///
/// # Errors
/// Where one stands twice or before an older one.
pub fn notes(positions: impl IntoIterator<Item = Position>) -> Result<(), Broken> {
    let mut last: Option<Position> = None;
    for position in positions {
        if let Some(before) = last {
            if position == before {
                return Err(Broken::Note(position));
            }
            if position < before {
                return Err(Broken::Order(before, position));
            }
        }
        last = Some(position);
    }
    Ok(())
}

/// Writes of a key take effect in the order of their events.
///
/// # Errors
/// Where one went backwards.
pub fn forward(earlier: Option<Position>, later: Position) -> Result<(), Broken> {
    match earlier {
        Some(earlier) if later < earlier => Err(Broken::Regression { earlier, later }),
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
    fn notes_rise_and_stand_once() {
        assert_eq!(notes([at(1), at(2), at(9)]), Ok(()));
        assert_eq!(notes([at(1), at(1)]), Err(Broken::Note(at(1))));
        assert_eq!(notes([at(2), at(1)]), Err(Broken::Order(at(2), at(1))));
    }

    #[test]
    fn a_watermark_may_stand_on_what_is_unresolved_but_not_above() {
        assert_eq!(watermark(5, Some(5)), Ok(()));
        assert_eq!(watermark(5, None), Ok(()));
        assert!(watermark(6, Some(5)).is_err());
    }

    #[test]
    fn resolving_twice_is_seen() {
        let mut resolved = BTreeSet::new();
        assert_eq!(resolved_once(&mut resolved, &[at(1), at(2)]), Ok(()));
        assert_eq!(resolved_once(&mut resolved, &[at(2)]), Err(Broken::Twice(at(2))));
    }
}
