//! The state of an assigned partition, which decides whether a received record is the next one.
//!
//! After a failure, a partition is restarted within its epoch while records of the earlier request may still arrive. So
//! records count only after the fetch of the last request has started, and each offset counts once.

use super::step::Memory;
use crate::model::Epoch;

/// An assigned partition.
pub struct PartitionState {
    pub epoch: Epoch,
    /// The offset after the last committed record; `None` until it is known.
    pub next: Option<i64>,
    /// Not read until a user acts.
    pub is_blocked: bool,
    /// The step's memory of the partition, including the records of the batch; loaded together with `next`.
    pub memory: Memory,
    /// The fetch of the last request has started.
    is_fetching: bool,
    /// The lowest offset that was not accepted yet.
    next_record: i64,
}

impl PartitionState {
    /// A newly assigned partition.
    pub fn new(epoch: Epoch) -> Self {
        let memory = Memory::default();
        Self { epoch, next: None, is_blocked: false, memory, is_fetching: false, next_record: 0 }
    }

    /// Starts the partition at an offset.
    pub fn start(&mut self, from: i64, memory: Memory) {
        (self.next, self.memory, self.is_fetching, self.next_record) = (Some(from), memory, false, from);
    }

    /// Stops the partition until it is started again.
    pub fn reset(&mut self) {
        (self.next, self.memory, self.is_fetching) = (None, Memory::default(), false);
    }

    /// Stops the partition permanently.
    pub fn block(&mut self) {
        (self.is_fetching, self.is_blocked) = (false, true);
    }

    /// Handles the start of a fetch from `from`, which may be that of a request before a restart.
    pub fn fetch_started(&mut self, epoch: Epoch, from: i64) {
        if self.epoch == epoch && self.next == Some(from) {
            self.is_fetching = true;
        }
    }

    /// Whether the record at `offset` is to be processed. If so, it counts as processed.
    pub fn accept(&mut self, epoch: Epoch, offset: i64) -> bool {
        let accepted = self.is_fetching && self.epoch == epoch && offset >= self.next_record;
        if accepted {
            self.next_record = offset + 1;
        }
        accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: Epoch = Epoch(2);

    fn accepted(state: &mut PartitionState, offsets: std::ops::Range<i64>) -> Vec<i64> {
        offsets.filter(|offset| state.accept(CURRENT, *offset)).collect()
    }

    #[test]
    fn records_of_a_request_before_a_failure_are_not_accepted_twice() {
        let mut state = PartitionState::new(CURRENT);
        state.start(600, Memory::default());
        // A transaction of other partitions fails before the fetch has started.
        state.reset();
        state.fetch_started(CURRENT, 600);
        assert_eq!(accepted(&mut state, 600..650), Vec::<i64>::new(), "the request was before the reset");
        state.start(600, Memory::default());
        state.fetch_started(CURRENT, 600);
        assert_eq!(accepted(&mut state, 600..603), [600, 601, 602]);
        // The second request for the same offset.
        state.fetch_started(CURRENT, 600);
        assert_eq!(accepted(&mut state, 600..605), [603, 604]);
    }

    #[test]
    fn records_of_another_request_or_epoch_are_not_accepted() {
        let mut state = PartitionState::new(CURRENT);
        state.start(500, Memory::default());
        state.fetch_started(Epoch(1), 500);
        state.fetch_started(CURRENT, 700);
        assert_eq!(
            accepted(&mut state, 700..702),
            Vec::<i64>::new(),
            "requested before the group's offset was set back"
        );
        state.fetch_started(CURRENT, 500);
        assert!(!state.accept(Epoch(1), 500));
        assert_eq!(accepted(&mut state, 500..502), [500, 501]);
        state.block();
        assert_eq!(accepted(&mut state, 502..504), Vec::<i64>::new());
    }
}
