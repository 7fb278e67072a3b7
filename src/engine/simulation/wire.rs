//! Requests: the check before sending, the way to the instance, what it does with them, the way back.

use super::super::Event;
use super::super::event::RequestBody;
use super::super::invariants;
use super::alerts::REFUSED_VALUE;
use super::instance::Content;
use super::member::{Input, Outgoing};
use super::scenario::DriverMutation;
use super::script::{Fate, Moment, key_index};
use super::world::{Happening, Request, World, tell};
use crate::model::answer::Journal;
use crate::model::{Answer, Class, Failure, Position};

/// The key a request is about.
fn key_of(body: &RequestBody) -> usize {
    match body {
        RequestBody::Create { key, .. }
        | RequestBody::Update { key, .. }
        | RequestBody::Read { key, .. }
        | RequestBody::Find { key, .. } => key_index(key),
    }
}

fn failed(class: Class, code: &str) -> Answer {
    Answer::Failed(Failure { class, code: code.into(), message: String::new() })
}

const LOST: Class = Class::Ambiguous { ended: false };
const ENDED: Class = Class::Ambiguous { ended: true };

impl World {
    /// The driver is to send a request.
    pub(super) fn request(&mut self, member: usize, outgoing: Outgoing) {
        self.coverage.requests += 1;
        if !self.scenario.scripted && self.chance(self.scenario.slow_driver) {
            let wait = self.rng.u64(1..self.settings.session_timeout);
            self.send(member, wait, Input::Check(Box::new(outgoing)));
        } else {
            self.check(member, outgoing);
        }
    }

    /// One check, then it leaves the process.
    pub(super) fn check(&mut self, member: usize, outgoing: Outgoing) {
        let Outgoing { id, partition, epoch, tenure, lease_until, body } = outgoing;
        let attempt = match &body {
            RequestBody::Create { attempt, .. } | RequestBody::Update { attempt, .. } => Some(*attempt),
            _ => None,
        };
        let current = self.members[member].parts[partition].epoch;
        let stale = attempt.is_some() && current != Some(epoch) && !self.off(DriverMutation::NoEpochCheck);
        let retaken =
            tenure != self.members[member].parts[partition].tenure && !self.off(DriverMutation::NoTenureCheck);
        if self.now >= lease_until || stale || (attempt.is_some() && retaken) {
            self.coverage.not_sent += 1;
            let answer = Answer::NotSent { reason: "the lease has ended".into() };
            let event = Event::Answered { request: id, issued_at: self.now, instance_date: None, answer, told: false };
            self.send(member, 1, Input::Loop(event));
            return;
        }
        let looked_at = match &body {
            RequestBody::Update { sys_id, .. } => {
                self.instance.find(sys_id).map_or(0, |at| self.instance.tickets[at].looked_at[member])
            }
            _ => 0,
        };
        let number = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        self.requests.push(Request {
            member,
            life: self.members[member].life,
            id,
            partition,
            body,
            attempt,
            lease_until,
            checked_at: self.now,
            looked_at,
            left_at: self.now,
            stuck: false,
            arrived: false,
            pending: attempt.is_some(),
            answered: false,
            answer: None,
            fate: Fate::Applied,
        });
        if attempt.is_some() {
            self.under_way.push(number);
            self.moment(Moment::CheckPassed, member);
        }
        let travel = self.rng.u64(0..25);
        self.queue.push(self.now + travel, Happening::Arrive(number));
    }

    /// A freeze or a crash strikes a member: which of its requests had left it already?
    pub(super) fn catch_unsent(&mut self, member: usize, dies: bool) {
        let (life, now) = (self.members[member].life, self.now);
        for number in 0..self.requests.len() {
            let request = &self.requests[number];
            let unsent = request.member == member && request.life == life && !request.arrived && !request.stuck;
            if unsent && request.checked_at + 25 >= now && self.rng.u32(0..3) > 0 {
                if dies {
                    self.requests[number].arrived = true;
                    self.finish_write(u32::try_from(number).unwrap_or(u32::MAX));
                } else {
                    self.requests[number].stuck = true;
                    self.coverage.frozen_between_check_and_send += 1;
                }
            }
        }
    }

    /// A request reaches the instance.
    pub(super) fn arrive(&mut self, number: u32) {
        let at = number as usize;
        let (member, life, stuck) = {
            let r = &self.requests[at];
            (r.member, r.life, r.stuck)
        };
        if self.requests[at].arrived {
            return;
        }
        if stuck {
            if self.members[member].life != life {
                // It died with its process.
                self.requests[at].arrived = true;
                self.finish_write(number);
                return;
            }
            if let Some(until) = self.members[member].frozen_until {
                let wait = self.rng.u64(1..20);
                self.queue.push(until + wait, Happening::Arrive(number));
                return;
            }
            self.requests[at].left_at = self.now;
        }
        self.requests[at].arrived = true;
        if self.requests[at].attempt.is_some() {
            self.write_arrives(number);
        } else {
            self.look_arrives(number);
        }
    }

