//! The consumer group: a coordinator, and each member's client. Modeled after a real broker: it checks member and
//! generation of a commit, but not the ownership; commits fail during a rebalance; a blocked callback blocks the
//! whole member; a client that is not polled leaves the group.

use super::super::Event;
use super::injection::InjectionPoint;
use super::member::{ClientPartition, Input, StampedCommit};
use super::scenario::DriverMutation;
use super::world::{ScheduledEvent, World, trace_line};
use crate::model::Epoch;

/// A process as the coordinator knows it: member and process id.
type Process = (usize, u32);

/// The coordinator.
#[derive(Debug, Default)]
pub(super) struct Group {
    generation: u64,
    members: Vec<Process>,
    owner: [Option<Process>; 2],
    /// The owner after the current one has released the partition.
    next_owner: [Option<Process>; 2],
    /// The owner has received its assignment.
    confirmed: [bool; 2],
    /// Committed offsets.
    pub(super) offset: [i64; 2],
}

impl Group {
    pub(super) fn owner(&self, partition: usize) -> Option<usize> {
        self.owner[partition].map(|(member, _)| member)
    }
}

impl World {
    /// Updates whether the coordinator can reach the member, after a change of its process or link.
    pub(super) fn update_reachability(&mut self, member: usize) {
        let session = self.settings.session_timeout;
        let now = self.now;
        let state = &mut self.members[member];
        let reachable = state.alive() && !state.frozen() && state.disconnected_until <= now;
        if reachable == state.reachable {
            return;
        }
        state.reachable = reachable;
        state.reachability += 1;
        if !reachable {
            let (pid, reachability) = (state.pid, state.reachability);
            let at = now + self.rng.u64(session * 2 / 3..=session);
            self.queue.push(at, ScheduledEvent::SessionTimeout { member, pid, reachability });
        }
    }

    /// The coordinator handles a join.
    fn join(&mut self, member: usize) {
        let process = (member, self.members[member].pid);
        if !self.group.members.contains(&process) {
            self.group.members.push(process);
        }
        self.rebalance(None);
    }

    /// The coordinator removes a member from the group and reassigns its partitions at once.
    pub(super) fn expel(&mut self, member: usize, pid: u32, reason: &str) {
        let process = (member, pid);
        let Some(at) = self.group.members.iter().position(|p| *p == process) else { return };
        trace_line!(self, "the group expels member {member}.{pid}: {reason}");
        self.group.members.remove(at);
        for partition in 0..2 {
            if self.group.owner[partition] == Some(process) {
                self.group.owner[partition] = None;
                self.group.next_owner[partition] = None;
            }
        }
        if self.members[member].pid == pid && self.members[member].alive() {
            self.members[member].expelled = true;
            let delay = self.rng.u64(50..3_000);
            self.send(member, delay, Input::LostNoticed);
        }
        self.rebalance(None);
    }

    /// Reassigns the partitions; with `to`, all of them to that member.
    pub(super) fn rebalance(&mut self, to: Option<usize>) {
        self.group.generation += 1;
        if self.group.members.is_empty() {
            return;
        }
        for partition in 0..self.params.partitions {
            let owner = self.group.owner[partition];
            let named = to.and_then(|m| self.group.members.iter().find(|(n, _)| *n == m).copied());
            let keeps_owner = self.group.members.len() > 2 && self.rng.bool();
            let target = match (named, owner) {
                (Some(process), _) => process,
                (None, Some(process)) if keeps_owner => process,
                _ => self.group.members[self.rng.usize(0..self.group.members.len())],
            };
            match owner {
                None => self.assign(partition, target),
                Some(process) if process != target && self.group.confirmed[partition] => {
                    self.group.next_owner[partition] = Some(target);
                    let membership = self.members[process.0].membership;
                    let delay = self.rng.u64(10..1_000);
                    self.send_to_process(process, delay, Input::Revoke { partition, membership });
                }
                Some(_) => {}
            }
        }
        let generation = self.group.generation;
        for at in 0..self.group.members.len() {
            let process = self.group.members[at];
            let membership = self.members[process.0].membership;
            let delay = self.rng.u64(10..1_200);
            self.send_to_process(process, delay, Input::Sync { generation, membership });
        }
    }

    fn send_to_process(&mut self, (member, pid): Process, delay: u64, input: Input) {
        self.queue.push(self.now + delay, ScheduledEvent::Deliver { member, pid, input });
    }

    fn assign(&mut self, partition: usize, process: Process) {
        self.group.owner[partition] = Some(process);
        self.group.next_owner[partition] = None;
        self.group.confirmed[partition] = false;
        let (membership, generation) = (self.members[process.0].membership, self.group.generation);
        let delay = self.rng.u64(10..1_500);
        self.send_to_process(process, delay, Input::Assign { partition, membership, generation });
    }

