//! From the permit to the request: whose turn it is, and what is asked or written (protocol rules 4, 5a, 10).

use super::{Dispatcher, PendingRequest};
use crate::engine::event::{Effect, RequestBody, RequestId};
use crate::engine::lane::{AmbiguousWrite, ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::partition::PartitionPhase;
use crate::engine::plan::WritePlan;
use crate::engine::priority::{Purpose, Want};
use crate::model::entry::ClaimKind;
use crate::model::{Column, HttpMethods, Key, Now, Phase};

/// A row that was read this recently may be written even where the policy is to read always: the claim takes some
/// time and the permit, under a scarce quota, much more. Shorter, and a lane could read again and again.
const ALWAYS_FRESH: u64 = 60_000;

/// A lane that wants a permit, and where it is.
type Wanting<'a> = (&'a Want, i32, &'a Key);

impl Dispatcher {
    /// The next thing that a permit would be used for, requests of some methods left aside.
    pub(super) fn next_want(&self, now: Now, without: HttpMethods) -> Option<Wanting<'_>> {
        let first = self.first_want(now, without, |_| true)?;
        if first.0.ticket.is_critical() && self.turns.others_are_due() {
            return self.first_want(now, without, |want| !want.ticket.is_critical()).or(Some(first));
        }
        Some(first)
    }

    fn first_want(&self, now: Now, without: HttpMethods, of: impl Fn(&Want) -> bool) -> Option<Wanting<'_>> {
        let may_send = |method| !without.contains(method) && self.breaker.may_send(method, now.mono);
        let running = self.partitions.iter().filter(|(_, p)| p.phase == PartitionPhase::Running);
        let firsts = running.filter_map(|(&number, p)| {
            let leased = self.lease_until(p) > now.mono;
            let may = |want: &Want| may_send(want.method) && (leased || want.purpose != Purpose::Write) && of(want);
            p.wants.iter().find(|(want, _)| may(want)).map(|(want, key)| (want, number, key))
        });
        firsts.min_by_key(|(want, ..)| **want)
    }

    pub(super) fn permitted(&mut self, without: HttpMethods, now: Now, out: &mut Vec<Effect>) {
        let Some((want, partition, key)) = self.next_want(now, without) else { return };
        let (ticket, key) = (want.ticket, key.clone());
        self.turns.had(&ticket);
        self.send(partition, &key, now, out);
    }

    fn send(&mut self, partition: i32, key: &Key, now: Now, out: &mut Vec<Effect>) {
        let Some(lane) = self.lane(partition, key) else { return };
        match std::mem::take(&mut lane.stage) {
            Stage::Wants(wish) => self.send_wish(partition, key, wish, now, out),
            Stage::Claimed(plan) => {
                if self.has_gone_stale(partition, key, now) {
                    // The claim waited so long that a person may have changed the row meanwhile.
                    self.requeue(partition, key);
                    self.turn(partition, key, now, out);
                } else {
                    self.send_write(partition, key, plan, out);
                }
            }
            other => lane.stage = other,
        }
    }

    fn has_gone_stale(&self, partition: i32, key: &Key, now: Now) -> bool {
        let fresh = self.settings.row_freshness.max(ALWAYS_FRESH);
        let entry = self.partitions.get(&partition).and_then(|p| p.entries.get(key));
        // A closed or deleted row stays so, however long ago that was seen.
        let entry = entry.filter(|e| self.settings.states.phase(&e.seen.state) != Phase::Closed);
        entry.is_some_and(|e| now.unix.saturating_sub(e.seen.at) > i64::try_from(fresh).unwrap_or(i64::MAX))
    }

    fn send_write(&mut self, partition: i32, key: &Key, plan: Box<WritePlan>, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let attempt = p.lanes.get(key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.attempt);
        let Some(attempt) = attempt else { return };
        let lease_until = self.lease_until(p);
        let (fields, notes) = (plan.fields.clone(), plan.notes.clone());
        let body = match &plan.kind {
            ClaimKind::Create { .. } => RequestBody::Create { key: key.clone(), fields, notes, attempt },
            ClaimKind::Update { sys_id } => {
                RequestBody::Update { key: key.clone(), sys_id: sys_id.clone(), fields, notes, attempt }
            }
        };
        let id = self.request(partition, key, lease_until, body, out);
        self.stage(partition, key, Stage::Sending(id, plan));
    }

    fn send_wish(&mut self, partition: i32, key: &Key, wish: ReadPurpose, now: Now, out: &mut Vec<Effect>) {
        let columns = self.columns_of(partition, key);
        let entry_id = self.entry(partition, key).map(|e| e.sys_id.clone());
        let claim = self.lane(partition, key).and_then(|l| l.claim.as_ref()).map(|(_, c)| c.clone());
        let key_of = key.clone();
        let (wish, body) = match (wish, claim, entry_id) {
            (ReadPurpose::Look(doubt, _), Some(claim), _) => {
                let conclusive = self.is_conclusive(doubt, now);
                let columns = claim.fields.iter().map(|(c, _)| c.clone()).collect();
                let body = match &claim.kind {
                    ClaimKind::Create { .. } => RequestBody::Find { key: key_of, columns },
                    ClaimKind::Update { sys_id } => {
                        let markers = claim.markers.clone();
                        RequestBody::Read { key: key_of, sys_id: sys_id.clone(), columns, markers }
                    }
                };
                (ReadPurpose::Look(doubt, conclusive), body)
            }
            (ReadPurpose::Read, _, Some(sys_id)) => {
                (wish, RequestBody::Read { key: key_of, sys_id, columns, markers: Vec::new() })
            }
            (wish, ..) => (wish, RequestBody::Find { key: key_of, columns }),
        };
        let id = self.request(partition, key, u64::MAX, body, out);
        self.stage(partition, key, Stage::Asking(id, wish));
    }

    /// Whether finding nothing now settles the doubt: the transaction has ended, or its time is over for certain.
    fn is_conclusive(&self, doubt: AmbiguousWrite, now: Now) -> bool {
        doubt.ended
            || now.mono > doubt.alive_until
            || self.rules.off(Mutation::NoSettleTime)
            || (self.rules.off(Mutation::LookAtSpanEnd) && now.mono >= doubt.alive_until)
    }

    fn request(
        &mut self,
        partition: i32,
        key: &Key,
        lease_until: u64,
        body: RequestBody,
        out: &mut Vec<Effect>,
    ) -> RequestId {
        let id = RequestId(self.id());
        let method = body.method();
        self.breaker.sent(id);
        if let Some(p) = self.partitions.get_mut(&partition) {
            self.requests.insert(id, PendingRequest { partition, life: p.life, key: key.clone(), method });
            if let Some(lane) = p.lanes.get_mut(key) {
                lane.requests += 1;
            }
            out.push(Effect::Request { id, partition, epoch: p.epoch, lease_until, body });
        }
        id
    }

    /// The columns whose values matter for a decision: those we write, and those that wait to be written.
    fn columns_of(&self, partition: i32, key: &Key) -> Vec<Column> {
        let Some(p) = self.partitions.get(&partition) else { return Vec::new() };
        let mut columns: Vec<Column> =
            p.entries.get(key).map(|e| e.fields.iter().map(|(c, _)| c.clone()).collect()).unwrap_or_default();
        if let Some(first) = p.lanes.get(key).and_then(|l| l.queue.first()) {
            let post = first.post.iter().flat_map(|p| p.fields.iter());
            columns.extend(first.pre.fields.iter().chain(post).map(|(c, _)| c.clone()));
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}