    fn reply(&mut self, number: u32, delay: u64, answer: Answer) {
        let request = &mut self.requests[number as usize];
        request.answer = Some(answer);
        let due = (request.left_at + self.settings.request_deadline).min(self.now + delay).max(self.now);
        let (member, life) = (request.member, request.life);
        self.queue.push(due, Happening::Reach { member, life, input: Input::Answered { request: number } });
    }

    /// What keeps the instance from even looking at a request.
    fn turned_away(&mut self, write: bool) -> Option<Answer> {
        if self.odds.outage_until > self.now {
            self.coverage.outages += 1;
            let class = if write { Class::Transient } else { Class::Unavailable };
            Some(failed(class, "no_connection"))
        } else if self.odds.lockout_until > self.now {
            self.coverage.unauthorised += 1;
            Some(failed(Class::Unauthorised, "http_401"))
        } else if self.odds.throttle_until > self.now {
            self.coverage.throttled += 1;
            let wait = self.rng.bool().then_some((self.odds.throttle_until - self.now) / 2);
            Some(failed(Class::Throttled { retry_after: wait }, "http_429"))
        } else {
            None
        }
    }

    fn look_arrives(&mut self, number: u32) {
        self.coverage.looks += 1;
        let latency = self.rng.u64(2..120);
        let trouble = !self.calm && self.chance(self.odds.bad_writes / 3);
        let answer = match self.turned_away(false) {
            Some(answer) => answer,
            None if trouble => failed([LOST, ENDED, Class::Transient][self.rng.usize(0..3)], "http_503"),
            None => self.look(number),
        };
        self.reply(number, latency, answer);
    }

    fn look(&mut self, number: u32) -> Answer {
        let request = &self.requests[number as usize];
        let member = request.member;
        let now = self.now;
        match &request.body {
            RequestBody::Read { sys_id, markers, .. } => {
                let Some(at) = self.instance.find(sys_id) else { return failed(Class::Gone, "http_404") };
                let ticket = &mut self.instance.tickets[at];
                ticket.looked_at[member] = now;
                let journal = (!markers.is_empty()).then(|| {
                    let stands = |m: &&String| ticket.journal.iter().any(|l| l.marker == **m);
                    Journal::Read(markers.iter().filter(stands).cloned().collect())
                });
                Answer::Rows { rows: vec![self.instance.row(&self.instance.tickets[at])], journal }
            }
            body => {
                let key = key_of(body);
                for ticket in self.instance.tickets.iter_mut().filter(|t| t.key == key) {
                    ticket.looked_at[member] = now;
                }
                let rows = self.instance.of_key(key).filter(|t| !t.deleted).map(|t| self.instance.row(t)).collect();
                Answer::Rows { rows, journal: None }
            }
        }
    }

    /// Draws how a write ends.
    fn fate(&mut self) -> Fate {
        if !self.plan.is_empty() {
            return self.plan.remove(0);
        }
        if self.calm || !self.chance(self.odds.bad_writes) {
            let slow = self.rng.u32(0..40) == 0;
            return if slow { Fate::Slow(self.rng.u64(0..self.settings.request_deadline)) } else { Fate::Applied };
        }
        if self.chance(self.odds.ghosts) {
            let span = self.settings.request_deadline + self.settings.settle_time;
            return Fate::Ghost(match self.rng.u32(0..8) {
                0 => u64::MAX,
                1..4 => span - self.rng.u64(1..(span / 8)),
                _ => self.rng.u64(1..span),
            });
        }
        match self.rng.u32(0..9) {
            0..2 => Fate::LostAfter,
            2..4 => Fate::LostBefore,
            4 => Fate::EndedApplied,
            5 => Fate::EndedNot,
            6 => Fate::Throttled,
            7 => Fate::NotConnected,
            _ => Fate::ConflictAfter,
        }
    }

    fn write_arrives(&mut self, number: u32) {
        let at = number as usize;
        self.coverage.writes += 1;
        let member = self.requests[at].member;
        let key = key_of(&self.requests[at].body);
        let early = self.requests[at].left_at < self.requests[at].lease_until;
        let mut latest = u64::MAX;
        if !early {
            self.coverage.late_sends += 1;
            match self.latest_commit(number) {
                Some(limit) => latest = limit,
                None => {
                    self.coverage.beyond_honest_limit += 1;
                    self.finish_write(number);
                    self.reply(number, 10_000, failed(LOST, "cut"));
                    return;
                }
            }
        }
        tell!(self, "instance: {:?} of k{key} from {member} arrives", self.requests[at].attempt);
        self.judge_under_way(number, key);
        self.moment(Moment::WriteArrived, member);
        let rejects = self.odds.rejects && refuses(&self.requests[at].body);
        if let Some(answer) = self.turned_away(true) {
            self.finish_write(number);
            self.reply(number, 20, answer);
            return;
        }
        if rejects {
            self.coverage.rejected += 1;
            self.finish_write(number);
            self.reply(number, 50, failed(Class::Rejected, "data_policy"));
            return;
        }
        let fate = self.fate();
        self.requests[at].fate = fate;
        self.carry_out(number, fate, latest);
    }

