//! The consumer group: a coordinator, and how each member's client talks with it. It keeps to what was seen on a real
//! broker: member and generation are checked on a commit, ownership is not; commits fail while others come and go; a
//! blocked callback blocks everything; a client that is not polled leaves.

use super::super::Event;
use super::member::{Input, Part, Stamped};
use super::scenario::DriverMutation;
use super::script::Moment;
use super::world::{Happening, World, tell};
use crate::model::Epoch;

/// A process as the coordinator knows it: member and life.
type Process = (usize, u32);

/// The coordinator.
#[derive(Debug, Default)]
pub(super) struct Group {
    generation: u64,
    members: Vec<Process>,
    owner: [Option<Process>; 2],
    /// Where a partition goes when its owner lets go.
    moving: [Option<Process>; 2],
    /// The owner has taken the partition over.
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
    /// A member's process or its link changed: does the coordinator still hear it?
    pub(super) fn update_reach(&mut self, member: usize) {
        let session = self.settings.session_timeout;
        let now = self.now;
        let state = &mut self.members[member];
        let reachable = state.alive() && !state.frozen() && state.cut_until <= now;
        if reachable == state.reachable {
            return;
        }
        state.reachable = reachable;
        state.reach += 1;
        if !reachable {
            let (life, reach) = (state.life, state.reach);
            let at = now + self.rng.u64(session * 2 / 3..=session);
            self.queue.push(at, Happening::SessionOver { member, life, reach });
        }
    }

    /// The coordinator's side of a join.
    fn join(&mut self, member: usize) {
        let process = (member, self.members[member].life);
        if !self.group.members.contains(&process) {
            self.group.members.push(process);
        }
        self.rebalance(None);
    }

    /// The coordinator drops a member: what it owned is given to others at once.
    pub(super) fn expel(&mut self, member: usize, life: u32, why: &str) {
        let process = (member, life);
        let Some(at) = self.group.members.iter().position(|p| *p == process) else { return };
        tell!(self, "the group drops member {member}.{life}: {why}");
        self.group.members.remove(at);
        for partition in 0..2 {
            if self.group.owner[partition] == Some(process) {
                self.group.owner[partition] = None;
                self.group.moving[partition] = None;
            }
        }
        if self.members[member].life == life && self.members[member].alive() {
            self.members[member].dropped = true;
            let delay = self.rng.u64(50..3_000);
            self.send(member, delay, Input::NoticeLost);
        }
        self.rebalance(None);
    }

    /// Deals the partitions anew, all to one member if told.
    pub(super) fn rebalance(&mut self, to: Option<usize>) {
        self.group.generation += 1;
        if self.group.members.is_empty() {
            return;
        }
        for partition in 0..self.odds.partitions {
            let owner = self.group.owner[partition];
            let named = to.and_then(|m| self.group.members.iter().find(|(n, _)| *n == m).copied());
            let keep = self.group.members.len() > 2 && self.rng.bool();
            let target = match (named, owner) {
                (Some(process), _) => process,
                (None, Some(process)) if keep => process,
                _ => self.group.members[self.rng.usize(0..self.group.members.len())],
            };
            match owner {
                None => self.assign(partition, target),
                Some(process) if process != target && self.group.confirmed[partition] => {
                    self.group.moving[partition] = Some(target);
                    let session = self.members[process.0].session;
                    let delay = self.rng.u64(10..1_000);
                    self.send_life(process, delay, Input::Revoke { partition, session });
                }
                Some(_) => {}
            }
        }
        let generation = self.group.generation;
        for at in 0..self.group.members.len() {
            let process = self.group.members[at];
            let session = self.members[process.0].session;
            let delay = self.rng.u64(10..1_200);
            self.send_life(process, delay, Input::Sync { generation, session });
        }
    }

    fn send_life(&mut self, (member, life): Process, delay: u64, input: Input) {
        self.queue.push(self.now + delay, Happening::Reach { member, life, input });
    }

    fn assign(&mut self, partition: usize, process: Process) {
        self.group.owner[partition] = Some(process);
        self.group.moving[partition] = None;
        self.group.confirmed[partition] = false;
        let (session, generation) = (self.members[process.0].session, self.group.generation);
        let delay = self.rng.u64(10..1_500);
        self.send_life(process, delay, Input::Assign { partition, session, generation });
    }

    /// An owner has let go.
    pub(super) fn freed(&mut self, member: usize, life: u32, partition: usize) {
        if self.group.owner[partition] != Some((member, life)) {
            return;
        }
        self.group.owner[partition] = None;
        let target = self.group.moving[partition].take().filter(|p| self.group.members.contains(p));
        let any = self.group.members.len();
        let target = target.or_else(|| (any > 0).then(|| self.group.members[self.rng.usize(0..any)]));
        if let Some(target) = target {
            self.assign(partition, target);
        }
    }

