//! Integration tests, all in one binary: they share one broker, and link once.

mod docs;
mod kafka;
mod servicenow;
mod sink;
mod source;
mod support;
