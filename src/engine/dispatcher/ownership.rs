//! Tokens, leases, marks, and the release of partitions: who may write, and from which offset on (protocol rules 1 to
//! 3, 10).

use std::ops::Bound;

use super::{Dispatcher, PendingProduce};
use crate::engine::event::{Effect, LedgerKey, LedgerState, LedgerWrite, LoadedClaim, Observation};
use crate::engine::lane::{AmbiguousWrite, Lane, ReadPurpose, Stage};
use crate::engine::mutation::Mutation;
use crate::engine::partition::{LastCommit, Partition, PartitionPhase};
use crate::model::entry::ClaimKind;
use crate::model::{Claim, Epoch, Key, Mark, Now, Token};

/// A partition's watermark is given to the committer at most this often, milliseconds.
const COMMIT_INTERVAL: u64 = 20;

impl Dispatcher {
    pub(super) fn assigned(&mut self, partition: i32, epoch: Epoch, out: &mut Vec<Effect>) {
        self.drop_partition(partition);
        let load_generation = self.new_id();
        self.partitions.insert(partition, Partition::assigned(epoch, load_generation));
        out.push(Effect::TakeOverPartition { partition, epoch });
    }

    pub(super) fn ledger_loaded(
        &mut self,
        partition: i32,
        epoch: Epoch,
        ledger: LedgerState,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.partition_in_epoch(partition, epoch) else { return };
        if p.phase != PartitionPhase::Loading {
            return;
        }
        let start_offset = ledger.start_offset;
        let claims = p.apply_ledger(ledger, now.unix);
        p.mark.produced_at = now.mono;
        p.last_commit = LastCommit { offset: start_offset, at: now.mono };
        let mut claims: Vec<_> = claims.into_iter().collect();
        claims.sort_unstable_by_key(|(_, loaded)| loaded.claim.first_position);
        for (key, loaded) in claims {
            let reason = "a previous owner claimed this write and did not settle it";
            Self::observe(out, Observation::WriteAmbiguous(key.clone(), reason.to_owned()));
            self.restore_ambiguous_claim(partition, &key, loaded, now);
        }
        out.push(Effect::StartFetching { partition, epoch, start_offset });
        out.push(Effect::CommitOffset { partition, epoch, offset: start_offset });
    }

    /// Creates the lane of a claim that no entry settles. Its write may or may not have been applied; the lane waits
    /// until it is verified.
    fn restore_ambiguous_claim(&mut self, partition: i32, key: &Key, loaded: LoadedClaim, now: Now) {
        let LoadedClaim { token, claim, age } = loaded;
        let left = claim.span.saturating_sub(age);
        let write =
            AmbiguousWrite { may_commit_until: now.mono + left, transaction_ended: false, verified_once: false };
        if let Some(p) = self.partitions.get_mut(&partition) {
            let lane = Lane {
                claimed_up_to: Some(claim.last_position),
                claim: Some((token, Box::new(claim))),
                ..Lane::default()
            };
            p.entries.activate(key);
            p.lanes.insert(key.clone(), lane);
        }
        let purpose = ReadPurpose::Verify { write, conclusive: false };
        self.wait_for_permit(partition, key, Stage::WaitingToRead(purpose), now);
    }

    /// The coordinator accepted a commit: the lease counts from when it was sent, in the epoch stamped on it.
    /// The coordinator accepted a commit: the lease counts from when it was sent, in the epoch it was sent for.
    pub(super) fn offset_committed(
        &mut self,
        partition: i32,
        epoch: Epoch,
        sent_at: u64,
        _offset: i64,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let any_epoch = self.rules.is_disabled(Mutation::NoEpochCheck);
        let Some(p) = self.partitions.get_mut(&partition).filter(|p| p.epoch == epoch || any_epoch) else { return };
        if sent_at < p.lease_floor {
            return;
        }
        p.lease_sent = p.lease_sent.max(Some(sent_at));
        if self.holds_lease(partition, now) {
            let waiting = self.partitions.get_mut(&partition).map(|p| std::mem::take(&mut p.waiting_for_lease));
            for key in waiting.unwrap_or_default() {
                self.write_entry(partition, &key, now, out);
            }
        }
    }

    /// The consumer was polled. If the gap since the last poll was so long that the client may have left the group, no
    /// earlier commit grants a lease any more: this poll would make it look fresh.
    pub(super) fn consumer_polled(&mut self, at: u64) {
        let longest = self.settings.max_poll_interval.saturating_sub(self.settings.poll_interval_margin);
        if at > self.last_poll.saturating_add(longest) && !self.rules.is_disabled(Mutation::NoPollBound) {
            for p in self.partitions.values_mut() {
                p.lease_sent = None;
                p.lease_floor = at;
            }
        }
        self.last_poll = self.last_poll.max(at);
    }

