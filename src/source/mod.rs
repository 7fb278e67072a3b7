//! ServiceNow to Kafka: what people change in a table appears on a topic, each version once.
//!
//! [`feed`] decides, without I/O and without a clock.

pub mod change;
pub mod checkpoint;
mod deletes;
pub mod feed;
mod journal;
pub mod rows;
pub mod settings;
pub mod stamp;
pub mod window;

pub use settings::{Settings, Start};
