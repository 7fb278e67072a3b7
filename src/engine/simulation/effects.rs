//! Performing what the engine wants, as the sink's loop does it, and what reaches the loop afterwards.

use std::collections::BTreeSet;

use super::super::event::{Content, DeadLetter, LedgerWrite, Observation, Report};
use super::super::{Effect, Event};
use super::super::{event::ProduceOutcome, invariants};
use super::group::number;
use super::ledger::Stored;
use super::member::{Input, Outgoing};
use super::script::{Landing, Moment};
use super::world::{Handed, Happening, Produce, World, tell};
use crate::model::{HttpMethod, HttpMethods};

/// Delivery timeout of the ledger's producer, milliseconds.
const DELIVERY: u64 = 2_000;

fn partition_index(partition: i32) -> usize {
    usize::from(partition == 1)
}

impl World {
    pub(super) fn effect(&mut self, member: usize, effect: Effect) {
        tell!(self, "{member} -> {}", super::report::effect(&effect));
        match effect {
            Effect::TakeOver { partition, epoch } => {
                self.members[member].parts[partition_index(partition)].tenure += 1;
                self.moment(Moment::OwnerHanded, member);
                self.hand(member, partition_index(partition), None, Handed::Owner(epoch));
            }
            Effect::Fetch { partition, epoch, from } => {
                let part = &mut self.members[member].parts[partition_index(partition)];
                // What was fetched before is not given any more, even where nothing new is fetched.
                part.fetches += 1;
                if part.epoch == Some(epoch) && part.revoked_at.is_none() {
                    part.fetch = Some(from);
                    part.commit.get_or_insert(from);
                }
            }
            Effect::Produce { op, partition, write } => {
                if let LedgerWrite::Claim(_, _, claim) = &write {
                    self.claimed.push((claim.attempt, claim.lo, claim.hi));
                }
                let moment = moment_of(&write);
                self.hand(member, partition_index(partition), Some(op), Handed::Ledger(Stored::Write(write)));
                self.moment(moment, member);
            }
            Effect::DeadLetter { op, letter } => self.dead_letter(member, op, &letter),
            Effect::Result(report) => self.judge_report(member, &report),
            Effect::Request { id, partition, epoch, lease_until, body } => {
                let partition = partition_index(partition);
                let tenure = self.members[member].parts[partition].tenure;
                self.request(member, Outgoing { id, partition, epoch, tenure, lease_until, body });
            }
            Effect::Commit { partition, epoch, offset } => {
                let partition = partition_index(partition);
                let part = &mut self.members[member].parts[partition];
                if part.epoch == Some(epoch) {
                    part.commit = Some(offset);
                    if !part.committing {
                        part.committing = true;
                        let delay = self.rng.u64(0..300);
                        self.send(member, delay, Input::Commit { partition });
                    }
                }
            }
            Effect::Pause => self.members[member].paused = true,
            Effect::Resume => self.members[member].paused = false,
            Effect::Release { partition, epoch, offset } => {
                self.release(member, partition_index(partition), epoch, offset);
                self.moment(Moment::Released, member);
            }
            Effect::Observe(observation) => self.observed(member, &observation),
        }
    }

    fn dead_letter(&mut self, member: usize, op: super::super::event::OpId, letter: &DeadLetter) {
        self.coverage.dead_letters += 1;
        self.moment(Moment::DeadLetterHanded, member);
        self.hand(member, 0, Some(op), Handed::Letter(Some(Box::new(letter.clone()))));
    }

