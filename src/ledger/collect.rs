//! What the records of a ledger partition add up to, apart from how they are read.
//!
//! Of each kind and key the record with the highest token counts; a record that a lost member lands late can
//! therefore stand in nobody's way. What does not count any more and still stands is listed, so that the owner can
//! remove it. The mark is the highest of all: it never falls.

use super::header::Header;
use super::wire::{self, WireError, WireKey, WireValue};
use crate::engine::entries::Entries;
use crate::engine::event::{LedgerKey, Loaded};
use crate::model::{Claim, Entry, FastMap, Key, Mark, Park, Token};

/// Gathers records in the order of their offsets.
#[derive(Default)]
pub(super) struct Collector {
    header: Option<Header>,
    /// Broker's time of the `owner` records that compaction has left, by their offset.
    owners: FastMap<Token, i64>,
    /// Broker's time of the first record that was written under each token, `owner` records not counted.
    written: FastMap<Token, i64>,
    marks: FastMap<Token, Mark>,
    entries: Table<Entry, Entries>,
    claims: Table<Claim>,
    parks: Table<Park>,
}

/// All records of one kind that stand. Nearly every key has one token, so the second costs more than the first.
struct Table<T, N = FastMap<Key, (Token, T)>> {
    newest: N,
    others: FastMap<Key, Vec<(Token, T)>>,
}

/// Where the records lie that count.
trait Newest<T>: Default {
    fn token(&self, key: &str) -> Option<Token>;
    /// Puts a record in and answers the one that it replaces.
    fn put(&mut self, key: Key, token: Token, value: T) -> Option<(Token, T)>;
    fn remove(&mut self, key: &str);
}

impl<T> Newest<T> for FastMap<Key, (Token, T)> {
    fn token(&self, key: &str) -> Option<Token> {
        self.get(key).map(|(token, _)| *token)
    }

    fn put(&mut self, key: Key, token: Token, value: T) -> Option<(Token, T)> {
        self.insert(key, (token, value))
    }

    fn remove(&mut self, key: &str) {
        FastMap::remove(self, key);
    }
}

/// There may be millions of entries, so they are packed as they come.
impl Newest<Entry> for Entries {
    fn token(&self, key: &str) -> Option<Token> {
        self.get(key).map(|entry| entry.token)
    }

    fn put(&mut self, key: Key, token: Token, entry: Entry) -> Option<(Token, Entry)> {
        let old = self.insert(key.clone(), Entry { token, ..entry });
        self.rest(&key);
        old.map(|old| (old.token, old))
    }

    fn remove(&mut self, key: &str) {
        Entries::remove(self, key);
    }
}

impl<T, N: Newest<T>> Default for Table<T, N> {
    fn default() -> Self {
        Self { newest: N::default(), others: FastMap::default() }
    }
}

impl<T, N: Newest<T>> Table<T, N> {
    fn put(&mut self, key: Key, token: Token, value: T) {
        let lower = match self.newest.token(&key) {
            Some(newest) if newest > token => Some((token, value)),
            _ => self.newest.put(key.clone(), token, value).filter(|(old, _)| *old != token),
        };
        if let Some(lower) = lower {
            let others = self.others.entry(key).or_default();
            others.retain(|(other, _)| *other != lower.0);
            others.push(lower);
        }
    }

    fn remove(&mut self, key: &Key, token: Token) {
        let mut others = self.others.remove(key).unwrap_or_default();
        others.retain(|(other, _)| *other != token);
        if self.newest.token(key) == Some(token) {
            self.newest.remove(key);
            // A lower one that still stands comes to light; it counts again until it is removed, too.
            others.sort_by_key(|(other, _)| *other);
            if let Some((token, next)) = others.pop() {
                self.newest.put(key.clone(), token, next);
            }
        }
        if !others.is_empty() {
            self.others.insert(key.clone(), others);
        }
    }

    fn stale(&self, name: impl Fn(Key) -> LedgerKey, stale: &mut Vec<(LedgerKey, Token)>) {
        for (key, others) in &self.others {
            stale.extend(others.iter().map(|(token, _)| (name(key.clone()), *token)));
        }
    }
}

