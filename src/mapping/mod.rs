//! From an alert event to an intent: which columns get which values, what is noted, what the event does to the
//! ticket's life, and how urgent it is.
//!
//! Rules are compiled once, when the configuration is loaded; every template error is reported then. Mapping an
//! event is pure and total: the same event and rules always give the same intent, or an error that tells which
//! column failed. The state column and journal columns are never among the fields: the engine writes those.

mod correlation;
mod digest;
mod group_by;
mod record;
mod rules;
mod scope;
mod sink;
mod template;

pub use correlation::{CORRELATION_LENGTH, KEY_RULE, correlation};
pub use digest::event_id_digest;
pub use group_by::{GroupBy, group_name};
pub use record::{RecordMapping, map_record};
pub use rules::{ActionRule, Problem, Rules, Weight, action_name, action_names};
pub use sink::{MappingError, SinkMapping, matches};

#[cfg(test)]
mod tests;
