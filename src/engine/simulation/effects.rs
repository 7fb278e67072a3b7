//! Performs the engine's effects as the sink's loop does, and delivers inputs to the loop.

use std::collections::BTreeSet;

use super::super::event::{DeadLetter, LedgerWrite, Observation, RecordContent, WriteResult};
use super::super::{Effect, Event};
use super::super::{event::ProduceOutcome, invariants};
use super::group::partition_number;
use super::injection::{InjectionPoint, ProduceFault, key_index};
use super::ledger::StoredRecord;
use super::member::{Input, OutgoingRequest};
use super::world::{Produce, ProducePayload, ScheduledEvent, World, trace_line};
use crate::model::{HttpMethod, HttpMethodSet};

/// Delivery timeout of the ledger's producer, in milliseconds.
const DELIVERY_TIMEOUT: u64 = 2_000;

fn partition_index(partition: i32) -> usize {
    usize::from(partition == 1)
}

impl World {
    pub(super) fn perform_effect(&mut self, member: usize, effect: Effect) {
        trace_line!(self, "{member} -> {}", super::trace_format::effect(&effect));
        match effect {
            Effect::TakeOverPartition { partition, epoch } => {
                self.members[member].client_partitions[partition_index(partition)].load_generation += 1;
                self.reached(InjectionPoint::OwnerEnqueued, member);
                self.produce(member, partition_index(partition), None, ProducePayload::Owner(epoch));
            }
            Effect::StartFetching { partition, epoch, start_offset: from } => {
                let client = &mut self.members[member].client_partitions[partition_index(partition)];
                // Records of earlier fetches are no longer delivered, even if nothing new is fetched.
                client.fetch_count += 1;
                if client.epoch == Some(epoch) && client.revoked_at.is_none() {
                    client.next_offset = Some(from);
                    client.offset_to_commit.get_or_insert(from);
                }
            }
            Effect::ProduceLedgerRecord { produce_id, partition, write } => {
                if let LedgerWrite::Claim(_, _, claim) = &write {
                    self.claimed_ranges.push((claim.attempt, claim.first_position, claim.last_position));
                }
                let point = enqueued_point(&write);
                self.produce(
                    member,
                    partition_index(partition),
                    Some(produce_id),
                    ProducePayload::Ledger(StoredRecord::Write(write)),
                );
                self.reached(point, member);
            }
            Effect::ProduceDeadLetter { produce_id, dead_letter } => self.dead_letter(member, produce_id, &dead_letter),
            Effect::ProduceResult(report) => self.check_report(member, &report),
            Effect::SendRequest { id, partition, epoch, lease_until, body } => {
                let partition = partition_index(partition);
                let load_generation = self.members[member].client_partitions[partition].load_generation;
                self.request(member, OutgoingRequest { id, partition, epoch, load_generation, lease_until, body });
            }
            Effect::CommitOffset { partition, epoch, offset } => {
                let partition = partition_index(partition);
                let client = &mut self.members[member].client_partitions[partition];
                if client.epoch == Some(epoch) {
                    client.offset_to_commit = Some(offset);
                    if !client.commit_scheduled {
                        client.commit_scheduled = true;
                        let delay = self.rng.u64(0..300);
                        self.send(member, delay, Input::Commit { partition });
                    }
                }
            }
            Effect::PauseFetching => self.members[member].paused = true,
            Effect::ResumeFetching => self.members[member].paused = false,
            Effect::ReleasePartition { partition, epoch, offset } => {
                self.release(member, partition_index(partition), epoch, offset);
                self.reached(InjectionPoint::PartitionReleased, member);
            }
            Effect::Observe(observation) => self.observed(member, &observation),
        }
    }

    fn dead_letter(&mut self, member: usize, produce_id: super::super::event::ProduceId, letter: &DeadLetter) {
        self.coverage.dead_letters += 1;
        self.reached(InjectionPoint::DeadLetterEnqueued, member);
        self.produce(member, 0, Some(produce_id), ProducePayload::DeadLetter(Some(Box::new(letter.clone()))));
    }

