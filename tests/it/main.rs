//! Integration tests, all in one binary: they share one broker, and link once.

#![expect(clippy::expect_used, reason = "a test may stop at what it can't do")]
#![expect(clippy::print_stdout, reason = "a test of faults prints how many there were")]

mod crash;
mod docs;
mod kafka;
mod repartition;
mod servicenow;
mod sink;
mod source;
mod support;
mod tls;
