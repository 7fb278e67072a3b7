//! One partition of the ledger topic as the broker stores it, its compaction, and the rules by which an owner reads
//! it (protocol rules 1, 9 and 10). Keys contain their writer's token; per kind and key only the highest token
//! counts.

use std::collections::BTreeMap;

use super::super::event::{LedgerKey, LedgerState, LedgerWrite, LoadedClaim};
use super::injection::{key_index, key_name};
use crate::model::{Claim, Entry, Key, Park, PreviousOwner, Token};

/// A record of the ledger topic.
#[derive(Debug, Clone)]
pub(super) enum StoredRecord {
    /// An `owner` record.
    Owner,
    /// A record that the engine produced.
    Write(LedgerWrite),
}

/// A ledger record with its offset.
#[derive(Debug, Clone)]
struct LogRecord {
    offset: i64,
    /// The broker's time, in milliseconds of virtual time.
    at: u64,
    /// Kind, alert key and token, packed.
    key: u64,
    stored: StoredRecord,
}

/// The log of a partition.
#[derive(Debug, Default)]
pub(super) struct LedgerLog {
    records: Vec<LogRecord>,
    end: i64,
    /// Time and offset of every owner record. Compaction does not remove them here: the checks of the world need
    /// them.
    pub(super) owners: Vec<(u64, i64)>,
    /// Keys contain no token (a mutation).
    pub(super) tokenless: bool,
}

const OWNER: u64 = u64::MAX;

/// The bits of a packed key that contain the token.
const TOKEN: u64 = 0xff_ffff_ffff_ffff;

impl LedgerLog {
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.owners.clear();
        // Offset 0 is the header.
        self.end = 1;
    }

    fn key_of(&self, write: &LedgerWrite) -> u64 {
        let (kind, key, token) = match write {
            LedgerWrite::Entry(key, entry) => (0, key_index(key), entry.token),
            LedgerWrite::Claim(key, token, _) => (1, key_index(key), *token),
            LedgerWrite::Park(key, park) => (2, key_index(key), park.token),
            LedgerWrite::Mark(token, _) => (3, 0, *token),
            LedgerWrite::Tombstone(key, token) => match key {
                LedgerKey::Entry(key) => (0, key_index(key), *token),
                LedgerKey::Claim(key) => (1, key_index(key), *token),
                LedgerKey::Park(key) => (2, key_index(key), *token),
                LedgerKey::Mark => (3, 0, *token),
            },
        };
        let token = if self.tokenless { 0 } else { token.0.unsigned_abs() };
        pack(kind, key, token)
    }

    /// Appends a record and returns its offset.
    pub(super) fn append(&mut self, at: u64, stored: StoredRecord) -> i64 {
        let offset = self.end;
        self.end += 1;
        let key = match &stored {
            StoredRecord::Owner => {
                self.owners.push((at, offset));
                OWNER
            }
            StoredRecord::Write(write) => self.key_of(write),
        };
        self.records.push(LogRecord { offset, at, key, stored });
        offset
    }

    /// True if the log contains a record of this kind and key with a higher token.
    pub(super) fn is_superseded(&self, write: &LedgerWrite) -> bool {
        let key = self.key_of(write);
        self.records.iter().any(|record| record.key != OWNER && record.key >> 56 == key >> 56 && record.key > key)
    }

    /// The key that is forgotten when this write has landed: its last live entry is removed, and its ticket was
    /// resolved. The sender may have died before it reported the expiry.
    pub(super) fn forgotten_key<'a>(&self, write: &'a LedgerWrite) -> Option<&'a Key> {
        let LedgerWrite::Tombstone(LedgerKey::Entry(name), _) = write else { return None };
        let removed = self.key_of(write);
        let mut live: BTreeMap<u64, &StoredRecord> = BTreeMap::new();
        for record in self.records.iter().filter(|record| record.key != OWNER && record.key >> 56 == removed >> 56) {
            live.insert(record.key, &record.stored);
        }
        live.retain(|_, stored| !matches!(stored, StoredRecord::Write(LedgerWrite::Tombstone(..))));
        let last = live.remove(&removed).filter(|_| live.is_empty())?;
        matches!(last, StoredRecord::Write(LedgerWrite::Entry(_, entry)) if entry.resolved_at.is_some()).then_some(name)
    }

    /// Keeps the newest record of each key. Tombstones are removed once they are older than `retention`.
    pub(super) fn compact(&mut self, now: u64, retention: u64) {
        let mut seen: Vec<u64> = Vec::with_capacity(64);
        let mut kept: Vec<LogRecord> = Vec::with_capacity(self.records.len());
        for record in self.records.drain(..).rev() {
            if seen.contains(&record.key) {
                continue;
            }
            seen.push(record.key);
            let tombstone = matches!(record.stored, StoredRecord::Write(LedgerWrite::Tombstone(..)));
            if !tombstone || now - record.at < retention {
                kept.push(record);
            }
        }
        kept.reverse();
        self.records = kept;
    }

    /// The ledger as the owner with the `owner` record at `token` reads it. It reads to the log's end, not only to
    /// that record: a late record after it may have let compaction remove an older one of the same key before it.
    pub(super) fn load(&self, token: i64, group_offset: i64) -> LedgerState {
        let mut seen: Vec<u64> = Vec::with_capacity(64);
        let mut live: Vec<&LogRecord> = Vec::with_capacity(16);
        // Time of the first record under each token. An `owner` record alone does not count.
        let mut written: Vec<(u64, u64)> = Vec::with_capacity(8);
        let mut ours = 0;
        let mut tokens = Vec::with_capacity(8);
        for record in self.records.iter().rev() {
            if record.key == OWNER {
                tokens.push(Token(record.offset));
                if record.offset == token {
                    ours = record.at;
                }
                continue;
            }
            let under = record.key & TOKEN;
            match written.iter_mut().find(|(token, _)| *token == under) {
                Some((_, at)) => *at = record.at,
                None => written.push((under, record.at)),
            }
            if !seen.contains(&record.key) {
                seen.push(record.key);
                if !matches!(record.stored, StoredRecord::Write(LedgerWrite::Tombstone(..))) {
                    live.push(record);
                }
            }
        }
        tokens.extend(written.iter().map(|(token, _)| Token(i64::try_from(*token).unwrap_or(0))));
        let mut builder = LoadBuilder { tokens, ..LoadBuilder::default() };
        for record in live {
            builder.add(&record.stored, self.tokenless);
        }
        builder.build(Token(token), group_offset, |above| {
            let higher = written.iter().filter(|(token, _)| *token > above.0.unsigned_abs());
            higher.map(|(_, at)| *at).min().map_or(0, |at| ours.saturating_sub(at))
        })
    }
}

