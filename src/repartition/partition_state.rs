//! A partition that a stage holds: which of the records that come are its next ones.
//!
//! After a failure a partition is begun anew within its epoch, while what was asked for before may still be on its way: so
//! a record counts only if what was asked for last has begun to come, and each offset counts once.

use super::step::Memory;
use crate::model::Epoch;

/// A partition of ours.
pub struct Held {
    /// Since it was assigned.
    pub epoch: Epoch,
    /// The offset to go on from after what is committed; `None` until it is known.
    pub next: Option<i64>,
    /// Only a person can make it go on.
    pub refused: bool,
    /// What the step knows of the partition, with the batch applied; loaded together with `next`.
    pub memory: Memory,
    /// Records come from where we asked.
    flowing: bool,
    /// The lowest offset that was not taken yet.
    wanted: i64,
}

impl Held {
    /// Just assigned.
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, next: None, refused: false, memory: Memory::default(), flowing: false, wanted: 0 }
    }

    /// To be read from here.
    pub fn begin(&mut self, from: i64, memory: Memory) {
        (self.next, self.memory, self.flowing, self.wanted) = (Some(from), memory, false, from);
    }

    /// To be begun anew.
    pub fn reset(&mut self) {
        (self.next, self.memory, self.flowing) = (None, Memory::default(), false);
    }

    /// Not to be read any more.
    pub fn refuse(&mut self) {
        (self.flowing, self.refused) = (false, true);
    }

    /// From here on records come from `from`, which was asked for once: maybe before it was begun anew.
    pub fn flow(&mut self, epoch: Epoch, from: i64) {
        if self.epoch == epoch && self.next == Some(from) {
            self.flowing = true;
        }
    }

    /// Whether the record at `offset` is to be taken; it is, from then on.
    pub fn take(&mut self, epoch: Epoch, offset: i64) -> bool {
        let takes = self.flowing && self.epoch == epoch && offset >= self.wanted;
        if takes {
            self.wanted = offset + 1;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Epoch = Epoch(2);

    fn taken(held: &mut Held, offsets: std::ops::Range<i64>) -> Vec<i64> {
        offsets.filter(|offset| held.take(NOW, *offset)).collect()
    }

    #[test]
    fn what_was_asked_for_before_a_failure_is_not_taken_twice() {
        let mut held = Held::new(NOW);
        held.begin(600, Memory::default());
        // A transaction of other partitions fails before anything was heard of it.
        held.reset();
        held.flow(NOW, 600);
        assert_eq!(
            taken(&mut held, 600..650),
            Vec::<i64>::new(),
            "it was asked for by a beginning that does not count"
        );
        held.begin(600, Memory::default());
        held.flow(NOW, 600);
        assert_eq!(taken(&mut held, 600..603), [600, 601, 602]);
        // The same was asked for twice.
        held.flow(NOW, 600);
        assert_eq!(taken(&mut held, 600..605), [603, 604]);
    }

    #[test]
    fn nothing_of_another_place_or_epoch_is_taken() {
        let mut held = Held::new(NOW);
        held.begin(500, Memory::default());
        held.flow(Epoch(1), 500);
        held.flow(NOW, 700);
        assert_eq!(taken(&mut held, 700..702), Vec::<i64>::new(), "asked for before the group's offset was set back");
        held.flow(NOW, 500);
        assert!(!held.take(Epoch(1), 500));
        assert_eq!(taken(&mut held, 500..502), [500, 501]);
        held.refuse();
        assert_eq!(taken(&mut held, 502..504), Vec::<i64>::new());
    }
}
