//! Requests: the check before sending, the way to the instance, their processing, and the response.

use super::super::Event;
use super::super::event::InstanceRequest;
use super::super::invariants;
use super::injection::{InjectionPoint, WriteOutcome, key_index};
use super::instance::BridgeWrite;
use super::member::{Input, OutgoingRequest};
use super::publisher::REJECTED_VALUE;
use super::scenario::DriverMutation;
use super::world::{Request, ScheduledEvent, World, trace_line};
use crate::model::answer::Journal;
use crate::model::{Answer, Failure, FailureClass, Position};

/// The key of a request.
fn key_of(body: &InstanceRequest) -> usize {
    match body {
        InstanceRequest::Create { key, .. }
        | InstanceRequest::Update { key, .. }
        | InstanceRequest::Read { key, .. }
        | InstanceRequest::Find { key, .. } => key_index(key),
        InstanceRequest::ReadMany { .. } => unreachable!("a read of many keys"),
    }
}

fn failed(class: FailureClass, code: &str) -> Answer {
    Answer::Failed(Failure { class, code: code.into(), message: String::new() })
}

const LOST: FailureClass = FailureClass::Ambiguous { transaction_ended: false };
const ENDED: FailureClass = FailureClass::Ambiguous { transaction_ended: true };

impl World {
    /// Passes a request to the driver.
    pub(super) fn request(&mut self, member: usize, outgoing: OutgoingRequest) {
        self.coverage.requests += 1;
        if !self.scenario.scripted && self.chance(self.scenario.slow_driver) {
            let wait = self.rng.u64(1..self.settings.session_timeout);
            self.send(member, wait, Input::CheckAndSend(Box::new(outgoing)));
        } else {
            self.check(member, outgoing);
        }
    }

    /// Checks a request once and sends it.
    pub(super) fn check(&mut self, member: usize, outgoing: OutgoingRequest) {
        let OutgoingRequest { id, partition, epoch, load_generation, lease_until, body } = outgoing;
        let attempt = match &body {
            InstanceRequest::Create { attempt, .. } | InstanceRequest::Update { attempt, .. } => Some(*attempt),
            _ => None,
        };
        let current = self.members[member].client_partitions[partition].epoch;
        let stale = attempt.is_some() && current != Some(epoch) && !self.rule_off(DriverMutation::NoEpochCheck);
        let retaken = load_generation != self.members[member].client_partitions[partition].load_generation
            && !self.rule_off(DriverMutation::NoLoadGenerationCheck);
        if self.now >= lease_until || stale || (attempt.is_some() && retaken) {
            self.coverage.not_sent += 1;
            let answer = Answer::NotSent { reason: "the lease has expired".into() };
            let event = Event::RequestCompleted {
                request: id,
                issued_at: self.now,
                instance_date: None,
                answer,
                already_counted: false,
            };
            self.send(member, 1, Input::Loop(event));
            return;
        }
        let number = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        self.requests.push(Request {
            member,
            pid: self.members[member].pid,
            id,
            partition,
            body,
            attempt,
            lease_until,
            checked_at: self.now,
            sent_at: self.now,
            frozen_unsent: false,
            arrived: false,
            may_commit: attempt.is_some(),
            answered: false,
            answer: None,
            outcome: WriteOutcome::Applied,
        });
        if attempt.is_some() {
            self.in_flight.push(number);
            self.reached(InjectionPoint::CheckPassed, member);
        }
        let travel = self.rng.u64(0..25);
        self.queue.push(self.now + travel, ScheduledEvent::RequestArrives(number));
    }

    /// Decides which requests of a member had not left the process when it froze or crashed.
    pub(super) fn handle_unsent_requests(&mut self, member: usize, is_crash: bool) {
        let (pid, now) = (self.members[member].pid, self.now);
        for number in 0..self.requests.len() {
            let request = &self.requests[number];
            let unsent = request.member == member && request.pid == pid && !request.arrived && !request.frozen_unsent;
            if unsent && request.checked_at + 25 >= now && self.rng.u32(0..3) > 0 {
                if is_crash {
                    self.requests[number].arrived = true;
                    self.end_write(u32::try_from(number).unwrap_or(u32::MAX));
                } else {
                    self.requests[number].frozen_unsent = true;
                    self.coverage.frozen_between_check_and_send += 1;
                }
            }
        }
    }

