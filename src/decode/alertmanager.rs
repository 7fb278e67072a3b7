//! The webhook body of Prometheus Alertmanager.
use super::DecodeError;
use crate::model::{AlertEvent, Record};

/// What is one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// The notification group: one ticket per `groupKey`.
    #[default]
    Group,
    /// The single alert: one ticket per fingerprint.
    Alert,
}

pub(super) fn decode(_record: &Record, _by: By) -> Result<Vec<AlertEvent>, DecodeError> {
    Ok(Vec::new())
}