    /// An owner has released a partition.
    pub(super) fn released(&mut self, member: usize, pid: u32, partition: usize) {
        if self.group.owner[partition] != Some((member, pid)) {
            return;
        }
        self.group.owner[partition] = None;
        let target = self.group.next_owner[partition].take().filter(|p| self.group.members.contains(p));
        let member_count = self.group.members.len();
        let target = target.or_else(|| (member_count > 0).then(|| self.group.members[self.rng.usize(0..member_count)]));
        if let Some(target) = target {
            self.assign(partition, target);
        }
    }

    /// Handles the inputs of the client and the poller. Returns any other input.
    pub(super) fn group_input(&mut self, member: usize, input: Input) -> Option<Input> {
        match input {
            Input::Join => self.client_joins(member),
            Input::Sync { generation, membership } => {
                let state = &mut self.members[member];
                if state.membership == membership && !state.expelled {
                    state.generation = state.generation.max(Some(generation));
                }
            }
            Input::LostNoticed => self.notice_lost(member),
            Input::Assign { partition, membership, generation } => {
                self.assigned(member, partition, membership, generation);
            }
            Input::Revoke { partition, membership } => self.revoked(member, partition, membership),
            Input::CallbackReturned { partition } => self.returned(member, partition),
            Input::RenewLeases => {
                for partition in 0..self.params.partitions {
                    self.commit_now(member, partition);
                }
                let quarter = self.settings.session_timeout / 4;
                self.send(member, quarter, Input::RenewLeases);
            }
            Input::Commit { partition } => {
                self.members[member].client_partitions[partition].commit_scheduled = false;
                self.commit_now(member, partition);
            }
            Input::SendCommit(stamped) => self.send_commit(member, stamped),
            Input::Committed(stamped) => self.commit_answered(member, stamped),
            other => return Some(other),
        }
        None
    }

    fn client_joins(&mut self, member: usize) {
        if self.members[member].disconnected_until > self.now {
            let wait = self.members[member].disconnected_until - self.now + 10;
            self.send(member, wait, Input::Join);
        } else if !self.members[member].terminating {
            self.join(member);
        }
    }

    /// Returns the input if the poller's thread can run a callback now; otherwise schedules it again.
    fn poller_ready(&mut self, member: usize, input: Input) -> Option<Input> {
        let state = &self.members[member];
        if state.stalled_until > self.now {
            let wait = state.stalled_until - self.now;
            self.send(member, wait + 1, input);
            None
        } else if state.poller_blocked() {
            self.send(member, 40, input);
            None
        } else {
            Some(input)
        }
    }

    fn notice_lost(&mut self, member: usize) {
        if self.poller_ready(member, Input::LostNoticed).is_none() || !self.members[member].expelled {
            return;
        }
        self.members[member].expelled = false;
        self.members[member].membership += 1;
        self.members[member].generation = None;
        for partition in 0..2 {
            if let Some(epoch) = self.members[member].client_partitions[partition].epoch {
                let last_landing = self.members[member].client_partitions[partition].last_landing;
                self.members[member].client_partitions[partition] = ClientPartition {
                    last_landing,
                    ..self.members[member].client_partitions[partition].persistent_counters()
                };
                self.coverage.lost += 1;
                self.send_event(member, Event::Lost { partition: partition_number(partition), epoch });
            }
        }
        let delay = self.rng.u64(20..2_000);
        self.send(member, delay, Input::Join);
    }

    fn assigned(&mut self, member: usize, partition: usize, membership: u32, generation: u64) {
        if self.poller_ready(member, Input::Assign { partition, membership, generation }).is_none()
            || self.members[member].membership != membership
        {
            return;
        }
        let pid = self.members[member].pid;
        if self.group.owner[partition] == Some((member, pid)) {
            self.group.confirmed[partition] = true;
        }
        let state = &mut self.members[member];
        state.generation = state.generation.max(Some(generation));
        state.last_epoch += 1;
        let epoch = Epoch(state.last_epoch);
        state.client_partitions[partition].epoch = Some(epoch);
        self.coverage.assigned += 1;
        let other = &self.members[1 - member];
        if other.client_partitions[partition].epoch.is_some() && other.alive() {
            self.coverage.two_owners += 1;
        }
        self.send_event(member, Event::Assigned { partition: partition_number(partition), epoch });
    }

    fn revoked(&mut self, member: usize, partition: usize, membership: u32) {
        if self.members[member].membership != membership
            || self.members[member].client_partitions[partition].revoked_at.is_some()
        {
            return;
        }
        let state = &self.members[member];
        if state.stalled_until > self.now {
            let wait = state.stalled_until - self.now;
            self.send(member, wait + 1, Input::Revoke { partition, membership });
            return;
        }
        let Some(epoch) = state.client_partitions[partition].epoch else { return };
        let (pid, last) = (state.pid, state.last_poll);
        self.members[member].client_partitions[partition].revoked_at = Some(self.now);
        self.coverage.revoked += 1;
        let over = last + self.settings.max_poll_interval;
        self.queue.push(over.max(self.now), ScheduledEvent::PollTimeout { member, pid });
        self.send_event(member, Event::Revoked { partition: partition_number(partition), epoch });
        self.send(member, self.settings.drain_timeout + 1_000, Input::DrainDeadline { partition, epoch });
        self.reached(InjectionPoint::PartitionRevoked, member);
    }

