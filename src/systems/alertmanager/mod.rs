//! Prometheus Alertmanager: its webhook body, version 4, as alert events.

mod decode;

pub use decode::TicketPer;
pub(super) use decode::decode;