    /// A request reaches the instance.
    pub(super) fn arrive(&mut self, number: u32) {
        let at = number as usize;
        let (member, pid, frozen_unsent) = {
            let r = &self.requests[at];
            (r.member, r.pid, r.frozen_unsent)
        };
        if self.requests[at].arrived {
            return;
        }
        if frozen_unsent {
            if self.members[member].pid != pid {
                // The request was lost with its process.
                self.requests[at].arrived = true;
                self.end_write(number);
                return;
            }
            if let Some(until) = self.members[member].frozen_until {
                let wait = self.rng.u64(1..20);
                self.queue.push(until + wait, ScheduledEvent::RequestArrives(number));
                return;
            }
            self.requests[at].sent_at = self.now;
        }
        self.requests[at].arrived = true;
        if self.requests[at].attempt.is_some() {
            self.write_arrives(number);
        } else {
            self.read_arrives(number);
        }
    }

    fn reply(&mut self, number: u32, delay: u64, answer: Answer) {
        let request = &mut self.requests[number as usize];
        request.answer = Some(answer);
        let due = (request.sent_at + self.settings.request_deadline).min(self.now + delay).max(self.now);
        let (member, pid) = (request.member, request.pid);
        self.queue.push(due, ScheduledEvent::Deliver { member, pid, input: Input::Answered { request: number } });
    }

    /// The failure response of an instance that is down, locked out or throttled; `None` if it processes the request.
    fn unavailable_response(&mut self, write: bool) -> Option<Answer> {
        if self.params.outage_until > self.now {
            self.coverage.outages += 1;
            let class = if write { FailureClass::Transient } else { FailureClass::Unavailable };
            Some(failed(class, "no_connection"))
        } else if self.params.unauthorized_until > self.now {
            self.coverage.unauthorized += 1;
            Some(failed(FailureClass::Unauthorized, "http_401"))
        } else if self.params.throttle_until > self.now {
            self.coverage.throttled += 1;
            let wait = self.rng.bool().then_some((self.params.throttle_until - self.now) / 2);
            Some(failed(FailureClass::Throttled { retry_after: wait }, "http_429"))
        } else {
            None
        }
    }

    fn read_arrives(&mut self, number: u32) {
        self.coverage.reads += 1;
        let latency = self.rng.u64(2..120);
        let fails = !self.faults_over && self.chance(self.params.bad_writes / 3);
        let answer = match self.unavailable_response(false) {
            Some(answer) => answer,
            None if fails => failed([LOST, ENDED, FailureClass::Transient][self.rng.usize(0..3)], "http_503"),
            None => self.answer_read(number),
        };
        self.reply(number, latency, answer);
    }

    fn answer_read(&mut self, number: u32) -> Answer {
        let request = &self.requests[number as usize];
        match &request.body {
            InstanceRequest::Read { sys_id, markers, .. } => {
                let Some(at) = self.instance.find(sys_id) else { return failed(FailureClass::Gone, "http_404") };
                let ticket = &self.instance.tickets[at];
                let journal = (!markers.is_empty()).then(|| {
                    let present = |m: &&String| ticket.journal.iter().any(|l| l.marker == **m);
                    Journal::Read(markers.iter().filter(present).cloned().collect())
                });
                Answer::Rows { rows: vec![self.instance.row(&self.instance.tickets[at])], journal }
            }
            InstanceRequest::ReadMany { tickets, .. } => {
                let found = |sys_id: &String| self.instance.find(sys_id);
                let found: Vec<usize> = tickets.iter().filter_map(|(_, sys_id)| found(sys_id)).collect();
                self.coverage.shared_looks += 1;
                Answer::Rows {
                    rows: found.into_iter().map(|at| self.instance.row(&self.instance.tickets[at])).collect(),
                    journal: None,
                }
            }
            body => {
                let key = key_of(body);
                let rows = self.instance.tickets_of(key).filter(|t| !t.deleted).map(|t| self.instance.row(t)).collect();
                Answer::Rows { rows, journal: None }
            }
        }
    }

