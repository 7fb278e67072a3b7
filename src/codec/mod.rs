//! Bytes of what the bridge publishes and reads: JSON with a size limit, Avro with the schemas of `schemas/`, result
//! records, dead letters, and the headers of redriven, resynced and repartitioned records.

pub mod avro;
mod dead_letter;
pub mod json;
mod redrive;
mod repartitioned;
mod result;
mod resync;

pub use dead_letter::{DeadLetterDetails, dead_letter};
pub use redrive::{
    RedriveHeaders, original_position, parse_position, parse_redrive_headers, redrive_count, redrive_headers,
    release_headers,
};
pub use repartitioned::{
    group_event_headers, group_keys, grouped_headers, included_events, is_group_event, origin, original_timestamp,
    partition_for, repartitioned_headers, ungrouped_headers,
};
pub use result::{ResultRecord, encode_result};
pub use resync::{ResyncHeaders, is_resync, parse_resync_headers, resync_headers};

#[cfg(test)]
mod tests;
