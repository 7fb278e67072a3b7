//! Infrastructure of the process: clocks, named tasks that stop together, logging, metrics, error chains, and the
//! failpoints of the crash tests. It decides nothing about delivery.

pub mod clock;
pub(crate) mod error_chain;
pub(crate) mod failpoint;
pub mod logging;
pub mod metrics;
pub mod supervision;