    /// Draws the outcome of a write.
    fn draw_outcome(&mut self) -> WriteOutcome {
        if !self.planned_outcomes.is_empty() {
            return self.planned_outcomes.remove(0);
        }
        if self.faults_over || !self.chance(self.params.bad_writes) {
            let slow = self.rng.u32(0..40) == 0;
            return if slow {
                WriteOutcome::Slow(self.rng.u64(0..self.settings.request_deadline))
            } else {
                WriteOutcome::Applied
            };
        }
        if self.chance(self.params.ghosts) {
            let span = self.settings.request_deadline + self.settings.max_transaction_time;
            return WriteOutcome::Ghost(match self.rng.u32(0..8) {
                0 => u64::MAX,
                1..4 => span - self.rng.u64(1..(span / 8)),
                _ => self.rng.u64(1..span),
            });
        }
        match self.rng.u32(0..9) {
            0..2 => WriteOutcome::AppliedResponseLost,
            2..4 => WriteOutcome::NotAppliedResponseLost,
            4 => WriteOutcome::AppliedErrorReturned,
            5 => WriteOutcome::NotAppliedErrorReturned,
            6 => WriteOutcome::Throttled,
            7 => WriteOutcome::NotConnected,
            _ => WriteOutcome::AppliedConflictReturned,
        }
    }

    fn write_arrives(&mut self, number: u32) {
        let at = number as usize;
        self.coverage.writes += 1;
        let member = self.requests[at].member;
        let key = key_of(&self.requests[at].body);
        let within_lease = self.requests[at].sent_at < self.requests[at].lease_until;
        let mut latest = u64::MAX;
        if !within_lease {
            self.coverage.late_sends += 1;
            match self.latest_commit(number) {
                Some(limit) => latest = limit,
                None => {
                    self.coverage.beyond_documented_limit += 1;
                    self.end_write(number);
                    self.reply(number, 10_000, failed(LOST, "cut"));
                    return;
                }
            }
        }
        trace_line!(self, "instance: {:?} of k{key} from {member} arrives", self.requests[at].attempt);
        self.check_in_flight(number, key);
        self.reached(InjectionPoint::WriteArrived, member);
        let rejects = self.params.rejects && is_rejected(&self.requests[at].body);
        if let Some(answer) = self.unavailable_response(true) {
            self.end_write(number);
            self.reply(number, 20, answer);
            return;
        }
        if rejects {
            self.coverage.rejected += 1;
            self.end_write(number);
            self.reply(number, 50, failed(FailureClass::Rejected, "data_policy"));
            return;
        }
        let outcome = self.draw_outcome();
        self.requests[at].outcome = outcome;
        self.execute_write(number, outcome, latest);
    }

    fn execute_write(&mut self, number: u32, outcome: WriteOutcome, latest: u64) {
        let sent_at = self.requests[number as usize].sent_at;
        let latency = self.rng.u64(5..300);
        let span = self.settings.request_deadline + self.settings.max_transaction_time;
        match outcome {
            WriteOutcome::Applied
            | WriteOutcome::Slow(_)
            | WriteOutcome::AppliedResponseLost
            | WriteOutcome::AppliedErrorReturned
            | WriteOutcome::AppliedConflictReturned => {
                self.commit_write(number);
            }
            WriteOutcome::Ghost(delay) => {
                let timeout_after = self.rng.u64(1..=self.settings.request_deadline);
                self.reply(number, timeout_after, failed(LOST, "timeout"));
                let commit_at =
                    sent_at.saturating_add(delay).min(sent_at + span).min(latest.saturating_sub(1)).max(self.now);
                self.queue.push_last(commit_at, ScheduledEvent::CommitWrite(number));
            }
            WriteOutcome::NotAppliedResponseLost => {
                self.end_write(number);
                let timeout_after = self.rng.u64(1..=self.settings.request_deadline);
                self.reply(number, timeout_after, failed(LOST, "cut"));
            }
            WriteOutcome::NotAppliedErrorReturned => {
                self.coverage.not_applied_errors += 1;
                self.end_write(number);
                self.reply(number, latency, failed(ENDED, "http_500"));
            }
            WriteOutcome::Throttled => {
                self.coverage.throttled += 1;
                self.end_write(number);
                self.reply(number, 10, failed(FailureClass::Throttled { retry_after: Some(1_000) }, "http_429"));
            }
            WriteOutcome::Unauthorized => {
                self.coverage.unauthorized += 1;
                self.end_write(number);
                self.reply(number, 10, failed(FailureClass::Unauthorized, "http_401"));
            }
            WriteOutcome::NotConnected => {
                self.end_write(number);
                self.reply(number, 10, failed(FailureClass::Transient, "no_connection"));
            }
        }
    }

