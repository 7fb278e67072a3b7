//! Forgetting: the entry of a finished ticket goes once nothing can come of it any more (protocol rule 15).

use super::{Dispatcher, Op};
use crate::engine::event::{Effect, LedgerKey, LedgerWrite, Observation, ProduceOutcome};
use crate::engine::partition::Standing;
use crate::model::{Entry, Key, Now, Phase, Token};

/// Entries live at least this much longer than their ticket may be reopened, so that a look can tell an older ticket
/// from a newly made one.
const EXPIRY_MARGIN: i64 = 600_000;

/// Between two tries to forget a key that can't be forgotten yet, milliseconds.
const AGAIN: i64 = 1_000;

impl Dispatcher {
    /// Notes when the entry of a finished ticket may be forgotten.
    pub(super) fn plan_expiry(&mut self, partition: i32, key: &Key) {
        let Some(entry) = self.partitions.get(&partition).and_then(|p| p.entries.get(key)) else { return };
        let due = self.forgotten_at(entry);
        if let (Some(at), Some(p)) = (due, self.partitions.get_mut(&partition)) {
            p.expiry.insert((at, key.clone()));
        }
    }

    /// When an entry may be forgotten, Unix milliseconds; `None` while its ticket is open.
    fn forgotten_at(&self, entry: &Entry) -> Option<i64> {
        let window = i64::try_from(self.settings.reopen_window).unwrap_or(i64::MAX);
        let phase = self.settings.states.phase(&entry.seen.state);
        let finished = matches!(phase, Phase::Resolved | Phase::Closed);
        let from = entry.written_at.max(entry.resolved_at.unwrap_or(i64::MIN));
        finished.then(|| from.saturating_add(window.max(EXPIRY_MARGIN)).saturating_add(EXPIRY_MARGIN))
    }

    pub(super) fn expire(&mut self, partition: i32, now: Now, out: &mut Vec<Effect>) {
        while let Some(key) = self.next_expired(partition, now) {
            let Some(p) = self.partitions.get_mut(&partition) else { return };
            let Some(own) = p.entries.get(&key).map(|entry| entry.token) else { continue };
            let (life, name) = (p.life, LedgerKey::Entry(key.clone()));
            let mut lower = p.take_stale(&name);
            lower.extend(p.former.iter().map(|f| f.token));
            lower.retain(|token| *token != own);
            lower.sort_unstable();
            lower.dedup();
            if lower.is_empty() {
                self.forget_entry(partition, &key, out);
                continue;
            }
            let count = lower.len();
            let round = self.id();
            if let Some(p) = self.partitions.get_mut(&partition) {
                p.expiring.insert(key.clone(), (round, count));
            }
            for token in lower {
                let write = LedgerWrite::Tombstone(name.clone(), token);
                self.produce(partition, write, Op::Former(partition, life, key.clone(), round), out);
            }
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
            p.expiring.remove(key);
            p.expiry.insert((now.unix + AGAIN, key.clone()));
        } else if *left == 0 {
            p.expiring.remove(key);
            let wanted = p.lanes.contains_key(key) || p.parks.contains_key(key);
            let due = self.entry(partition, key).and_then(|entry| self.forgotten_at(entry));
            if !wanted && due.is_some_and(|due| due <= now.unix) && self.lease_stands(partition, now) {
                self.forget_entry(partition, key, out);
            } else {
                self.plan_expiry(partition, key);
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

    /// The next key whose entry may be forgotten: still finished, no lane, and everything of it below the mark.
    fn next_expired(&mut self, partition: i32, now: Now) -> Option<Key> {
        if !self.lease_stands(partition, now) {
            return None;
        }
        loop {
            let p = self.partitions.get_mut(&partition).filter(|p| p.standing == Standing::Running)?;
            let (at, key) = p.expiry.first()?.clone();
            if at > now.unix {
                return None;
            }
            p.expiry.pop_first();
            let Some(entry) = self.partitions.get(&partition).and_then(|p| p.entries.get(&key)) else { continue };
            // The plan may have been made for an earlier ticket or an earlier sight of this one.
            if self.forgotten_at(entry).is_none_or(|due| due > now.unix) {
                continue;
            }
            let position = entry.position;
            let p = self.partitions.get_mut(&partition)?;
            if p.lanes.contains_key(&key)
                || p.parks.contains_key(&key)
                || p.expiring.contains_key(&key)
                || position.offset >= p.mark.1
            {
                p.expiry.insert((now.unix + AGAIN, key));
                return None;
            }
            return Some(key);
        }
    }
}
