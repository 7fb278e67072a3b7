//! How a record of the input comes to be there: from its source, or from the dead letters, to be tried again, or from a
//! resync, for its values only.
//!
//! A redrive puts the dead letters of a key back into the partition they came from, in their order, and behind them a
//! record that releases the key. Headers tell them from the source's own records; `codec` writes and reads those.

use serde::{Deserialize, Serialize};

use super::Position;

/// Names one run of a redrive. A key whose letter is refused again in a run lets nothing more of that run through.
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

/// Where events come from. Only events of one origin are folded into one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordOrigin {
    /// The source published them.
    #[default]
    Source,
    /// They were dead letters.
    Redrive(RedriveId),
    /// No event: the end of a redrive of this key. The key is released where no dead letter of it is newer than this
    /// position, and none of the run was refused again.
    Release(RedriveId, Position),
    /// A person wants the values of an event that was applied before written as the mapping makes them now. It counts only
    /// where nothing of the key has been applied since: where its entry stands at this position still.
    Resync(Position),
}

impl RecordOrigin {
    /// The run that it belongs to.
    pub fn redrive(self) -> Option<RedriveId> {
        match self {
            Self::Source | Self::Resync(_) => None,
            Self::Redrive(id) | Self::Release(id, _) => Some(id),
        }
    }

    /// Whether events of the other origin may be folded with events of this one.
    pub fn folds_with(self, other: Self) -> bool {
        self == other && !matches!(self, Self::Release(..))
    }
}
