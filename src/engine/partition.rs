//! One assigned partition: its epoch, token and lease, its ledger contents, its tracker and its lanes.

use std::collections::{BTreeMap, BTreeSet};

use super::entries::Entries;
use super::event::{LedgerKey, LedgerState, LoadedClaim};
use super::flap_detection::FlapState;
use super::freshness::SeenRows;
use super::lane::{Lane, LaneCounts, QueuePosition};
use super::priority::{LaneClass, LaneRank, PermitRank};
use super::settings::Settings;
use super::tracker::Tracker;
use crate::model::{Entry, Epoch, FastMap, Key, Park, PreviousOwner, Token};

/// Maximum number of previous owners that are remembered.
const MAX_PREVIOUS_OWNERS: usize = 32;

/// How long a previous owner is remembered, milliseconds. No record that a member handed to its Kafka client lands
/// later than this.
const PREVIOUS_OWNER_AGE: i64 = 3_600_000;

/// The phase of an assigned partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionPhase {
    /// Its ledger is being loaded.
    Loading,
    /// Its events are processed.
    Running,
    /// The group revoked it; work in flight is finished.
    Revoked {
        /// When it is released at the latest, on the mono clock.
        deadline: u64,
    },
}

/// The last offset commit of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastCommit {
    /// The watermark that was given to the committer.
    pub offset: i64,
    /// When, on the mono clock.
    pub at: u64,
}

/// The marks of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct MarkState {
    /// The highest watermark of a produced mark.
    pub produced: i64,
    /// The highest watermark of an acked mark.
    pub acked: i64,
    /// When the last mark was produced, on the mono clock.
    pub produced_at: u64,
}

/// Numbers of lanes that are prepared before they have a permit, by class.
#[derive(Debug, Clone, Copy, Default)]
pub struct PreparedLanes {
    pub critical: usize,
    pub standard: usize,
}

impl PreparedLanes {
    /// The number of prepared lanes of a class.
    pub fn of(&self, class: LaneClass) -> usize {
        match class {
            LaneClass::Critical => self.critical,
            LaneClass::Standard => self.standard,
        }
    }

    fn of_mut(&mut self, class: LaneClass) -> &mut usize {
        match class {
            LaneClass::Critical => &mut self.critical,
            LaneClass::Standard => &mut self.standard,
        }
    }
}

/// An entry whose expiry waits for the tombstones of previous owners' records.
#[derive(Debug, Clone, Copy)]
pub struct PendingExpiry {
    /// Distinguishes attempts to expire the same key.
    pub round: u64,
    /// Number of tombstones that are not acked yet.
    pub tombstones: usize,
}

/// One assigned partition.
#[derive(Debug)]
pub struct Partition {
    pub epoch: Epoch,
    /// Counts loads of partitions: work of an older load generation is void, even within one epoch.
    pub load_generation: u64,
    pub phase: PartitionPhase,
    /// Our token.
    pub token: Token,
    /// When the last accepted commit of this epoch was sent, on the mono clock.
    pub lease_sent: Option<u64>,
    /// Commits sent before this instant on the mono clock grant no lease.
    pub lease_floor: u64,
    pub tracker: Tracker,
    pub entries: Entries,
    pub parks: FastMap<Key, Park>,
    /// Ledger records of lower tokens that still exist.
    pub stale: FastMap<LedgerKey, Vec<Token>>,
    /// Newest first. A record that one of them lands late must not take effect when an entry has expired.
    pub previous_owners: Vec<PreviousOwner>,
    /// Lanes of the keys with work.
    pub lanes: FastMap<Key, Lane>,
    /// Keys whose alert changed its state recently; empty if flap detection is disabled.
    pub flaps: FastMap<Key, FlapState>,
    /// Keys whose claim has tombstones that are not acked yet, and how many: a tombstone that lands late would remove
    /// the next claim.
    pub pending_claim_tombstones: FastMap<Key, usize>,
    /// Number of lanes that only read the row of a ticket whose entry may expire.
    pub expiry_looks: usize,
    /// Rows that were seen lately.
    pub rows: SeenRows,
    /// Lanes whose look waits to share a request, and until when on the mono clock.
    pub shared_looks: BTreeSet<(u64, Key)>,
    /// Lanes that wait for the next look.
    pub unread: BTreeMap<LaneRank, Key>,
    /// Lanes that wait for a turn.
    pub ready: BTreeMap<LaneRank, Key>,
    /// Lanes that wait for a permit.
    pub permit_queue: BTreeMap<PermitRank, Key>,
    /// Lanes whose entry waits for a lease.
    pub waiting_for_lease: Vec<Key>,
    /// When expired entries were last searched for, on the mono clock.
    pub swept_at: u64,
    /// Entries that are being expired.
    pub expiring: FastMap<Key, PendingExpiry>,
    /// Number of attempts with this token.
    pub attempts: u64,
    /// Set when the ledger is loaded.
    pub last_commit: LastCommit,
    /// Set when the ledger is loaded.
    pub mark: MarkState,
    /// True if unknown keys are looked up in the instance before a ticket is created.
    pub incomplete: bool,
    /// See [`LedgerState::topic_generation`].
    pub topic_generation: u32,
    /// See [`LedgerState::end_offset`].
    end_offset_at_load: i64,
    pub prepared: PreparedLanes,
    /// Number of answers of the ledger or the instance that a drain waits for.
    pub outstanding: usize,
    /// True once a mark was produced under this token while the lease held. It tells a successor since when no previous
    /// owner can have sent anything.
    pub first_mark_produced: bool,
    /// True once the final mark of a revoked partition was started.
    pub final_mark_started: bool,
}

