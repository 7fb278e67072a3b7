//! Builds a bridge from a configuration: clients, topics and routes, started under a supervisor. `run` and `demo` start
//! it; the other commands take single parts of it. Wiring only: every decision is made in the modules it connects.

pub mod clients;
mod detect_rename;
mod repartition;
pub mod routes;
mod start;
pub mod stores;
pub mod topics;

use std::time::Duration;

pub use start::{Views, start};

/// The longest time that one call to the Kafka cluster may take.
pub const KAFKA_TIMEOUT: Duration = Duration::from_secs(15);
