//! The order in which lanes get their turns and permits.
//!
//! An alert that has no ticket yet, or whose ticket changes its state, is *urgent*; plain updates of a ticket are not.
//! A lane with urgent events of the highest priority is *critical*: it comes before all others, is claimed even if the
//! claim window is full, and its request is the next one sent. Within a class, lanes are ordered by age, in which each
//! step of urgency counts as some waiting time: an alert without a ticket goes before a change of state, and that before
//! a plain update. So more urgent lanes go first, and none starves, because events that arrived long enough ago precede
//! everything that arrives now. If critical lanes follow each other without a break, one of the others gets a turn now
//! and then ([`CriticalStreak`]).
//!
//! The order covers only what was read: records that are still in Kafka because the budget is used up come later.

use crate::model::{HttpMethod, Phase};

use super::fold::Queue;

/// The priority that makes urgent events critical. Larger numbers are less urgent.
const CRITICAL_PRIORITY: u8 = 0;

/// Steps of urgency between an alert without a ticket and a change of state of the same priority.
const STATE_CHANGE_STEPS: u64 = 1;

/// Steps of urgency between an alert without a ticket and plain updates of the same priority.
const PLAIN_UPDATE_STEPS: u64 = 4;

/// Maximum number of steps that count: lower priorities are equal.
const MAX_STEPS: u64 = 9;

/// Number of critical lanes that get a turn in a row while others wait.
const MAX_CRITICAL_IN_A_ROW: u32 = 7;

/// A lane's rank among lanes that wait; the lowest value goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneRank {
    /// Critical lanes come first.
    class: LaneClass,
    /// Time of receipt plus the waiting time that its steps of urgency count as; milliseconds on the mono clock.
    due: u64,
    /// Makes ranks unique.
    sequence: u64,
    /// True if the alert has no ticket yet.
    needs_ticket: bool,
}

/// Whether a lane is critical. Critical lanes have a claim window of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneClass {
    /// The lane has urgent events of the highest priority.
    Critical,
    /// Any other lane, urgent or not.
    #[default]
    Standard,
}

/// How urgent the events of a lane are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneUrgency {
    /// The highest priority among the events; 0 is the most urgent.
    pub priority: u8,
    /// True if the events create a ticket or change its state.
    pub changes_state: bool,
    /// True if there is no ticket yet that could show the alert.
    pub needs_ticket: bool,
    /// When the oldest event was received, on the mono clock.
    pub received_at: u64,
}

impl LaneUrgency {
    /// The urgency of the events in flight and those in the queue, for a ticket in `phase`; `None` if there are none.
    pub fn of(in_flight: &Queue, queued: &Queue, mut phase: Phase) -> Option<Self> {
        let (first, second) = (in_flight.priority_and_receipt(), queued.priority_and_receipt());
        let (priority, received_at) = first.or(second)?;
        let priority = second.map_or(priority, |(later, _)| priority.min(later));
        let without_ticket = matches!(phase, Phase::None | Phase::Closed);
        let changes_state = in_flight.changes_state(&mut phase) | queued.changes_state(&mut phase);
        Some(Self { priority, changes_state, needs_ticket: without_ticket && changes_state, received_at })
    }

    /// The rank of the lane. `aging_step`: milliseconds of waiting that make up for one step of urgency.
    pub fn rank(self, sequence: u64, aging_step: u64) -> LaneRank {
        let critical = self.changes_state && self.priority == CRITICAL_PRIORITY;
        let class = if critical { LaneClass::Critical } else { LaneClass::Standard };
        let steps = match self {
            Self { needs_ticket: true, .. } => 0,
            Self { changes_state: true, .. } => STATE_CHANGE_STEPS,
            _ => PLAIN_UPDATE_STEPS,
        };
        let steps = (u64::from(self.priority) + steps).min(MAX_STEPS);
        let due = self.received_at.saturating_add(steps.saturating_mul(aging_step));
        LaneRank { class, due, sequence, needs_ticket: self.needs_ticket }
    }
}

impl LaneRank {
    /// The rank of a lane in which nothing waits: the last of those that exist now.
    pub fn for_empty_lane(now: u64, sequence: u64) -> Self {
        Self { class: LaneClass::Standard, due: now, sequence, needs_ticket: false }
    }

    /// The range of all ranks of a class.
    pub fn range(class: LaneClass) -> std::ops::RangeInclusive<Self> {
        let bound = |value, needs_ticket| Self { class, due: value, sequence: value, needs_ticket };
        bound(0, false)..=bound(u64::MAX, true)
    }

    /// The class of the lane.
    pub fn class(&self) -> LaneClass {
        self.class
    }

    /// True if the lane is critical.
    pub fn is_critical(&self) -> bool {
        self.class == LaneClass::Critical
    }

