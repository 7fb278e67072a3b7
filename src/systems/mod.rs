//! From the bytes of a record to alert events.
//!
//! One decoder per format. A decoder never panics whatever the bytes, reads no clock, and gives one clear error for
//! a record that it can't read: what, where in the body, and what to do. What a rule of the format leaves out (a test
//! event) is left out of the list; tombstones never come here.

mod alertmanager;
mod canonical;
mod json;
mod key;
mod time;
mod words;

use crate::model::{AlertEvent, Record};

pub use alertmanager::By;

/// Bytes of the largest record value that is read: above the broker's default `message.max.bytes` and far below
/// what would hurt.
pub const MAX_BODY: usize = 8 << 20;

/// Alert events in one record, at most.
pub const MAX_EVENTS: usize = 10_000;

/// Characters of any text taken from an event.
pub const MAX_TEXT: usize = 64 << 10;

/// Labels of one alert.
pub const MAX_LABELS: usize = 1_000;

/// Bytes of the longest alert key.
pub const MAX_KEY: usize = 1_024;

/// A record that can never be read as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct DecodeError {
    /// Stable code for dead letters: `undecodable`, `missing_key`, `unknown_action`, `oversized`, `key_mismatch`.
    pub code: &'static str,
    /// Where in the body, as JSON path from `$`, or `key` for the record's key.
    pub at: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Reads the records of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoder {
    /// The canonical alert event as JSON, full or short form.
    Canonical,
    /// The webhook body of Prometheus Alertmanager, version 4.
    Alertmanager(By),
}

impl Decoder {
    /// The alert events of a record, in order; their index in the list is the `index` of their position.
    ///
    /// # Errors
    /// The record can't be read; all of it is refused.
    pub fn decode(&self, record: &Record) -> Result<Vec<AlertEvent>, DecodeError> {
        match self {
            Self::Canonical => canonical::decode(record),
            Self::Alertmanager(by) => alertmanager::decode(record, *by),
        }
    }

    /// Checks that every later record of these alerts will come by the same partition, on which the order per key
    /// rests: with more than one partition the record's key must be the alert's key, unless the user vouches
    /// (`copartitioned`).
    ///
    /// # Errors
    /// `missing_key` or `key_mismatch`, with what to do.
    pub fn check_key(
        &self,
        record: &Record,
        events: &[AlertEvent],
        partitions: usize,
        copartitioned: bool,
    ) -> Result<(), DecodeError> {
        if partitions <= 1 || copartitioned { Ok(()) } else { key::check(record, events) }
    }
}

#[cfg(test)]
mod tests;
