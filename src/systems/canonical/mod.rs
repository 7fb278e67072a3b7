//! The canonical form: nowbridge's own JSON form of an alert event, full or short.

mod decode;

pub(super) use decode::decode;
