//! Decodes the bytes of a record into alert events.
//!
//! There is one decoder per format. A decoder never panics on any input and reads no clock. For a record that it can't
//! decode, it returns one error with problem, path in the body and remedy. Events that the format excludes (test
//! events) are skipped. Tombstones are not passed to a decoder.

mod alertmanager;
mod canonical;
mod json;
mod key;
mod names;
mod time;

use crate::model::{AlertEvent, Record};

pub use alertmanager::TicketPer;

/// Size limit of a record value, bytes: above the broker's default `message.max.bytes`, and far below a harmful size.
pub const MAX_BODY: usize = 8 << 20;

/// Maximum number of alert events in one record.
pub const MAX_EVENTS: usize = 10_000;

/// Maximum number of characters of a text of an event; longer ones are truncated.
pub const MAX_TEXT: usize = 64 << 10;

/// Maximum number of labels of one alert.
pub const MAX_LABELS: usize = 1_000;

/// Maximum number of bytes of an alert key.
pub const MAX_KEY: usize = 1_024;

/// A record that can't be decoded, now or later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DecodeError {
    /// Stable code for dead letters: `undecodable`, `missing_key`, `unknown_action`, `oversized`, `key_mismatch`.
    pub code: &'static str,
    /// JSON path in the body, from `$`; `key` for the record's key.
    pub path: String,
    /// The problem and the remedy.
    pub message: String,
}

/// The format of a topic's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoder {
    /// The canonical alert event as JSON, full or short form.
    Canonical,
    /// The webhook body of Prometheus Alertmanager, version 4.
    Alertmanager(TicketPer),
}

impl Decoder {
    /// Decodes the alert events of a record, in order. Their index in the list is the `index` of their position.
    ///
    /// # Errors
    /// The record, or any of its events, can't be decoded.
    pub fn decode(&self, record: &Record) -> Result<Vec<AlertEvent>, DecodeError> {
        match self {
            Self::Canonical => canonical::decode(record),
            Self::Alertmanager(ticket_per) => alertmanager::decode(record, *ticket_per),
        }
    }

    /// Checks that all records of these alerts are in the same partition, on which the order per key depends: if the
    /// topic has more than one partition, the record's key must equal the alert's key, unless the user guarantees it
    /// (`keyed_by_alert`).
    ///
    /// # Errors
    /// `missing_key` or `key_mismatch`, with a remedy.
    pub fn check_key(
        &self,
        record: &Record,
        events: &[AlertEvent],
        partitions: usize,
        keyed_by_alert: bool,
    ) -> Result<(), DecodeError> {
        if partitions <= 1 || keyed_by_alert { Ok(()) } else { key::check(record, events) }
    }
}

#[cfg(test)]
mod tests;