    fn carry_out(&mut self, number: u32, fate: Fate, latest: u64) {
        let left = self.requests[number as usize].left_at;
        let latency = self.rng.u64(5..300);
        let span = self.settings.request_deadline + self.settings.settle_time;
        match fate {
            Fate::Applied | Fate::Slow(_) | Fate::LostAfter | Fate::EndedApplied | Fate::ConflictAfter => {
                self.commit_write(number);
            }
            Fate::Ghost(delay) => {
                let gives_up = self.rng.u64(1..=self.settings.request_deadline);
                self.reply(number, gives_up, failed(LOST, "timeout"));
                let strike = left.saturating_add(delay).min(left + span).min(latest.saturating_sub(1)).max(self.now);
                self.queue.push_last(strike, Happening::Commit(number));
            }
            Fate::LostBefore => {
                self.finish_write(number);
                let gives_up = self.rng.u64(1..=self.settings.request_deadline);
                self.reply(number, gives_up, failed(LOST, "cut"));
            }
            Fate::EndedNot => {
                self.coverage.ended_not += 1;
                self.finish_write(number);
                self.reply(number, latency, failed(ENDED, "http_500"));
            }
            Fate::Throttled => {
                self.coverage.throttled += 1;
                self.finish_write(number);
                self.reply(number, 10, failed(Class::Throttled { retry_after: Some(1_000) }, "http_429"));
            }
            Fate::Unauthorised => {
                self.coverage.unauthorised += 1;
                self.finish_write(number);
                self.reply(number, 10, failed(Class::Unauthorised, "http_401"));
            }
            Fate::NotConnected => {
                self.finish_write(number);
                self.reply(number, 10, failed(Class::Transient, "no_connection"));
            }
        }
    }

    /// Until when a write that left its process after its lease may still be committed, if the honest limit is to be
    /// kept: its successor waits for the span from its own `owner` record. `None`: it must never arrive.
    fn latest_commit(&self, number: u32) -> Option<u64> {
        let request = &self.requests[number as usize];
        let span = self.settings.request_deadline + self.settings.settle_time;
        let successor = self.logs[request.partition].owners.iter().find(|(at, _)| *at > request.checked_at);
        match successor {
            Some((at, _)) if request.left_at + 1 >= at + span => None,
            Some((at, _)) => Some(at + span),
            None => Some(u64::MAX),
        }
    }

    fn judge_under_way(&mut self, number: u32, key: usize) {
        let others = self.under_way.iter().filter(|n| {
            let other = &self.requests[**n as usize];
            **n != number && other.pending && !other.stuck && key_of(&other.body) == key
        });
        if let Err(broken) = invariants::one_write(1 + others.count()) {
            self.violate(format!("k{key}: {broken}"));
        }
    }

    fn finish_write(&mut self, number: u32) {
        self.requests[number as usize].pending = false;
        self.under_way.retain(|n| *n != number);
    }

    /// The instance commits a write.
    pub(super) fn commit_write(&mut self, number: u32) {
        let at = number as usize;
        self.finish_write(number);
        let (member, fate) = (self.requests[at].member, self.requests[at].fate);
        let content = self.content(number);
        let key = content.key;
        let date = self.date();
        if let Fate::Ghost(_) = fate {
            self.coverage.ghosts += 1;
            let life = self.requests[at].life;
            let owner = self.group.owner(self.requests[at].partition);
            if owner != Some(member) || self.members[member].life != life {
                self.coverage.ghosts_after_handover += 1;
            }
        }
        tell!(self, "instance: commits {:?} of k{key}{}", self.requests[at].attempt, ghostly(fate));
        let Some(committed) = self.instance.commit(&content, self.now, date, self.settings.row_freshness) else {
            self.reply_after(number, fate, failed(Class::Gone, "http_404"));
            return;
        };
        self.coverage.creates += u64::from(content.sys_id.is_none());
        self.coverage.updates += u64::from(content.sys_id.is_some());
        self.coverage.notes += content.notes.len() as u64;
        if content.sys_id.is_none() && self.instance.of_key(key).count() > 1 {
            self.coverage.second_tickets += 1;
        }
        if committed.raced {
            self.coverage.person_races += 1;
            self.raced[key] = true;
        }
        if let Some(wrong) = committed.wrong {
            self.violate(format!("k{key}: {wrong}"));
        }
        self.judge_order(number, key);
        let answer = Answer::Applied { row: Box::new(committed.row), warnings: committed.warnings };
        self.reply_after(number, fate, answer);
        self.moment(Moment::WriteCommitted, member);
    }

