//! The injected faults and actions: crashes, freezes, stalls, cut links, rebalances, an unavailable instance, and
//! user edits.

use super::super::Event;
use super::injection::{Injection, InjectionPoint, Target, UserAction};
use super::instance::ColumnValue;
use super::member::Input;
use super::publisher::{COLUMNS, column};
use super::world::{ProducePayload, ScheduledEvent, World, trace_line};
use crate::model::Phase;

impl World {
    /// Performs an injection. `triggering` is the member at which its injection point was reached.
    pub(super) fn inject(&mut self, injection: &Injection, triggering: Option<usize>) {
        trace_line!(self, "*** {injection:?}");
        let resolve = |world: &World, target: Target| match target {
            Target::Member(member) => member,
            Target::Owner => world.group.owner(0).unwrap_or(0),
            Target::Triggering => triggering.or_else(|| world.group.owner(0)).unwrap_or(0),
        };
        match injection {
            Injection::Crash { target, down } => {
                let member = resolve(self, *target);
                self.coverage.crashes += 1;
                self.crash(member, *down);
            }
            Injection::Freeze { target, length } => {
                let member = resolve(self, *target);
                self.freeze(member, *length);
            }
            Injection::StallPoller { target, length } => {
                let member = resolve(self, *target);
                self.stall(member, *length);
            }
            Injection::Disconnect { target, length } => {
                let member = resolve(self, *target);
                self.coverage.disconnects += 1;
                let until = self.now + length;
                self.members[member].disconnected_until = until;
                self.update_reachability(member);
                self.queue.push(until, ScheduledEvent::Reconnect { member });
            }
            Injection::Rebalance => self.rebalance(None),
            Injection::AssignAllTo(member) => self.rebalance(Some(*member)),
            Injection::Terminate { target, drain, down } => {
                let member = resolve(self, *target);
                self.terminate(member, *drain, *down);
            }
            Injection::Compact => self.compact(),
            Injection::Outage(length) => self.params.outage_until = self.now + length,
            Injection::Throttle(length) => self.params.throttle_until = self.now + length,
            Injection::Unauthorized(length) => self.params.unauthorized_until = self.now + length,
            Injection::DelayPermits(length) => self.params.permits_from = self.now + length,
            Injection::UserAction(key, action) => self.act_as_user(*key, *action),
            Injection::Redrive(key) => self.redrive(*key),
            Injection::Resync(key) => self.resync(*key),
            Injection::WriteOutcomes(outcomes) => self.planned_outcomes.extend(outcomes.iter().copied()),
            Injection::ProduceFault(point, fault) => self.produce_faults.push((*point, *fault)),
            Injection::DelayCommit { target, length } => {
                let member = resolve(self, *target);
                self.members[member].commit_delay = Some(*length);
            }
        }
    }

    pub(super) fn compact(&mut self) {
        self.coverage.compactions += 1;
        let retention = if self.rng.bool() { 0 } else { 60_000 };
        for log in &mut self.logs {
            log.compact(self.now, retention);
        }
    }

    fn crash(&mut self, member: usize, down: u64) {
        if !self.members[member].alive() {
            return;
        }
        self.handle_unsent_requests(member, true);
        self.handle_unsent_produces(member, true, 0);
        self.members[member].reset();
        self.end_reachability(member);
        self.queue.push(self.now + down, ScheduledEvent::Restart { member });
    }

    fn end_reachability(&mut self, member: usize) {
        let session = self.settings.session_timeout;
        let pid = self.members[member].pid - 1;
        self.members[member].reachable = false;
        self.members[member].reachability += 1;
        let reachability = self.members[member].reachability;
        let at = self.now + self.rng.u64(session * 2 / 3..=session);
        self.queue.push(at, ScheduledEvent::SessionTimeout { member, pid, reachability });
    }

    fn freeze(&mut self, member: usize, length: u64) {
        if !self.members[member].alive() || self.members[member].frozen() {
            return;
        }
        self.coverage.freezes += 1;
        self.handle_unsent_requests(member, false);
        self.handle_unsent_produces(member, false, self.now + length);
        self.members[member].frozen_until = Some(self.now + length);
        self.update_reachability(member);
        let pid = self.members[member].pid;
        self.queue.push(self.now + length, ScheduledEvent::Resume { member, pid });
    }

