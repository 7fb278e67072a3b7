//! Stages of lanes, the queues in which lanes wait, and the partition's counts of lanes.

use std::cmp::Reverse;

use super::Dispatcher;
use crate::engine::entries::shrink_if_sparse;
use crate::engine::event::{Effect, LedgerKey};
use crate::engine::lane::{LaneCounts, QueuePosition, ReadPurpose, Stage};
use crate::engine::priority::{LaneRank, LaneUrgency, PermitRank, RequestPurpose};
use crate::model::entry::ClaimKind;
use crate::model::{HttpMethod, Key, Now, Phase};

/// How often a lane checks whether the events that a previous owner had claimed have arrived, milliseconds.
const CLAIMED_EVENTS_POLL: u64 = 50;

impl Dispatcher {
    /// Sets a lane's stage, takes the lane out of its queue, and updates the partition's counts.
    pub(super) fn stage(&mut self, partition: i32, key: &Key, stage: Stage) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        if let Some(position) = p.lanes.get_mut(key).and_then(|lane| lane.queue_position.take()) {
            p.leave_queue(position);
        }
        let Some(lane) = p.lanes.get_mut(key) else { return };
        if let Stage::WaitingToShare(due) = lane.stage {
            p.shared_looks.remove(&(due, key.clone()));
        }
        lane.stage = stage;
        let before = lane.counts;
        let after =
            LaneCounts { prepared: lane.is_prepared().then_some(lane.class), blocks_drain: lane.blocks_drain() };
        lane.counts = after;
        p.update_counts(before, after);
    }

    /// Computes a lane's rank from its events.
    fn lane_rank(&mut self, partition: i32, key: &Key, now: Now) -> LaneRank {
        let sequence = self.new_id();
        let Some(p) = self.partitions.get_mut(&partition) else { return LaneRank::for_empty_lane(now.mono, sequence) };
        let states = &self.settings.states;
        let phase = p.entries.get(key).map_or(Phase::None, |entry| entry.phase(states));
        let Some(lane) = p.lanes.get_mut(key) else { return LaneRank::for_empty_lane(now.mono, sequence) };
        let urgency = LaneUrgency::of(&lane.in_flight, &lane.queue, phase);
        let rank = urgency
            .map_or(LaneRank::for_empty_lane(now.mono, sequence), |u| u.rank(sequence, self.settings.aging_step));
        lane.class = rank.class();
        rank
    }

    /// Gets a lane in line for a turn, or drops it if its queue is empty.
    pub(super) fn enqueue_for_turn(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        if self.is_missing_claimed_events(partition, key) {
            let until = now.mono + CLAIMED_EVENTS_POLL;
            return self.wait_until(partition, key, until, Stage::Waiting(until));
        }
        let empty = self.lane(partition, key).is_none_or(|l| l.queue.is_empty());
        self.stage(partition, key, Stage::Idle);
        if empty {
            self.drop_lane(partition, key, now, out);
            return;
        }
        let rank = self.lane_rank(partition, key, now);
        self.stage(partition, key, Stage::Ready);
        self.insert_in_queue(partition, key, QueuePosition::Turn(rank));
    }

    /// Lets a lane wait for the next look, or, if it is critical, for a look of its own.
    pub(super) fn wait_for_look(&mut self, partition: i32, key: &Key, now: Now) {
        let rank = self.lane_rank(partition, key, now);
        if rank.is_critical() {
            return self.look_now(partition, key, now);
        }
        self.stage(partition, key, Stage::WaitingForLook);
        self.insert_in_queue(partition, key, QueuePosition::Look(rank));
    }

    /// Gets a lane in line for a permit.
    pub(super) fn wait_for_permit(&mut self, partition: i32, key: &Key, stage: Stage, now: Now) {
        let rank = self.lane_rank(partition, key, now);
        let (purpose, method) = match &stage {
            Stage::Claimed(plan) if matches!(plan.kind, ClaimKind::Create { .. }) => {
                let critical = rank.is_critical();
                (if critical { RequestPurpose::CriticalTicket } else { RequestPurpose::Write }, HttpMethod::Post)
            }
            Stage::Claimed(_) => (RequestPurpose::Write, HttpMethod::Patch),
            Stage::WaitingToRead(ReadPurpose::Verify { .. }) => (RequestPurpose::Verify, HttpMethod::Get),
            _ => (RequestPurpose::Read, HttpMethod::Get),
        };
        self.stage(partition, key, stage);
        if let Some(lane) = self.lane(partition, key) {
            lane.waiting_since = now.mono;
        }
        self.insert_in_queue(partition, key, QueuePosition::Permit(PermitRank::new(rank, purpose, method)));
    }

    fn insert_in_queue(&mut self, partition: i32, key: &Key, queue_position: QueuePosition) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        lane.queue_position = Some(queue_position);
        match queue_position {
            QueuePosition::Turn(rank) => p.ready.insert(rank, key.clone()),
            QueuePosition::Look(rank) => p.unread.insert(rank, key.clone()),
            QueuePosition::Permit(rank) => p.permit_queue.insert(rank, key.clone()),
        };
    }

    /// Events were added to a lane that is in line: moves it forward if its rank is better now.
    pub(super) fn update_rank(&mut self, partition: i32, key: &Key, now: Now) {
        let Some(queue_position) = self.lane(partition, key).and_then(|lane| lane.queue_position) else { return };
        let rank = self.lane_rank(partition, key, now);
        if !rank.precedes(&queue_position.lane_rank()) {
            return;
        }
        if rank.is_critical() && matches!(queue_position, QueuePosition::Look(_)) {
            return self.look_now(partition, key, now);
        }
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let before = lane.counts;
        lane.counts.prepared = before.prepared.map(|_| lane.class);
        let after = lane.counts;
        p.update_counts(before, after);
        p.leave_queue(queue_position);
        self.insert_in_queue(partition, key, queue_position.with(rank));
    }

    /// Sets a lane's stage and a timer for this instant.
    pub(super) fn wait_until(&mut self, partition: i32, key: &Key, until: u64, stage: Stage) {
        self.stage(partition, key, stage);
        if let Some(p) = self.partitions.get(&partition) {
            self.timers.push(Reverse((until, partition, p.load_generation, key.clone())));
        }
    }

    /// Removes a lane without work. If it has a void claim, that is withdrawn.
    pub(super) fn drop_lane(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let leased = self.holds_lease(partition, now);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.remove(key) else { return };
        p.expiry_looks -= usize::from(lane.looks_for_expiry);
        p.entries.deactivate(key);
        shrink_if_sparse(&mut p.lanes);
        let load_generation = p.load_generation;
        match lane.void_claim {
            Some(token) if leased => self.tombstone_claim(partition, load_generation, key, token, out),
            // Without a lease we may not be the owner, and the owner may have a claim in flight.
            Some(token) => p.stale.entry(LedgerKey::Claim(key.clone())).or_default().push(token),
            None => {}
        }
    }
}