    /// The engine has released the partition: sends a last commit, then lets the callback return.
    pub(super) fn release(&mut self, member: usize, partition: usize, epoch: Epoch, offset: Option<i64>) {
        let client = &mut self.members[member].client_partitions[partition];
        if client.epoch != Some(epoch) || client.revoked_at.is_none() {
            return;
        }
        if let Some(offset) = offset {
            let stamped = StampedCommit { partition, epoch, offset, sent_at: self.now };
            self.send_commit(member, stamped);
        }
        let delay = self.rng.u64(8..40);
        self.send(member, delay, Input::CallbackReturned { partition });
    }

    fn returned(&mut self, member: usize, partition: usize) {
        let state = &mut self.members[member];
        let client = &mut state.client_partitions[partition];
        if client.revoked_at.is_none() {
            return;
        }
        *client = ClientPartition { last_landing: client.last_landing, ..client.persistent_counters() };
        let pid = state.pid;
        self.queue.push(self.now + 5, ScheduledEvent::PartitionReleased { member, pid, partition });
    }

    fn commit_now(&mut self, member: usize, partition: usize) {
        let client = &self.members[member].client_partitions[partition];
        let (Some(epoch), Some(offset)) = (client.epoch, client.offset_to_commit) else { return };
        let stamped = StampedCommit { partition, epoch, offset, sent_at: self.now };
        let planned_delay = self.members[member].commit_delay.take();
        let slow = self.params.slow_commits && self.rng.u32(0..12) == 0;
        let delay = match planned_delay {
            Some(length) => length,
            None if slow => self.rng.u64(0..self.settings.session_timeout * 2),
            None => 0,
        };
        self.reached(InjectionPoint::CommitStamped, member);
        if !self.members[member].alive() {
            return;
        }
        if self.members[member].frozen() {
            self.members[member].deferred.push(Input::SendCommit(stamped));
        } else if delay > 0 {
            self.send(member, delay, Input::SendCommit(stamped));
        } else {
            self.send_commit(member, stamped);
        }
    }

    fn send_commit(&mut self, member: usize, stamped: StampedCommit) {
        let state = &self.members[member];
        if state.disconnected_until > self.now {
            return;
        }
        let (pid, generation) = (state.pid, state.generation);
        let delay = self.rng.u64(1..8);
        self.queue.push(self.now + delay, ScheduledEvent::CommitArrives { member, pid, generation, stamped });
    }

    pub(super) fn commit_arrives(&mut self, member: usize, pid: u32, generation: Option<u64>, stamped: StampedCommit) {
        let is_member = self.group.members.contains(&(member, pid));
        if !is_member || generation != Some(self.group.generation) {
            self.coverage.generation_rejected += u64::from(is_member);
            self.coverage.commits_rejected += 1;
            return;
        }
        let partition = stamped.partition;
        if self.group.owner[partition] != Some((member, pid)) {
            self.coverage.stray_commits += 1;
            trace_line!(self, "stray commit of {member} for partition {partition}: {}", stamped.offset);
        }
        if stamped.offset < self.group.offset[partition] {
            self.coverage.offset_went_back += 1;
            self.group.offset[partition] = stamped.offset;
            self.reached(InjectionPoint::OffsetSetBack, member);
        }
        self.group.offset[partition] = stamped.offset;
        let delay = if self.rng.u32(0..40) == 0 { self.rng.u64(0..4_000) } else { self.rng.u64(1..8) };
        if self.members[member].pid == pid && self.members[member].disconnected_until <= self.now {
            self.send(member, delay, Input::Committed(stamped));
            self.reached(InjectionPoint::CommitAccepted, member);
        }
    }

    fn commit_answered(&mut self, member: usize, mut stamped: StampedCommit) {
        let current = self.members[member].client_partitions[stamped.partition].epoch;
        if self.rule_off(DriverMutation::LeaseFromAnswer) {
            stamped.sent_at = self.now;
        }
        if current == Some(stamped.epoch) || self.rule_off(DriverMutation::NoEpochCheck) {
            let StampedCommit { partition, epoch, offset, sent_at } = stamped;
            self.apply_event(
                member,
                Event::Committed { partition: partition_number(partition), epoch, sent_at, offset },
            );
        }
        self.reached(InjectionPoint::CommitAnswered, member);
    }

    /// Sends an event through the channel between poller and loop.
    pub(super) fn send_event(&mut self, member: usize, event: Event) {
        self.send_in_order(member, Input::Channel(event));
    }

    /// Sends an input through the channel, which keeps the order.
    pub(super) fn send_in_order(&mut self, member: usize, input: Input) {
        let busy = self.chance(self.scenario.slow_channel);
        let delay = if busy { self.rng.u64(0..2_000) } else { self.rng.u64(0..3) };
        let at = self.members[member].channel_time.max(self.now + delay);
        self.members[member].channel_time = at;
        self.send(member, at - self.now, input);
    }
}

/// The number of a partition in the engine.
pub(super) fn partition_number(partition: usize) -> i32 {
    i32::from(partition == 1)
}