fn pack(kind: u64, key: usize, token: u64) -> u64 {
    let key = u64::try_from(key).unwrap_or(0);
    (kind << 60) | (key << 56) | (token & TOKEN)
}

/// Builds a [`LedgerState`] from the live records.
#[derive(Default)]
struct LoadBuilder {
    entries: BTreeMap<usize, (Token, Entry)>,
    claims: BTreeMap<usize, (Token, Claim)>,
    parks: BTreeMap<usize, (Token, Park)>,
    mark: (Token, i64),
    previous_owners: Vec<PreviousOwner>,
    tokens: Vec<Token>,
    stale: Vec<(LedgerKey, Token)>,
}

impl LoadBuilder {
    fn add(&mut self, stored: &StoredRecord, tokenless: bool) {
        let StoredRecord::Write(write) = stored else { return };
        let stale = &mut self.stale;
        match write {
            LedgerWrite::Entry(key, entry) => {
                let superseded =
                    keep_highest(&mut self.entries, key_index(key), entry.token, entry.as_ref(), tokenless);
                stale.extend(superseded.map(|token| (LedgerKey::Entry(key.clone()), token)));
            }
            LedgerWrite::Claim(key, token, claim) => {
                let superseded = keep_highest(&mut self.claims, key_index(key), *token, claim.as_ref(), tokenless);
                stale.extend(superseded.map(|token| (LedgerKey::Claim(key.clone()), token)));
            }
            LedgerWrite::Park(key, park) => {
                let superseded = keep_highest(&mut self.parks, key_index(key), park.token, park, tokenless);
                stale.extend(superseded.map(|token| (LedgerKey::Park(key.clone()), token)));
            }
            LedgerWrite::Mark(token, mark) => {
                if *token > self.mark.0 {
                    self.previous_owners.clone_from(&mark.previous_owners);
                }
                let (lower, higher) = if *token > self.mark.0 { (self.mark.0, *token) } else { (*token, self.mark.0) };
                if self.mark.0 != Token::default() {
                    stale.push((LedgerKey::Mark, lower));
                }
                self.mark = (higher, self.mark.1.max(mark.watermark));
            }
            LedgerWrite::Tombstone(..) => {}
        }
    }

    fn build(self, token: Token, group_offset: i64, elapsed: impl Fn(Token) -> u64) -> LedgerState {
        let mut loaded = LedgerState {
            token,
            start_offset: group_offset.max(self.mark.1),
            mark_watermark: self.mark.1,
            stale: self.stale,
            previous_owners: self.previous_owners,
            seen_tokens: self.tokens,
            ..LedgerState::default()
        };
        for (key, (claim_token, claim)) in self.claims {
            let entry = self.entries.get(&key);
            let is_settled = entry.is_some_and(|(t, e)| e.attempt == claim.attempt || claim_token < *t)
                || claim.partial_note.map_or(claim.last_position, |note| note.position).offset < self.mark.1;
            if is_settled {
                loaded.stale.push((LedgerKey::Claim(key_name(key)), claim_token));
            } else {
                let age = elapsed(claim_token);
                loaded.claims.insert(key_name(key), LoadedClaim { token: claim_token, claim, age });
            }
        }
        loaded.entries = self.entries.into_iter().map(|(key, (_, entry))| (key_name(key), entry)).collect();
        for (key, (token, park)) in self.parks {
            // Only an applied opening event writes an entry with a position at or above that of the rejected one.
            if loaded.entries.get(&key_name(key)).is_some_and(|entry| entry.position >= park.position) {
                loaded.stale.push((LedgerKey::Park(key_name(key)), token));
            } else {
                loaded.parks.insert(key_name(key), park);
            }
        }
        loaded
    }
}

/// Keeps the value with the higher token and returns the token of the other.
fn keep_highest<T: Clone>(
    map: &mut BTreeMap<usize, (Token, T)>,
    key: usize,
    token: Token,
    value: &T,
    tokenless: bool,
) -> Option<Token> {
    match map.get(&key).map(|(t, _)| *t) {
        // Without tokens in the keys there is only one record per kind and key, regardless of the token in its value.
        Some(existing) if existing > token || tokenless => Some(token),
        existing => {
            map.insert(key, (token, value.clone()));
            existing
        }
    }
}