    /// Ledger records that had not left the process: they are lost with it, or reach the broker after the freeze.
    fn handle_unsent_produces(&mut self, member: usize, is_crash: bool, until: u64) {
        let pid = self.members[member].pid;
        let mut lands = until;
        // The producer keeps the order: all later records of the partition wait too.
        let mut stuck = [false; 2];
        for number in 0..self.produces.len() {
            let produce = &self.produces[number];
            let open = produce.member == member && produce.pid == pid && !produce.landed && !produce.outcome_reported;
            let partition = produce.partition;
            if !open || (!stuck[partition] && self.rng.u32(0..3) == 0) {
                continue;
            }
            stuck[partition] = true;
            if is_crash {
                self.produces[number].landed = true;
                continue;
            }
            // The record is rescheduled. The event of the old schedule finds it landed already.
            let payload = std::mem::replace(&mut self.produces[number].payload, ProducePayload::DeadLetter(None));
            let produce = &mut self.produces[number];
            produce.landed = true;
            let moved = super::world::Produce {
                member,
                pid,
                partition: produce.partition,
                enqueued_at: produce.enqueued_at,
                produce_id: produce.produce_id,
                payload,
                landed: false,
                outcome_reported: false,
                ack_point: produce.ack_point,
            };
            lands += self.rng.u64(1..15);
            let partition = moved.partition;
            self.members[member].client_partitions[partition].last_landing =
                self.members[member].client_partitions[partition].last_landing.max(lands);
            self.coverage.late_produces += 1;
            self.produces.push(moved);
            let number = u32::try_from(self.produces.len() - 1).unwrap_or(u32::MAX);
            self.queue.push(lands, ScheduledEvent::ProduceLands(number));
        }
    }

    pub(super) fn resume(&mut self, member: usize, pid: u32) {
        let state = &mut self.members[member];
        if state.pid != pid || state.frozen_until.is_none_or(|until| until > self.now) {
            return;
        }
        trace_line!(self, "member {member} resumes");
        state.frozen_until = None;
        state.resumed_at = self.now;
        self.reached(InjectionPoint::MemberResumed, member);
        let state = &mut self.members[member];
        let deferred = std::mem::take(&mut state.deferred);
        // Deferred inputs come before those that are still on their way.
        state.channel_time = state.channel_time.max(self.now);
        self.update_reachability(member);
        for input in deferred {
            match input {
                Input::Channel(_) | Input::Record { .. } => self.send(member, 0, input),
                input => {
                    let delay = self.rng.u64(0..60);
                    self.send(member, delay, input);
                }
            }
        }
        self.run_effects(member);
    }

    fn stall(&mut self, member: usize, length: u64) {
        let state = &mut self.members[member];
        if !state.alive() {
            return;
        }
        state.stalled_until = self.now + length;
        self.coverage.stalls += 1;
        let (pid, over) = (state.pid, state.last_poll + self.settings.max_poll_interval);
        self.queue.push(over.max(self.now), ScheduledEvent::PollTimeout { member, pid });
    }

    fn terminate(&mut self, member: usize, drain: u64, down: u64) {
        if !self.members[member].alive() || self.members[member].frozen() {
            return;
        }
        self.members[member].terminating = true;
        let pid = self.members[member].pid;
        self.queue.push(self.now + drain, ScheduledEvent::Exit { member, pid, down });
        // The signal reaches the loop between two steps.
        self.send(member, 1, Input::Loop(Event::Drain));
    }

    /// The process exits: it leaves the group first.
    pub(super) fn exit(&mut self, member: usize, down: u64) {
        let pid = self.members[member].pid;
        self.expel(member, pid, "left the group");
        self.crash(member, down);
    }

