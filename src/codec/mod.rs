//! Bytes and back: JSON with bounds, Avro by the schemas of `schemas/`, and the records that tell of dead letters and
//! outcomes.

pub mod avro;
pub mod json;
mod letter;
mod redrive;
mod rekeyed;
mod report;
mod resync;

pub use letter::{Letter, dead_letter};
pub use redrive::{Redriven, original, position, redrive_headers, redriven, release_headers, times_redriven};
pub use rekeyed::{
    digest_headers, events_meant, grouped_headers, groups, is_digest, origin, original_timestamp, partition_for,
    rekeyed_headers, ungrouped_headers,
};
pub use report::{ReportFields, report};
pub use resync::{Resynced, is_resynced, resync_headers, resynced};

#[cfg(test)]
mod tests;
