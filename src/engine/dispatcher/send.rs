//! From the permit to the request: which lane gets the permit, and what it sends (protocol rules 5, 7, 13).

use std::collections::BTreeSet;

use super::{Dispatcher, PendingRequest, RequestSender};
use crate::engine::event::{Effect, InstanceRequest, RequestId};
use crate::engine::lane::{AmbiguousWrite, ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::plan::WritePlan;
use crate::engine::priority::PermitRank;
use crate::model::entry::ClaimKind;
use crate::model::{Column, HttpMethodSet, Key, Now};

/// The driver has at least this long to send a write whose row is just fresh enough, milliseconds.
const SEND_GRACE: u64 = 1_000;

/// A lane that waits for a permit: its rank, partition and key.
type PermitWaiter<'a> = (&'a PermitRank, i32, &'a Key);

impl Dispatcher {
    /// The lane that would get a permit now, requests of the methods in `without` excluded.
    pub(super) fn next_permit_waiter(&self, now: Now, without: HttpMethodSet) -> Option<PermitWaiter<'_>> {
        let first = self.first_permit_waiter(now, without, |_| true)?;
        if first.0.lane_rank.is_critical() && self.critical_streak.other_lane_is_due() {
            return self.first_permit_waiter(now, without, |rank| !rank.lane_rank.is_critical()).or(Some(first));
        }
        Some(first)
    }

    fn first_permit_waiter(
        &self,
        now: Now,
        without: HttpMethodSet,
        eligible: impl Fn(&PermitRank) -> bool,
    ) -> Option<PermitWaiter<'_>> {
        let may_send = |method| !without.contains(method) && self.breaker.may_send(method, now.mono);
        let firsts = self.running_partitions().filter_map(|(number, p)| {
            let leased = self.lease_until(p) > now.mono;
            let may =
                |rank: &PermitRank| may_send(rank.method) && (leased || !rank.purpose.is_write()) && eligible(rank);
            p.permit_queue.iter().find(|(rank, _)| may(rank)).map(|(rank, key)| (rank, number, key))
        });
        firsts.min_by_key(|(rank, ..)| **rank)
    }

    pub(super) fn permit_granted(&mut self, without: HttpMethodSet, now: Now, out: &mut Vec<Effect>) {
        let Some((rank, partition, key)) = self.next_permit_waiter(now, without) else { return };
        let (lane_rank, key) = (rank.lane_rank, key.clone());
        self.critical_streak.record(&lane_rank);
        if let Some(waiting_since) = self.lane(partition, &key).map(|lane| lane.waiting_since) {
            self.row_age_limit.record_permit(lane_rank.class(), waiting_since, now.mono);
        }
        self.send(partition, &key, now, out);
    }

    fn send(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::WaitingToRead(ReadPurpose::RefreshRow) => self.send_look(partition, key, now, out),
            Stage::WaitingToRead(purpose) => self.send_read(partition, key, purpose, now, out),
            Stage::Claimed(plan) => {
                if self.is_row_outdated(partition, key, now) {
                    // The claim waited so long that a user may have changed the row meanwhile.
                    self.requeue(partition, key);
                    self.look(partition, key, true, now);
                } else {
                    self.send_write(partition, key, plan, now, out);
                }
            }
            stage => lane.stage = stage,
        }
    }

    /// True if the row on which the claim was decided is too old by now.
    fn is_row_outdated(&self, partition: i32, key: &Key, now: Now) -> bool {
        let max_age = self.max_row_age(partition, key);
        let lane = self.partitions.get(&partition).and_then(|p| p.lanes.get(key));
        lane.and_then(|lane| lane.decided_on)
            .is_some_and(|seen| seen.superseded || now.mono.saturating_sub(seen.at) > max_age)
    }

    fn send_write(&mut self, partition: i32, key: &Key, plan: Box<WritePlan>, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let attempt = p.lanes.get(key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.attempt);
        let Some(attempt) = attempt else { return };
        let decided_on = p.lanes.get(key).and_then(|lane| lane.decided_on);
        // The driver may have to wait for an access token: by then the row may be too old as well.
        let row_valid_until = decided_on.map_or(u64::MAX, |seen| {
            seen.at.saturating_add(self.max_row_age(partition, key)).max(now.mono.saturating_add(SEND_GRACE))
        });
        let lease_until = self.lease_until(p).min(row_valid_until);
        let decided_on = decided_on.map(|seen| seen.mod_count);
        let (fields, notes) = (plan.fields.clone(), plan.notes.clone());
        let body = match &plan.kind {
            ClaimKind::Create { .. } => InstanceRequest::Create { key: key.clone(), fields, notes, attempt },
            ClaimKind::Update { sys_id } => {
                InstanceRequest::Update { key: key.clone(), sys_id: sys_id.clone(), decided_on, fields, notes, attempt }
            }
        };
        let id = self.request(partition, key, lease_until, body, now, out);
        self.writes_since_look += 1;
        if let Some(lane) = self.lane(partition, key) {
            lane.looks = 0;
        }
        self.stage(partition, key, Stage::Sending(id, plan));
    }

    fn send_read(&mut self, partition: i32, key: &Key, purpose: ReadPurpose, now: Now, out: &mut Vec<Effect>) {
        let columns = self.columns_to_read(partition, key);
        let claim = self.lane(partition, key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.clone());
        let request_key = key.clone();
        let (purpose, body) = match (purpose, claim) {
            (ReadPurpose::Verify { write, .. }, Some(claim)) => {
                let conclusive = self.is_conclusive(write, now);
                let claimed = claim.fields.iter().map(|(column, _)| column.clone());
                let columns = columns.into_iter().chain(claimed).collect::<BTreeSet<_>>().into_iter().collect();
                let body = match &claim.kind {
                    ClaimKind::Create { .. } => InstanceRequest::Find { key: request_key, columns },
                    ClaimKind::Update { sys_id } => {
                        let markers = claim.markers.clone();
                        InstanceRequest::Read { key: request_key, sys_id: sys_id.clone(), columns, markers }
                    }
                };
                (ReadPurpose::Verify { write, conclusive }, body)
            }
            (purpose, _) => (purpose, InstanceRequest::Find { key: request_key, columns }),
        };
        let id = self.request(partition, key, u64::MAX, body, now, out);
        self.stage(partition, key, Stage::Reading(id, purpose));
    }

    /// True if not finding the write now settles it: its transaction has ended, or the span has passed.
    fn is_conclusive(&self, write: AmbiguousWrite, now: Now) -> bool {
        write.transaction_ended
            || now.mono > write.may_commit_until
            || self.rules.is_disabled(Mutation::NoSpanWait)
            || (self.rules.is_disabled(Mutation::VerifyAtSpanEnd) && now.mono >= write.may_commit_until)
    }

    fn request(
        &mut self,
        partition: i32,
        key: &Key,
        lease_until: u64,
        body: InstanceRequest,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> RequestId {
        let id = RequestId(self.new_id());
        let method = body.method();
        self.breaker.sent(id);
        if let Some(p) = self.partitions.get_mut(&partition) {
            let sender = RequestSender::Lane { partition, load_generation: p.load_generation, key: key.clone() };
            self.pending_requests.insert(id, PendingRequest { method, sender });
            if let Some(lane) = p.lanes.get_mut(key) {
                lane.requests += 1;
                lane.sent_at = now.mono;
            }
            out.push(Effect::SendRequest { id, partition, epoch: p.epoch, lease_until, body });
        }
        id
    }

    /// The columns whose values matter for decisions about a key: those that the mapping may write, and those that the
    /// bridge has written to the ticket.
    pub(super) fn columns_to_read(&self, partition: i32, key: &Key) -> Vec<Column> {
        let written = self.entry(partition, key);
        let written = written.iter().flat_map(|entry| entry.fields.iter().map(|(column, _)| column));
        let columns: BTreeSet<&Column> = self.settings.columns.iter().chain(written).collect();
        columns.into_iter().cloned().collect()
    }
}
