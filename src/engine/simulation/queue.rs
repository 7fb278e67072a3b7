//! The schedule of the world, in virtual time. Items that are due at the same instant are returned in the order in
//! which they were pushed, except for items pushed with `push_last`, which follow all others of that instant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Items by due time.
pub(super) struct Queue<T> {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    count: u64,
}

const LAST: u64 = 1 << 63;

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), count: 0 }
    }

    pub(super) fn push(&mut self, at: u64, item: T) {
        self.put(at, 0, item);
    }

    /// Schedules an item after everything else that is due at the same instant.
    pub(super) fn push_last(&mut self, at: u64, item: T) {
        self.put(at, LAST, item);
    }

    fn put(&mut self, at: u64, rank: u64, item: T) {
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(item);
            slot
        } else {
            self.slots.push(Some(item));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        self.count += 1;
        self.heap.push(Reverse((at, rank | (self.count << 24) | u64::from(slot))));
    }

    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse((at, packed)) = self.heap.pop()?;
        let slot = (packed & 0xff_ffff) as usize;
        let item = self.slots[slot].take()?;
        self.free.push(u32::try_from(slot).unwrap_or(u32::MAX));
        Some((at, item))
    }

    /// Removes all items and keeps the allocated memory.
    pub(super) fn clear(&mut self) {
        self.heap.clear();
        self.slots.clear();
        self.free.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn items_are_ordered_by_time_then_by_push_then_last() {
        let mut queue = Queue::new();
        queue.push(5, 'c');
        queue.push_last(3, 'b');
        queue.push(3, 'a');
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(3, 'a'), (3, 'b'), (5, 'c')]);
    }
}
