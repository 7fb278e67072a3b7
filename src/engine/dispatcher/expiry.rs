//! Expiry: the entry of a finished ticket is removed once no event or late record can need it (protocol rule 17), and a
//! look has shown that no user has opened the ticket again.

use std::borrow::Cow;

use super::{Dispatcher, PendingProduce};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, Observation, ProduceOutcome};
use crate::engine::lane::Lane;
use crate::engine::mutation::Mutation;
use crate::engine::partition::{Partition, PartitionPhase, PendingExpiry};
use crate::engine::request::MAX_READ_MANY;
use crate::model::{Entry, Key, Now, Phase, Row, Token};

/// Milliseconds. Entries outlive the reopen window of their ticket by at least this time, so that a verification can
/// distinguish an older ticket from a newly created one.
const EXPIRY_MARGIN: i64 = 600_000;

/// Time between two sweeps through a partition's inactive entries, milliseconds.
const SWEEP_INTERVAL: u64 = 100;

/// Fewest entries that a sweep checks.
const MIN_SWEEP: usize = 64;

/// No sweep starts while this number of looks before an expiry is under way.
const MAX_EXPIRY_LOOKS: usize = 2 * MAX_READ_MANY;

/// Number of sweeps per hour: each checks at least this fraction of the entries, so that each entry is checked hourly.
const SWEEPS_PER_HOUR: usize = 36_000;

impl Dispatcher {
    /// When an entry expires, Unix milliseconds; `None` while its ticket is open.
    fn expires_at(&self, entry: &Entry) -> Option<i64> {
        let window = i64::try_from(self.settings.reopen_window).unwrap_or(i64::MAX);
        let finished = matches!(entry.phase(&self.settings.states), Phase::Resolved | Phase::Closed);
        let from = entry.written_at.max(entry.resolved_at.unwrap_or(i64::MIN));
        finished.then(|| from.saturating_add(window.max(EXPIRY_MARGIN)).saturating_add(EXPIRY_MARGIN))
    }

    /// Starts the expiry of expired entries among the next few inactive ones. The exact time does not matter, so there
    /// is no schedule, which would cost memory for each key.
    pub(super) fn expire(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        if !self.holds_lease(partition, now) {
            return;
        }
        let due = |p: &&mut Partition| p.phase == PartitionPhase::Running && now.mono >= p.swept_at + SWEEP_INTERVAL;
        let not_too_many = |p: &&mut Partition| p.expiry_looks < MAX_EXPIRY_LOOKS;
        let Some(p) = self.partitions.get_mut(&partition).filter(due).filter(not_too_many) else { return };
        p.swept_at = now.mono;
        let count = p.entries.len();
        for _ in 0..count.min(MIN_SWEEP.max(count / SWEEPS_PER_HOUR)) {
            let next = self.partitions.get_mut(&partition).and_then(|p| p.entries.next_inactive());
            let Some((key, entry)) = next else { return };
            if !self.may_expire(partition, &key, &entry, now) {
                continue;
            }
            if self.settings.full_snapshot || self.rules.is_disabled(Mutation::NoLookBeforeExpiry) {
                self.start_expiry(partition, key, entry.token, out);
            } else {
                self.look_before_expiry(partition, &key, now);
            }
        }
    }

