//! One assigned partition: its epoch, token and lease, its share of the ledger, its tracker and its lanes.

use std::collections::BTreeMap;

use super::entries::Entries;
use super::event::{LedgerKey, Loaded};
use super::flap_detection::Flaps;
use super::lane::{Counted, Lane};
use super::priority::{Ticket, Want};
use super::settings::Settings;
use super::tracker::Tracker;
use crate::model::{Entry, Epoch, FastMap, Key, Park, PreviousOwner, Token};

/// How many former owners are remembered, and for how long, milliseconds: nothing that a member has handed to its
/// client lands so late.
const FORMER: (usize, i64) = (32, 3_600_000);

/// Where an assigned partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionPhase {
    /// Its ledger is being read.
    Loading,
    /// Working.
    Running,
    /// Revoked: finishes what is in flight until this instant on the mono clock.
    Leaving(u64),
}

/// One assigned partition.
#[derive(Debug)]
pub struct Partition {
    /// Its assignment epoch.
    pub epoch: Epoch,
    /// Counts loads of partitions: what belongs to an older life is stale, within one epoch too.
    pub life: u64,
    /// Where it stands.
    pub phase: PartitionPhase,
    /// Whose writing counts: ours.
    pub token: Token,
    /// When the last accepted commit of this epoch was sent, on the mono clock.
    pub lease_sent: Option<u64>,
    /// Commits sent before this instant on the mono clock give no lease.
    pub lease_floor: u64,
    /// Offsets received and unresolved.
    pub tracker: Tracker,
    /// What was done for which key.
    pub entries: Entries,
    /// Keys whose record was refused.
    pub parks: FastMap<Key, Park>,
    /// Ledger records of lower tokens that still stand.
    pub stale: FastMap<LedgerKey, Vec<Token>>,
    /// Who owned it before, newest first: a record that one of them lands late must not come to light when an entry is
    /// forgotten.
    pub former: Vec<PreviousOwner>,
    /// Keys at work.
    pub lanes: FastMap<Key, Lane>,
    /// Keys whose alert changed its state lately, where flapping is watched.
    pub flaps: FastMap<Key, Flaps>,
    /// Keys whose claim's tombstone is not acked yet, and how many: one that lands late would remove the next claim.
    pub removing: FastMap<Key, usize>,
    /// Lanes that wait for a turn.
    pub ready: BTreeMap<Ticket, Key>,
    /// Lanes that want a permit.
    pub wants: BTreeMap<Want, Key>,
    /// Lanes whose entry waits for a lease.
    pub unleased: Vec<Key>,
    /// When entries that may be forgotten were last looked for, on the mono clock.
    pub swept: u64,
    /// Entries that are being forgotten: in which round, and how many tombstones of former owners' are not acked yet.
    pub expiring: FastMap<Key, (u64, usize)>,
    /// Attempts made with this token.
    pub attempts: u64,
    /// Last watermark given to the committer, and when.
    pub committed: (i64, u64),
    /// Last mark produced, last mark acked, and when the last one was produced.
    pub mark: (i64, i64, u64),
    /// Unknown keys are looked up before a ticket is made.
    pub incomplete: bool,
    /// Of its positions: see [`Loaded::topic_generation`].
    pub topic_generation: u32,
    /// Of the input, when it was loaded: see [`Loaded::end`].
    end: i64,
    /// Lanes prepared ahead of a permit: critical ones, and the others.
    pub prepared: [usize; 2],
    /// Answers of the ledger or the instance that a drain waits for.
    pub awaited: usize,
    /// True once something was written under this token while the lease stood: that tells a successor since when no
    /// former owner can have sent anything.
    pub confirmed: bool,
    /// True once the final mark is under way.
    pub closing_mark: bool,
}

