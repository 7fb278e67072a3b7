//! The record of the results topic: what was done for an intent, the audit trail of a sink route.

use serde::{Deserialize, Serialize};

use crate::model::Position;

/// One applied intent; `schemas/result.avsc` is its reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportFields {
    /// Always `nowbridge-result/1`.
    pub schema: String,
    /// Name of the route.
    pub route: String,
    /// The alert's key.
    pub key: String,
    /// created, updated, noted, resolved, reopened, unchanged, skipped or verified.
    pub outcome: String,
    /// The ticket; empty where there is none.
    pub sys_id: String,
    /// Its number.
    pub number: String,
    /// `partition/offset.index` of every event that it resolved.
    pub positions: Vec<String>,
    /// Columns and values written.
    pub fields: std::collections::BTreeMap<String, String>,
    /// Notes written.
    pub notes: u64,
    /// Requests it took, looks and reads included.
    pub attempts: u32,
    /// Milliseconds from the receipt of its first record to the answer.
    pub latency_ms: u64,
    /// Differences between what was sent and what stands.
    pub warnings: Vec<String>,
    /// RFC 3339, UTC, on the bridge's clock.
    pub time: String,
}

impl ReportFields {
    /// The value of `schema`.
    pub const SCHEMA: &'static str = "nowbridge-result/1";

    /// Positions in their text form.
    pub fn positions(positions: &[Position]) -> Vec<String> {
        positions.iter().map(Position::to_string).collect()
    }
}

/// Key and value of the result's record, as JSON.
pub fn report(fields: &ReportFields) -> (Vec<u8>, Vec<u8>) {
    // A struct of strings and numbers always serialises; an empty value would at worst say nothing.
    (fields.key.clone().into_bytes(), serde_json::to_vec(fields).unwrap_or_default())
}