    fn reply_after(&mut self, number: u32, fate: Fate, answer: Answer) {
        let latency = self.rng.u64(5..300);
        match fate {
            Fate::Slow(delay) => self.reply_slow(number, delay, answer),
            Fate::LostAfter => {
                let gives_up = self.rng.u64(1..=self.settings.request_deadline);
                self.reply(number, gives_up, failed(LOST, "cut"));
            }
            Fate::EndedApplied => {
                self.coverage.ended_applied += 1;
                self.reply(number, latency, failed(ENDED, "http_500"));
            }
            Fate::ConflictAfter => self.reply(number, latency, failed(Class::Conflict, "unique_key")),
            Fate::Ghost(_) => {}
            _ => self.reply(number, latency, answer),
        }
    }

    /// An answer later than the deadline is none.
    fn reply_slow(&mut self, number: u32, delay: u64, answer: Answer) {
        if delay >= self.settings.request_deadline {
            self.reply(number, delay, failed(LOST, "timeout"));
        } else {
            self.reply(number, delay, answer);
        }
    }

    /// Writes of a key take effect in the order of their events, notes too.
    fn judge_order(&mut self, number: u32, key: usize) {
        let Some(attempt) = self.requests[number as usize].attempt else { return };
        let partition = super::group::number(self.requests[number as usize].partition);
        let claimed = self.claimed.iter().rev().find(|(a, lo, _)| *a == attempt && lo.partition == partition);
        let Some((_, _, hi)) = claimed.copied() else { return };
        // A business rule can hide that a write is there; it is then made again from fewer events.
        // So can a person who writes before the bridge has seen its own write.
        if self.instance.rule.is_none()
            && !self.raced[key]
            && let Err(broken) = invariants::forward(self.newest[key], hi)
        {
            self.violate(format!("k{key}: {broken}"));
        }
        self.newest[key] = self.newest[key].max(Some(hi));
    }

    fn content(&self, number: u32) -> Content {
        let request = &self.requests[number as usize];
        let (sys_id, fields, notes) = match &request.body {
            RequestBody::Create { fields, notes, .. } => (None, fields, notes),
            RequestBody::Update { sys_id, fields, notes, .. } => (Some(sys_id.clone()), fields, notes),
            _ => return Content::nothing(),
        };
        Content {
            member: request.member,
            sent_at: request.checked_at,
            looked_at: request.looked_at,
            key: key_of(&request.body),
            sys_id,
            fields: fields.clone(),
            notes: notes.clone(),
        }
    }

    /// An answer reaches its sender.
    pub(super) fn answered(&mut self, member: usize, number: u32) {
        let at = number as usize;
        if std::mem::replace(&mut self.requests[at].answered, true) {
            return;
        }
        let Some(answer) = self.requests[at].answer.take() else { return };
        let request = &self.requests[at];
        let (id, write) = (request.id, request.attempt.is_some());
        let issued_at = request.left_at + self.rng.u64(0..3).min(self.now - request.left_at);
        let date = self.date();
        // As if it had shared a call with others now and then: right or wrong must not depend on it.
        let told = number % 4 == 3;
        let event = Event::Answered { request: id, issued_at, instance_date: Some(date), answer, told };
        self.feed(member, event);
        self.moment(if write { Moment::WriteAnswered } else { Moment::LookAnswered }, member);
    }
}

fn ghostly(fate: Fate) -> &'static str {
    if matches!(fate, Fate::Ghost(_)) { ", a ghost" } else { "" }
}

fn refuses(body: &RequestBody) -> bool {
    match body {
        RequestBody::Create { fields, .. } | RequestBody::Update { fields, .. } => {
            fields.iter().any(|(_, v)| v == REFUSED_VALUE)
        }
        _ => false,
    }
}

/// The position and the part that a marker of the engine names; `None` for the note that refers to an older ticket.
pub(super) fn read_marker(marker: &str) -> Option<(Position, u32)> {
    let inner = marker.strip_prefix("[alerts/")?.strip_suffix(']')?;
    let (place, part) = inner.split_once(' ').unwrap_or((inner, "1/1"));
    let part = part.split_once('/')?.0.parse().ok()?;
    let (partition, rest) = place.split_once('/')?;
    let (offset, index) = rest.split_once('.')?;
    Some((Position::new(partition.parse().ok()?, offset.parse().ok()?, index.parse().ok()?), part))
}
