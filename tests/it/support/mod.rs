//! What the integration tests stand on.

pub mod kafka;
pub mod kafka_local;