    /// Ends all faults: members, links and the instance recover.
    pub(super) fn end_faults(&mut self) {
        trace_line!(self, "faults end");
        self.faults_over = true;
        self.params.unknown_produces = 0;
        self.params.bad_writes = 0;
        self.params.slow_commits = false;
        self.params.max_permit_delay = self.params.max_permit_delay.min(50);
        self.params.outage_until = 0;
        self.params.throttle_until = 0;
        self.params.unauthorized_until = 0;
        self.params.permits_from = 0;
        self.planned_outcomes.clear();
        self.produce_faults.clear();
        for member in 0..2 {
            self.members[member].stalled_until = 0;
            self.members[member].disconnected_until = 0;
            self.members[member].commit_delay = None;
            let pid = self.members[member].pid;
            if self.members[member].frozen() {
                self.members[member].frozen_until = Some(self.now);
                self.send_stuck_produces(member, pid);
                self.queue.push(self.now, ScheduledEvent::Resume { member, pid });
            } else if !self.members[member].alive() {
                self.queue.push(self.now + 10, ScheduledEvent::Restart { member });
            }
            self.update_reachability(member);
        }
    }

    /// A freeze ends early: the records that would have left at its end leave now, and later ones do not wait for them.
    fn send_stuck_produces(&mut self, member: usize, pid: u32) {
        let mut lands = self.now;
        for (number, produce) in (0..).zip(&self.produces) {
            if produce.member == member && produce.pid == pid && !produce.landed && !produce.outcome_reported {
                lands += 1;
                self.queue.push(lands, ScheduledEvent::ProduceLands(number));
            }
        }
        for client in &mut self.members[member].client_partitions {
            client.last_landing = client.last_landing.min(lands);
        }
    }

    pub(super) fn draw_user_action(&mut self) -> UserAction {
        match self.rng.u32(0..20) {
            0..8 => UserAction::Edit,
            8..11 => UserAction::Note,
            11..13 => UserAction::StartWork,
            13..15 => UserAction::Resolve,
            15 => UserAction::Reopen,
            16..18 => UserAction::Close,
            18 => UserAction::Cancel,
            _ => UserAction::Delete,
        }
    }

    /// A user does something to the newest ticket of a key.
    fn act_as_user(&mut self, key: usize, action: UserAction) {
        let (now, date) = (self.now, self.instance_date());
        let value = format!("p{}", self.rng.u32(0..3));
        let name = COLUMNS[self.rng.usize(0..COLUMNS.len())];
        let Some(at) = self.instance.tickets.iter().rposition(|t| t.key == key && !t.deleted) else { return };
        let phase = self.instance.phase(&self.instance.tickets[at]);
        let ticket = &mut self.instance.tickets[at];
        // Until the bridge has seen the result of its write, nobody can tell whose value it is.
        self.user_raced[key] |= ticket.write_not_in_ledger;
        let state = match action {
            UserAction::Edit if phase.is_open() => {
                let text = value.clone();
                match ticket.values.iter_mut().find(|v| *v.column == *name) {
                    Some(existing) => (existing.text, existing.set_by_user_at) = (text, Some(now)),
                    None => ticket.values.push(ColumnValue { column: column(name), text, set_by_user_at: Some(now) }),
                }
                ticket.user_edited = true;
                None
            }
            UserAction::Note => None,
            UserAction::StartWork if phase == Phase::New => Some("2"),
            UserAction::Resolve if phase.is_open() => Some("6"),
            UserAction::Reopen if phase == Phase::Resolved => {
                ticket.reopened_by_user_at = Some(now);
                self.user_ended_at[key] = None;
                self.coverage.reopened_by_users += 1;
                Some("2")
            }
            UserAction::Close if phase != Phase::Closed => Some("7"),
            UserAction::Cancel if phase.is_open() => Some("8"),
            UserAction::Delete => {
                ticket.deleted = true;
                self.user_changed_state[key] = true;
                self.user_ended_at[key] = Some(now);
                self.coverage.deleted_rows += 1;
                return;
            }
            _ => return,
        };
        self.coverage.user_changes += 1;
        if let Some(state) = state {
            ticket.state = state.into();
            ticket.ended_on = (state != "2").then_some(date);
            self.user_changed_state[key] = true;
            if state != "2" {
                self.user_ended_at[key] = Some(now);
            }
            self.coverage.user_state_changes += u64::from(state != "2");
        }
        ticket.mod_count += 1;
        ticket.updated_by_user = true;
        ticket.updated_on = date;
        ticket.user_versions.push((ticket.mod_count, now));
        trace_line!(self, "user: {action:?} {} {name}={value}", self.instance.tickets[at].number);
    }
}
