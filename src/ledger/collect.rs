//! Computes the state of a ledger partition from its records.
//!
//! For each kind and key the record with the highest token counts, so a record that a lost member lands late does no
//! harm. Records that do not count are listed as stale, so that the owner can remove them. The watermark is the highest
//! of all marks: it never falls.

use super::header::Header;
use super::wire::{self, WireError, WireKey, WireValue};
use crate::engine::entries::Entries;
use crate::engine::event::{LedgerKey, LedgerState, LoadedClaim};
use crate::model::{Claim, Entry, FastMap, Key, Mark, Park, Token};

/// Collects records in the order of their offsets.
#[derive(Default)]
pub(super) struct Collector {
    header: Option<Header>,
    /// Broker time of the `owner` records that compaction has left, by their offset. Unix milliseconds.
    owner_times: FastMap<Token, i64>,
    /// Broker time of the first record written under each token, `owner` records not counted. Unix milliseconds.
    first_writes: FastMap<Token, i64>,
    marks: FastMap<Token, Mark>,
    entries: RecordTable<Entry, Entries>,
    claims: RecordTable<Claim>,
    parks: RecordTable<Park>,
}

/// The records of one kind. Nearly every key has records of one token only, so `lower` is nearly empty.
struct RecordTable<T, N = FastMap<Key, (Token, T)>> {
    /// By key, the record with the highest token.
    newest: N,
    /// By key, the records with lower tokens.
    lower: FastMap<Key, Vec<(Token, T)>>,
}

/// Stores the record with the highest token of each key.
trait NewestRecords<T>: Default {
    fn token(&self, key: &str) -> Option<Token>;
    /// Inserts a record and returns the one that it replaces.
    fn put(&mut self, key: Key, token: Token, value: T) -> Option<(Token, T)>;
    fn remove(&mut self, key: &str);
}

impl<T> NewestRecords<T> for FastMap<Key, (Token, T)> {
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

/// There may be millions of entries, so they are packed as they are read.
impl NewestRecords<Entry> for Entries {
    fn token(&self, key: &str) -> Option<Token> {
        self.get(key).map(|entry| entry.token)
    }

    fn put(&mut self, key: Key, token: Token, entry: Entry) -> Option<(Token, Entry)> {
        let old = self.insert(key.clone(), Entry { token, ..entry });
        self.deactivate(&key);
        old.map(|old| (old.token, old))
    }

    fn remove(&mut self, key: &str) {
        Entries::remove(self, key);
    }
}

impl<T, N: NewestRecords<T>> Default for RecordTable<T, N> {
    fn default() -> Self {
        Self { newest: N::default(), lower: FastMap::default() }
    }
}

impl<T, N: NewestRecords<T>> RecordTable<T, N> {
    fn put(&mut self, key: Key, token: Token, value: T) {
        let lower = match self.newest.token(&key) {
            Some(newest) if newest > token => Some((token, value)),
            _ => self.newest.put(key.clone(), token, value).filter(|(old, _)| *old != token),
        };
        if let Some(lower) = lower {
            let records = self.lower.entry(key).or_default();
            records.retain(|(token, _)| *token != lower.0);
            records.push(lower);
        }
    }

    fn remove(&mut self, key: &Key, token: Token) {
        let mut lower = self.lower.remove(key).unwrap_or_default();
        lower.retain(|(other, _)| *other != token);
        if self.newest.token(key) == Some(token) {
            self.newest.remove(key);
            // The record with the next lower token counts again, until it is removed too.
            lower.sort_by_key(|(other, _)| *other);
            if let Some((token, next)) = lower.pop() {
                self.newest.put(key.clone(), token, next);
            }
        }
        if !lower.is_empty() {
            self.lower.insert(key.clone(), lower);
        }
    }

