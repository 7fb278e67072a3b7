//! Prometheus Alertmanager: its webhook body, version 4, as alert events.

mod decode;

pub use decode::By;
pub(super) use decode::decode;
