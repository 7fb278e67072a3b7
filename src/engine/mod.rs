//! The delivery engine: every decision about what is written, when, and what an answer means. See `dispatcher`.

pub mod event;
pub mod mutation;
pub mod settings;

pub use event::{Content, Effect, Event, Received};
pub use settings::Settings;