    /// The latest time at which a write that was sent after its lease may still be committed, within the documented
    /// limits: the next owner waits for the span from its own `owner` record. `None`: it must never arrive.
    fn latest_commit(&self, number: u32) -> Option<u64> {
        let request = &self.requests[number as usize];
        let span = self.settings.request_deadline + self.settings.max_transaction_time;
        let successor = self.logs[request.partition].owners.iter().find(|(at, _)| *at > request.checked_at);
        match successor {
            Some((at, _)) if request.sent_at + 1 >= at + span => None,
            Some((at, _)) => Some(at + span),
            None => Some(u64::MAX),
        }
    }

    fn check_in_flight(&mut self, number: u32, key: usize) {
        let others = self.in_flight.iter().filter(|n| {
            let other = &self.requests[**n as usize];
            **n != number && other.may_commit && !other.frozen_unsent && key_of(&other.body) == key
        });
        if let Err(broken) = invariants::one_unsettled_write(1 + others.count()) {
            self.report_violation(format!("k{key}: {broken}"));
        }
    }

    fn end_write(&mut self, number: u32) {
        self.requests[number as usize].may_commit = false;
        self.in_flight.retain(|n| *n != number);
    }

    /// The instance commits a write.
    pub(super) fn commit_write(&mut self, number: u32) {
        let at = number as usize;
        self.end_write(number);
        let (member, outcome) = (self.requests[at].member, self.requests[at].outcome);
        let write = self.write_of(number);
        let key = write.key;
        let date = self.instance_date();
        if let WriteOutcome::Ghost(_) = outcome {
            self.coverage.ghosts += 1;
            let pid = self.requests[at].pid;
            let owner = self.group.owner(self.requests[at].partition);
            if owner != Some(member) || self.members[member].pid != pid {
                self.coverage.ghosts_after_handover += 1;
            }
        }
        trace_line!(self, "instance: commits {:?} of k{key}{}", self.requests[at].attempt, ghost_suffix(outcome));
        let Some(committed) = self.instance.commit(&write, date, self.max_row_age()) else {
            self.reply_after(number, outcome, failed(FailureClass::Gone, "http_404"));
            return;
        };
        self.coverage.creates += u64::from(write.sys_id.is_none());
        self.coverage.updates += u64::from(write.sys_id.is_some());
        self.coverage.notes += write.notes.len() as u64;
        if write.sys_id.is_none() && self.instance.tickets_of(key).count() > 1 {
            self.coverage.second_tickets += 1;
        }
        if committed.user_raced {
            self.coverage.user_races += 1;
            self.user_raced[key] = true;
        }
        if let Some(violation) = committed.violation {
            self.report_violation(format!("k{key}: {violation}"));
        }
        self.check_order(number, key);
        let answer = Answer::Applied { row: Box::new(committed.row), warnings: committed.warnings };
        self.reply_after(number, outcome, answer);
        self.reached(InjectionPoint::WriteCommitted, member);
    }

    fn reply_after(&mut self, number: u32, outcome: WriteOutcome, answer: Answer) {
        let latency = self.rng.u64(5..300);
        match outcome {
            WriteOutcome::Slow(delay) => self.reply_slow(number, delay, answer),
            WriteOutcome::AppliedResponseLost => {
                let timeout_after = self.rng.u64(1..=self.settings.request_deadline);
                self.reply(number, timeout_after, failed(LOST, "cut"));
            }
            WriteOutcome::AppliedErrorReturned => {
                self.coverage.applied_errors += 1;
                self.reply(number, latency, failed(ENDED, "http_500"));
            }
            WriteOutcome::AppliedConflictReturned => {
                self.reply(number, latency, failed(FailureClass::Conflict, "unique_key"))
            }
            WriteOutcome::Ghost(_) => {}
            _ => self.reply(number, latency, answer),
        }
    }