    /// Enqueues a record in the producer.
    pub(super) fn produce(
        &mut self,
        member: usize,
        partition: usize,
        produce_id: Option<super::super::event::ProduceId>,
        payload: ProducePayload,
    ) {
        if !self.members[member].alive() {
            return;
        }
        let is_letter = matches!(payload, ProducePayload::DeadLetter(_));
        let is_owner = matches!(payload, ProducePayload::Owner(_));
        let enqueued_point = match &payload {
            ProducePayload::Ledger(StoredRecord::Write(write)) => Some(enqueued_point(write)),
            _ => None,
        };
        let planned = enqueued_point.and_then(|m| self.produce_faults.iter().position(|(p, _)| *p == m));
        let fault = match planned {
            Some(at) => Some(self.produce_faults.remove(at).1),
            None if !self.faults_over && self.chance(self.params.unknown_produces) => Some(match self.rng.u32(0..10) {
                0..3 => ProduceFault::Never,
                3..5 => ProduceFault::AckLost,
                5 => ProduceFault::NotWritten,
                _ => ProduceFault::Late(self.rng.u64(0..60_000)),
            }),
            None => None,
        };
        let pid = self.members[member].pid;
        let number = u32::try_from(self.produces.len()).unwrap_or(u32::MAX);
        let outcome_reported = fault.is_some();
        let ack_point = match enqueued_point {
            Some(InjectionPoint::ClaimEnqueued) => Some(InjectionPoint::ClaimAcked),
            Some(InjectionPoint::EntryEnqueued) => Some(InjectionPoint::EntryAcked),
            _ => None,
        };
        self.produces.push(Produce {
            member,
            pid,
            partition,
            enqueued_at: self.now,
            produce_id,
            payload,
            landed: false,
            outcome_reported,
            ack_point,
        });
        let client = &mut self.members[member].client_partitions[partition];
        let slow = if is_owner && self.rng.u32(0..20) == 0 { self.rng.u64(0..20_000) } else { 0 };
        let due = (self.now + 1 + self.rng.u64(0..12) + slow).max(if is_letter { 0 } else { client.last_landing });
        match fault {
            None | Some(ProduceFault::AckLost) => {
                if !is_letter {
                    client.last_landing = due;
                }
                self.queue.push(due, ScheduledEvent::ProduceLands(number));
            }
            // The producer keeps the order while it still retries: later records wait until it stops.
            Some(ProduceFault::Late(delay)) => {
                client.last_landing = client.last_landing.max(self.now + DELIVERY_TIMEOUT);
                self.coverage.late_produces += 1;
                self.queue.push(self.now + DELIVERY_TIMEOUT + delay, ScheduledEvent::ProduceLands(number));
            }
            Some(ProduceFault::Never) => client.last_landing = client.last_landing.max(self.now + DELIVERY_TIMEOUT),
            Some(ProduceFault::NotWritten) => {}
        }
        if let Some(fault) = fault {
            self.coverage.unknown_produces += u64::from(fault != ProduceFault::NotWritten);
            self.coverage.unwritten_produces += u64::from(fault == ProduceFault::NotWritten);
            let not_written = fault == ProduceFault::NotWritten;
            let delay = if not_written { 5 } else { DELIVERY_TIMEOUT };
            self.report_produce(
                number,
                delay,
                if not_written { ProduceOutcome::NotWritten } else { ProduceOutcome::Unknown },
            );
        }
    }

    /// Reports the outcome of a produce to the loop.
    fn report_produce(&mut self, number: u32, delay: u64, outcome: ProduceOutcome) {
        let produce = &self.produces[number as usize];
        let (member, pid, partition) = (produce.member, produce.pid, produce.partition);
        let input = match (&produce.payload, produce.produce_id) {
            (ProducePayload::Owner(epoch), _) => Input::OwnerFailed { partition, epoch: *epoch },
            (_, Some(produce_id)) => {
                Input::Produced { produce: number, event: Event::ProduceCompleted { produce_id, outcome } }
            }
            _ => return,
        };
        self.queue.push(self.now + delay, ScheduledEvent::Deliver { member, pid, input });
    }

