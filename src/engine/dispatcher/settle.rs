//! From the answer to the resolved position: what the answer to a write means, and its entry (protocol rules 6, 8).

use super::{Dispatcher, Op, PendingRequest};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, OpId, ProduceOutcome, RequestId};
use crate::engine::field_hash::field_hash;
use crate::engine::fold::remember;
use crate::engine::lane::{AmbiguousWrite, ReadPurpose, Settlement, Stage};
use crate::engine::plan::WritePlan;
use crate::engine::retry::Delays;
use crate::model::entry::ClaimKind;
use crate::model::{Answer, Claim, Class, Entry, Failure, FieldDigest, HttpMethod, Key, Now, Row, Seen};

impl Dispatcher {
    pub(super) fn answered(
        &mut self,
        id: RequestId,
        issued_at: u64,
        answer: Answer,
        told: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(PendingRequest { partition, life, key, method }) = self.requests.remove(&id) else { return };
        self.judge(id, method, &answer, told, now);
        if self.live(partition, life).is_none() {
            return;
        }
        let Some(lane) = self.lane(partition, &key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::Asking(request, wish) if request == id => {
                self.asked(partition, &key, wish, answer, now, out);
            }
            Stage::Sending(request, plan) if request == id => {
                self.wrote(partition, &key, plan, issued_at, answer, now, out);
            }
            other => lane.stage = other,
        }
    }

    /// What an answer says of the instance, whoever asked; a failure that was told already says nothing more.
    fn judge(&mut self, id: RequestId, method: HttpMethod, answer: &Answer, told: bool, now: Now) {
        let seed = self.settings.seed ^ id.0;
        let Answer::Failed(Failure { class, message, .. }) = answer else {
            return match answer {
                Answer::NotSent { .. } => self.breaker.not_sent(id),
                _ => self.breaker.answered(),
            };
        };
        let settings = &self.settings;
        match class {
            Class::Unauthorised => self.breaker.unauthorised(id, message, now.mono, settings, seed),
            Class::Throttled { retry_after: Some(wait) } => self.breaker.hold(id, method, *wait, now.mono),
            Class::Throttled { retry_after: None }
            | Class::Transient
            | Class::Unavailable
            | Class::Ambiguous { .. }
                if told =>
            {
                self.breaker.not_sent(id);
            }
            // Without a time it is no rule that was reached: the instance has no thread free.
            Class::Throttled { retry_after: None }
            | Class::Transient
            | Class::Unavailable
            | Class::Ambiguous { .. } => {
                self.breaker.failed(id, message, now.mono, settings, seed);
            }
            Class::Rejected | Class::Gone | Class::Conflict => self.breaker.answered(),
        }
    }

    /// The answer to a write.
    fn wrote(
        &mut self,
        partition: i32,
        key: &Key,
        plan: Box<WritePlan>,
        issued_at: u64,
        answer: Answer,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let span = self.settings.request_deadline + self.settings.settle_time;
        let doubt = |ended| AmbiguousWrite { alive_until: issued_at + span, ended, looked: false };
        match answer {
            Answer::Applied { row, warnings } => {
                self.breaker.applied();
                self.settle(partition, key, &row, Some(plan), warnings, now, out);
            }
            Answer::Rows { .. } => {
                self.open_doubt(partition, key, doubt(true), "an answer of the wrong kind", now, out);
            }
            Answer::NotSent { .. } => {
                self.requeue(partition, key);
                self.make_wait(partition, key, now.mono + 50, Stage::Waiting(now.mono + 50));
            }
            Answer::Failed(failure) => match failure.class {
                Class::Ambiguous { ended } => self.open_doubt(partition, key, doubt(ended), &failure.code, now, out),
                Class::Conflict => self.open_doubt(partition, key, doubt(true), &failure.code, now, out),
                Class::Rejected => self.refuse(partition, key, &failure.code, &failure.message, true, now, out),
                Class::Gone => {
                    self.requeue(partition, key);
                    self.make_want(partition, key, Stage::Wants(ReadPurpose::Confirm), now);
                }
                Class::Throttled { retry_after: Some(_) } | Class::Unauthorised => {
                    self.requeue(partition, key);
                    self.make_ready(partition, key, now, out);
                }
                Class::Transient | Class::Unavailable | Class::Throttled { retry_after: None } => {
                    self.requeue(partition, key);
                    self.wait_a_little(partition, key, now);
                }
            },
        }
    }

    /// Lets a lane wait for the next of its growing delays.
    pub(super) fn wait_a_little(&mut self, partition: i32, key: &Key, now: Now) {
        let until = now.mono + self.delay(partition, key);
        self.make_wait(partition, key, until, Stage::Waiting(until));
    }

    pub(super) fn delay(&mut self, partition: i32, key: &Key) -> u64 {
        let seed = self.settings.seed ^ self.id();
        let retry = self.settings.retry;
        let Some(lane) = self.lane(partition, key) else { return retry.0 };
        lane.delays.get_or_insert_with(|| Delays::new(retry, seed)).next_delay()
    }

    /// A lane's instant has come.
    pub(super) fn timer(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        match lane.stage {
            Stage::Waiting(until) if until <= now.mono => self.make_ready(partition, key, now, out),
            Stage::AmbiguousWrite(doubt, due) if due <= now.mono => {
                self.make_want(partition, key, Stage::Wants(ReadPurpose::Look(doubt, false)), now);
            }
            _ => {}
        }
    }