    /// True if the lane is critical because its alert has no ticket yet.
    pub fn is_critical_without_ticket(&self) -> bool {
        self.is_critical() && self.needs_ticket
    }

    /// True if this rank comes before `other`, regardless of the sequence.
    pub fn precedes(&self, other: &Self) -> bool {
        (self.class, self.due) < (other.class, other.due)
    }
}

/// A lane's rank among lanes that wait for a permit; the lowest value goes first. Within a class, verifications come
/// first, because they settle ambiguous writes, then reads, then writes. The first ticket of a critical alert precedes
/// them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitRank {
    class: LaneClass,
    pub purpose: RequestPurpose,
    pub lane_rank: LaneRank,
    /// The method of the request.
    pub method: HttpMethod,
}

/// What a permit is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestPurpose {
    /// To create the ticket of a critical alert, which needs a lease.
    CriticalTicket,
    /// To find out whether an ambiguous write was applied.
    Verify,
    /// To read before writing.
    Read,
    /// To write, which needs a lease.
    Write,
}

impl RequestPurpose {
    /// True if the request is a write.
    pub fn is_write(self) -> bool {
        matches!(self, Self::CriticalTicket | Self::Write)
    }
}

impl PermitRank {
    /// The rank of a lane of this rank for a permit.
    pub fn new(lane_rank: LaneRank, purpose: RequestPurpose, method: HttpMethod) -> Self {
        Self { class: lane_rank.class, purpose, lane_rank, method }
    }

    /// The same with another lane rank.
    pub fn with(self, lane_rank: LaneRank) -> Self {
        Self { class: lane_rank.class, lane_rank, ..self }
    }
}

/// Counts the critical lanes that got a turn in a row, so that other lanes get one too.
#[derive(Debug, Clone, Copy, Default)]
pub struct CriticalStreak {
    critical: u32,
}

impl CriticalStreak {
    /// True if another lane is due for a turn although critical lanes wait.
    pub fn other_lane_is_due(&self) -> bool {
        self.critical >= MAX_CRITICAL_IN_A_ROW
    }

    /// Records that a lane of this rank got a turn.
    pub fn record(&mut self, rank: &LaneRank) {
        self.critical = if rank.is_critical() { self.critical + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGING_STEP: u64 = 60_000;

    fn rank(priority: u8, changes_state: bool, received_at: u64) -> LaneRank {
        LaneUrgency { priority, changes_state, needs_ticket: false, received_at }.rank(received_at, AGING_STEP)
    }

    #[test]
    fn a_critical_alert_without_a_ticket_precedes_all_others_and_its_plain_update_does_not() {
        let old_warning = rank(2, true, 0);
        assert!(rank(0, true, 3_600_000).precedes(&old_warning));
        assert!(old_warning.precedes(&rank(0, false, 3_600_000)));
        assert!(!rank(0, false, 3_600_000).is_critical());
    }

    #[test]
    fn more_urgent_lanes_go_first_and_waiting_makes_up_for_urgency() {
        let plain = rank(3, false, 0);
        assert!(rank(3, true, 1_000).precedes(&plain), "a change of state before a plain update");
        assert!(rank(1, true, 1_000).precedes(&rank(2, true, 0)), "a higher priority before a lower one");
        assert!(plain.precedes(&rank(1, true, 6 * AGING_STEP)), "no lane starves");
        assert!(rank(u8::MAX, false, 0).precedes(&rank(1, true, 8 * AGING_STEP)), "of any priority");
    }

    #[test]
    fn an_alert_without_a_ticket_goes_before_a_change_of_state_of_the_same_priority() {
        for priority in [0, 1, 3] {
            let urgency = LaneUrgency { priority, changes_state: true, needs_ticket: true, received_at: 50_000 };
            let new = urgency.rank(50_000, AGING_STEP);
            assert!(new.precedes(&rank(priority, true, 0)), "priority {priority}");
            assert!(
                rank(priority, true, 0).precedes(&LaneUrgency { received_at: 60_001, ..urgency }.rank(1, AGING_STEP))
            );
        }
        let create = PermitRank::new(rank(0, true, 1), RequestPurpose::CriticalTicket, HttpMethod::Post);
        assert!(create < PermitRank::new(rank(0, true, 0), RequestPurpose::Read, HttpMethod::Get));
    }

    #[test]
    fn another_lane_gets_a_turn_after_seven_critical_ones_in_a_row() {
        let mut streak = CriticalStreak::default();
        for at in 0..7 {
            assert!(!streak.other_lane_is_due(), "{at}");
            streak.record(&rank(0, true, at));
        }
        assert!(streak.other_lane_is_due());
        streak.record(&rank(2, true, 0));
        assert!(!streak.other_lane_is_due());
    }
}
