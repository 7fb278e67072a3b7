//! Maps an alert event to an intent: the values of columns, the work note, the action and the priority.
//!
//! Rules are compiled once, when the configuration is loaded, and all template errors are reported then. Mapping an
//! event is pure and total: the same event and rules always return the same intent, or an error that names the column.
//! Fields never include the state column and the journal columns: the engine writes those.

mod context;
mod correlation;
mod event_id;
mod group_by;
mod record;
mod rules;
mod sink;
mod template;

pub use correlation::{CORRELATION_LENGTH, KEY_RULE, correlation};
pub use event_id::event_id_hash;
pub use group_by::{GroupBy, group_name};
pub use record::{RecordMapping, map_record};
pub use rules::{ActionRule, RuleError, Rules, SeverityRule, action_name, action_names};
pub use sink::{MappingError, SinkMapping, key_matches};

#[cfg(test)]
mod tests;
