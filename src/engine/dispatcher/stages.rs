//! A lane's moves from stage to stage, its place in line, and what its partition counts of it.

use std::cmp::Reverse;

use super::Dispatcher;
use crate::engine::event::{Effect, LedgerKey};
use crate::engine::lane::{Stage, Ticket};
use crate::model::{Key, Now};

/// Between two looks whether the events that a former owner had claimed have arrived, milliseconds.
const MISSING: u64 = 50;

impl Dispatcher {
    /// Changes a lane's stage and keeps the partition's counts.
    pub(super) fn stage(&mut self, partition: i32, key: &Key, stage: Stage) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        if let Some(ticket) = lane.ticket.take() {
            p.ready.remove(&ticket);
            for class in 0..=2 {
                p.wants.remove(&(class, ticket));
            }
        }
        let (prepared, finishing) = lane.counted;
        p.prepared -= usize::from(prepared);
        p.awaited -= usize::from(finishing);
        lane.stage = stage;
        lane.counted = (lane.is_prepared(), lane.is_finishing());
        p.prepared += usize::from(lane.counted.0);
        p.awaited += usize::from(lane.counted.1);
    }

    /// The order of a lane's turn.
    pub(super) fn ticket(&mut self, partition: i32, key: &Key, now: Now) -> Ticket {
        let sequence = self.id();
        let lane = self.partitions.get(&partition).and_then(|p| p.lanes.get(key));
        let (priority, since) =
            lane.and_then(|l| l.held.urgency().or_else(|| l.queue.urgency())).unwrap_or((u8::MAX, now.mono));
        (priority, since, sequence)
    }

    /// Puts a lane in line for a turn, or drops it where nothing waits.
    pub(super) fn make_ready(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        if self.misses_claimed_events(partition, key) {
            return self.make_wait(partition, key, now.mono + MISSING, Stage::Waiting(now.mono + MISSING));
        }
        let empty = self.lane(partition, key).is_none_or(|l| l.queue.is_empty());
        self.stage(partition, key, Stage::Idle);
        if empty {
            self.drop_lane(partition, key, now, out);
            return;
        }
        let ticket = self.ticket(partition, key, now);
        self.stage(partition, key, Stage::Ready);
        if let Some(p) = self.partitions.get_mut(&partition)
            && let Some(lane) = p.lanes.get_mut(key)
        {
            lane.ticket = Some(ticket);
            p.ready.insert(ticket, key.clone());
        }
    }

    /// Puts a lane in line for a permit.
    pub(super) fn make_want(&mut self, partition: i32, key: &Key, class: u8, stage: Stage, now: Now) {
        let ticket = self.ticket(partition, key, now);
        self.stage(partition, key, stage);
        if let Some(p) = self.partitions.get_mut(&partition)
            && let Some(lane) = p.lanes.get_mut(key)
        {
            lane.ticket = Some(ticket);
            p.wants.insert((class, ticket), key.clone());
        }
    }

    /// Lets a lane wait for an instant.
    pub(super) fn make_wait(&mut self, partition: i32, key: &Key, until: u64, stage: Stage) {
        self.stage(partition, key, stage);
        if let Some(p) = self.partitions.get(&partition) {
            self.timers.push(Reverse((until, partition, p.life, key.clone())));
        }
    }

    /// Removes a lane that has nothing to do. A claim that it leaves behind is withdrawn.
    pub(super) fn drop_lane(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let leased = self.lease_stands(partition, now);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.remove(key) else { return };
        let life = p.life;
        match lane.void {
            Some(token) if leased => self.tombstone_claim(partition, life, key, token, out),
            // Whoever has no lease may not be the owner, and the owner's claim may be under way.
            Some(token) => p.stale.entry(LedgerKey::Claim(key.clone())).or_default().push(token),
            None => {}
        }
    }
}