    /// A produce reaches the broker.
    pub(super) fn land(&mut self, number: u32) {
        let at = number as usize;
        let (member, pid, partition) = {
            let p = &self.produces[at];
            (p.member, p.pid, p.partition)
        };
        if self.produces[at].landed {
            return;
        }
        let reconnect_at = self.members[member].disconnected_until;
        if reconnect_at > self.now && self.members[member].pid == pid {
            let timeout = self.produces[at].enqueued_at + DELIVERY_TIMEOUT;
            if reconnect_at > timeout && !self.produces[at].outcome_reported {
                self.produces[at].outcome_reported = true;
                self.coverage.unknown_produces += 1;
                self.report_produce(number, timeout.saturating_sub(self.now), ProduceOutcome::Unknown);
                if self.rng.u32(0..3) > 0 {
                    return;
                }
            }
            // In order, once the link is up again.
            let retry =
                self.members[member].client_partitions[partition].last_landing.max(reconnect_at) + self.rng.u64(1..20);
            self.members[member].client_partitions[partition].last_landing = retry;
            self.queue.push(retry, ScheduledEvent::ProduceLands(number));
            return;
        }
        self.produces[at].landed = true;
        let payload = std::mem::replace(&mut self.produces[at].payload, ProducePayload::DeadLetter(None));
        match payload {
            ProducePayload::DeadLetter(letter) => {
                if let Some(letter) = letter {
                    self.not_applied.extend(letter.superseded.iter().copied().chain([letter.position]));
                    self.store_dead_letter(&letter);
                }
                self.ack(number);
            }
            ProducePayload::Owner(epoch) => {
                let token = self.logs[partition].append(self.now, StoredRecord::Owner);
                trace_line!(self, "owner record of {member}.{pid} in ledger {partition} at {token}");
                if self.group.owner(partition) != Some(member) || self.members[member].pid != pid {
                    self.coverage.late_owner_records += 1;
                }
                if !self.produces[at].outcome_reported {
                    let slow = self.rng.u32(0..15) == 0;
                    let delay = if slow { self.rng.u64(0..15_000) } else { self.rng.u64(2..300) };
                    let input = Input::LedgerRead { partition, epoch, token };
                    self.queue.push(self.now + delay, ScheduledEvent::Deliver { member, pid, input });
                }
                self.reached(InjectionPoint::OwnerLanded, member);
            }
            ProducePayload::Ledger(stored) => {
                let point = if let StoredRecord::Write(write) = &stored {
                    if self.logs[partition].is_superseded(write) {
                        self.coverage.late_produces += 1;
                    }
                    self.expired.extend(self.logs[partition].forgotten_key(write).cloned());
                    landed_point(write)
                } else {
                    None
                };
                if let StoredRecord::Write(LedgerWrite::Entry(_, entry)) = &stored
                    && let Some(ticket) = self.instance.tickets.iter_mut().find(|t| t.sys_id == entry.sys_id)
                {
                    ticket.write_not_in_ledger = false;
                }
                if self.trace.is_some()
                    && let StoredRecord::Write(write) = &stored
                {
                    trace_line!(self, "ledger {partition} of {member}.{pid}: {}", super::trace_format::write(write));
                }
                self.logs[partition].append(self.now, stored);
                self.ack(number);
                if let Some(point) = point {
                    self.reached(point, member);
                }
            }
        }
    }

    fn ack(&mut self, number: u32) {
        if !self.produces[number as usize].outcome_reported {
            let delay = self.rng.u64(1..10);
            self.report_produce(number, delay, ProduceOutcome::Acked);
        }
    }