impl Collector {
    /// Takes one record.
    pub(super) fn take(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        offset: i64,
        timestamp: i64,
    ) -> Result<(), WireError> {
        let key = wire::decode_key(key)?;
        if let WireKey::Tokened(_, token) = &key {
            self.written.entry(*token).or_insert(timestamp);
        }
        let Some(bytes) = value else {
            self.remove(key);
            return Ok(());
        };
        match (wire::decode_value(&key, bytes)?, key) {
            (WireValue::Header(header), _) => self.header = Some(header),
            (WireValue::Owner(_), _) => {
                self.owners.insert(Token(offset), timestamp);
            }
            (WireValue::Mark(mark), WireKey::Tokened(_, token)) => {
                self.marks.insert(token, mark);
            }
            (WireValue::Entry(entry), WireKey::Tokened(LedgerKey::Entry(key), token)) => {
                self.entries.put(key, token, *entry);
            }
            (WireValue::Claim(claim), WireKey::Tokened(LedgerKey::Claim(key), token)) => {
                self.claims.put(key, token, *claim);
            }
            (WireValue::Park(park), WireKey::Tokened(LedgerKey::Park(key), token)) => {
                self.parks.put(key, token, park);
            }
            // A value's kind follows from its key, so the other combinations don't come.
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, key: WireKey) {
        match key {
            WireKey::Header => self.header = None,
            WireKey::Owner => {}
            WireKey::Tokened(LedgerKey::Mark, token) => {
                self.marks.remove(&token);
            }
            WireKey::Tokened(LedgerKey::Entry(key), token) => self.entries.remove(&key, token),
            WireKey::Tokened(LedgerKey::Claim(key), token) => self.claims.remove(&key, token),
            WireKey::Tokened(LedgerKey::Park(key), token) => self.parks.remove(&key, token),
        }
    }

    /// Whether the `owner` record with this token stands.
    pub(super) fn knows_owner(&self, token: Token) -> bool {
        self.owners.contains_key(&token)
    }

    pub(super) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The highest mark, where there is one.
    pub(super) fn mark(&self) -> Option<i64> {
        self.marks.values().map(|mark| mark.watermark).max()
    }

    /// Whether anything but `owner` records stands in it.
    pub(super) fn knows_something(&self) -> bool {
        let keys = self.entries.newest.len() + self.claims.newest.len() + self.parks.newest.len();
        keys > 0 || !self.marks.is_empty()
    }

    /// What it comes to for the owner with this token. `start` and `incomplete` are left to the caller.
    pub(super) fn finish(mut self, token: Token) -> Loaded {
        let mark = self.mark().unwrap_or(0);
        let mut stale = Vec::new();
        self.entries.stale(LedgerKey::Entry, &mut stale);
        self.claims.stale(LedgerKey::Claim, &mut stale);
        self.parks.stale(LedgerKey::Park, &mut stale);
        stale.extend(self.marks.keys().filter(|marked| **marked < token).map(|marked| (LedgerKey::Mark, *marked)));
        self.parks.newest.retain(|key, (parked, park)| {
            let released = is_released(park, self.entries.newest.get(key).as_deref());
            if released {
                stale.push((LedgerKey::Park(key.clone()), *parked));
            }
            !released
        });
        let former = self.marks.iter().max_by_key(|(marked, _)| **marked).map(|(_, mark)| mark.former.clone());
        let tokens = self.written.keys().chain(self.owners.keys()).copied().collect();
        let our_time = self.owners.get(&token).copied();
        let former = former.unwrap_or_default();
        let mut loaded = Loaded { token, mark, former, tokens, stale, ..Loaded::default() };
        let newest = std::mem::take(&mut self.claims.newest);
        for (key, (written, claim)) in newest {
            let entry = self.entries.newest.get(&key);
            if is_settled(&claim, written, entry.as_deref(), mark) {
                loaded.stale.push((LedgerKey::Claim(key), written));
            } else {
                loaded.claims.insert(key, (written, claim, doubt_age(&self.written, written, our_time)));
            }
        }
        loaded.entries = self.entries.newest;
        loaded.parks =
            self.parks.newest.into_iter().map(|(key, (token, park))| (key, Park { token, ..park })).collect();
        loaded
    }
}

/// Whether nothing of this claim can be under way: its entry names it, everything it carried is done, or a later
/// owner has written the key's entry since, so that the claim was landed late by a frozen member and never sent.
fn is_settled(claim: &Claim, written: Token, entry: Option<&Entry>, mark: i64) -> bool {
    // A claim may carry a part of a note beyond the last event that it carries in full.
    let last = claim.partial.map_or(claim.hi, |(at, _)| at);
    last.offset < mark || entry.is_some_and(|entry| entry.attempt == claim.attempt || written < entry.token)
}

/// Whether a key was released after this parking: only the success of an opening event writes an entry as far as the
/// refused one. A parking that a lost member lands late is such a one, too.
fn is_released(park: &Park, entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| park.is_void(entry.position))
}

/// How long a write announced under this token has certainly been under way, by the broker's time: from the first
/// record that a higher token *wrote* to our `owner` record. A higher `owner` record alone tells nothing: a former
/// owner whose load runs late takes a higher token too, while the real owner goes on writing. Whoever has a lease
/// writes something under its token at once, and has it only after all leases before it have ended. Where compaction
/// has removed earlier records it comes out shorter, which only waits longer.
fn doubt_age(first_written: &FastMap<Token, i64>, written: Token, our_time: Option<i64>) -> u64 {
    let first = first_written.iter().filter(|(token, _)| **token > written).map(|(_, time)| *time).min();
    match (first, our_time) {
        (Some(first), Some(ours)) => u64::try_from(ours - first).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