    /// Hands something to the producer.
    pub(super) fn hand(
        &mut self,
        member: usize,
        partition: usize,
        op: Option<super::super::event::OpId>,
        what: Handed,
    ) {
        if !self.members[member].alive() {
            return;
        }
        let letter = matches!(what, Handed::Letter(_));
        let owner = matches!(what, Handed::Owner(_));
        let moment = match &what {
            Handed::Ledger(Stored::Write(write)) => Some(moment_of(write)),
            _ => None,
        };
        let planned = moment.and_then(|m| self.produce_plan.iter().position(|(p, _)| *p == m));
        let fate = match planned {
            Some(at) => Some(self.produce_plan.remove(at).1),
            None if !self.calm && self.chance(self.odds.unknown) => Some(match self.rng.u32(0..10) {
                0..3 => Landing::Never,
                3..5 => Landing::AckLost,
                5 => Landing::Refused,
                _ => Landing::Late(self.rng.u64(0..60_000)),
            }),
            None => None,
        };
        let life = self.members[member].life;
        let number = u32::try_from(self.produces.len()).unwrap_or(u32::MAX);
        let told = fate.is_some();
        let moment = match moment {
            Some(Moment::ClaimHanded) => Some(Moment::ClaimAcked),
            Some(Moment::EntryHanded) => Some(Moment::EntryAcked),
            _ => None,
        };
        self.produces.push(Produce {
            member,
            life,
            partition,
            handed: self.now,
            op,
            what,
            landed: false,
            told,
            moment,
        });
        let part = &mut self.members[member].parts[partition];
        let slow = if owner && self.rng.u32(0..20) == 0 { self.rng.u64(0..20_000) } else { 0 };
        let due = (self.now + 1 + self.rng.u64(0..12) + slow).max(if letter { 0 } else { part.lands });
        match fate {
            None | Some(Landing::AckLost) => {
                if !letter {
                    part.lands = due;
                }
                self.queue.push(due, Happening::Land(number));
            }
            // The producer keeps the order while it still tries: what is handed over behind waits for its end.
            Some(Landing::Late(delay)) => {
                part.lands = part.lands.max(self.now + DELIVERY);
                self.coverage.late_produces += 1;
                self.queue.push(self.now + DELIVERY + delay, Happening::Land(number));
            }
            Some(Landing::Never) => part.lands = part.lands.max(self.now + DELIVERY),
            Some(Landing::Refused) => {}
        }
        if let Some(fate) = fate {
            self.coverage.unknown_produces += u64::from(fate != Landing::Refused);
            self.coverage.refused_produces += u64::from(fate == Landing::Refused);
            let refused = fate == Landing::Refused;
            let delay = if refused { 5 } else { DELIVERY };
            self.answer_produce(number, delay, if refused { ProduceOutcome::Refused } else { ProduceOutcome::Unknown });
        }
    }

    /// Tells the loop how a produce ended.
    fn answer_produce(&mut self, number: u32, delay: u64, outcome: ProduceOutcome) {
        let produce = &self.produces[number as usize];
        let (member, life, partition) = (produce.member, produce.life, produce.partition);
        let input = match (&produce.what, produce.op) {
            (Handed::Owner(epoch), _) => Input::OwnerFailed { partition, epoch: *epoch },
            (_, Some(op)) => Input::Produced { produce: number, event: Event::Produced { op, outcome } },
            _ => return,
        };
        self.queue.push(self.now + delay, Happening::Reach { member, life, input });
    }

    /// A produce reaches the broker.
    pub(super) fn land(&mut self, number: u32) {
        let at = number as usize;
        let (member, life, partition) = {
            let p = &self.produces[at];
            (p.member, p.life, p.partition)
        };
        if self.produces[at].landed {
            return;
        }
        let cut = self.members[member].cut_until;
        if cut > self.now && self.members[member].life == life {
            let timeout = self.produces[at].handed + DELIVERY;
            if cut > timeout && !self.produces[at].told {
                self.produces[at].told = true;
                self.coverage.unknown_produces += 1;
                self.answer_produce(number, timeout.saturating_sub(self.now), ProduceOutcome::Unknown);
                if self.rng.u32(0..3) > 0 {
                    return;
                }
            }
            // In their order, once the link stands again.
            let again = self.members[member].parts[partition].lands.max(cut) + self.rng.u64(1..20);
            self.members[member].parts[partition].lands = again;
            self.queue.push(again, Happening::Land(number));
            return;
        }
        self.produces[at].landed = true;
        let what = std::mem::replace(&mut self.produces[at].what, Handed::Letter(None));
        match what {
            Handed::Letter(letter) => {
                if let Some(letter) = letter {
                    self.dead.extend(letter.superseded.iter().copied().chain([letter.position]));
                    self.shelve(&letter);
                }
                self.ack(number);
            }
            Handed::Owner(epoch) => {
                let token = self.logs[partition].append(self.now, Stored::Owner);
                tell!(self, "owner record of {member}.{life} in ledger {partition} at {token}");
                if self.group.owner(partition) != Some(member) || self.members[member].life != life {
                    self.coverage.late_owner_records += 1;
                }
                if !self.produces[at].told {
                    let slow = self.rng.u32(0..15) == 0;
                    let delay = if slow { self.rng.u64(0..15_000) } else { self.rng.u64(2..300) };
                    let input = Input::ReadDone { partition, epoch, token };
                    self.queue.push(self.now + delay, Happening::Reach { member, life, input });
                }
                self.moment(Moment::OwnerLanded, member);
            }
            Handed::Ledger(stored) => {
                let moment = if let Stored::Write(write) = &stored {
                    if self.logs[partition].overtaken(write) {
                        self.coverage.late_produces += 1;
                    }
                    self.expired.extend(self.logs[partition].forgets(write).cloned());
                    landed_moment(write)
                } else {
                    None
                };
                if let Stored::Write(LedgerWrite::Entry(_, entry)) = &stored
                    && let Some(ticket) = self.instance.tickets.iter_mut().find(|t| t.sys_id == entry.sys_id)
                {
                    ticket.unseen = false;
                }
                if self.trace.is_some()
                    && let Stored::Write(write) = &stored
                {
                    tell!(self, "ledger {partition} of {member}.{life}: {}", super::report::write(write));
                }
                self.logs[partition].append(self.now, stored);
                self.ack(number);
                if let Some(moment) = moment {
                    self.moment(moment, member);
                }
            }
        }
    }

