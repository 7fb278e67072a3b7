//! The delivery engine: it decides what is written, and when, and interprets every answer. See `dispatcher`.

pub mod breaker;
pub mod budget;
pub mod claim_window;
pub mod dispatcher;
pub mod entries;
pub mod event;
pub mod field_hash;
pub mod flap_detection;
pub mod fold;
pub mod freshness;
pub mod invariants;
pub mod lane;
pub mod mutation;
pub mod partition;
pub mod plan;
pub mod priority;
pub mod request;
pub mod retry;
pub mod settings;
#[cfg(test)]
#[allow(
    dead_code,
    clippy::pedantic,
    clippy::collapsible_if,
    clippy::collapsible_match,
    reason = "a model: small counts, plain steps; parts of its script exist for hand-written traces"
)]
mod simulation;
pub mod tracker;

pub use dispatcher::Dispatcher;
pub use event::{Effect, Event, MappedRecord, RecordContent};
pub use settings::Settings;
