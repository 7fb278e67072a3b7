//! Whose turn is next: the order in which lanes draw turns and permits.
//!
//! What is urgent is an alert that has no ticket yet or whose ticket changes its state; plain updates of a ticket are
//! not. A lane whose urgent events have the highest priority is *critical*: it is before all others, is claimed ahead
//! however many are claimed already, and so is the next request that is sent. The others are in the order of
//! their age, in which each step of urgency counts as some time of waiting: so the more urgent one goes first, and
//! nothing starves, because whatever came long enough ago is before everything that comes now. Where critical lanes
//! follow each other without a break, one of the others has a turn now and then ([`Turns`]).
//!
//! The order reaches as far as what has been read: records that are still in Kafka because the budget is full are
//! behind everything.

use crate::model::{HttpMethod, Phase};

use super::fold::Queue;

/// The priority that is critical; larger numbers are less urgent.
const CRITICAL: u8 = 0;

/// Plain updates stand so many steps behind what is urgent at the same priority.
const PLAIN: u64 = 3;

/// Steps that count at most: priorities beyond are equal.
const MOST_STEPS: u64 = 8;

/// Critical lanes that have turns in a row while others wait.
const IN_A_ROW: u32 = 7;

/// A lane's place in line; the lowest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Critical lanes come first.
    line: Line,
    /// When it was received, plus what its urgency lacks; milliseconds on the mono clock.
    due: u64,
    /// Keeps tickets apart.
    sequence: u64,
}

/// The two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Line {
    Critical,
    Others,
}

/// How urgent what waits in a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Urgency {
    /// 0 is the most urgent.
    pub priority: u8,
    /// Whether a ticket is made or its state changes.
    pub moves: bool,
    /// When the oldest of it was received, on the mono clock.
    pub since: u64,
}

impl Urgency {
    /// Of what is held and what is queued for a ticket in `phase`; `None` where nothing waits.
    pub fn of(held: &Queue, queued: &Queue, mut phase: Phase) -> Option<Self> {
        let (first, second) = (held.urgency(), queued.urgency());
        let (priority, since) = first.or(second)?;
        let priority = second.map_or(priority, |(later, _)| priority.min(later));
        let moves = held.moves(&mut phase) | queued.moves(&mut phase);
        Some(Self { priority, moves, since })
    }

    /// Its place in line. `ageing`: milliseconds of waiting that make up for one step of urgency.
    pub fn ticket(self, sequence: u64, ageing: u64) -> Ticket {
        let line = if self.moves && self.priority == CRITICAL { Line::Critical } else { Line::Others };
        let steps = (u64::from(self.priority) + if self.moves { 0 } else { PLAIN }).min(MOST_STEPS);
        Ticket { line, due: self.since.saturating_add(steps.saturating_mul(ageing)), sequence }
    }
}

impl Ticket {
    /// The last place: of a lane in which nothing waits.
    pub fn last(now: u64, sequence: u64) -> Self {
        Self { line: Line::Others, due: now, sequence }
    }

    /// All tickets of critical lanes, or of the others.
    pub fn line(critical: bool) -> std::ops::RangeInclusive<Self> {
        let line = if critical { Line::Critical } else { Line::Others };
        Self { line, due: 0, sequence: 0 }..=Self { line, due: u64::MAX, sequence: u64::MAX }
    }

    /// True where it must not wait for any other.
    pub fn is_critical(&self) -> bool {
        self.line == Line::Critical
    }

    /// True where it has a better place than `other`, the sequence left aside.
    pub fn is_before(&self, other: &Self) -> bool {
        (self.line, self.due) < (other.line, other.due)
    }
}

/// A lane's place among those that want a permit; the lowest goes first. Of lanes of one line those that look come
/// first, since looking ends a doubt, then those that read, then those that write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Want {
    line: Line,
    /// What for.
    pub purpose: Purpose,
    /// Its ticket.
    pub ticket: Ticket,
    /// How the request will be made.
    pub method: HttpMethod,
}

/// What a permit is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To look whether a write in doubt is there.
    Look,
    /// To read before writing.
    Read,
    /// To write, which needs a lease.
    Write,
}

impl Want {
    /// With this ticket.
    pub fn new(ticket: Ticket, purpose: Purpose, method: HttpMethod) -> Self {
        Self { line: ticket.line, purpose, ticket, method }
    }

    /// The same with a better place in line.
    pub fn with(self, ticket: Ticket) -> Self {
        Self { line: ticket.line, ticket, ..self }
    }
}

/// Whose line is next where both wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turns {
    critical: u32,
}

impl Turns {
    /// Whether one of the others is due although critical lanes wait.
    pub fn others_are_due(&self) -> bool {
        self.critical >= IN_A_ROW
    }

    /// A lane has had its turn.
    pub fn had(&mut self, ticket: &Ticket) {
        self.critical = if ticket.is_critical() { self.critical + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGEING: u64 = 60_000;

    fn ticket(priority: u8, moves: bool, since: u64) -> Ticket {
        Urgency { priority, moves, since }.ticket(since, AGEING)
    }

    #[test]
    fn a_critical_alert_without_a_ticket_is_before_all_and_its_plain_update_is_not() {
        let old_warning = ticket(2, true, 0);
        assert!(ticket(0, true, 3_600_000).is_before(&old_warning));
        assert!(old_warning.is_before(&ticket(0, false, 3_600_000)));
        assert!(!ticket(0, false, 3_600_000).is_critical());
    }

    #[test]
    fn the_more_urgent_goes_first_and_waiting_makes_up_for_it() {
        let plain = ticket(3, false, 0);
        assert!(ticket(3, true, 1_000).is_before(&plain), "a change of state before a plain update");
        assert!(ticket(1, true, 1_000).is_before(&ticket(2, true, 0)), "a higher priority before a lower one");
        assert!(plain.is_before(&ticket(1, true, 6 * AGEING)), "nothing starves");
        assert!(ticket(u8::MAX, false, 0).is_before(&ticket(1, true, 8 * AGEING)), "whatever its priority is");
    }

    #[test]
    fn the_others_have_a_turn_after_seven_critical_ones_in_a_row() {
        let mut turns = Turns::default();
        for at in 0..7 {
            assert!(!turns.others_are_due(), "{at}");
            turns.had(&ticket(0, true, at));
        }
        assert!(turns.others_are_due());
        turns.had(&ticket(2, true, 0));
        assert!(!turns.others_are_due());
    }
}
