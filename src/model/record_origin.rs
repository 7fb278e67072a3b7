//! Where a record of the input comes from: its source, the dead letters (a redrive), or a resync.
//!
//! A redrive puts the dead letters of a key back into the partition that they came from, in their order, followed by a
//! record that releases the key. Headers distinguish them from the source's own records; `codec` writes and reads the
//! headers.

use serde::{Deserialize, Serialize};

use super::Position;

/// Identifies one run of a redrive. If a dead letter of a key is rejected again in a run, nothing more of that run
/// passes for this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedriveId(pub u64);

impl std::fmt::Display for RedriveId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for RedriveId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// Where the events of a record come from. Only events of the same origin are folded into one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordOrigin {
    /// The source published them.
    #[default]
    Source,
    /// They are dead letters that a redrive put back.
    Redrive(RedriveId),
    /// Not an event: the end of a redrive of the key. It releases the key if no dead letter of the key is newer than
    /// the position and no event of the run was rejected again.
    Release(RedriveId, Position),
    /// An operator asked to write the values of an already applied event as the mapping computes them now. The event
    /// counts only if nothing of the key was applied since, that is, if the key's entry is still at this position.
    Resync(Position),
}

impl RecordOrigin {
    /// Returns the redrive run that the record belongs to.
    pub fn redrive(self) -> Option<RedriveId> {
        match self {
            Self::Source | Self::Resync(_) => None,
            Self::Redrive(id) | Self::Release(id, _) => Some(id),
        }
    }

    /// Whether events of `other` may be folded with events of this origin.
    pub fn folds_with(self, other: Self) -> bool {
        self == other && !matches!(self, Self::Release(..))
    }
}
