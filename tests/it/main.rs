//! Integration tests, all in one binary: they share one broker, and are linked once.

#![expect(clippy::expect_used, reason = "a test fails by a panic")]
#![expect(clippy::print_stdout, reason = "tests with faults print how many occurred")]

mod crash;
mod docs;
mod kafka;
mod readme;
mod repartition;
mod servicenow;
mod sink;
mod source;
mod support;
mod tls;