    /// The write is there: its entry is written before anything else of the lane.
    pub(super) fn settle(
        &mut self,
        partition: i32,
        key: &Key,
        row: &Row,
        plan: Option<Box<WritePlan>>,
        warnings: Vec<String>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let Some(lane) = p.lanes.get(key) else { return };
        let Some((_, claim)) = &lane.claim else { return };
        let entry = make_entry(p.token, p.entries.get(key).as_deref(), claim, row, &self.settings.bridge_user, now);
        let settlement = Settlement {
            entry,
            outcome: plan.as_ref().map_or("verified", |p| p.outcome),
            notes: claim.markers.len().saturating_sub(usize::from(self.settings.whole)),
            fields: plan.map(|p| p.fields).unwrap_or_default(),
            warnings,
        };
        self.stage(partition, key, Stage::Settled(Box::new(settlement)));
        self.write_entry(partition, key, now, out);
    }

    /// Produces the entry of a settled lane, if the lease stands; else when it stands again.
    pub(super) fn write_entry(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let stands = self.lease_stands(partition, now);
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let Stage::Settled(settlement) = &lane.stage else { return };
        if !stands {
            p.unleased.push(key.clone());
            return;
        }
        let entry = settlement.entry.clone();
        let life = p.life;
        let Stage::Settled(settlement) = std::mem::take(&mut lane.stage) else { return };
        let write = LedgerWrite::Entry(key.clone(), Box::new(entry));
        let op = self.produce(partition, write, Op::Entry(partition, life, key.clone()), out);
        self.stage(partition, key, Stage::Settling(op, settlement));
    }

    pub(super) fn entry_produced(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        id: OpId,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if self.live(partition, life).is_none() {
            return;
        }
        let Some(lane) = self.lane(partition, key) else { return };
        if !matches!(&lane.stage, Stage::Settling(op, _) if *op == id) {
            return;
        }
        let Stage::Settling(_, settlement) = std::mem::take(&mut lane.stage) else { return };
        if outcome == ProduceOutcome::Refused {
            self.stage(partition, key, Stage::Settled(settlement));
            self.write_entry(partition, key, now, out);
            return;
        }
        self.resolve_settled(partition, life, key, *settlement, now, out);
    }

    /// The entry is acked: its positions are resolved, and its claim is of no more use.
    fn resolve_settled(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        settlement: Settlement,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let mut report = Self::report(key, settlement.outcome, &settlement.entry);
        let partial = settlement.entry.partial;
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        p.put_entry(key, settlement.entry);
        let Some(lane) = p.lanes.get_mut(key) else { return };
        let held = lane.held.take();
        let claim = lane.claim.take();
        lane.delays = None;
        if let Some((at, parts)) = partial {
            // The rest of a long note may have come again while a former owner's write was in doubt.
            lane.queue.set_parts_done(at, parts);
        }
        let requests = std::mem::take(&mut lane.requests);
        self.tombstone_stale(partition, life, &LedgerKey::Entry(key.clone()), out);
        if let Some((token, _)) = claim {
            self.flapping_written(partition, key, now);
            self.tombstone_claim(partition, life, key, token, out);
        }
        report.latency = held.urgency().map_or(0, |(_, since)| now.mono.saturating_sub(since));
        for event in held.events() {
            report.positions.push(event.position);
            self.resolve(partition, event.position.offset, event.bytes);
        }
        report.fields = settlement.fields;
        report.notes = settlement.notes;
        report.attempts = requests;
        report.warnings = settlement.warnings;
        out.push(Effect::Result(Box::new(report)));
        if settlement.outcome != "unchanged" && self.is_beyond_parking(partition, key) {
            self.unpark(partition, key, out);
        }
        self.make_ready(partition, key, now, out);
    }
}

pub(super) fn seen(row: &Row, now: Now) -> Seen {
    Seen { state: row.state.clone(), mod_count: row.mod_count, updated_by: row.updated_by.clone(), at: now.unix }
}

/// The entry of a claim whose write is there.
fn make_entry(
    token: crate::model::Token,
    old: Option<&Entry>,
    claim: &Claim,
    row: &Row,
    bridge_user: &str,
    now: Now,
) -> Entry {
    let creates = matches!(claim.kind, ClaimKind::Create { .. });
    let same = old.filter(|_| !creates);
    let mut fields = same.map(|e| e.fields.clone()).unwrap_or_default();
    for (column, sent) in &claim.fields {
        // Where a person wrote last, what differs is the person's and not a business rule's.
        let stood = row.values.get(&**column).filter(|_| row.updated_by == bridge_user);
        let stood = stood.map(|v| field_hash(v)).filter(|d| d != sent);
        let value = FieldDigest { sent: *sent, stood };
        match fields.binary_search_by(|(c, _)| c.cmp(column)) {
            Ok(at) => fields[at].1 = value,
            Err(at) => fields.insert(at, (column.clone(), value)),
        }
    }
    let mut earlier = old.map(|e| e.earlier.clone()).unwrap_or_default();
    if creates && let Some(old) = old {
        earlier.push(old.sys_id.clone());
    }
    let mut event_ids = old.map(|e| e.event_ids.clone()).unwrap_or_default();
    remember(&mut event_ids, claim.event_ids.iter().copied());
    let mut seen = seen(row, now);
    if same.is_some_and(|e| row.mod_count != e.seen.mod_count + 1) {
        // Somebody else wrote between our last sight of the row and this write: read it before the next.
        seen.at = 0;
    }
    Entry {
        token,
        attempt: claim.attempt,
        sys_id: row.sys_id.clone(),
        number: row.number.clone(),
        generation: claim.generation,
        position: claim.hi,
        partial: claim.partial,
        fields,
        earlier,
        occurred_at: claim.occurred_at.max(old.map_or(i64::MIN, |e| e.occurred_at)),
        resolved_at: claim.resolved_at,
        event_ids,
        seen,
        written_at: now.unix,
    }
}