    /// A response later than the deadline counts as none.
    fn reply_slow(&mut self, number: u32, delay: u64, answer: Answer) {
        if delay >= self.settings.request_deadline {
            self.reply(number, delay, failed(LOST, "timeout"));
        } else {
            self.reply(number, delay, answer);
        }
    }

    /// Checks that the writes of a key, and their notes, take effect in the order of the events.
    fn check_order(&mut self, number: u32, key: usize) {
        let Some(attempt) = self.requests[number as usize].attempt else { return };
        let partition = super::group::partition_number(self.requests[number as usize].partition);
        let claimed_ranges =
            self.claimed_ranges.iter().rev().find(|(a, lo, _)| *a == attempt && lo.partition == partition);
        let Some((_, _, hi)) = claimed_ranges.copied() else { return };
        // A business rule can hide that a write was applied; it is then repeated with fewer events. So can a user who
        // edits the row before the bridge has seen its own write.
        if self.instance.business_rule.is_none()
            && !self.user_raced[key]
            && let Err(broken) = invariants::writes_in_order(self.newest_committed[key], hi)
        {
            self.report_violation(format!("k{key}: {broken}"));
        }
        self.newest_committed[key] = self.newest_committed[key].max(Some(hi));
    }

    /// How old the row may be on which a write is decided. Where permits are scarce, any age is allowed.
    pub(super) fn max_row_age(&self) -> u64 {
        let scarce = self.params.max_permit_delay > 1_000;
        if scarce { u64::MAX / 2 } else { 20 * self.settings.max_row_age + 2_000 }
    }

    fn write_of(&self, number: u32) -> BridgeWrite {
        let request = &self.requests[number as usize];
        let (sys_id, decided_on, fields, notes) = match &request.body {
            InstanceRequest::Create { fields, notes, .. } => (None, None, fields, notes),
            InstanceRequest::Update { sys_id, decided_on, fields, notes, .. } => {
                (Some(sys_id.clone()), *decided_on, fields, notes)
            }
            _ => return BridgeWrite::empty(),
        };
        BridgeWrite {
            checked_at: request.checked_at,
            decided_on,
            key: key_of(&request.body),
            sys_id,
            fields: fields.clone(),
            notes: notes.clone(),
        }
    }

    /// A response reaches its sender.
    pub(super) fn answered(&mut self, member: usize, number: u32) {
        let at = number as usize;
        if std::mem::replace(&mut self.requests[at].answered, true) {
            return;
        }
        let Some(answer) = self.requests[at].answer.take() else { return };
        let request = &self.requests[at];
        let (id, write) = (request.id, request.attempt.is_some());
        let issued_at = request.sent_at + self.rng.u64(0..3).min(self.now - request.sent_at);
        let date = self.instance_date();
        // Some responses count as if they shared a batch with others: correctness must not depend on it.
        let already_counted = number % 4 == 3;
        let event =
            Event::RequestCompleted { request: id, issued_at, instance_date: Some(date), answer, already_counted };
        self.apply_event(member, event);
        self.reached(if write { InjectionPoint::WriteAnswered } else { InjectionPoint::ReadAnswered }, member);
    }
}

fn ghost_suffix(outcome: WriteOutcome) -> &'static str {
    if matches!(outcome, WriteOutcome::Ghost(_)) { ", a ghost" } else { "" }
}

fn is_rejected(body: &InstanceRequest) -> bool {
    match body {
        InstanceRequest::Create { fields, .. } | InstanceRequest::Update { fields, .. } => {
            fields.iter().any(|(_, v)| v == REJECTED_VALUE)
        }
        _ => false,
    }
}

/// The position and the part that are in a marker of the engine. `None` for the note that refers to an older ticket.
pub(super) fn read_marker(marker: &str) -> Option<(Position, u32)> {
    let inner = marker.strip_prefix("[alerts/")?.strip_suffix(']')?;
    let (place, part) = inner.split_once(' ').unwrap_or((inner, "1/1"));
    let part = part.split_once('/')?.0.parse().ok()?;
    let (partition, rest) = place.split_once('/')?;
    let (offset, index) = rest.split_once('.')?;
    Some((Position::new(partition.parse().ok()?, offset.parse().ok()?, index.parse().ok()?), part))
}
