//! A lane's moves from stage to stage, its place in line, and what its partition counts of it.

use std::cmp::Reverse;

use super::Dispatcher;
use crate::engine::entries::give_back_room;
use crate::engine::event::{Effect, LedgerKey};
use crate::engine::lane::{Counted, QueuePosition, ReadPurpose, Stage};
use crate::engine::priority::{Purpose, Ticket, Urgency, Want};
use crate::model::entry::ClaimKind;
use crate::model::{HttpMethod, Key, Now, Phase};

/// Between two looks whether the events that a former owner had claimed have arrived, milliseconds.
const MISSING: u64 = 50;

impl Dispatcher {
    /// Changes a lane's stage and keeps the partition's counts.
    pub(super) fn stage(&mut self, partition: i32, key: &Key, stage: Stage) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        match lane.place.take() {
            Some(QueuePosition::Turn(ticket)) => p.ready.remove(&ticket),
            Some(QueuePosition::Permit(want)) => p.wants.remove(&want),
            None => None,
        };
        lane.stage = stage;
        let before = lane.counted;
        let after = Counted { prepared: lane.is_prepared().then_some(lane.critical), finishing: lane.is_finishing() };
        lane.counted = after;
        p.count(before, after);
    }

    /// A lane's place in line, by what waits in it.
    fn ticket(&mut self, partition: i32, key: &Key, now: Now) -> Ticket {
        let sequence = self.id();
        let Some(p) = self.partitions.get_mut(&partition) else { return Ticket::last(now.mono, sequence) };
        let states = &self.settings.states;
        let phase = p.entries.get(key).map_or(Phase::None, |entry| states.phase(&entry.seen.state));
        let Some(lane) = p.lanes.get_mut(key) else { return Ticket::last(now.mono, sequence) };
        let urgency = Urgency::of(&lane.held, &lane.queue, phase);
        let ticket = urgency.map_or(Ticket::last(now.mono, sequence), |u| u.ticket(sequence, self.settings.ageing));
        lane.critical = ticket.is_critical();
        ticket
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
        self.take_place(partition, key, QueuePosition::Turn(ticket));
    }

    /// Puts a lane in line for a permit.
    pub(super) fn make_want(&mut self, partition: i32, key: &Key, stage: Stage, now: Now) {
        let (purpose, method) = match &stage {
            Stage::Claimed(plan) if matches!(plan.kind, ClaimKind::Create { .. }) => (Purpose::Write, HttpMethod::Post),
            Stage::Claimed(_) => (Purpose::Write, HttpMethod::Patch),
            Stage::Wants(ReadPurpose::Look(..)) => (Purpose::Look, HttpMethod::Get),
            _ => (Purpose::Read, HttpMethod::Get),
        };
        let ticket = self.ticket(partition, key, now);
        self.stage(partition, key, stage);
        self.take_place(partition, key, QueuePosition::Permit(Want::new(ticket, purpose, method)));
    }

    fn take_place(&mut self, partition: i32, key: &Key, place: QueuePosition) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        lane.place = Some(place);
        match place {
            QueuePosition::Turn(ticket) => p.ready.insert(ticket, key.clone()),
            QueuePosition::Permit(want) => p.wants.insert(want, key.clone()),
        };
    }

    /// Something more waits in a lane that is in line: it may have a better place now.
    pub(super) fn move_up(&mut self, partition: i32, key: &Key, now: Now) {
        let Some(place) = self.lane(partition, key).and_then(|lane| lane.place) else { return };
        let (QueuePosition::Turn(old) | QueuePosition::Permit(Want { ticket: old, .. })) = place;
        let ticket = self.ticket(partition, key, now);
        if !ticket.is_before(&old) {
            return;
        }
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let before = lane.counted;
        lane.counted.prepared = before.prepared.map(|_| lane.critical);
        let after = lane.counted;
        p.count(before, after);
        match place {
            QueuePosition::Turn(ticket) => p.ready.remove(&ticket),
            QueuePosition::Permit(want) => p.wants.remove(&want),
        };
        self.take_place(
            partition,
            key,
            match place {
                QueuePosition::Turn(_) => QueuePosition::Turn(ticket),
                QueuePosition::Permit(want) => QueuePosition::Permit(want.with(ticket)),
            },
        );
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
        p.entries.rest(key);
        give_back_room(&mut p.lanes);
        let life = p.life;
        match lane.void {
            Some(token) if leased => self.tombstone_claim(partition, life, key, token, out),
            // Whoever has no lease may not be the owner, and the owner's claim may be under way.
            Some(token) => p.stale.entry(LedgerKey::Claim(key.clone())).or_default().push(token),
            None => {}
        }
    }
}
