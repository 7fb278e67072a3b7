//! The append-only log of writes, in commit order. Tests compare it with the expected writes.
//!
//! It contains the applied writes, the writes that changed nothing, and the writes that the instance rejected while it
//! executed them (data policy, business rule, rights on a closed row, no such row). Requests that were not executed
//! (wrong credentials, throttled, connection reset before the commit) are only counted.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::table_storage::hex;
use super::time;

/// The way by which a write reached the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Rest,
    /// An edit in the user interface.
    User,
    /// A REST request whose connection ended before the commit.
    GhostWrite,
}

/// One entry of the log.
#[derive(Debug)]
pub(super) struct LogEntry {
    pub seq: u64,
    /// Unix milliseconds, by this host's clock.
    pub at_ms: i64,
    pub table: &'static str,
    pub sys_id: Option<u128>,
    pub number: Box<str>,
    pub correlation_id: Box<str>,
    pub user: Arc<str>,
    pub method: &'static str,
    pub op: &'static str,
    /// The columns and values that the client sent, without journal columns.
    pub fields: Vec<(Arc<str>, Box<str>)>,
    /// The journal columns and texts that the client sent.
    pub notes: Vec<(Arc<str>, Box<str>)>,
    pub changed: bool,
    /// Why the instance rejected the write.
    pub error: Option<Box<str>>,
    pub state_before: Box<str>,
    pub state_after: Box<str>,
    pub closed_before: bool,
    pub mod_count: u32,
    pub via: Via,
}

impl LogEntry {
    pub fn to_json(&self) -> Value {
        let fields: Map<String, Value> =
            self.fields.iter().map(|(name, value)| (name.to_string(), Value::from(&**value))).collect();
        let notes: Vec<Value> =
            self.notes.iter().map(|(element, value)| json!({"element": **element, "value": **value})).collect();
        json!({
            "seq": self.seq,
            "at_ms": self.at_ms,
            "at": time::format(self.at_ms.div_euclid(1_000)),
            "table": self.table,
            "sys_id": self.sys_id.map(hex),
            "number": &*self.number,
            "correlation_id": &*self.correlation_id,
            "user": &*self.user,
            "method": self.method,
            "op": self.op,
            "fields": fields,
            "notes": notes,
            "applied": self.error.is_none(),
            "changed": self.changed,
            "error": self.error.as_deref(),
            "state_before": &*self.state_before,
            "state_after": &*self.state_after,
            "closed_before": self.closed_before,
            "sys_mod_count": self.mod_count,
            "ghost_write": self.via == Via::GhostWrite,
            "via": match self.via { Via::Rest => "rest", Via::User => "user", Via::GhostWrite => "ghost_write" },
        })
    }
}
