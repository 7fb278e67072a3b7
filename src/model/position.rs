//! Positions of alert events, and the numbers that say which owner may work on them.

use serde::{Deserialize, Serialize};

/// The position of one alert event in a route's input topic.
///
/// A route reads exactly one topic, so a position does not name it. One record can contain several alert events (an
/// Alertmanager body does), hence `index`. Positions are ordered as the events of a partition are.
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
    /// The position of event `index` of the record at `offset`.
    pub fn new(partition: i32, offset: i64, index: u32) -> Self {
        Self { partition, offset, index }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}.{}", self.partition, self.offset, self.index)
    }
}

/// Counts the assignments of a partition to this member. Work of an older epoch is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// Identifies an ownership of a ledger partition: the offset of the owner's own `owner` record, so tokens only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub i64);
