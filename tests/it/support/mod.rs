//! Shared by the integration tests: the broker that they run on.

pub mod kafka;
pub mod kafka_local;