    fn ack(&mut self, number: u32) {
        if !self.produces[number as usize].told {
            let delay = self.rng.u64(1..10);
            self.answer_produce(number, delay, ProduceOutcome::Acked);
        }
    }

    /// Something reaches a running process.
    pub(super) fn reach(&mut self, member: usize, input: Input) {
        let Some(input) = self.group_input(member, input) else { return };
        match input {
            Input::Channel(event) => self.feed(member, event),
            Input::Record { event, partition, fetch } => {
                if self.members[member].parts[partition].fetches == fetch {
                    self.feed(member, event);
                    self.moment(Moment::Received, member);
                }
            }
            Input::Loop(event) => self.feed(member, event),
            Input::Permit => {
                self.members[member].permit = false;
                if self.now < self.odds.permits_from {
                    self.members[member].permit = true;
                    self.send(member, self.odds.permits_from - self.now, Input::Permit);
                    return;
                }
                let now = self.clock(member);
                // Now and then a method's quota is spent.
                let spent = if self.calm { None } else { HttpMethod::ALL.get(self.rng.usize(..16)).copied() };
                let without = spent.map_or(HttpMethods::NONE, |method| HttpMethods::NONE.with(method));
                if self.members[member].dispatcher.as_mut().is_some_and(|d| d.wanted(now, without).is_some()) {
                    self.feed(member, Event::Permit { without });
                }
                self.rearm(member);
            }
            Input::Wake(at) => {
                if self.members[member].wake == Some(at) {
                    self.members[member].wake = None;
                    self.feed(member, Event::Tick);
                }
            }
            Input::Poll => self.poll(member),
            Input::Check(outgoing) => self.check(member, *outgoing),
            Input::Answered { request } => self.answered(member, request),
            Input::Produced { produce, event } => {
                let acked = matches!(event, Event::Produced { outcome: ProduceOutcome::Acked, .. });
                self.feed(member, event);
                if let Some(moment) = self.produces[produce as usize].moment.filter(|_| acked) {
                    self.moment(moment, member);
                }
            }
            Input::ReadDone { partition, epoch, token } => {
                let mut ledger = self.logs[partition].load(token, self.group.offset[partition]);
                ledger.end = self.input[partition][..self.visible[partition]].last().map_or(0, |r| r.offset + 1);
                self.coverage.claims_loaded += ledger.claims.len() as u64;
                self.coverage.stale_loaded += ledger.stale.len() as u64;
                self.resolved[member][partition] = (epoch, BTreeSet::new());
                self.feed(member, Event::Loaded { partition: number(partition), epoch, ledger: Box::new(ledger) });
                self.moment(Moment::Loaded, member);
            }
            Input::OwnerFailed { partition, epoch } => self.hand(member, partition, None, Handed::Owner(epoch)),
            Input::DrainOver { partition, epoch } => {
                let part = &self.members[member].parts[partition];
                // A frozen engine gets its time again.
                let thawed = self.members[member].thawed_at;
                let since = part.revoked_at.map_or(0, |at| self.now - at.max(thawed));
                if part.epoch == Some(epoch) && since > self.settings.drain + 5_000 {
                    self.violate(format!("member {member} does not let go of partition {partition}"));
                } else if part.epoch == Some(epoch) && part.revoked_at.is_some() {
                    self.send(member, 5_000, Input::DrainOver { partition, epoch });
                }
            }
            _ => {}
        }
    }

