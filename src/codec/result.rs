//! Records of the results topic: one per applied fold, the audit trail of a sink route.

use serde::{Deserialize, Serialize};

use crate::model::Position;

/// A result; `schemas/result.avsc` is its reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRecord {
    /// Always `nowbridge-result/1`.
    pub schema: String,
    pub route: String,
    /// The alert's key.
    pub key: String,
    /// created, updated, noted, resolved, reopened, unchanged, skipped or verified.
    pub outcome: String,
    /// The ticket; empty if there is none.
    pub sys_id: String,
    /// The ticket's number.
    pub number: String,
    /// `partition/offset.index` of every event that is resolved by it.
    pub positions: Vec<String>,
    /// Values written, by column.
    pub fields: std::collections::BTreeMap<String, String>,
    /// Number of notes written.
    pub notes: u64,
    /// Number of requests, reads and verifications included.
    pub attempts: u32,
    /// Milliseconds from the receipt of its first record to the response.
    pub latency_ms: u64,
    /// Columns whose value in the record differs from the write.
    pub warnings: Vec<String>,
    /// RFC 3339, UTC, by the bridge's clock.
    pub time: String,
}

impl ResultRecord {
    /// The value of `schema`.
    pub const SCHEMA: &'static str = "nowbridge-result/1";

    /// Formats positions.
    pub fn format_positions(positions: &[Position]) -> Vec<String> {
        positions.iter().map(Position::to_string).collect()
    }
}

/// Encodes a result: key, and value as JSON.
pub fn encode_result(fields: &ResultRecord) -> (Vec<u8>, Vec<u8>) {
    // A struct of strings and numbers can always be serialized; otherwise the value would be empty.
    (fields.key.clone().into_bytes(), serde_json::to_vec(fields).unwrap_or_default())
}
