//! What the ledger records about a key: the entry (what was done), the claim (what is about to be done) and the park
//! (what was rejected). `ledger::wire` has their wire format.

use serde::{Deserialize, Serialize};

use super::{Column, EventOrder, Phase, Position, RecordOrigin, RedriveId, StateModel, Token};

/// Identifies one attempt, for all time: the owner's token and a counter of that owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// Token of the owner that made the attempt.
    #[serde(rename = "t")]
    pub token: Token,
    /// Counts the attempts of that owner in the partition.
    #[serde(rename = "n")]
    pub number: u64,
}

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.token.0, self.number)
    }
}

/// Hash of the value last written to a column.
///
/// A row value that matches neither `sent` nor `stored` was written by somebody else. For a column that the bridge has
/// not written, `sent` is the hash of the empty value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FieldHash {
    /// Hash of the value that the bridge sent.
    #[serde(rename = "s")]
    pub sent: u64,
    /// Hash of the value that the row showed right after the write, if it differed (a business rule, a blanked choice,
    /// a truncation).
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// Hash of the value that somebody else set later, and that the bridge kept.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
}

/// The state of a row in the last response that showed it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LastSeen {
    /// Raw value of the state column.
    #[serde(rename = "st")]
    pub state: String,
    /// `sys_mod_count`.
    #[serde(rename = "mc", default)]
    pub mod_count: u64,
    /// `sys_updated_by`.
    #[serde(rename = "by", default)]
    pub updated_by: String,
    /// See [`super::Row::inactive`].
    #[serde(rename = "in", default, skip_serializing_if = "is_false")]
    pub inactive: bool,
    /// When the response came, Unix milliseconds of the bridge's host.
    #[serde(rename = "at")]
    pub at: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde needs")]
fn is_false(value: &bool) -> bool {
    !value
}

/// How far a note is written that is split into several parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Position, u32)", into = "(Position, u32)")]
pub struct PartialNote {
    /// Position of the event that carries the note.
    pub position: Position,
    /// Parts that are written.
    pub parts: u32,
}

impl From<(Position, u32)> for PartialNote {
    fn from((position, parts): (Position, u32)) -> Self {
        Self { position, parts }
    }
}

impl From<PartialNote> for (Position, u32) {
    fn from(note: PartialNote) -> Self {
        (note.position, note.parts)
    }
}

/// What was done for a key (protocol rule 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Token of the owner that wrote the entry.
    #[serde(rename = "t")]
    pub token: Token,
    /// The attempt that the entry settles.
    #[serde(rename = "a")]
    pub attempt: AttemptId,
    /// sys_id of the ticket.
    #[serde(rename = "id")]
    pub sys_id: String,
    /// Number of the ticket.
    #[serde(rename = "no")]
    pub number: String,
    /// Ticket generation: how many tickets the key has had, from 1.
    #[serde(rename = "g")]
    pub generation: u32,
    /// Every event of the key up to this position is applied.
    #[serde(rename = "p")]
    pub position: Position,
    /// Progress of the note after `position`, if a long note is split and some of its parts are written.
    #[serde(rename = "pt", default, skip_serializing_if = "Option::is_none")]
    pub partial_note: Option<PartialNote>,
    /// Field hashes of the columns last written, sorted by column.
    #[serde(rename = "f")]
    pub fields: Vec<(Column, FieldHash)>,
    /// sys_ids of earlier tickets of the key.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_tickets: Vec<String>,
    /// The newest state-affecting event applied.
    #[serde(rename = "q", default, skip_serializing_if = "EventOrder::is_unknown")]
    pub order: EventOrder,
    /// When the ticket was resolved, Unix milliseconds: `occurred_at` of the resolving event, or the time at which a
    /// user resolved it. `None` if it is not resolved.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<i64>,
    /// Hashes of the last 16 native event ids.
    #[serde(rename = "ev", default, skip_serializing_if = "Vec::is_empty")]
    pub event_ids: Vec<u64>,
    /// The episode of the newest opening event, if its sender names episodes.
    #[serde(rename = "ep", default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<u64>,
    /// True if a user resolved, closed or deleted the ticket, and the alert has not been over since.
    #[serde(rename = "ue", default, skip_serializing_if = "is_false")]
    pub ended_by_user: bool,
    /// The row as last seen.
    #[serde(rename = "s")]
    pub last_seen: LastSeen,
    /// When the entry was written, Unix milliseconds of the bridge's host. Expiry counts from this time.
    #[serde(rename = "w")]
    pub written_at: i64,
}

