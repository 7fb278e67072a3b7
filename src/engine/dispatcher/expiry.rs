//! Forgetting: the entry of a finished ticket goes once nothing can come of it any more (protocol rule 15).

use std::borrow::Cow;

use super::{Dispatcher, Op};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, Observation, ProduceOutcome};
use crate::engine::partition::{Partition, PartitionPhase};
use crate::model::{Entry, Key, Now, Phase, Token};

/// Entries live at least this much longer than their ticket may be reopened, so that a look can tell an older ticket
/// from a newly made one.
const EXPIRY_MARGIN: i64 = 600_000;

/// Between two sweeps through a partition's resting entries, milliseconds.
const SWEEP_EVERY: u64 = 100;

/// Entries that a sweep looks at: so many at least, and so many that all have been seen within the hour.
const SWEEP: (usize, usize) = (64, 36_000);

impl Dispatcher {
    /// When an entry may be forgotten, Unix milliseconds; `None` while its ticket is open.
    fn forgotten_at(&self, entry: &Entry) -> Option<i64> {
        let window = i64::try_from(self.settings.reopen_window).unwrap_or(i64::MAX);
        let phase = self.settings.states.phase(&entry.seen.state);
        let finished = matches!(phase, Phase::Resolved | Phase::Closed);
        let from = entry.written_at.max(entry.resolved_at.unwrap_or(i64::MIN));
        finished.then(|| from.saturating_add(window.max(EXPIRY_MARGIN)).saturating_add(EXPIRY_MARGIN))
    }

    /// Forgets what may be forgotten among the next few resting entries. Nothing hangs on the hour, so no plan is kept
    /// that would cost memory for each key.
    pub(super) fn expire(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        if !self.lease_stands(partition, now) {
            return;
        }
        let running = |p: &&mut Partition| p.phase == PartitionPhase::Running && now.mono >= p.swept + SWEEP_EVERY;
        let Some(p) = self.partitions.get_mut(&partition).filter(running) else { return };
        p.swept = now.mono;
        let count = p.entries.len();
        for _ in 0..count.min(SWEEP.0.max(count / SWEEP.1)) {
            let next = self.partitions.get_mut(&partition).and_then(|p| p.entries.walk());
            let Some((key, entry)) = next else { return };
            if self.may_forget(partition, &key, &entry, now) {
                self.begin_to_forget(partition, key, entry.token, out);
            }
        }
    }

    /// Whether it is time: the ticket is finished long enough, nothing of the key is under way, and everything of it lies
    /// below the mark.
    fn may_forget(&self, partition: i32, key: &Key, entry: &Entry, now: Now) -> bool {
        let Some(p) = self.partitions.get(&partition) else { return false };
        self.forgotten_at(entry).is_some_and(|due| due <= now.unix)
            && entry.position.offset < p.mark.1
            && !p.lanes.contains_key(key)
            && !p.parks.contains_key(key)
            && !p.expiring.contains_key(key)
    }

    /// What former owners may have left of the key goes first.
    fn begin_to_forget(&mut self, partition: i32, key: Key, own: Token, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let (life, name) = (p.life, LedgerKey::Entry(key.clone()));
        let mut lower = p.take_stale(&name);
        lower.extend(p.former.iter().map(|f| f.token));
        lower.retain(|token| *token != own);
        lower.sort_unstable();
        lower.dedup();
        if lower.is_empty() {
            self.forget_entry(partition, &key, out);
            return;
        }
        let (count, round) = (lower.len(), self.id());
        if let Some(p) = self.partitions.get_mut(&partition) {
            p.expiring.insert(key.clone(), (round, count));
        }
        for token in lower {
            let write = LedgerWrite::Tombstone(name.clone(), token);
            self.produce(partition, write, Op::PreviousOwner(partition, life, key.clone(), round), out);
        }
    }

    /// A tombstone of a former owner's entry was answered. Ours goes once all of them stand: were it the only one to
    /// land, the next owner would take a former one's entry for the truth.
    pub(super) fn former_produced(
        &mut self,
        partition: i32,
        life: u64,
        key: &Key,
        round: u64,
        outcome: ProduceOutcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.live(partition, life) else { return };
        let Some((_, left)) = p.expiring.get_mut(key).filter(|(current, _)| *current == round) else { return };
        *left -= 1;
        if outcome != ProduceOutcome::Acked {
            // The next sweep tries again.
            p.expiring.remove(key);
        } else if *left == 0 {
            p.expiring.remove(key);
            let entry = self.entry(partition, key).map(Cow::into_owned);
            let due = entry.is_some_and(|entry| self.may_forget(partition, key, &entry, now));
            if due && self.lease_stands(partition, now) {
                self.forget_entry(partition, key, out);
            }
        }
    }

    /// The last record of a key goes.
    fn forget_entry(&mut self, partition: i32, key: &Key, out: &mut Vec<Effect>) {
        let Some(p) = self.partitions.get_mut(&partition) else { return };
        let Some(entry) = p.entries.remove(key) else { return };
        let (life, name) = (p.life, LedgerKey::Entry(key.clone()));
        self.remove(partition, life, name, entry.token, out);
        Self::observe(out, Observation::Expired(key.clone()));
    }

    /// Removes a record of ours for good.
    pub(super) fn remove(&mut self, partition: i32, life: u64, name: LedgerKey, token: Token, out: &mut Vec<Effect>) {
        let op = Op::Removal(partition, life, name.clone(), token);
        self.produce(partition, LedgerWrite::Tombstone(name, token), op, out);
    }

    /// A removal was answered.
    pub(super) fn removed(
        &mut self,
        partition: i32,
        life: u64,
        name: LedgerKey,
        token: Token,
        outcome: ProduceOutcome,
        out: &mut Vec<Effect>,
    ) {
        let Some(p) = self.live(partition, life) else { return };
        // What has been written anew under the same name must stay.
        let gone = match &name {
            LedgerKey::Entry(key) => !p.entries.contains_key(key),
            LedgerKey::Park(key) => !p.parks.contains_key(key),
            LedgerKey::Claim(_) | LedgerKey::Mark => false,
        };
        if gone && outcome == ProduceOutcome::Refused {
            self.remove(partition, life, name, token, out);
        }
    }
}