    fn stale(&self, name: impl Fn(Key) -> LedgerKey, stale: &mut Vec<(LedgerKey, Token)>) {
        for (key, records) in &self.lower {
            stale.extend(records.iter().map(|(token, _)| (name(key.clone()), *token)));
        }
    }
}

impl Collector {
    /// Adds one record.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        offset: i64,
        timestamp: i64,
    ) -> Result<(), WireError> {
        let key = wire::decode_key(key)?;
        if let WireKey::WithToken(_, token) = &key {
            self.first_writes.entry(*token).or_insert(timestamp);
        }
        let Some(bytes) = value else {
            self.remove(key);
            return Ok(());
        };
        match (wire::decode_value(&key, bytes)?, key) {
            (WireValue::Header(header), _) => self.header = Some(header),
            (WireValue::Owner(_), _) => {
                self.owner_times.insert(Token(offset), timestamp);
            }
            (WireValue::Mark(mark), WireKey::WithToken(_, token)) => {
                self.marks.insert(token, mark);
            }
            (WireValue::Entry(entry), WireKey::WithToken(LedgerKey::Entry(key), token)) => {
                self.entries.put(key, token, *entry);
            }
            (WireValue::Claim(claim), WireKey::WithToken(LedgerKey::Claim(key), token)) => {
                self.claims.put(key, token, *claim);
            }
            (WireValue::Park(park), WireKey::WithToken(LedgerKey::Park(key), token)) => {
                self.parks.put(key, token, park);
            }
            // The kind of a value follows from its key, so other combinations do not occur.
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, key: WireKey) {
        match key {
            WireKey::Header => self.header = None,
            WireKey::Owner => {}
            WireKey::WithToken(LedgerKey::Mark, token) => {
                self.marks.remove(&token);
            }
            WireKey::WithToken(LedgerKey::Entry(key), token) => self.entries.remove(&key, token),
            WireKey::WithToken(LedgerKey::Claim(key), token) => self.claims.remove(&key, token),
            WireKey::WithToken(LedgerKey::Park(key), token) => self.parks.remove(&key, token),
        }
    }

    /// Whether the partition contains the `owner` record with this token.
    pub(super) fn has_owner_record(&self, token: Token) -> bool {
        self.owner_times.contains_key(&token)
    }

    pub(super) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Returns the highest watermark of all marks; `None` without a mark.
    pub(super) fn watermark(&self) -> Option<i64> {
        self.marks.values().map(|mark| mark.watermark).max()
    }

    /// Whether the partition contains entries, claims, parks or marks.
    pub(super) fn has_state(&self) -> bool {
        let keys = self.entries.newest.len() + self.claims.newest.len() + self.parks.newest.len();
        keys > 0 || !self.marks.is_empty()
    }

    /// Returns the state for the owner with this token. The caller sets `start_offset`, `end_offset`,
    /// `incomplete` and `topic_generation`.
    pub(super) fn finish(mut self, token: Token) -> LedgerState {
        let mark = self.watermark().unwrap_or(0);
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
        let previous_owners =
            self.marks.iter().max_by_key(|(marked, _)| **marked).map(|(_, mark)| mark.previous_owners.clone());
        let tokens = self.first_writes.keys().chain(self.owner_times.keys()).copied().collect();
        let our_time = self.owner_times.get(&token).copied();
        let previous_owners = previous_owners.unwrap_or_default();
        let mut loaded = LedgerState {
            token,
            mark_watermark: mark,
            previous_owners,
            seen_tokens: tokens,
            stale,
            ..LedgerState::default()
        };
        let newest = std::mem::take(&mut self.claims.newest);
        for (key, (written, claim)) in newest {
            let entry = self.entries.newest.get(&key);
            if is_settled(&claim, written, entry.as_deref(), mark) {
                loaded.stale.push((LedgerKey::Claim(key), written));
            } else {
                let age = age(&self.first_writes, written, our_time);
                loaded.claims.insert(key, LoadedClaim { token: written, claim, age });
            }
        }
        loaded.entries = self.entries.newest;
        loaded.parks =
            self.parks.newest.into_iter().map(|(key, (token, park))| (key, Park { token, ..park })).collect();
        loaded
    }
}

/// Whether the claim is settled, so that its write cannot be in flight (protocol rule 9): the entry names its attempt,
/// its positions are below the watermark, or a later owner has written the key's entry since. In the last case a frozen
/// member landed the claim late and never sent the write.
fn is_settled(claim: &Claim, written: Token, entry: Option<&Entry>, mark: i64) -> bool {
    // A claim can carry a part of a note beyond the last event that it carries completely.
    let last = claim.partial_note.map_or(claim.last_position, |note| note.position);
    last.offset < mark || entry.is_some_and(|entry| entry.attempt == claim.attempt || written < entry.token)
}

/// Whether the key was released after this park: only a successful opening event writes an entry at or above the park's
/// position. This also covers a park that a lost member lands late.
fn is_released(park: &Park, entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| park.is_void(entry.position))
}

/// Returns for how many milliseconds a write claimed under this token has certainly been in flight, by broker time:
/// from the first record *written* under a higher token until our `owner` record (protocol rule 13d). A higher `owner`
/// record alone proves nothing: a previous owner whose load runs late takes a higher token too, while the real owner
/// continues to write. An owner with a lease writes a record under its token at once, and gets its lease only after all
/// earlier leases have ended. If compaction has removed earlier records, the result is too small, which only makes the
/// wait longer.
fn age(first_writes: &FastMap<Token, i64>, written: Token, our_time: Option<i64>) -> u64 {
    let first = first_writes.iter().filter(|(token, _)| **token > written).map(|(_, time)| *time).min();
    match (first, our_time) {
        (Some(first), Some(ours)) => u64::try_from(ours - first).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
