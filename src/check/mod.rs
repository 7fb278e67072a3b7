//! `nowbridge check`: verifies that Kafka and the ServiceNow instances meet the bridge's requirements.
//!
//! Every check has a stable id, an outcome and, unless it passed, a remedy. Checks are never retried: an instance that
//! rejects the credentials gets no further requests, because five rejections lock an account. Checks write nothing,
//! except for the probe of [`Options::write_probe`], which creates one ticket and resolves it. A check that passed
//! states only what was observed; the detail names what it cannot see.

mod choices;
mod cluster;
mod events;
mod instance;
mod journal;
mod login;
mod probe;
mod report;
mod run;
mod staging;
mod table;

use std::time::Duration;

use crate::config::{Config, Instance};
use crate::kafka::KafkaOptions;
use crate::kafka::topics::{Strictness, TopicSpec};
use crate::servicenow::Client;

pub use instance::apply_write_method;
pub use login::{Login, instance_date, log_in};
pub use report::{Check, Outcome, Report};

/// What to check, and with which clients. The caller creates the clients as `run` does, so that the checks see what
/// `run` would see.
pub struct CheckContext<'a> {
    pub config: &'a Config,
    /// The connection to the cluster.
    pub kafka: KafkaOptions,
    /// Creates a client of an instance for a table and its state column. An error is the reason.
    pub client: &'a (dyn Fn(&Instance, &str, &str) -> Result<Client, String> + Sync),
    /// The topics that the configuration needs, inputs included, given the partition counts of the sinks' input topics
    /// in the order of the sinks.
    pub topics: &'a (dyn Fn(&[i32]) -> Vec<TopicSpec> + Sync),
    /// How strictly topics are checked.
    pub strictness: Strictness,
    pub options: Options,
}

/// The options of `nowbridge check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Create a test ticket in each sink's table, add a note and resolve it. Without this, writing is tested by an
    /// update of a record that does not exist, which tests the API's access rules but not the table's own.
    pub write_probe: bool,
    /// Timeout of one request to Kafka.
    pub kafka_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { write_probe: false, kafka_timeout: Duration::from_secs(10) }
    }
}

/// The progress of the checks.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A subject is being checked; its name for display.
    Started(&'a str),
    /// A check is complete.
    Finished(&'a Check),
}

/// Is called with the progress of the checks.
pub type ProgressListener<'a> = &'a mut (dyn FnMut(Progress<'_>) + Send);

/// Runs all checks. Never fails: failures are part of the report.
pub async fn check(context: &CheckContext<'_>, progress: ProgressListener<'_>) -> Report {
    let mut run = run::CheckRun::new(progress);
    cluster::check(&mut run, context).await;
    for instance in context.config.instances.values() {
        instance::check(&mut run, context, instance).await;
    }
    run.report
}

/// Runs the checks of the instances only.
pub async fn check_instances(context: &CheckContext<'_>, progress: ProgressListener<'_>) -> Report {
    let mut run = run::CheckRun::new(progress);
    for instance in context.config.instances.values() {
        instance::check(&mut run, context, instance).await;
    }
    run.report
}

#[cfg(test)]
mod tests;
