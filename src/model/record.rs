//! A Kafka record that we own, bytes untouched.

use std::sync::Arc;

/// One header of a record. Kafka allows duplicates and null values; both are kept.
pub type Header = (String, Option<Vec<u8>>);

/// A Kafka record with everything a dead letter must be able to give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Topic it was read from.
    pub topic: Arc<str>,
    /// Partition it was read from.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Key bytes; `None` where the record has no key.
    pub key: Option<Vec<u8>>,
    /// Value bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// All headers in order.
    pub headers: Vec<Header>,
    /// Record timestamp in Unix milliseconds, where the broker gave one.
    pub timestamp: Option<i64>,
}

impl Record {
    /// The last header of that name, as text, if it is valid UTF-8. Names compare without regard to ASCII case,
    /// because HTTP headers travel as record headers.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .rev()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .and_then(|(_, v)| v.as_deref())
            .and_then(|v| std::str::from_utf8(v).ok())
    }

    /// Bytes this record holds in memory, roughly: key, value and headers.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + self.headers.iter().map(|(n, v)| n.len() + v.as_ref().map_or(0, Vec::len)).sum::<usize>()
    }
}
