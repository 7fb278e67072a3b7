//! The canonical format: nowbridge's own JSON format of an alert event, full or short.

mod decode;

pub(super) use decode::decode;
