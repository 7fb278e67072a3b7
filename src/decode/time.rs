//! RFC 3339 times of events.
