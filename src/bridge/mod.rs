//! Builds a bridge from a configuration: clients, topics and routes, started under a supervisor. `run` and `demo` start
//! it; other commands use single parts. Wiring only: all decisions are made in the connected modules.

pub mod clients;
mod detect_rename;
mod repartition;
pub mod routes;
mod start;
pub mod stores;
pub mod topics;

use std::time::Duration;

pub use start::{RouteStatuses, start};

/// Timeout of each call to the Kafka cluster.
pub const KAFKA_TIMEOUT: Duration = Duration::from_secs(15);
