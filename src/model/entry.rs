//! What the ledger remembers of a key: the entry (what was done), the claim (what is about to be done) and the
//! parking (what was refused). Their wire form is in `ledger/`.

use serde::{Deserialize, Serialize};

use super::{Column, Position, RecordOrigin, RedriveId, Token};

/// Names one attempt for ever: the owner's token and a counter of that owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// Token of the owner that made the attempt.
    #[serde(rename = "t")]
    pub token: Token,
    /// Counts the owner's attempts in this partition.
    #[serde(rename = "n")]
    pub number: u64,
}

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.token.0, self.number)
    }
}

/// A value that was last written to a column, as a digest.
///
/// `sent` is what we sent, `stood` what the row showed right afterwards where that differed (a business rule, a
/// blanked choice, a cut). A row value that matches neither was put there by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FieldDigest {
    /// Digest of the value that was sent.
    #[serde(rename = "s")]
    pub sent: u64,
    /// Digest of what stood in the row after it, where different.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub stood: Option<u64>,
}

/// What the last answer or read said of the row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Raw value of the state column.
    #[serde(rename = "st")]
    pub state: String,
    /// `sys_mod_count`.
    #[serde(rename = "mc", default)]
    pub mod_count: u64,
    /// `sys_updated_by`.
    #[serde(rename = "by", default)]
    pub updated_by: String,
    /// When we saw it, Unix milliseconds of our host.
    #[serde(rename = "at")]
    pub at: i64,
}

/// What was done for a key: protocol rule 6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Token of the owner that wrote it.
    #[serde(rename = "t")]
    pub token: Token,
    /// The attempt that it settles.
    #[serde(rename = "a")]
    pub attempt: AttemptId,
    /// The ticket.
    #[serde(rename = "id")]
    pub sys_id: String,
    /// The ticket's number, for people.
    #[serde(rename = "no")]
    pub number: String,
    /// How many tickets this key has had, from 1.
    #[serde(rename = "g")]
    pub generation: u32,
    /// Every event of this key up to here is applied.
    #[serde(rename = "p")]
    pub position: Position,
    /// Parts already written of the note that follows `position`, where a long note is split: (its position, parts).
    #[serde(rename = "pt", default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<(Position, u32)>,
    /// Digests of the columns last written, sorted by column.
    #[serde(rename = "f")]
    pub fields: Vec<(Column, FieldDigest)>,
    /// Earlier tickets of this key.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// `occurred_at` of the newest state-bearing event applied, Unix milliseconds.
    #[serde(rename = "o")]
    pub occurred_at: i64,
    /// `occurred_at` of the event that resolved the ticket, or the time a person did, where it is resolved.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<i64>,
    /// Digests of the last 16 native event ids.
    #[serde(rename = "ev", default, skip_serializing_if = "Vec::is_empty")]
    pub event_ids: Vec<u64>,
    /// What the last answer or read said of the row.
    #[serde(rename = "s")]
    pub seen: Seen,
    /// When the entry was made, Unix milliseconds of our host; expiry counts from here.
    #[serde(rename = "w")]
    pub written_at: i64,
}

impl Entry {
    /// What was last written to a column.
    pub fn field(&self, column: &str) -> Option<FieldDigest> {
        let at = self.fields.binary_search_by(|(known, _)| (**known).cmp(column)).ok()?;
        self.fields.get(at).map(|(_, value)| *value)
    }
}

/// Which write a claim announces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// A new ticket; the tickets already known for this key are not it.
    Create {
        /// sys_ids of this key's earlier tickets.
        known: Vec<String>,
    },
    /// A write to a ticket.
    Update {
        /// The ticket.
        sys_id: String,
    },
}

/// What is about to be written, acked before the request leaves: protocol rule 5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The attempt it announces.
    #[serde(rename = "a")]
    pub attempt: AttemptId,
    /// Create or update.
    #[serde(rename = "k")]
    pub kind: ClaimKind,
    /// The ticket's generation after the write.
    #[serde(rename = "g")]
    pub generation: u32,
    /// First position that the write carries.
    #[serde(rename = "lo")]
    pub lo: Position,
    /// Last position that the write carries in full: the entry's position if it is there.
    #[serde(rename = "hi")]
    pub hi: Position,
    /// See [`Entry::partial`]: what it will be if the write is there.
    #[serde(rename = "pt", default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<(Position, u32)>,
    /// Digests of the values, sorted by column, the state column included.
    #[serde(rename = "f")]
    pub fields: Vec<(Column, u64)>,
    /// Raw state that is written, if any.
    #[serde(rename = "st", default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Markers of the notes it carries, in order.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<String>,
    /// `occurred_at` of the newest state-bearing event in it.
    #[serde(rename = "o")]
    pub occurred_at: i64,
    /// When the event that resolves the ticket occurred, where it does.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<i64>,
    /// Native event ids it carries.
    #[serde(rename = "ev", default, skip_serializing_if = "Vec::is_empty")]
    pub event_ids: Vec<u64>,
    /// The instance's clock when the claim was made, Unix milliseconds, lower bound.
    #[serde(rename = "it")]
    pub instance_time: i64,
    /// Milliseconds after sending during which the instance may still commit the write.
    #[serde(rename = "sp")]
    pub span: u64,
}

