//! The compiled mapping of a sink route.

use crate::model::{AlertEvent, Intent, Position};

use super::{Problem, Rules};

/// An event could not be mapped.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {message}")]
pub struct MappingError {
    /// Stable code for dead letters.
    pub code: &'static str,
    /// Which rule, as path below the route: `fields.short_description`.
    pub at: String,
    /// What went wrong and what to do.
    pub message: String,
}

/// A route's rules, compiled. Cheap to share; mapping takes `&self`.
#[derive(Debug)]
pub struct SinkMapping {
    rules: Rules,
}

impl SinkMapping {
    /// Compiles rules.
    ///
    /// # Errors
    /// Every problem found, not only the first.
    pub fn compile(rules: Rules) -> Result<Self, Vec<Problem>> {
        Ok(Self { rules })
    }

    /// What `event` wants written; `None` where a rule leaves it out.
    ///
    /// # Errors
    /// A template failed on this event, such as one that prints a label the event lacks.
    pub fn map(&self, event: &AlertEvent, position: Position) -> Result<Option<Intent>, MappingError> {
        let _ = (event, position, &self.rules);
        Ok(None)
    }
}
