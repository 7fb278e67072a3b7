//! Where a record stands, and who may work on it.

use serde::{Deserialize, Serialize};

/// The place of one alert event in a route's input topic.
///
/// A route reads exactly one topic, so the topic is not repeated here. A record may carry several alert events
/// (an Alertmanager body does), hence `index`. The order of positions is the order of events within a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Partition of the route's input topic.
    pub partition: i32,
    /// Offset of the record in that partition.
    pub offset: i64,
    /// Index of the alert event within the record, from 0.
    pub index: u32,
}

impl Position {
    /// The position of the `index`th event of the record at `offset`.
    pub fn new(partition: i32, offset: i64, index: u32) -> Self {
        Self { partition, offset, index }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}.{}", self.partition, self.offset, self.index)
    }
}

/// Counts assignments of one partition to this member; work stamped with an older epoch is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Whose writing counts in a ledger partition: the offset of the owner's own `owner` record, so tokens only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub i64);
