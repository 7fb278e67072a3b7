//! From the answer of a write to its resolved positions, by way of the entry (protocol rules 9, 11).

use super::entry::make_entry;
use super::{Dispatcher, PendingProduce, PendingRequest, RequestSender};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, Observation, ProduceId, ProduceOutcome, RequestId};
use crate::engine::lane::{AmbiguousWrite, ReadPurpose, Settlement, Stage};
use crate::engine::plan::WritePlan;
use crate::engine::retry::Backoff;
use crate::model::{Answer, Failure, FailureClass, HttpMethod, Key, Now, PartialNote, Row};

impl Dispatcher {
    pub(super) fn request_completed(
        &mut self,
        id: RequestId,
        issued_at: u64,
        answer: Answer,
        already_counted: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(PendingRequest { method, sender }) = self.pending_requests.remove(&id) else { return };
        self.update_breaker(id, method, &answer, already_counted, now);
        let (partition, load_generation, key) = match sender {
            RequestSender::Lane { partition, load_generation, key } => (partition, load_generation, key),
            RequestSender::Look { targets, sent_at } => {
                return self.look_completed(id, (targets, sent_at), answer, now, out);
            }
        };
        if self.current_partition(partition, load_generation).is_none() {
            return;
        }
        let Some(lane) = self.lane(partition, &key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::Reading(request, purpose) if request == id => {
                self.read_completed(partition, &key, purpose, answer, now, out);
            }
            Stage::Sending(request, plan) if request == id => {
                self.write_completed(partition, &key, plan, issued_at, answer, now, out);
            }
            stage => lane.stage = stage,
        }
    }

    /// Tells the breaker what an answer says about the instance. A failure that was already counted says nothing more.
    fn update_breaker(&mut self, id: RequestId, method: HttpMethod, answer: &Answer, already_counted: bool, now: Now) {
        let seed = self.settings.seed ^ id.0;
        let Answer::Failed(Failure { class, message, .. }) = answer else {
            return match answer {
                Answer::NotSent { .. } => self.breaker.not_sent(id),
                _ => self.breaker.answered(),
            };
        };
        let settings = &self.settings;
        match class {
            FailureClass::Unauthorized => self.breaker.unauthorized(id, message, now.mono, settings, seed),
            FailureClass::Throttled { retry_after: Some(wait) } => self.breaker.throttled(id, method, *wait, now.mono),
            FailureClass::Throttled { retry_after: None }
            | FailureClass::Transient
            | FailureClass::Unavailable
            | FailureClass::Ambiguous { .. }
                if already_counted =>
            {
                self.breaker.not_sent(id);
            }
            // A 429 without a time is not a rate limit rule: the instance has no thread free.
            FailureClass::Throttled { retry_after: None }
            | FailureClass::Transient
            | FailureClass::Unavailable
            | FailureClass::Ambiguous { .. } => {
                self.breaker.failed(id, message, now.mono, settings, seed);
            }
            FailureClass::Rejected | FailureClass::Gone | FailureClass::Conflict => self.breaker.answered(),
        }
    }

