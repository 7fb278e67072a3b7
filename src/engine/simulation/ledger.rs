//! One partition of the ledger topic as the broker holds it, its compaction, and the rules by which an owner reads it
//! (protocol rules 1, 6 and 7). Keys carry their writer's token; per kind and key only the highest token counts.

use std::collections::BTreeMap;

use super::super::event::{LedgerKey, LedgerWrite, Loaded};
use super::script::{key_index, key_name};
use crate::model::{Claim, Entry, Key, Park, PreviousOwner, Token};

/// What stands at an offset.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// A member took over.
    Owner,
    /// Anything the engine wrote.
    Write(LedgerWrite),
}

/// One ledger record.
#[derive(Debug, Clone)]
struct Line {
    offset: i64,
    /// The broker's time, milliseconds of virtual time.
    at: u64,
    /// Kind, alert key and token, packed.
    key: u64,
    stored: Stored,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: Vec<Line>,
    end: i64,
    /// Every owner record ever: time and offset; compaction does not touch these, they serve the world's judgement.
    pub(super) owners: Vec<(u64, i64)>,
    /// Keys carry no token (a mutation).
    pub(super) tokenless: bool,
}

const OWNER: u64 = u64::MAX;

/// The bits of a packed key that hold the token.
const TOKEN: u64 = 0xff_ffff_ffff_ffff;

impl Log {
    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.owners.clear();
        // The header stands at 0.
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

    /// Appends a record and gives its offset.
    pub(super) fn append(&mut self, at: u64, stored: Stored) -> i64 {
        let offset = self.end;
        self.end += 1;
        let key = match &stored {
            Stored::Owner => {
                self.owners.push((at, offset));
                OWNER
            }
            Stored::Write(write) => self.key_of(write),
        };
        self.lines.push(Line { offset, at, key, stored });
        offset
    }

    /// True where a record of this kind and key with a higher token, or a later one of the same, stands already.
    pub(super) fn overtaken(&self, write: &LedgerWrite) -> bool {
        let key = self.key_of(write);
        self.lines.iter().any(|line| line.key != OWNER && line.key >> 56 == key >> 56 && line.key > key)
    }

    /// The key that is forgotten once this write has landed: the last entry that stands goes, and its ticket was resolved.
    /// Whoever sent it may have died before it could say so.
    pub(super) fn forgets<'a>(&self, write: &'a LedgerWrite) -> Option<&'a Key> {
        let LedgerWrite::Tombstone(LedgerKey::Entry(name), _) = write else { return None };
        let goes = self.key_of(write);
        let mut standing: BTreeMap<u64, &Stored> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.key != OWNER && line.key >> 56 == goes >> 56) {
            standing.insert(line.key, &line.stored);
        }
        standing.retain(|_, stored| !matches!(stored, Stored::Write(LedgerWrite::Tombstone(..))));
        let last = standing.remove(&goes).filter(|_| standing.is_empty())?;
        matches!(last, Stored::Write(LedgerWrite::Entry(_, entry)) if entry.resolved_at.is_some()).then_some(name)
    }

    /// Keeps the newest record of each key; tombstones go too once they are older than `retention`.
    pub(super) fn compact(&mut self, now: u64, retention: u64) {
        let mut seen: Vec<u64> = Vec::with_capacity(64);
        let mut kept: Vec<Line> = Vec::with_capacity(self.lines.len());
        for line in self.lines.drain(..).rev() {
            if seen.contains(&line.key) {
                continue;
            }
            seen.push(line.key);
            let tombstone = matches!(line.stored, Stored::Write(LedgerWrite::Tombstone(..)));
            if !tombstone || now - line.at < retention {
                kept.push(line);
            }
        }
        kept.reverse();
        self.lines = kept;
    }

    /// What an owner whose `owner` record stands at `token` finds. It reads to the log's end, not only to that record:
    /// a late record behind it may have let compaction remove an older one of the same key before it.
    pub(super) fn load(&self, token: i64, group_offset: i64) -> Loaded {
        let mut seen: Vec<u64> = Vec::with_capacity(64);
        let mut standing: Vec<&Line> = Vec::with_capacity(16);
        // First time of a record under each token; an `owner` record alone tells nothing.
        let mut written: Vec<(u64, u64)> = Vec::with_capacity(8);
        let mut ours = 0;
        let mut tokens = Vec::with_capacity(8);
        for line in self.lines.iter().rev() {
            if line.key == OWNER {
                tokens.push(Token(line.offset));
                if line.offset == token {
                    ours = line.at;
                }
                continue;
            }
            let under = line.key & TOKEN;
            match written.iter_mut().find(|(token, _)| *token == under) {
                Some((_, at)) => *at = line.at,
                None => written.push((under, line.at)),
            }
            if !seen.contains(&line.key) {
                seen.push(line.key);
                if !matches!(line.stored, Stored::Write(LedgerWrite::Tombstone(..))) {
                    standing.push(line);
                }
            }
        }
        tokens.extend(written.iter().map(|(token, _)| Token(i64::try_from(*token).unwrap_or(0))));
        let mut found = Found { tokens, ..Found::default() };
        for line in standing {
            found.take(&line.stored, self.tokenless);
        }
        found.finish(Token(token), group_offset, |above| {
            let higher = written.iter().filter(|(token, _)| *token > above.0.unsigned_abs());
            higher.map(|(_, at)| *at).min().map_or(0, |at| ours.saturating_sub(at))
        })
    }
}