impl Partition {
    /// A partition that was assigned just now.
    pub fn assigned(epoch: Epoch, life: u64) -> Self {
        Self {
            epoch,
            life,
            phase: PartitionPhase::Loading,
            token: Token::default(),
            lease_sent: None,
            lease_floor: 0,
            tracker: Tracker::default(),
            entries: Entries::default(),
            parks: FastMap::default(),
            stale: FastMap::default(),
            former: Vec::new(),
            lanes: FastMap::default(),
            flaps: FastMap::default(),
            removing: FastMap::default(),
            ready: BTreeMap::new(),
            wants: BTreeMap::new(),
            unleased: Vec::new(),
            swept: 0,
            expiring: FastMap::default(),
            attempts: 0,
            committed: (-1, 0),
            mark: (-1, -1, 0),
            incomplete: false,
            topic_generation: 0,
            end: 0,
            prepared: [0; 2],
            awaited: 0,
            confirmed: false,
            closing_mark: false,
        }
    }

    /// Whether records that lay in the input when the partition was loaded are still to come.
    pub fn is_behind(&self) -> bool {
        !self.tracker.has_seen(self.end - 1)
    }

    /// Takes over what the ledger said. Lanes of claims in doubt are made by the dispatcher.
    pub fn load(&mut self, ledger: Loaded, now: i64) -> FastMap<Key, (Token, crate::model::Claim, u64)> {
        self.phase = PartitionPhase::Running;
        self.token = ledger.token;
        self.tracker = Tracker::starting_at(ledger.start);
        self.entries = ledger.entries;
        self.parks = ledger.parks;
        self.incomplete = ledger.incomplete;
        self.topic_generation = ledger.topic_generation;
        self.end = ledger.end;
        self.mark = (ledger.mark, ledger.mark, 0);
        self.former = former(ledger.former, ledger.tokens, ledger.token, now);
        self.stale.clear();
        for (key, token) in ledger.stale {
            self.stale.entry(key).or_default().push(token);
        }
        ledger.claims
    }

    /// The instant on the mono clock until which requests, claims and entries may be issued (protocol rule 2).
    pub fn lease_until(&self, last_poll: u64, settings: &Settings) -> u64 {
        let Some(sent) = self.lease_sent else { return 0 };
        let by_commit = sent + settings.session_timeout / 2;
        let by_poll = last_poll + settings.max_poll_interval.saturating_sub(settings.poll_margin);
        by_commit.min(by_poll)
    }

    /// Counts a lane anew.
    pub fn count(&mut self, before: Counted, after: Counted) {
        if let Some(critical) = before.prepared {
            self.prepared[usize::from(!critical)] -= 1;
        }
        if let Some(critical) = after.prepared {
            self.prepared[usize::from(!critical)] += 1;
        }
        self.awaited -= usize::from(before.finishing);
        self.awaited += usize::from(after.finishing);
    }

    /// True once it was revoked.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, PartitionPhase::Leaving(_))
    }

    /// Puts a key's entry in. What a former owner wrote of the key would come to light again when ours is removed, so it
    /// is remembered until it is removed itself.
    pub fn put_entry(&mut self, key: &Key, entry: Entry) {
        let ours = entry.token;
        if let Some(old) = self.entries.insert(key.clone(), entry).filter(|old| old.token != ours) {
            self.stale.entry(LedgerKey::Entry(key.clone())).or_default().push(old.token);
        }
    }

    /// Tokens of older records of this kind and key, which are tombstoned once ours stands.
    pub fn take_stale(&mut self, key: &LedgerKey) -> Vec<Token> {
        if self.stale.is_empty() { Vec::new() } else { self.stale.remove(key).unwrap_or_default() }
    }
}

/// The former owners that are still worth to be remembered: those that are named already, and those just seen.
fn former(named: Vec<PreviousOwner>, seen: Vec<Token>, ours: Token, now: i64) -> Vec<PreviousOwner> {
    let mut former = named;
    let seen = seen.into_iter().map(|token| PreviousOwner { token, since: now });
    former.extend(seen.filter(|f| f.token < ours));
    // The earlier sight of one counts.
    former.sort_unstable_by_key(|f| (std::cmp::Reverse(f.token), f.since));
    former.dedup_by_key(|f| f.token);
    former.retain(|f| now.saturating_sub(f.since) <= FORMER.1);
    former.truncate(FORMER.0);
    former
}