impl Partition {
    /// A newly assigned partition, not loaded yet.
    pub fn assigned(epoch: Epoch, load_generation: u64) -> Self {
        Self {
            epoch,
            load_generation,
            phase: PartitionPhase::Loading,
            token: Token::default(),
            lease_sent: None,
            lease_floor: 0,
            tracker: Tracker::default(),
            entries: Entries::default(),
            parks: FastMap::default(),
            stale: FastMap::default(),
            previous_owners: Vec::new(),
            lanes: FastMap::default(),
            flaps: FastMap::default(),
            pending_claim_tombstones: FastMap::default(),
            expiry_looks: 0,
            rows: SeenRows::default(),
            shared_looks: BTreeSet::new(),
            unread: BTreeMap::new(),
            ready: BTreeMap::new(),
            permit_queue: BTreeMap::new(),
            waiting_for_lease: Vec::new(),
            swept_at: 0,
            expiring: FastMap::default(),
            attempts: 0,
            last_commit: LastCommit::default(),
            mark: MarkState::default(),
            incomplete: false,
            topic_generation: 0,
            end_offset_at_load: 0,
            prepared: PreparedLanes::default(),
            outstanding: 0,
            first_mark_produced: false,
            final_mark_started: false,
        }
    }

    /// True while records that were in the input when the partition was loaded are still to come.
    pub fn is_catching_up(&self) -> bool {
        !self.tracker.has_seen(self.end_offset_at_load - 1)
    }

    /// Applies the loaded ledger and returns its unsettled claims, for which the dispatcher creates lanes. `now` in
    /// Unix milliseconds.
    pub fn apply_ledger(&mut self, ledger: LedgerState, now: i64) -> FastMap<Key, LoadedClaim> {
        self.phase = PartitionPhase::Running;
        self.token = ledger.token;
        self.tracker = Tracker::starting_at(ledger.start_offset);
        self.entries = ledger.entries;
        self.parks = ledger.parks;
        self.incomplete = ledger.incomplete;
        self.topic_generation = ledger.topic_generation;
        self.end_offset_at_load = ledger.end_offset;
        self.mark = MarkState { produced: ledger.mark_watermark, acked: ledger.mark_watermark, produced_at: 0 };
        self.previous_owners = previous_owners(ledger.previous_owners, ledger.seen_tokens, ledger.token, now);
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
        let by_poll = last_poll + settings.max_poll_interval.saturating_sub(settings.poll_interval_margin);
        by_commit.min(by_poll)
    }

    /// Updates the partition's counts after a lane changed.
    pub fn update_counts(&mut self, before: LaneCounts, after: LaneCounts) {
        if let Some(class) = before.prepared {
            *self.prepared.of_mut(class) -= 1;
        }
        if let Some(class) = after.prepared {
            *self.prepared.of_mut(class) += 1;
        }
        self.outstanding -= usize::from(before.blocks_drain);
        self.outstanding += usize::from(after.blocks_drain);
    }

    /// Takes a lane out of the queue in which it waits.
    pub fn leave_queue(&mut self, position: QueuePosition) {
        match position {
            QueuePosition::Turn(rank) => self.ready.remove(&rank),
            QueuePosition::Look(rank) => self.unread.remove(&rank),
            QueuePosition::Permit(rank) => self.permit_queue.remove(&rank),
        };
    }

    /// True once the partition was revoked.
    pub fn is_revoked(&self) -> bool {
        matches!(self.phase, PartitionPhase::Revoked { .. })
    }

    /// Sets a key's entry. A previous owner's record of the key would count again once ours is removed, so its token is
    /// remembered until that record is tombstoned.
    pub fn put_entry(&mut self, key: &Key, entry: Entry) {
        let ours = entry.token;
        if let Some(old) = self.entries.insert(key.clone(), entry).filter(|old| old.token != ours) {
            self.stale.entry(LedgerKey::Entry(key.clone())).or_default().push(old.token);
        }
    }

    /// Takes the tokens of older records of this kind and key. They are tombstoned after our record is produced.
    pub fn take_stale_tokens(&mut self, key: &LedgerKey) -> Vec<Token> {
        if self.stale.is_empty() { Vec::new() } else { self.stale.remove(key).unwrap_or_default() }
    }
}

/// The previous owners to remember: those that the mark names and those of which the load found a record.
fn previous_owners(named: Vec<PreviousOwner>, seen: Vec<Token>, ours: Token, now: i64) -> Vec<PreviousOwner> {
    let mut previous_owners = named;
    let seen = seen.into_iter().map(|token| PreviousOwner { token, known_since: now });
    previous_owners.extend(seen.filter(|f| f.token < ours));
    // Of two records of one owner, the earlier time counts.
    previous_owners.sort_unstable_by_key(|f| (std::cmp::Reverse(f.token), f.known_since));
    previous_owners.dedup_by_key(|f| f.token);
    previous_owners.retain(|f| now.saturating_sub(f.known_since) <= PREVIOUS_OWNER_AGE);
    previous_owners.truncate(MAX_PREVIOUS_OWNERS);
    previous_owners
}