    /// Handles the answer to a write.
    fn write_completed(
        &mut self,
        partition: i32,
        key: &Key,
        plan: Box<WritePlan>,
        issued_at: u64,
        answer: Answer,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let span = self.settings.request_deadline + self.settings.max_transaction_time;
        let ambiguous = |transaction_ended| AmbiguousWrite {
            may_commit_until: issued_at + span,
            transaction_ended,
            verified_once: false,
        };
        match answer {
            Answer::Applied { row, warnings } => {
                let difference = self.state_difference(plan.state.as_ref(), &row);
                self.write_applied(partition, key, (*row, plan), difference, warnings, now, out);
            }
            // Tried again, it would only make another row. The ticket is known by its sys_id.
            Answer::WithoutCorrelation { row, reason } => {
                self.write_applied(partition, key, (*row, plan), Some(reason), Vec::new(), now, out);
            }
            Answer::Rows { .. } => {
                self.start_verification(partition, key, ambiguous(true), "an answer of an unexpected kind", now, out);
            }
            Answer::NotSent { .. } => {
                self.requeue(partition, key);
                self.wait_until(partition, key, now.mono + 50, Stage::Waiting(now.mono + 50));
            }
            Answer::Failed(failure) => match failure.class {
                FailureClass::Ambiguous { transaction_ended } => {
                    let write = ambiguous(transaction_ended);
                    self.start_verification(partition, key, write, &failure.code, now, out);
                }
                FailureClass::Conflict => {
                    self.start_verification(partition, key, ambiguous(true), &failure.code, now, out);
                }
                FailureClass::Rejected => self.reject(partition, key, &failure.code, &failure.message, true, now, out),
                FailureClass::Gone => {
                    self.requeue(partition, key);
                    let purpose = ReadPurpose::ConfirmMissing { by_write: true };
                    self.wait_for_permit(partition, key, Stage::WaitingToRead(purpose), now);
                }
                FailureClass::Throttled { retry_after: Some(_) } | FailureClass::Unauthorized => {
                    self.requeue(partition, key);
                    self.enqueue_for_turn(partition, key, now, out);
                }
                FailureClass::Transient | FailureClass::Unavailable | FailureClass::Throttled { retry_after: None } => {
                    self.requeue(partition, key);
                    self.wait_for_retry(partition, key, now);
                }
            },
        }
    }

    /// Settles a write that was applied. A `difference` between what was to be reached and what was is reported, and
    /// several in a row stop the route; the write is never repeated as it is, because its result would be the same.
    fn write_applied(
        &mut self,
        partition: i32,
        key: &Key,
        (row, plan): (Row, Box<WritePlan>),
        difference: Option<String>,
        mut warnings: Vec<String>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        match difference {
            None => self.breaker.applied(),
            Some(reason) => {
                self.breaker.rejected(&reason, &self.settings);
                Self::observe(out, Observation::WriteIneffective(key.clone(), reason.clone()));
                warnings.push(reason);
            }
        }
        self.settle_applied(partition, key, row, Some(plan), warnings, now, out);
    }

    /// What is wrong with the state of the row after a write: it should have been ended and is open, or the other way
    /// round. Which of the states of its phase it has is up to the rules of the instance.
    pub(super) fn state_difference(&self, written: Option<&String>, row: &Row) -> Option<String> {
        let states = &self.settings.states;
        let written = written.filter(|_| !self.settings.full_snapshot)?;
        let differs = states.phase(written).is_open() != row.phase(states).is_open();
        differs.then(|| format!("{}: sent {written:?}, {} has {:?}", states.column, row.number, row.state))
    }

    /// Lets a lane wait for the next delay of its backoff.
    pub(super) fn wait_for_retry(&mut self, partition: i32, key: &Key, now: Now) {
        let until = now.mono + self.next_delay(partition, key);
        self.wait_until(partition, key, until, Stage::Waiting(until));
    }

    pub(super) fn next_delay(&mut self, partition: i32, key: &Key) -> u64 {
        let seed = self.settings.seed ^ self.new_id();
        let retry = self.settings.retry;
        let Some(lane) = self.lane(partition, key) else { return retry.first };
        lane.backoff.get_or_insert_with(|| Backoff::new(retry, seed)).next_delay()
    }

    /// Handles the end of a lane's wait.
    pub(super) fn timer_fired(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        match lane.stage {
            Stage::Waiting(until) if until <= now.mono => self.enqueue_for_turn(partition, key, now, out),
            Stage::WaitingToShare(due) if due <= now.mono => {
                self.wait_for_permit(partition, key, Stage::WaitingToRead(ReadPurpose::RefreshRow), now);
            }
            Stage::Ambiguous(write, due) if due <= now.mono => {
                let purpose = ReadPurpose::Verify { write, conclusive: false };
                self.wait_for_permit(partition, key, Stage::WaitingToRead(purpose), now);
            }
            _ => {}
        }
    }

