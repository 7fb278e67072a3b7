//! ServiceNow to Kafka: polls tables and publishes every change as an event, each version of a row once.
//!
//! [`change_detection`] makes the decisions, without I/O and without a clock.

pub mod change;
pub mod change_detection;
pub mod checkpoint;
mod deletes;
mod journal;
pub mod ownership;
pub mod publish;
pub mod rate_limit;
pub mod rows;
pub mod run;
pub mod settings;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod timestamp;
pub mod window;

pub use ownership::{Error, OwnershipSettings, run as run_all};
pub use publish::SourceTopics;
pub use rate_limit::{Permit, PermitProvider};
pub use run::{SourceRoute, Timing};
pub use settings::{Settings, Start};
pub use status::{State, Stats, Status, StatusHandle};