    /// The client's and the poller's side of what the group says. Gives the input back where it isn't for them.
    pub(super) fn group_input(&mut self, member: usize, input: Input) -> Option<Input> {
        match input {
            Input::Join => self.client_joins(member),
            Input::Sync { generation, session } => {
                let state = &mut self.members[member];
                if state.session == session && !state.dropped {
                    state.generation = state.generation.max(Some(generation));
                }
            }
            Input::NoticeLost => self.notice_lost(member),
            Input::Assign { partition, session, generation } => {
                self.assigned(member, partition, session, generation);
            }
            Input::Revoke { partition, session } => self.revoked(member, partition, session),
            Input::Returned { partition } => self.returned(member, partition),
            Input::Renew => {
                for partition in 0..self.odds.partitions {
                    self.commit_now(member, partition);
                }
                let quarter = self.settings.session_timeout / 4;
                self.send(member, quarter, Input::Renew);
            }
            Input::Commit { partition } => {
                self.members[member].parts[partition].committing = false;
                self.commit_now(member, partition);
            }
            Input::CommitLeaves(stamped) => self.commit_leaves(member, stamped),
            Input::Committed(stamped) => self.commit_answered(member, stamped),
            other => return Some(other),
        }
        None
    }

    fn client_joins(&mut self, member: usize) {
        if self.members[member].cut_until > self.now {
            let wait = self.members[member].cut_until - self.now + 10;
            self.send(member, wait, Input::Join);
        } else if !self.members[member].ending {
            self.join(member);
        }
    }

    /// True where the poller's thread can run a callback now; else it is put off.
    fn poller_runs(&mut self, member: usize, input: Input) -> Option<Input> {
        let state = &self.members[member];
        if state.stalled_until > self.now {
            let wait = state.stalled_until - self.now;
            self.send(member, wait + 1, input);
            None
        } else if state.blocked() {
            self.send(member, 40, input);
            None
        } else {
            Some(input)
        }
    }

    fn notice_lost(&mut self, member: usize) {
        if self.poller_runs(member, Input::NoticeLost).is_none() || !self.members[member].dropped {
            return;
        }
        self.members[member].dropped = false;
        self.members[member].session += 1;
        self.members[member].generation = None;
        for partition in 0..2 {
            if let Some(epoch) = self.members[member].parts[partition].epoch {
                let lands = self.members[member].parts[partition].lands;
                self.members[member].parts[partition] =
                    Part { lands, ..self.members[member].parts[partition].counts() };
                self.coverage.lost += 1;
                self.channel(member, Event::Lost { partition: number(partition), epoch });
            }
        }
        let delay = self.rng.u64(20..2_000);
        self.send(member, delay, Input::Join);
    }

    fn assigned(&mut self, member: usize, partition: usize, session: u32, generation: u64) {
        if self.poller_runs(member, Input::Assign { partition, session, generation }).is_none()
            || self.members[member].session != session
        {
            return;
        }
        let life = self.members[member].life;
        if self.group.owner[partition] == Some((member, life)) {
            self.group.confirmed[partition] = true;
        }
        let state = &mut self.members[member];
        state.generation = state.generation.max(Some(generation));
        state.epochs += 1;
        let epoch = Epoch(state.epochs);
        state.parts[partition].epoch = Some(epoch);
        self.coverage.assigned += 1;
        let other = &self.members[1 - member];
        if other.parts[partition].epoch.is_some() && other.alive() {
            self.coverage.two_owners += 1;
        }
        self.channel(member, Event::Assigned { partition: number(partition), epoch });
    }

    fn revoked(&mut self, member: usize, partition: usize, session: u32) {
        if self.members[member].session != session || self.members[member].parts[partition].revoked_at.is_some() {
            return;
        }
        let state = &self.members[member];
        if state.stalled_until > self.now {
            let wait = state.stalled_until - self.now;
            self.send(member, wait + 1, Input::Revoke { partition, session });
            return;
        }
        let Some(epoch) = state.parts[partition].epoch else { return };
        let (life, last) = (state.life, state.last_poll);
        self.members[member].parts[partition].revoked_at = Some(self.now);
        self.coverage.revoked += 1;
        let over = last + self.settings.max_poll_interval;
        self.queue.push(over.max(self.now), Happening::PollOver { member, life });
        self.channel(member, Event::Revoked { partition: number(partition), epoch });
        self.send(member, self.settings.drain + 1_000, Input::DrainOver { partition, epoch });
        self.moment(Moment::RevokeSeen, member);
    }