    pub(super) fn holds_lease(&self, partition: i32, now: Now) -> bool {
        self.partitions.get(&partition).is_some_and(|p| self.lease_until(p) > now.mono)
    }

    pub(super) fn revoked(&mut self, partition: i32, epoch: Epoch, now: Now, out: &mut Vec<Effect>) {
        let drain_timeout = self.settings.drain_timeout;
        let Some(p) = self.partition_in_epoch(partition, epoch) else {
            out.push(Effect::ReleasePartition { partition, epoch, offset: None });
            return;
        };
        if p.phase == PartitionPhase::Loading {
            self.drop_partition(partition);
            out.push(Effect::ReleasePartition { partition, epoch, offset: None });
            return;
        }
        p.phase = PartitionPhase::Revoked { deadline: now.mono + drain_timeout };
        self.withdraw_unsent_claims(partition, out);
    }

    pub(super) fn lost(&mut self, partition: i32, epoch: Epoch) {
        if self.partition_in_epoch(partition, epoch).is_some() {
            self.drop_partition(partition);
        }
    }

    pub(super) fn drain(&mut self, out: &mut Vec<Effect>) {
        self.breaker.drain();
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.withdraw_unsent_claims(partition, out);
        }
    }

    /// Withdraws every claim whose request was not sent, so that it is not ambiguous for a successor.
    fn withdraw_unsent_claims(&mut self, partition: i32, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let load_generation = p.load_generation;
        for key in self.keys(partition) {
            let Some(lane) = self.lane(partition, &key) else { continue };
            let unsent = matches!(lane.stage, Stage::Claiming(..) | Stage::Claimed(_));
            if unsent {
                self.requeue(partition, &key);
                self.stage(partition, &key, Stage::Idle);
            }
            let Some(lane) = self.lane(partition, &key) else { continue };
            if let Some(token) = lane.void_claim.take() {
                self.tombstone_claim(partition, load_generation, &key, token, out);
            }
        }
    }

    /// Tombstones a claim and the stale ones of lower tokens, those first: else they would count again.
    pub(super) fn tombstone_claim(
        &mut self,
        partition: i32,
        load_generation: u64,
        key: &Key,
        token: Token,
        out: &mut Vec<Effect>,
    ) {
        let name = LedgerKey::Claim(key.clone());
        let releasing = !self.breaker.may_prepare()
            || self.partitions.get(&partition).is_some_and(|p| p.phase != PartitionPhase::Running);
        for token in self.stale_tokens_and(partition, &name, token) {
            let Some(p) = self.partitions.get_mut(&partition) else { return };
            let pending = if releasing {
                p.outstanding += 1;
                PendingProduce::ClaimWithdrawal(partition, load_generation)
            } else {
                *p.pending_claim_tombstones.entry(key.clone()).or_default() += 1;
                PendingProduce::ClaimTombstone(partition, load_generation, key.clone())
            };
            self.produce(partition, LedgerWrite::Tombstone(name.clone(), token), pending, out);
        }
    }

    fn stale_tokens_and(&mut self, partition: i32, name: &LedgerKey, token: Token) -> Vec<Token> {
        let mut tokens = self.partitions.get_mut(&partition).map(|p| p.take_stale_tokens(name)).unwrap_or_default();
        tokens.retain(|t| *t != token);
        tokens.sort_unstable();
        tokens.dedup();
        tokens.push(token);
        tokens
    }

    /// Tombstones the stale records of this kind and key, after ours was produced.
    pub(super) fn tombstone_stale(
        &mut self,
        partition: i32,
        load_generation: u64,
        name: &LedgerKey,
        out: &mut Vec<Effect>,
    ) {
        let tokens = self.partitions.get_mut(&partition).map(|p| p.take_stale_tokens(name)).unwrap_or_default();
        for token in tokens {
            let write = LedgerWrite::Tombstone(name.clone(), token);
            self.produce(partition, write, PendingProduce::Unawaited(partition, load_generation), out);
        }
    }

    /// Does what is due by time: commits, marks, expiry, release of revoked partitions.
    pub(super) fn maintain(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.prune_flap_states(now);
        self.prune_seen_rows(now);
        let mut next = self.partitions.keys().next().copied();
        while let Some(partition) = next {
            next = self.partitions.range((Bound::Excluded(partition), Bound::Unbounded)).next().map(|(&p, _)| p);
            self.commit_watermark(partition, now, out);
            self.write_mark(partition, now, out);
            self.expire(partition, now, out);
            self.release_if_finished(partition, now, out);
        }
    }

    fn commit_watermark(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let offset = p.tracker.watermark();
        let due = offset > p.last_commit.offset && now.mono >= p.last_commit.at + COMMIT_INTERVAL;
        if p.phase == PartitionPhase::Running && due {
            p.last_commit = LastCommit { offset, at: now.mono };
            out.push(Effect::CommitOffset { partition, epoch: p.epoch, offset });
        }
    }

    fn write_mark(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let due = now.mono >= p.mark.produced_at + self.settings.mark_interval || p.final_mark_started;
        let watermark = p.tracker.watermark().max(p.mark.produced);
        let needed =
            (due && watermark > p.mark.produced) || (!p.first_mark_produced && p.phase == PartitionPhase::Running);
        if p.phase == PartitionPhase::Loading || !needed || !self.holds_lease(partition, now) {
            return;
        }
        let (load_generation, token) = (p.load_generation, p.token);
        let mark = Mark { watermark, previous_owners: p.previous_owners.clone() };
        if let Some(p) = self.partitions.get_mut(&partition) {
            p.mark.produced = watermark;
            p.mark.produced_at = now.mono;
            p.first_mark_produced = true;
            p.outstanding += 1;
        }
        if self.rules.is_disabled(Mutation::NoMark) {
            self.mark_produced(partition, load_generation, Some(watermark));
            return;
        }
        let pending = PendingProduce::Mark(partition, load_generation, watermark);
        self.produce(partition, LedgerWrite::Mark(token, mark), pending, out);
        self.tombstone_stale(partition, load_generation, &LedgerKey::Mark, out);
    }

    /// The produce of a mark ended. `acked`: its watermark, if it was acked.
    pub(super) fn mark_produced(&mut self, partition: i32, load_generation: u64, acked: Option<i64>) {
        if let Some(p) = self.current_partition(partition, load_generation) {
            p.mark.acked = acked.map_or(p.mark.acked, |watermark| p.mark.acked.max(watermark));
            p.outstanding -= 1;
        }
    }

    /// Releases a revoked partition once nothing of it is outstanding, or its deadline has passed.
    fn release_if_finished(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let PartitionPhase::Revoked { deadline } = p.phase else { return };
        let late = now.mono >= deadline;
        if p.outstanding > 0 && !late {
            return;
        }
        let watermark = p.tracker.watermark();
        if !late && !p.final_mark_started && watermark > p.mark.produced {
            p.final_mark_started = true;
            self.write_mark(partition, now, out);
            if self.partitions.get(&partition).is_some_and(|p| p.outstanding > 0) {
                return;
            }
        }
        if let Some(epoch) = self.partitions.get(&partition).map(|p| p.epoch) {
            self.drop_partition(partition);
            out.push(Effect::ReleasePartition { partition, epoch, offset: Some(watermark) });
        }
    }

    /// Drops all state of a partition. Answers that arrive later are ignored.
    pub(super) fn drop_partition(&mut self, partition: i32) {
        let Some(p) = self.partitions.remove(&partition) else { return };
        let bytes: usize = p.lanes.values().map(|l| l.queue.bytes() + l.in_flight.bytes()).sum();
        self.budget.free(p.tracker.unresolved(), bytes);
    }

    /// After a ledger write of unknown outcome, the partition's state in memory is not certain: takes a new token and
    /// loads the ledger again (protocol rule 1). The claims of writes in flight make them ambiguous.
    pub(super) fn renew_token(&mut self, partition: i32, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get(&partition) else { return };
        let (epoch, phase, lease, floor) = (p.epoch, p.phase, p.lease_sent, p.lease_floor);
        self.drop_partition(partition);
        if matches!(phase, PartitionPhase::Revoked { .. }) {
            out.push(Effect::ReleasePartition { partition, epoch, offset: None });
            return;
        }
        let load_generation = self.new_id();
        let mut fresh = Partition::assigned(epoch, load_generation);
        fresh.lease_sent = lease;
        fresh.lease_floor = floor;
        self.partitions.insert(partition, fresh);
        Self::observe(out, Observation::TokenRenewed(partition));
        out.push(Effect::TakeOverPartition { partition, epoch });
    }

    /// The tickets that the verification of a create must not adopt.
    pub(super) fn known_sys_ids(claim: &Claim) -> &[String] {
        match &claim.kind {
            ClaimKind::Create { known_sys_ids } => known_sys_ids,
            ClaimKind::Update { .. } => &[],
        }
    }
}