    /// Delivers an input to a running process.
    pub(super) fn deliver(&mut self, member: usize, input: Input) {
        let Some(input) = self.group_input(member, input) else { return };
        match input {
            Input::Channel(event) => self.apply_event(member, event),
            Input::Record { event, partition, fetch_count } => {
                if self.members[member].client_partitions[partition].fetch_count == fetch_count {
                    self.apply_event(member, event);
                    self.reached(InjectionPoint::RecordReceived, member);
                }
            }
            Input::Loop(event) => self.apply_event(member, event),
            Input::Permit => {
                self.members[member].permit_requested = false;
                if self.now < self.params.permits_from {
                    self.members[member].permit_requested = true;
                    self.send(member, self.params.permits_from - self.now, Input::Permit);
                    return;
                }
                let now = self.member_clock(member);
                // Sometimes there are no permits for one method.
                let spent = if self.faults_over { None } else { HttpMethod::ALL.get(self.rng.usize(..16)).copied() };
                let without = spent.map_or(HttpMethodSet::NONE, |method| HttpMethodSet::NONE.with(method));
                if self.members[member].dispatcher.as_mut().is_some_and(|d| d.next_request(now, without).is_some()) {
                    self.apply_event(member, Event::PermitGranted { without });
                }
                self.update_timers(member);
            }
            Input::Wake(at) => {
                if self.members[member].wake_at == Some(at) {
                    self.members[member].wake_at = None;
                    self.apply_event(member, Event::Tick);
                }
            }
            Input::Poll => self.poll(member),
            Input::CheckAndSend(outgoing) => self.check(member, *outgoing),
            Input::Answered { request } => self.answered(member, request),
            Input::Produced { produce, event } => {
                let acked = matches!(event, Event::ProduceCompleted { outcome: ProduceOutcome::Acked, .. });
                self.apply_event(member, event);
                if let Some(point) = self.produces[produce as usize].ack_point.filter(|_| acked) {
                    self.reached(point, member);
                }
            }
            Input::LedgerRead { partition, epoch, token } => {
                let mut ledger = self.logs[partition].load(token, self.group.offset[partition]);
                ledger.end_offset = self.input[partition][..self.visible[partition]].last().map_or(0, |r| r.offset + 1);
                self.coverage.claims_loaded += ledger.claims.len() as u64;
                self.coverage.stale_loaded += ledger.stale.len() as u64;
                self.resolved[member][partition] = (epoch, BTreeSet::new());
                self.apply_event(
                    member,
                    Event::LedgerLoaded { partition: partition_number(partition), epoch, ledger: Box::new(ledger) },
                );
                self.reached(InjectionPoint::LedgerRead, member);
            }
            Input::OwnerFailed { partition, epoch } => {
                self.produce(member, partition, None, ProducePayload::Owner(epoch))
            }
            Input::DrainDeadline { partition, epoch } => {
                let client = &self.members[member].client_partitions[partition];
                // A frozen engine gets the time of the freeze in addition.
                let resumed_at = self.members[member].resumed_at;
                let since = client.revoked_at.map_or(0, |at| self.now - at.max(resumed_at));
                if client.epoch == Some(epoch) && since > self.settings.drain_timeout + 5_000 {
                    self.report_violation(format!("member {member} does not release partition {partition}"));
                } else if client.epoch == Some(epoch) && client.revoked_at.is_some() {
                    self.send(member, 5_000, Input::DrainDeadline { partition, epoch });
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
        let wait = self.params.poll_interval;
        self.send(member, wait, Input::Poll);
        if self.members[member].poller_blocked() {
            return;
        }
        self.members[member].last_poll = self.now;
        self.apply_event(member, Event::Polled { at: self.now });
        if !self.scenario.scripted {
            self.apply_event(member, Event::AvailablePermits { permits: (self.now / 500 % 3) as usize });
        }
        if self.members[member].paused || self.members[member].frozen() {
            return;
        }
        for partition in 0..self.params.partitions {
            let client = &self.members[member].client_partitions[partition];
            let (Some(epoch), Some(from)) = (client.epoch, client.next_offset) else { continue };
            let visible = self.visible[partition];
            let first = self.input[partition][..visible].partition_point(|r| r.offset < from);
            for at in first..visible {
                let record = self.input[partition][at].clone();
                self.members[member].client_partitions[partition].next_offset = Some(record.offset + 1);
                let fetch_count = self.members[member].client_partitions[partition].fetch_count;
                if let RecordContent::Intents(intents) = &record.content {
                    self.coverage.events += intents.len() as u64;
                }
                let event = Event::Received { partition: partition_number(partition), epoch, record };
                self.send_in_order(member, Input::Record { event, partition, fetch_count });
            }
        }
    }

    fn check_report(&mut self, member: usize, report: &WriteResult) {
        let Some(first) = report.positions.first() else { return };
        let partition = partition_index(first.partition);
        let epoch = self.members[member].client_partitions[partition].epoch;
        let (seen, positions) = &mut self.resolved[member][partition];
        if epoch == Some(*seen) && report.outcome != "verified" {
            if let Err(broken) = invariants::resolved_once(positions, &report.positions) {
                self.report_violation(broken.to_string());
            }
        }
        match report.outcome {
            "reopened" => self.coverage.reopened += 1,
            "unchanged" => self.coverage.unchanged += 1,
            _ => {}
        }
        self.coverage.refolds += u64::from(report.requests > 1);
    }

    fn observed(&mut self, member: usize, observation: &Observation) {
        let coverage = &mut self.coverage;
        match observation {
            Observation::WriteAmbiguous(..) => {
                coverage.ambiguous_writes += 1;
                self.reached(InjectionPoint::WriteAmbiguous, member);
            }
            Observation::AmbiguitySettled { applied: true, .. } => coverage.found += 1,
            Observation::AmbiguitySettled { applied: false, .. } => coverage.not_found += 1,
            Observation::UserEditPreserved(..) => coverage.user_edits_preserved += 1,
            Observation::Skipped(_, why) => {
                coverage.skipped += 1;
                coverage.resyncs_skipped += u64::from(why.contains("resync"));
            }
            Observation::Unchanged(_) => coverage.unchanged += 1,
            Observation::Expired(key) => {
                coverage.expired += 1;
                self.expired.insert(key.clone());
                let max_age = self.max_row_age();
                if let Some(violation) = self.instance.forget(key_index(key), self.now, max_age) {
                    self.report_violation(violation);
                }
                self.reached(InjectionPoint::EntryExpired, member);
            }
            Observation::Parked(..) => coverage.parked += 1,
            Observation::Unparked(_) => coverage.unparked += 1,
            Observation::StillParked(..) => coverage.still_parked += 1,
            Observation::TicketMissing(..) => coverage.missing_tickets += 1,
            Observation::TokenRenewed(_) => coverage.tokens_renewed += 1,
            Observation::OutdatedStateChange(..) => coverage.outdated += 1,
            Observation::Blocked(_)
            | Observation::DuplicateTickets(..)
            | Observation::WriteIneffective(..)
            | Observation::FutureTime(..) => {}
        }
    }
}

fn enqueued_point(write: &LedgerWrite) -> InjectionPoint {
    match write {
        LedgerWrite::Entry(..) | LedgerWrite::Park(..) => InjectionPoint::EntryEnqueued,
        LedgerWrite::Claim(..) => InjectionPoint::ClaimEnqueued,
        LedgerWrite::Mark(..) => InjectionPoint::MarkEnqueued,
        LedgerWrite::Tombstone(..) => InjectionPoint::TombstoneEnqueued,
    }
}

fn landed_point(write: &LedgerWrite) -> Option<InjectionPoint> {
    match write {
        LedgerWrite::Entry(..) => Some(InjectionPoint::EntryLanded),
        LedgerWrite::Claim(..) => Some(InjectionPoint::ClaimLanded),
        _ => None,
    }
}
