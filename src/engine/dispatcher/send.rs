//! From the permit to the request: which lane gets the permit, and what it sends (protocol rules 5, 7, 13).

use super::{Dispatcher, PendingRequest};
use crate::engine::event::{Effect, InstanceRequest, RequestId};
use crate::engine::lane::{AmbiguousWrite, ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::partition::PartitionPhase;
use crate::engine::plan::WritePlan;
use crate::engine::priority::{PermitRank, RequestPurpose};
use crate::model::entry::ClaimKind;
use crate::model::{Column, HttpMethodSet, Key, Now, Phase};

/// Milliseconds. A row that was read this recently may be written even if the policy is to read always: the claim takes
/// some time, and the permit much more if the quota is scarce. With a shorter time, a lane could read again and again.
const ALWAYS_FRESH: u64 = 60_000;

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
        let running = self.partitions.iter().filter(|(_, p)| p.phase == PartitionPhase::Running);
        let firsts = running.filter_map(|(&number, p)| {
            let leased = self.lease_until(p) > now.mono;
            let may = |rank: &PermitRank| {
                may_send(rank.method) && (leased || rank.purpose != RequestPurpose::Write) && eligible(rank)
            };
            p.permit_queue.iter().find(|(rank, _)| may(rank)).map(|(rank, key)| (rank, number, key))
        });
        firsts.min_by_key(|(rank, ..)| **rank)
    }

    pub(super) fn permit_granted(&mut self, without: HttpMethodSet, now: Now, out: &mut Vec<Effect>) {
        let Some((rank, partition, key)) = self.next_permit_waiter(now, without) else { return };
        let (lane_rank, key) = (rank.lane_rank, key.clone());
        self.critical_streak.record(&lane_rank);
        self.send(partition, &key, now, out);
    }

    fn send(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::WaitingToRead(purpose) => self.send_read(partition, key, purpose, now, out),
            Stage::Claimed(plan) => {
                if self.is_row_outdated(partition, key, now) {
                    // The claim waited so long that a user may have edited the row meanwhile.
                    self.requeue(partition, key);
                    self.run_lane(partition, key, now, out);
                } else {
                    self.send_write(partition, key, plan, out);
                }
            }
            stage => lane.stage = stage,
        }
    }

    fn is_row_outdated(&self, partition: i32, key: &Key, now: Now) -> bool {
        let fresh = self.settings.max_row_age.max(ALWAYS_FRESH);
        let entry = self.partitions.get(&partition).and_then(|p| p.entries.get(key));
        // A closed or deleted row stays so, however long ago it was seen.
        let entry = entry.filter(|e| self.settings.states.phase(&e.last_seen.state) != Phase::Closed);
        entry.is_some_and(|e| now.unix.saturating_sub(e.last_seen.at) > i64::try_from(fresh).unwrap_or(i64::MAX))
    }

    fn send_write(&mut self, partition: i32, key: &Key, plan: Box<WritePlan>, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let attempt = p.lanes.get(key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.attempt);
        let Some(attempt) = attempt else { return };
        let lease_until = self.lease_until(p);
        let (fields, notes) = (plan.fields.clone(), plan.notes.clone());
        let body = match &plan.kind {
            ClaimKind::Create { .. } => InstanceRequest::Create { key: key.clone(), fields, notes, attempt },
            ClaimKind::Update { sys_id } => {
                InstanceRequest::Update { key: key.clone(), sys_id: sys_id.clone(), fields, notes, attempt }
            }
        };
        let id = self.request(partition, key, lease_until, body, out);
        self.stage(partition, key, Stage::Sending(id, plan));
    }

    fn send_read(&mut self, partition: i32, key: &Key, purpose: ReadPurpose, now: Now, out: &mut Vec<Effect>) {
        let columns = self.columns_to_read(partition, key);
        let entry_sys_id = self.entry(partition, key).map(|e| e.sys_id.clone());
        let claim = self.lane(partition, key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.clone());
        let request_key = key.clone();
        let (purpose, body) = match (purpose, claim, entry_sys_id) {
            (ReadPurpose::Verify { write, .. }, Some(claim), _) => {
                let conclusive = self.is_conclusive(write, now);
                let columns = claim.fields.iter().map(|(c, _)| c.clone()).collect();
                let body = match &claim.kind {
                    ClaimKind::Create { .. } => InstanceRequest::Find { key: request_key, columns },
                    ClaimKind::Update { sys_id } => {
                        let markers = claim.markers.clone();
                        InstanceRequest::Read { key: request_key, sys_id: sys_id.clone(), columns, markers }
                    }
                };
                (ReadPurpose::Verify { write, conclusive }, body)
            }
            (ReadPurpose::RefreshRow, _, Some(sys_id)) => {
                (purpose, InstanceRequest::Read { key: request_key, sys_id, columns, markers: Vec::new() })
            }
            (purpose, ..) => (purpose, InstanceRequest::Find { key: request_key, columns }),
        };
        let id = self.request(partition, key, u64::MAX, body, out);
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
        out: &mut Vec<Effect>,
    ) -> RequestId {
        let id = RequestId(self.new_id());
        let method = body.method();
        self.breaker.sent(id);
        if let Some(p) = self.partitions.get_mut(&partition) {
            let load_generation = p.load_generation;
            self.pending_requests.insert(id, PendingRequest { partition, load_generation, key: key.clone(), method });
            if let Some(lane) = p.lanes.get_mut(key) {
                lane.requests += 1;
            }
            out.push(Effect::SendRequest { id, partition, epoch: p.epoch, lease_until, body });
        }
        id
    }

    /// The columns whose values matter for the plan: those that the bridge has written, and those of the next segment.
    fn columns_to_read(&self, partition: i32, key: &Key) -> Vec<Column> {
        let Some(p) = self.partitions.get(&partition) else { return Vec::new() };
        let mut columns: Vec<Column> =
            p.entries.get(key).map(|e| e.fields.iter().map(|(c, _)| c.clone()).collect()).unwrap_or_default();
        if let Some(first) = p.lanes.get(key).and_then(|l| l.queue.first()) {
            let from_open = first.from_open.iter().flat_map(|p| p.fields.iter());
            columns.extend(first.before_open.fields.iter().chain(from_open).map(|(c, _)| c.clone()));
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}