impl Entry {
    /// The phase of the ticket as last seen.
    pub fn phase(&self, states: &StateModel) -> Phase {
        states.phase_of(&self.last_seen.state, self.last_seen.inactive)
    }

    /// Returns the hash of the value last written to a column.
    pub fn field(&self, column: &str) -> Option<FieldHash> {
        let at = self.fields.binary_search_by(|(known, _)| (**known).cmp(column)).ok()?;
        self.fields.get(at).map(|(_, value)| *value)
    }
}

/// Which write a claim announces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// Creates a ticket.
    Create {
        /// sys_ids of the key's earlier tickets: verification must not take one of them for the new ticket.
        #[serde(rename = "known")]
        known_sys_ids: Vec<String>,
    },
    /// Updates a ticket.
    Update {
        /// sys_id of the ticket.
        sys_id: String,
    },
}

/// What is about to be written; acked before the request is sent (protocol rule 6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The attempt that the claim announces.
    #[serde(rename = "a")]
    pub attempt: AttemptId,
    /// Create or update.
    #[serde(rename = "k")]
    pub kind: ClaimKind,
    /// Ticket generation after the write.
    #[serde(rename = "g")]
    pub generation: u32,
    /// First position that the write carries.
    #[serde(rename = "lo")]
    pub first_position: Position,
    /// Last position that the write carries completely: the entry's position once the write is applied.
    #[serde(rename = "hi")]
    pub last_position: Position,
    /// The entry's [`Entry::partial_note`] once the write is applied.
    #[serde(rename = "pt", default, skip_serializing_if = "Option::is_none")]
    pub partial_note: Option<PartialNote>,
    /// Field hashes of the written values, sorted by column, including the state column.
    #[serde(rename = "f")]
    pub fields: Vec<(Column, u64)>,
    /// Raw value of the state column, if the write changes it.
    #[serde(rename = "st", default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Markers of the notes that the write carries, in order.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<String>,
    /// The newest state-affecting event in the write.
    #[serde(rename = "q", default, skip_serializing_if = "EventOrder::is_unknown")]
    pub order: EventOrder,
    /// `occurred_at` of the event that resolves the ticket, Unix milliseconds; `None` if the write does not resolve it.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<i64>,
    /// Hashes of the native event ids that the write carries.
    #[serde(rename = "ev", default, skip_serializing_if = "Vec::is_empty")]
    pub event_ids: Vec<u64>,
    /// The episode of the newest opening event in the write, if its sender names episodes.
    #[serde(rename = "ep", default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<u64>,
    /// True if the events of the write end the alert, whatever the state of the ticket.
    #[serde(rename = "ov", default, skip_serializing_if = "is_false")]
    pub alert_over: bool,
    /// A lower bound of the instance's clock when the claim was made, Unix milliseconds.
    #[serde(rename = "it")]
    pub instance_time: i64,
    /// Milliseconds after sending for which the instance may still commit the write.
    #[serde(rename = "sp")]
    pub span: u64,
}

/// The watermark of a partition and its previous owners (protocol rules 10 and 17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The offset below which every record is resolved.
    #[serde(rename = "w")]
    pub watermark: i64,
    /// Previous owners, newest first. A record that one of them lands late must not count again when an entry expires,
    /// and nothing else in the ledger may name that owner any more.
    #[serde(rename = "f", default, skip_serializing_if = "Vec::is_empty")]
    pub previous_owners: Vec<PreviousOwner>,
}

impl Mark {
    /// A mark without previous owners.
    pub fn at(watermark: i64) -> Self {
        Self { watermark, previous_owners: Vec::new() }
    }
}