    /// The engine has let go: a last commit, then the callback returns.
    pub(super) fn release(&mut self, member: usize, partition: usize, epoch: Epoch, offset: Option<i64>) {
        let part = &mut self.members[member].parts[partition];
        if part.epoch != Some(epoch) || part.revoked_at.is_none() {
            return;
        }
        if let Some(offset) = offset {
            let stamped = Stamped { partition, epoch, offset, sent_at: self.now };
            self.commit_leaves(member, stamped);
        }
        let delay = self.rng.u64(8..40);
        self.send(member, delay, Input::Returned { partition });
    }

    fn returned(&mut self, member: usize, partition: usize) {
        let state = &mut self.members[member];
        let part = &mut state.parts[partition];
        if part.revoked_at.is_none() {
            return;
        }
        *part = Part { lands: part.lands, ..part.counts() };
        let life = state.life;
        self.queue.push(self.now + 5, Happening::Freed { member, life, partition });
    }

    fn commit_now(&mut self, member: usize, partition: usize) {
        let part = &self.members[member].parts[partition];
        let (Some(epoch), Some(offset)) = (part.epoch, part.commit) else { return };
        let stamped = Stamped { partition, epoch, offset, sent_at: self.now };
        let held = self.members[member].hold_commit.take();
        let slow = self.odds.slow_commits && self.rng.u32(0..12) == 0;
        let delay = match held {
            Some(length) => length,
            None if slow => self.rng.u64(0..self.settings.session_timeout * 2),
            None => 0,
        };
        self.moment(Moment::CommitStamped, member);
        if !self.members[member].alive() {
            return;
        }
        if self.members[member].frozen() {
            self.members[member].held.push(Input::CommitLeaves(stamped));
        } else if delay > 0 {
            self.send(member, delay, Input::CommitLeaves(stamped));
        } else {
            self.commit_leaves(member, stamped);
        }
    }

    fn commit_leaves(&mut self, member: usize, stamped: Stamped) {
        let state = &self.members[member];
        if state.cut_until > self.now {
            return;
        }
        let (life, generation) = (state.life, state.generation);
        let delay = self.rng.u64(1..8);
        self.queue.push(self.now + delay, Happening::CommitArrives { member, life, generation, stamped });
    }

    pub(super) fn commit_arrives(&mut self, member: usize, life: u32, generation: Option<u64>, stamped: Stamped) {
        let known = self.group.members.contains(&(member, life));
        if !known || generation != Some(self.group.generation) {
            self.coverage.generation_refused += u64::from(known);
            self.coverage.commits_refused += 1;
            return;
        }
        let partition = stamped.partition;
        if self.group.owner[partition] != Some((member, life)) {
            self.coverage.stray_commits += 1;
            tell!(self, "stray commit of {member} for partition {partition}: {}", stamped.offset);
        }
        if stamped.offset < self.group.offset[partition] {
            self.coverage.offset_went_back += 1;
            self.group.offset[partition] = stamped.offset;
            self.moment(Moment::WentBack, member);
        }
        self.group.offset[partition] = stamped.offset;
        let delay = if self.rng.u32(0..40) == 0 { self.rng.u64(0..4_000) } else { self.rng.u64(1..8) };
        if self.members[member].life == life && self.members[member].cut_until <= self.now {
            self.send(member, delay, Input::Committed(stamped));
            self.moment(Moment::CommitAccepted, member);
        }
    }

    fn commit_answered(&mut self, member: usize, mut stamped: Stamped) {
        let current = self.members[member].parts[stamped.partition].epoch;
        if self.off(DriverMutation::LeaseFromAnswer) {
            stamped.sent_at = self.now;
        }
        if current == Some(stamped.epoch) || self.off(DriverMutation::NoEpochCheck) {
            let Stamped { partition, epoch, offset, sent_at } = stamped;
            self.feed(member, Event::Committed { partition: number(partition), epoch, sent_at, offset });
        }
        self.moment(Moment::CommitAnswered, member);
    }

    /// Puts an event into the channel between poller and loop.
    pub(super) fn channel(&mut self, member: usize, event: Event) {
        self.queue_up(member, Input::Channel(event));
    }

    /// Whatever it is, it keeps its place in the channel.
    pub(super) fn queue_up(&mut self, member: usize, input: Input) {
        let busy = self.chance(self.scenario.slow_channel);
        let delay = if busy { self.rng.u64(0..2_000) } else { self.rng.u64(0..3) };
        let at = self.members[member].channel.max(self.now + delay);
        self.members[member].channel = at;
        self.send(member, at - self.now, input);
    }
}

/// A partition's number as the engine counts.
pub(super) fn number(partition: usize) -> i32 {
    i32::from(partition == 1)
}
