//! The `header` record of a ledger partition: what its positions and entries belong to. Positions of a recreated
//! topic, or tickets of another instance, must never be taken for ours.

use serde::{Deserialize, Serialize};

/// What a ledger belongs to, as the running route sees itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id, where it tells one.
    pub cluster_id: Option<String>,
    /// The input topic.
    pub topic: String,
    /// Partitions of the input topic.
    pub partitions: i32,
    /// The ServiceNow instance: what identifies it, not merely its address.
    pub instance: String,
    /// The route.
    pub route: String,
    /// The table.
    pub table: String,
    /// How keys become correlations; changes with the rule.
    pub key_rule: String,
    /// How many times a person asked for reprocessing.
    pub reprocess: u32,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What the partition belongs to.
    #[serde(flatten)]
    pub identity: Identity,
    /// True where the ledger was lost and begun anew: it does not know every key.
    #[serde(default)]
    pub unproven: bool,
}