/// A previous owner of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousOwner {
    /// Its token.
    #[serde(rename = "t")]
    pub token: Token,
    /// When a later owner first learned of it, Unix milliseconds of that owner's host.
    #[serde(rename = "s")]
    pub known_since: i64,
}

/// Parks a key because one of its records was rejected: its later records become dead letters (protocol rule 18).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Park {
    /// Token of the owner that wrote the park.
    #[serde(rename = "t")]
    pub token: Token,
    /// Every event of the key up to this position was rejected, came after a rejected one, or was redriven. An entry
    /// that reaches this position makes the park void.
    #[serde(rename = "p")]
    pub position: Position,
    /// Position of the newest event of the key in the dead-letter topic; `None` if it is `position`.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub newest_letter: Option<Position>,
    /// The newest state-affecting event among the dead letters. A later record with an older event is as outdated as it
    /// was when it was first read.
    #[serde(rename = "q", default, skip_serializing_if = "EventOrder::is_unknown")]
    pub order: EventOrder,
    /// Hashes of the last event ids among the dead letters: a later record that repeats one of them is a repetition.
    #[serde(rename = "i", default, skip_serializing_if = "Vec::is_empty")]
    pub event_ids: Vec<u64>,
    /// The redrive run in which a dead letter of the key was rejected again.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub rejected_run: Option<RedriveId>,
    /// The redrive run under way: until its release has had its turn, no event of the source passes.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub active_run: Option<RedriveId>,
    /// True if the dead letters may not be in the topic yet. The next owner writes them again and applies none of them.
    #[serde(rename = "a", default, skip_serializing_if = "std::ops::Not::not")]
    pub announced: bool,
    /// Stable error code; empty in records of releases that did not store it.
    #[serde(rename = "c", default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// The reason, as the instance gave it.
    #[serde(rename = "why")]
    pub reason: String,
}

impl Park {
    /// Returns the stable error code, `rejected` if none is stored.
    pub fn code(&self) -> &str {
        if self.code.is_empty() { "rejected" } else { &self.code }
    }

    /// Returns the position of the newest event of the key in the dead-letter topic.
    pub fn newest_letter(&self) -> Position {
        self.newest_letter.unwrap_or(self.position)
    }

    /// Whether the park blocks events of this origin. Events of a redrive pass, except those of the run that was
    /// rejected again.
    pub fn blocks(&self, origin: RecordOrigin) -> bool {
        origin.redrive().is_none_or(|id| self.rejected_run == Some(id))
    }

    /// Whether an event at this position and of this origin has had its turn: its dead letter is in the topic, or it
    /// was applied. That holds for every event of the key up to the park's position, except those of the run under way:
    /// the park is moved past them before they are applied.
    pub fn covers(&self, at: Position, origin: RecordOrigin) -> bool {
        let under_way = origin.redrive().is_some_and(|id| self.active_run == Some(id));
        !self.announced && !under_way && at <= self.position
    }

    /// Whether a dead letter of an event at this position may be in the topic already, so that the event must not be
    /// applied.
    pub fn dead_letter_may_exist(&self, at: Position) -> bool {
        self.announced && at <= self.position
    }

    /// Whether an entry at this position makes the park void: the key was released after it was parked.
    pub fn is_void(&self, entry: Position) -> bool {
        entry >= self.position
    }

    /// Returns the park as it must be before a redriven write up to `last` is made: its position is above `last`, so
    /// that the entry of the write does not release the key. There may be newer dead letters.
    pub fn moved_past(&self, token: Token, last: Position, id: RedriveId) -> Self {
        let position = self.position.max(Position { index: u32::MAX, ..last });
        let newest_letter = Some(self.newest_letter());
        Self { token, position, newest_letter, active_run: Some(id), announced: false, ..self.clone() }
    }

    /// Whether the park is already moved past `last` for this run, so that an event of the run at `last` may be
    /// written.
    pub fn is_past(&self, last: Position, id: RedriveId) -> bool {
        self.position > last && self.active_run == Some(id)
    }

    /// Returns the park after a redrive run that did not release the key.
    pub fn after_redrive(&self, token: Token) -> Self {
        Self { token, active_run: None, announced: false, ..self.clone() }
    }
}
