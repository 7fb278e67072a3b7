//! The canonical alert event as JSON.
use super::DecodeError;
use crate::model::{AlertEvent, Record};

pub(super) fn decode(_record: &Record) -> Result<Vec<AlertEvent>, DecodeError> {
    Ok(Vec::new())
}
