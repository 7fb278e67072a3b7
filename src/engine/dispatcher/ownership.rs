//! Tokens, leases, marks, letting go: who may write, and from where on (protocol rules 1 to 3, 7).

use std::ops::Bound;

use super::{Dispatcher, Op};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, Loaded, Observation};
use crate::engine::lane::{AmbiguousWrite, Lane, ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::partition::{Partition, PartitionPhase};
use crate::model::entry::ClaimKind;
use crate::model::{Claim, Epoch, Key, Mark, Now, Token};

/// Watermarks are handed to the committer at most this often, milliseconds.
const COMMIT_EVERY: u64 = 20;

impl Dispatcher {
    pub(super) fn assigned(&mut self, partition: i32, epoch: Epoch, out: &mut Vec<Effect>) {
        self.forget(partition);
        let life = self.id();
        self.partitions.insert(partition, Partition::assigned(epoch, life));
        out.push(Effect::TakeOver { partition, epoch });
    }

    pub(super) fn loaded(&mut self, partition: i32, epoch: Epoch, ledger: Loaded, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.with_epoch(partition, epoch) else { return };
        if p.phase != PartitionPhase::Loading {
            return;
        }
        let from = ledger.start;
        let claims = p.load(ledger, now.unix);
        p.mark.2 = now.mono;
        p.committed = (from, now.mono);
        let mut claims: Vec<_> = claims.into_iter().collect();
        claims.sort_unstable_by_key(|(_, (_, claim, _))| claim.lo);
        for (key, (token, claim, age)) in claims {
            let why = "a former owner claimed a write and did not settle it";
            Self::observe(out, Observation::WriteAmbiguous(key.clone(), why.to_owned()));
            self.inherit(partition, &key, token, claim, age, now);
        }
        out.push(Effect::Fetch { partition, epoch, from });
        out.push(Effect::Commit { partition, epoch, offset: from });
    }

    /// A claim that no entry settles: its write may or may not have happened, and the lane waits until that is known.
    fn inherit(&mut self, partition: i32, key: &Key, token: Token, claim: Claim, age: u64, now: Now) {
        let left = claim.span.saturating_sub(age);
        let doubt = AmbiguousWrite { alive_until: now.mono + left, ended: false, looked: false };
        if let Some(p) = self.partitions.get_mut(&partition) {
            let lane = Lane { apart: Some(claim.hi), claim: Some((token, Box::new(claim))), ..Lane::default() };
            p.entries.wake(key);
            p.lanes.insert(key.clone(), lane);
        }
        self.make_want(partition, key, Stage::Wants(ReadPurpose::Look(doubt, false)), now);
    }

    /// The coordinator accepted a commit: the lease counts from when it was sent, in the epoch it was sent for.
    pub(super) fn leased(
        &mut self,
        partition: i32,
        epoch: Epoch,
        sent_at: u64,
        _offset: i64,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let any_epoch = self.rules.off(Mutation::NoEpochCheck);
        let Some(p) = self.partitions.get_mut(&partition).filter(|p| p.epoch == epoch || any_epoch) else { return };
        if sent_at < p.lease_floor {
            return;
        }
        p.lease_sent = p.lease_sent.max(Some(sent_at));
        if self.lease_stands(partition, now) {
            let waiting = self.partitions.get_mut(&partition).map(|p| std::mem::take(&mut p.unleased));
            for key in waiting.unwrap_or_default() {
                self.write_entry(partition, &key, now, out);
            }
        }
    }

    /// The consumer was polled. After a gap so long that the client may have left the group, what was committed before
    /// gives no lease any more: this poll would make it look fresh.
    pub(super) fn polled(&mut self, at: u64) {
        let longest = self.settings.max_poll_interval.saturating_sub(self.settings.poll_margin);
        if at > self.last_poll.saturating_add(longest) && !self.rules.off(Mutation::NoPollBound) {
            for p in self.partitions.values_mut() {
                p.lease_sent = None;
                p.lease_floor = at;
            }
        }
        self.last_poll = self.last_poll.max(at);
    }

    pub(super) fn lease_stands(&self, partition: i32, now: Now) -> bool {
        self.partitions.get(&partition).is_some_and(|p| self.lease_until(p) > now.mono)
    }

    pub(super) fn revoked(&mut self, partition: i32, epoch: Epoch, now: Now, out: &mut Vec<Effect>) {
        let drain = self.settings.drain;
        let Some(p) = self.with_epoch(partition, epoch) else {
            out.push(Effect::Release { partition, epoch, offset: None });
            return;
        };
        if p.phase == PartitionPhase::Loading {
            self.forget(partition);
            out.push(Effect::Release { partition, epoch, offset: None });
            return;
        }
        p.phase = PartitionPhase::Leaving(now.mono + drain);
        self.withdraw(partition, out);
    }

    pub(super) fn lost(&mut self, partition: i32, epoch: Epoch) {
        if self.with_epoch(partition, epoch).is_some() {
            self.forget(partition);
        }
    }

    pub(super) fn drain(&mut self, out: &mut Vec<Effect>) {
        self.breaker.drain();
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.withdraw(partition, out);
        }
    }

    /// Takes back every claim whose request has not been sent, so that no successor has to wonder about it.
    fn withdraw(&mut self, partition: i32, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let life = p.life;
        for key in self.keys(partition) {
            let Some(lane) = self.lane(partition, &key) else { continue };
            let unsent = matches!(lane.stage, Stage::Claiming(..) | Stage::Claimed(_));
            if unsent {
                self.requeue(partition, &key);
                self.stage(partition, &key, Stage::Idle);
            }
            let Some(lane) = self.lane(partition, &key) else { continue };
            if let Some(token) = lane.void.take() {
                self.tombstone_claim(partition, life, &key, token, out);
            }
        }
    }

    /// Tombstones a claim and whatever lower ones stand below it, the lower ones first: else they would surface.
    pub(super) fn tombstone_claim(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        token: Token,
        out: &mut Vec<Effect>,
    ) {
        let name = LedgerKey::Claim(key.clone());
        let leaving = !self.breaker.may_prepare()
            || self.partitions.get(&partition).is_some_and(|p| p.phase != PartitionPhase::Running);
        for token in self.stale_and(partition, &name, token) {
            let Some(p) = self.partitions.get_mut(&partition) else { return };
            let op = if leaving {
                p.awaited += 1;
                Op::Withdrawal(partition, life)
            } else {
                *p.removing.entry(key.clone()).or_default() += 1;
                Op::Removed(partition, life, key.clone())
            };
            self.produce(partition, LedgerWrite::Tombstone(name.clone(), token), op, out);
        }
    }

    fn stale_and(&mut self, partition: i32, name: &LedgerKey, token: Token) -> Vec<Token> {
        let mut tokens = self.partitions.get_mut(&partition).map(|p| p.take_stale(name)).unwrap_or_default();
        tokens.retain(|t| *t != token);
        tokens.sort_unstable();
        tokens.dedup();
        tokens.push(token);
        tokens
    }

    /// Tombstones what lower tokens left of this kind and key, now that ours stands.
    pub(super) fn tombstone_stale(&mut self, partition: i32, life: u64, name: &LedgerKey, out: &mut Vec<Effect>) {
        let tokens = self.partitions.get_mut(&partition).map(|p| p.take_stale(name)).unwrap_or_default();
        for token in tokens {
            self.produce(partition, LedgerWrite::Tombstone(name.clone(), token), Op::Aside(partition, life), out);
        }
    }

    /// Marks, expiry, commits, letting go: what time alone brings.
    pub(super) fn maintain(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.forget_flaps(now);
        let mut next = self.partitions.keys().next().copied();
        while let Some(partition) = next {
            next = self.partitions.range((Bound::Excluded(partition), Bound::Unbounded)).next().map(|(&p, _)| p);
            self.commit(partition, now, out);
            self.mark(partition, now, out);
            self.expire(partition, now, out);
            self.let_go(partition, now, out);
        }
    }

    fn commit(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let offset = p.tracker.watermark();
        if p.phase == PartitionPhase::Running && offset > p.committed.0 && now.mono >= p.committed.1 + COMMIT_EVERY {
            p.committed = (offset, now.mono);
            out.push(Effect::Commit { partition, epoch: p.epoch, offset });
        }
    }

    fn mark(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let due = now.mono >= p.mark.2 + self.settings.mark_every || p.closing_mark;
        let watermark = p.tracker.watermark().max(p.mark.0);
        let news = (due && watermark > p.mark.0) || (!p.confirmed && p.phase == PartitionPhase::Running);
        if p.phase == PartitionPhase::Loading || !news || !self.lease_stands(partition, now) {
            return;
        }
        let (life, token) = (p.life, p.token);
        let mark = Mark { watermark, former: p.former.clone() };
        if let Some(p) = self.partitions.get_mut(&partition) {
            p.mark = (watermark, p.mark.1, now.mono);
            p.confirmed = true;
            p.awaited += 1;
        }
        if self.rules.off(Mutation::NoMark) {
            self.produced_mark(partition, life, watermark);
            return;
        }
        self.produce(partition, LedgerWrite::Mark(token, mark), Op::Mark(partition, life, watermark), out);
        self.tombstone_stale(partition, life, &LedgerKey::Mark, out);
    }

    pub(super) fn produced_mark(&mut self, partition: i32, life: u64, watermark: i64) {
        if let Some(p) = self.live(partition, life) {
            p.mark.1 = p.mark.1.max(watermark);
            p.awaited -= 1;
        }
    }

    /// Lets a revoked partition go once nothing of it is in flight, or its time is over.
    fn let_go(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let PartitionPhase::Leaving(until) = p.phase else { return };
        let late = now.mono >= until;
        if p.awaited > 0 && !late {
            return;
        }
        let watermark = p.tracker.watermark();
        if !late && !p.closing_mark && watermark > p.mark.0 {
            p.closing_mark = true;
            self.mark(partition, now, out);
            if self.partitions.get(&partition).is_some_and(|p| p.awaited > 0) {
                return;
            }
        }
        if let Some(epoch) = self.partitions.get(&partition).map(|p| p.epoch) {
            self.forget(partition);
            out.push(Effect::Release { partition, epoch, offset: Some(watermark) });
        }
    }

    /// Drops all that is known of a partition. Answers that are still to come find nothing and are ignored.
    pub(super) fn forget(&mut self, partition: i32) {
        let Some(p) = self.partitions.remove(&partition) else { return };
        let bytes: usize = p.lanes.values().map(|l| l.queue.bytes() + l.held.bytes()).sum();
        self.budget.free(p.tracker.unresolved(), bytes);
    }

    /// After a ledger write whose outcome is unknown, nothing that we know of this partition is certain: take a new
    /// token and load again (protocol rule 1). What is in flight becomes a doubt by its claim.
    pub(super) fn renew_token(&mut self, partition: i32, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let (epoch, standing, lease, floor) = (p.epoch, p.phase, p.lease_sent, p.lease_floor);
        self.forget(partition);
        if matches!(standing, PartitionPhase::Leaving(_)) {
            out.push(Effect::Release { partition, epoch, offset: None });
            return;
        }
        let life = self.id();
        let mut fresh = Partition::assigned(epoch, life);
        fresh.lease_sent = lease;
        fresh.lease_floor = floor;
        self.partitions.insert(partition, fresh);
        Self::observe(out, Observation::TokenRenewed(partition));
        out.push(Effect::TakeOver { partition, epoch });
    }

    /// The tickets that a create's look must not adopt.
    pub(super) fn known_of(claim: &Claim) -> &[String] {
        match &claim.kind {
            ClaimKind::Create { known } => known,
            ClaimKind::Update { .. } => &[],
        }
    }
}