/// How far a partition's input is done, and who owned the partition before (protocol rules 7 and 15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Every offset below is done.
    #[serde(rename = "w")]
    pub watermark: i64,
    /// Former owners, newest first. What one of them lands late must not come to light when an entry is forgotten, and
    /// nothing else in the ledger may tell of them any more.
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<PreviousOwner>,
}

impl Mark {
    /// A mark that names no former owner.
    pub fn at(watermark: i64) -> Self {
        Self { watermark, former: Vec::new() }
    }
}

/// A former owner of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousOwner {
    /// Its token.
    #[serde(rename = "t")]
    pub token: Token,
    /// When a successor first knew of it, Unix milliseconds of that successor's host.
    #[serde(rename = "s")]
    pub since: i64,
}

/// A key whose record was refused: later records are dead-lettered behind it (protocol rule 16).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Park {
    /// Token of the owner that parked it.
    #[serde(rename = "t")]
    pub token: Token,
    /// Every event of this key up to here is refused, lies behind a refused one, or was redriven. An entry that goes
    /// beyond it makes the parking void.
    #[serde(rename = "p")]
    pub position: Position,
    /// The newest event of this key among the dead letters.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Position>,
    /// `occurred_at` of the newest state-bearing event among them, Unix milliseconds: what is older, and comes later, is as
    /// old as it was when it was read first.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<i64>,
    /// The ids of the last events among them: what repeats one, and comes later, is as known as it was then.
    #[serde(rename = "i", default, skip_serializing_if = "Vec::is_empty")]
    pub event_ids: Vec<u64>,
    /// The redrive in which a letter of this key was refused again.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<RedriveId>,
    /// The redrive that is under way: until its release has had its turn nothing of the source passes.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub redriving: Option<RedriveId>,
    /// The dead letters may not stand yet: whoever takes over writes them again, and tries nothing of them.
    #[serde(rename = "a", default, skip_serializing_if = "std::ops::Not::not")]
    pub announced: bool,
    /// Why, as a stable code; empty in records of releases that did not keep it.
    #[serde(rename = "c", default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// Why, in the instance's words.
    #[serde(rename = "why")]
    pub reason: String,
}

impl Park {
    /// Why, as a stable code.
    pub fn code(&self) -> &str {
        if self.code.is_empty() { "rejected" } else { &self.code }
    }

    /// The newest event of this key among the dead letters.
    pub fn newest(&self) -> Position {
        self.newest.unwrap_or(self.position)
    }

    /// Whether it holds events of this origin back: those of a redrive pass, unless it is the one that was refused again.
    pub fn bars(&self, origin: RecordOrigin) -> bool {
        origin.redrive().is_none_or(|id| self.failed == Some(id))
    }

    /// Whether an event here, of such an origin, has had its turn: its dead letter stands, or it was applied. All of the
    /// key have up to here but those of the redrive under way, past which the parking is carried before they are applied.
    pub fn covers(&self, at: Position, origin: RecordOrigin) -> bool {
        let under_way = origin.redrive().is_some_and(|id| self.redriving == Some(id));
        !self.announced && !under_way && at <= self.position
    }

    /// Whether a dead letter of an event here may stand already, so that it must not be tried.
    pub fn may_have_buried(&self, at: Position) -> bool {
        self.announced && at <= self.position
    }

    /// Whether an entry at this position makes it void: the key was released after it.
    pub fn is_void(&self, entry: Position) -> bool {
        entry >= self.position
    }

    /// The same parking once a redriven write up to `hi` is about to be made: an entry that gets as far as that does not
    /// release the key, for newer letters may lie behind it.
    pub fn passed(&self, token: Token, hi: Position, id: RedriveId) -> Self {
        let position = self.position.max(Position { index: u32::MAX, ..hi });
        Self { token, position, newest: Some(self.newest()), redriving: Some(id), announced: false, ..self.clone() }
    }

    /// Whether the parking stands so already that an event of this run at `hi` may be written.
    pub fn has_passed(&self, hi: Position, id: RedriveId) -> bool {
        self.position > hi && self.redriving == Some(id)
    }

    /// The same parking after a run that did not release the key.
    pub fn after_redrive(&self, token: Token) -> Self {
        Self { token, redriving: None, announced: false, ..self.clone() }
    }
}