    fn poll(&mut self, member: usize) {
        let stalled = self.members[member].stalled_until;
        if stalled > self.now {
            self.send(member, stalled - self.now + 1, Input::Poll);
            return;
        }
        let wait = self.odds.poll;
        self.send(member, wait, Input::Poll);
        if self.members[member].blocked() {
            return;
        }
        self.members[member].last_poll = self.now;
        self.feed(member, Event::Polled { at: self.now });
        if !self.scenario.scripted {
            self.feed(member, Event::AvailablePermits { permits: (self.now / 500 % 3) as usize });
        }
        if self.members[member].paused || self.members[member].frozen() {
            return;
        }
        for partition in 0..self.odds.partitions {
            let part = &self.members[member].parts[partition];
            let (Some(epoch), Some(from)) = (part.epoch, part.fetch) else { continue };
            let visible = self.visible[partition];
            let first = self.input[partition][..visible].partition_point(|r| r.offset < from);
            for at in first..visible {
                let record = self.input[partition][at].clone();
                self.members[member].parts[partition].fetch = Some(record.offset + 1);
                let fetch = self.members[member].parts[partition].fetches;
                if let Content::Intents(intents) = &record.content {
                    self.coverage.events += intents.len() as u64;
                }
                let event = Event::Received { partition: number(partition), epoch, record };
                self.queue_up(member, Input::Record { event, partition, fetch });
            }
        }
    }

    fn judge_report(&mut self, member: usize, report: &Report) {
        let Some(first) = report.positions.first() else { return };
        let partition = partition_index(first.partition);
        let epoch = self.members[member].parts[partition].epoch;
        let (seen, positions) = &mut self.resolved[member][partition];
        if epoch == Some(*seen) && report.outcome != "verified" {
            if let Err(broken) = invariants::resolved_once(positions, &report.positions) {
                self.violate(broken.to_string());
            }
        }
        match report.outcome {
            "reopened" => self.coverage.reopened += 1,
            "unchanged" => self.coverage.unchanged += 1,
            _ => {}
        }
        self.coverage.refolds += u64::from(report.attempts > 1);
    }

    fn observed(&mut self, member: usize, observation: &Observation) {
        let coverage = &mut self.coverage;
        match observation {
            Observation::WriteAmbiguous(..) => {
                coverage.doubts += 1;
                self.moment(Moment::WriteAmbiguous, member);
            }
            Observation::AmbiguitySettled(_, true) => coverage.found += 1,
            Observation::AmbiguitySettled(_, false) => coverage.not_found += 1,
            Observation::UserEditPreserved(..) => coverage.person_kept += 1,
            Observation::Skipped(_, why) => {
                coverage.skipped += 1;
                coverage.resyncs_left_out += u64::from(why.contains("resync"));
            }
            Observation::Unchanged(_) => coverage.unchanged += 1,
            Observation::Expired(key) => {
                coverage.expired += 1;
                self.expired.insert(key.clone());
                self.moment(Moment::Expired, member);
            }
            Observation::Parked(..) => coverage.parked += 1,
            Observation::Unparked(_) => coverage.unparked += 1,
            Observation::StillParked(..) => coverage.still_parked += 1,
            Observation::Gone(..) => coverage.gone += 1,
            Observation::TokenRenewed(_) => coverage.tokens_renewed += 1,
            Observation::Blocked(_) | Observation::DuplicateTickets(..) => {}
        }
    }
}

fn moment_of(write: &LedgerWrite) -> Moment {
    match write {
        LedgerWrite::Entry(..) | LedgerWrite::Park(..) => Moment::EntryHanded,
        LedgerWrite::Claim(..) => Moment::ClaimHanded,
        LedgerWrite::Mark(..) => Moment::MarkHanded,
        LedgerWrite::Tombstone(..) => Moment::TombstoneHanded,
    }
}

fn landed_moment(write: &LedgerWrite) -> Option<Moment> {
    match write {
        LedgerWrite::Entry(..) => Some(Moment::EntryLanded),
        LedgerWrite::Claim(..) => Some(Moment::ClaimLanded),
        _ => None,
    }
}
