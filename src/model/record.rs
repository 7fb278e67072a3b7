//! An owned Kafka record; its bytes are unchanged.

use std::sync::Arc;

/// One header of a record. Kafka allows duplicate names and null values; both are kept.
pub type Header = (String, Option<Vec<u8>>);

/// A Kafka record with everything that a dead letter must preserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic that it was read from.
    pub topic: Arc<str>,
    /// The partition that it was read from.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Key bytes; `None` if the record has no key.
    pub key: Option<Vec<u8>>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// All headers in order.
    pub headers: Vec<Header>,
    /// Record timestamp in Unix milliseconds, if the broker gave one.
    pub timestamp: Option<i64>,
}

impl Record {
    /// Returns the last header of that name as text, if it is valid UTF-8. Names are compared without ASCII case,
    /// because HTTP headers are passed on as record headers.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .rev()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .and_then(|(_, v)| v.as_deref())
            .and_then(|v| std::str::from_utf8(v).ok())
    }

    /// Returns the approximate size of the record in memory, in bytes: key, value and headers.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + self.headers.iter().map(|(n, v)| n.len() + v.as_ref().map_or(0, Vec::len)).sum::<usize>()
    }
}
