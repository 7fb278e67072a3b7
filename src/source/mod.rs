//! ServiceNow to Kafka: what people change in a table appears on a topic, each version once.
//!
//! [`feed`] decides, without I/O and without a clock.

pub mod change;
pub mod checkpoint;
mod deletes;
pub mod feed;
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

pub use ownership::{Error, Sharing, run as run_all};
pub use publish::SourceTopics;
pub use rate_limit::{Gate, Permit};
pub use run::{SourceRoute, Timing};
pub use settings::{Settings, Start};
pub use status::{State, Stats, Status, StatusHandle};
