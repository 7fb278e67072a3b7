//! The append-only log of writes, in commit order: what a test compares with what should have been written.
//!
//! It holds applied writes, those that changed nothing, and those that the instance refused while executing them
//! (data policy, business rule, rights on a closed row, no such row). Requests that never got so far (wrong
//! credentials, throttled, cut before the commit) are only counted.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::storage::hex;
use super::time;

/// Where a write came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Rest,
    Person,
    Ghost,
}

/// One write.
#[derive(Debug)]
pub(super) struct Logged {
    pub seq: u64,
    /// Unix milliseconds of this host's clock.
    pub at_ms: i64,
    pub table: &'static str,
    pub sys_id: Option<u128>,
    pub number: Box<str>,
    pub correlation_id: Box<str>,
    pub user: Arc<str>,
    pub method: &'static str,
    pub op: &'static str,
    /// What the client sent, journals apart.
    pub fields: Vec<(Arc<str>, Box<str>)>,
    /// Journal texts: column and text.
    pub notes: Vec<(Arc<str>, Box<str>)>,
    pub changed: bool,
    pub refused: Option<Box<str>>,
    pub state_before: Box<str>,
    pub state_after: Box<str>,
    pub closed_before: bool,
    pub mod_count: u32,
    pub via: Via,
}

impl Logged {
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
            "applied": self.refused.is_none(),
            "changed": self.changed,
            "refused": self.refused.as_deref(),
            "state_before": &*self.state_before,
            "state_after": &*self.state_after,
            "closed_before": self.closed_before,
            "sys_mod_count": self.mod_count,
            "was_ghost": self.via == Via::Ghost,
            "via": match self.via { Via::Rest => "rest", Via::Person => "person", Via::Ghost => "ghost" },
        })
    }
}