    /// Reads the row of a ticket whose entry may expire: the look shares a request with others. The key has a lane
    /// without events meanwhile.
    fn look_before_expiry(&mut self, partition: i32, key: &Key, now: Now) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        p.entries.activate(key);
        p.lanes.insert(key.clone(), Lane { looks_for_expiry: true, ..Lane::default() });
        p.expiry_looks += 1;
        self.look(partition, key, false, now);
    }

    /// The row of a ticket whose entry may expire was read; `None` if the instance has it no more.
    pub(super) fn looked_before_expiry(
        &mut self,
        partition: i32,
        key: &Key,
        row: Option<&Row>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.drop_lane(partition, key, now, out);
        let Some(entry) = self.entry(partition, key).map(Cow::into_owned) else { return };
        if row.is_some_and(|row| row.phase(&self.settings.states).is_open()) {
            // A user has opened it again. The key is looked at again after another reopen window.
            if let Some(p) = self.partitions.get_mut(&partition) {
                if let Some(entry) = p.entries.get_mut(key) {
                    entry.written_at = now.unix;
                }
                p.entries.deactivate(key);
            }
            return;
        }
        if self.holds_lease(partition, now) && self.may_expire(partition, key, &entry, now) {
            self.start_expiry(partition, key.clone(), entry.token, out);
        }
    }

    /// True if the ticket has been finished for long enough, no work for the key is pending, and all its events are
    /// below the acked mark.
    fn may_expire(&self, partition: i32, key: &Key, entry: &Entry, now: Now) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        self.expires_at(entry).is_some_and(|due| due <= now.unix)
            && entry.position.offset < p.mark.acked
            && !p.lanes.contains_key(key)
            && !p.parks.contains_key(key)
            && !p.expiring.contains_key(key)
    }

    /// Tombstones the records that previous owners may have left of the key, before ours.
    fn start_expiry(&mut self, partition: i32, key: Key, own: Token, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let (load_generation, name) = (p.load_generation, LedgerKey::Entry(key.clone()));
        let mut lower = p.take_stale_tokens(&name);
        lower.extend(p.previous_owners.iter().map(|f| f.token));
        lower.retain(|token| *token != own);
        lower.sort_unstable();
        lower.dedup();
        if lower.is_empty() {
            self.remove_entry(partition, &key, out);
            return;
        }
        let (tombstones, round) = (lower.len(), self.new_id());
        if let Some(p) = self.partitions.get_mut(&partition) {
            p.expiring.insert(key.clone(), PendingExpiry { round, tombstones });
        }
        for token in lower {
            let write = LedgerWrite::Tombstone(name.clone(), token);
            let pending = PendingProduce::PreviousOwnerTombstone(partition, load_generation, key.clone(), round);
            self.produce(partition, write, pending, out);
        }
    }

    /// The tombstone of a previous owner's entry was produced. Ours is produced once all of these are acked: if it were
    /// the only one to land, a previous owner's entry would count for the next owner.
    pub(super) fn previous_owner_tombstone_produced(
        &mut self,
        partition: i32,
        load_generation: u64,
        key: &Key,
        round: u64,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.current_partition(partition, load_generation) else { return };
        let Some(expiry) = p.expiring.get_mut(key).filter(|expiry| expiry.round == round) else { return };
        expiry.tombstones -= 1;
        let all_produced = expiry.tombstones == 0;
        if outcome != ProduceOutcome::Acked {
            // A later sweep starts again.
            p.expiring.remove(key);
        } else if all_produced {
            p.expiring.remove(key);
            let entry = self.entry(partition, key).map(Cow::into_owned);
            let due = entry.is_some_and(|entry| self.may_expire(partition, key, &entry, now));
            if due && self.holds_lease(partition, now) {
                self.remove_entry(partition, key, out);
            }
        }
    }

    /// Removes a key's entry, and tombstones our ledger record of it, the last one.
    fn remove_entry(&mut self, partition: i32, key: &Key, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(entry) = p.entries.remove(key) else { return };
        let (load_generation, name) = (p.load_generation, LedgerKey::Entry(key.clone()));
        self.remove_record(partition, load_generation, name, entry.token, out);
        Self::observe(out, Observation::Expired(key.clone()));
    }

    /// Tombstones a ledger record of ours, and ensures that the tombstone is written.
    pub(super) fn remove_record(
        &mut self,
        partition: i32,
        load_generation: u64,
        name: LedgerKey,
        token: Token,
        out: &mut Vec<Effect>,
    ) {
        let pending = PendingProduce::FinalTombstone(partition, load_generation, name.clone(), token);
        self.produce(partition, LedgerWrite::Tombstone(name, token), pending, out);
    }

    /// The tombstone of an own ledger record was produced.
    pub(super) fn removal_produced(
        &mut self,
        partition: i32,
        load_generation: u64,
        name: LedgerKey,
        token: Token,
        outcome: ProduceOutcome,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.current_partition(partition, load_generation) else { return };
        // A record that was written again under the same name must stay.
        let is_gone = match &name {
            LedgerKey::Entry(key) => !p.entries.contains_key(key),
            LedgerKey::Park(key) => !p.parks.contains_key(key),
            LedgerKey::Claim(_) | LedgerKey::Mark => false,
        };
        if is_gone && outcome == ProduceOutcome::NotWritten {
            self.remove_record(partition, load_generation, name, token, out);
        }
    }
}