    /// Settles an applied write: its entry is written before anything else of the lane.
    pub(super) fn settle_applied(
        &mut self,
        partition: i32,
        key: &Key,
        row: Row,
        plan: Option<Box<WritePlan>>,
        warnings: Vec<String>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get(key) else { return };
        let Some((_, claim)) = &lane.claim else { return };
        let entry =
            make_entry(p.token, p.entries.get(key).as_deref(), claim, &row, (&self.settings, self.clock_skew), now);
        let settlement = Settlement {
            entry,
            outcome: plan.as_ref().map_or("verified", |p| p.outcome),
            notes: claim.markers.len().saturating_sub(usize::from(self.settings.full_snapshot)),
            fields: plan.map(|p| p.fields).unwrap_or_default(),
            warnings,
        };
        // If somebody else wrote in between, the next decision needs a look at what.
        if settlement.entry.last_seen.updated_by.is_empty() || self.settings.full_snapshot {
            p.rows.remove(key);
        } else {
            let sent_at = lane.sent_at;
            p.rows.put(key.clone(), row, sent_at, now.mono);
        }
        self.stage(partition, key, Stage::EntryPending(Box::new(settlement)));
        self.write_entry(partition, key, now, out);
    }

    /// Produces the entry of a settled lane, if the lease holds; otherwise the lane waits for a lease.
    pub(super) fn write_entry(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let leased = self.holds_lease(partition, now);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let Stage::EntryPending(settlement) = &lane.stage else { return };
        if !leased {
            p.waiting_for_lease.push(key.clone());
            return;
        }
        let entry = settlement.entry.clone();
        let load_generation = p.load_generation;
        let Stage::EntryPending(settlement) = std::mem::take(&mut lane.stage) else { return };
        let write = LedgerWrite::Entry(key.clone(), Box::new(entry));
        let pending = PendingProduce::Entry(partition, load_generation, key.clone());
        let produce_id = self.produce(partition, write, pending, out);
        self.stage(partition, key, Stage::WritingEntry(produce_id, settlement));
    }

    pub(super) fn entry_produced(
        &mut self,
        partition: i32,
        load_generation: u64,
        key: &Key,
        id: ProduceId,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if self.current_partition(partition, load_generation).is_none() {
            return;
        }
        let Some(lane) = self.lane(partition, key) else { return };
        if !matches!(&lane.stage, Stage::WritingEntry(produce_id, _) if *produce_id == id) {
            return;
        }
        let Stage::WritingEntry(_, settlement) = std::mem::take(&mut lane.stage) else { return };
        if outcome == ProduceOutcome::NotWritten {
            self.stage(partition, key, Stage::EntryPending(settlement));
            self.write_entry(partition, key, now, out);
            return;
        }
        self.resolve_settled(partition, load_generation, key, *settlement, now, out);
    }

    /// The entry is acked: resolves its positions and removes the claim.
    fn resolve_settled(
        &mut self,
        partition: i32,
        load_generation: u64,
        key: &Key,
        settlement: Settlement,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let mut result = Self::result_of(key, settlement.outcome, &settlement.entry);
        let partial_note = settlement.entry.partial_note;
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        p.put_entry(key, settlement.entry);
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let in_flight = lane.in_flight.take();
        let claim = lane.claim.take();
        lane.backoff = None;
        if let Some(PartialNote { position, parts }) = partial_note {
            // The rest of a long note may have been received again while a previous owner's write was ambiguous.
            lane.queue.set_written_parts(position, parts);
        }
        let requests = std::mem::take(&mut lane.requests);
        self.tombstone_stale(partition, load_generation, &LedgerKey::Entry(key.clone()), out);
        if let Some((token, _)) = claim {
            self.record_flap_write(partition, key, now);
            self.tombstone_claim(partition, load_generation, key, token, out);
        }
        let received_at = in_flight.priority_and_receipt().map(|(_, received_at)| received_at);
        result.latency_ms = received_at.map_or(0, |received_at| now.mono.saturating_sub(received_at));
        for event in in_flight.events() {
            result.positions.push(event.position);
            self.resolve(partition, event.position.offset, event.bytes);
        }
        result.fields = settlement.fields;
        result.notes = settlement.notes;
        result.requests = requests;
        result.warnings = settlement.warnings;
        out.push(Effect::ProduceResult(Box::new(result)));
        if settlement.outcome != "unchanged" && self.is_past_park(partition, key) {
            self.unpark(partition, key, out);
        }
        self.enqueue_for_turn(partition, key, now, out);
    }
}