fn pack(kind: u64, key: usize, token: u64) -> u64 {
    let key = u64::try_from(key).unwrap_or(0);
    (kind << 60) | (key << 56) | (token & TOKEN)
}

/// The records that stand, on their way to [`Loaded`].
#[derive(Default)]
struct Found {
    entries: BTreeMap<usize, (Token, Entry)>,
    claims: BTreeMap<usize, (Token, Claim)>,
    parks: BTreeMap<usize, (Token, Park)>,
    mark: (Token, i64),
    former: Vec<PreviousOwner>,
    tokens: Vec<Token>,
    stale: Vec<(LedgerKey, Token)>,
}

impl Found {
    fn take(&mut self, stored: &Stored, tokenless: bool) {
        let Stored::Write(write) = stored else { return };
        let stale = &mut self.stale;
        match write {
            LedgerWrite::Entry(key, entry) => {
                let lost = keep(&mut self.entries, key_index(key), entry.token, entry.as_ref(), tokenless);
                stale.extend(lost.map(|token| (LedgerKey::Entry(key.clone()), token)));
            }
            LedgerWrite::Claim(key, token, claim) => {
                let lost = keep(&mut self.claims, key_index(key), *token, claim.as_ref(), tokenless);
                stale.extend(lost.map(|token| (LedgerKey::Claim(key.clone()), token)));
            }
            LedgerWrite::Park(key, park) => {
                let lost = keep(&mut self.parks, key_index(key), park.token, park, tokenless);
                stale.extend(lost.map(|token| (LedgerKey::Park(key.clone()), token)));
            }
            LedgerWrite::Mark(token, mark) => {
                if *token > self.mark.0 {
                    self.former.clone_from(&mark.former);
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

    fn finish(self, token: Token, group_offset: i64, elapsed: impl Fn(Token) -> u64) -> Loaded {
        let mut loaded = Loaded {
            token,
            start: group_offset.max(self.mark.1),
            mark: self.mark.1,
            stale: self.stale,
            former: self.former,
            tokens: self.tokens,
            ..Loaded::default()
        };
        for (key, (claim_token, claim)) in self.claims {
            let entry = self.entries.get(&key);
            let settled = entry.is_some_and(|(t, e)| e.attempt == claim.attempt || claim_token < *t)
                || claim.partial.map_or(claim.hi, |(at, _)| at).offset < self.mark.1;
            if settled {
                loaded.stale.push((LedgerKey::Claim(key_name(key)), claim_token));
            } else {
                loaded.claims.insert(key_name(key), (claim_token, claim, elapsed(claim_token)));
            }
        }
        loaded.entries = self.entries.into_iter().map(|(key, (_, entry))| (key_name(key), entry)).collect();
        for (key, (token, park)) in self.parks {
            // Only the success of an opening event writes an entry as far as the refused one.
            if loaded.entries.get(&key_name(key)).is_some_and(|entry| entry.position >= park.position) {
                loaded.stale.push((LedgerKey::Park(key_name(key)), token));
            } else {
                loaded.parks.insert(key_name(key), park);
            }
        }
        loaded
    }
}

/// Keeps the higher token and gives back the one that lost.
fn keep<T: Clone>(
    map: &mut BTreeMap<usize, (Token, T)>,
    key: usize,
    token: Token,
    value: &T,
    tokenless: bool,
) -> Option<Token> {
    match map.get(&key).map(|(t, _)| *t) {
        // Without tokens in the keys there is one record per kind and key, whatever its value says.
        Some(held) if held > token || tokenless => Some(token),
        held => {
            map.insert(key, (token, value.clone()));
            held
        }
    }
}
