//! `nowbridge check`: whether Kafka and the instances are as the bridge needs them.
//!
//! Every check has a stable id, an outcome and, where it is not well, what to do. Nothing is repeated: an instance that
//! refuses the credentials is asked no more, because five refusals lock an account. Nothing is written either, except
//! by the probe of [`Options::write_probe`], which makes one ticket and resolves it. What the checks can't see is said
//! in their detail: a pass is what was observed, no more.

mod choices;
mod cluster;
mod events;
mod greeting;
mod instance;
mod journal;
mod probe;
mod report;
mod rounds;
mod staging;
mod table;

use std::time::Duration;

use crate::config::{Config, Instance};
use crate::kafka::KafkaOptions;
use crate::kafka::topics::{Strictness, TopicSpec};
use crate::servicenow::Client;

pub use greeting::{Greeting, greet, instance_date};
pub use instance::write_by;
pub use report::{Check, Outcome, Report};

/// What is checked, and with which clients. The clients are made by whoever makes those of `run`, so that the check
/// sees what `run` would see.
pub struct Subject<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// How to reach the cluster.
    pub kafka: KafkaOptions,
    /// Makes a client of an instance for a table, given the table's state column; or says why it can't.
    pub client: &'a (dyn Fn(&Instance, &str, &str) -> Result<Client, String> + Sync),
    /// The topics that the configuration needs, inputs included, given the partitions of each sink's input topic in
    /// the order of the sinks.
    pub topics: &'a (dyn Fn(&[i32]) -> Vec<TopicSpec> + Sync),
    /// How strict topics are judged.
    pub strictness: Strictness,
    /// Choices of the person who checks.
    pub options: Options,
}

/// Choices of the person who checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Make a test ticket in each sink's table, note on it and resolve it. Without this, writing is probed by an
    /// update of a row that does not exist, which proves the API's gate and not the table's own rules.
    pub write_probe: bool,
    /// Longest wait for one answer of Kafka.
    pub kafka_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { write_probe: false, kafka_timeout: Duration::from_secs(10) }
    }
}

/// What happens while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// This is being looked at.
    Looking(&'a str),
    /// This is done.
    Done(&'a Check),
}

/// Hears of progress.
pub type Listener<'a> = &'a mut (dyn FnMut(Progress<'_>) + Send);

/// Checks everything. Never fails: what goes wrong stands in the report.
pub async fn check(subject: &Subject<'_>, progress: Listener<'_>) -> Report {
    let mut rounds = rounds::Rounds::new(progress);
    cluster::check(&mut rounds, subject).await;
    for instance in subject.config.instances.values() {
        instance::check(&mut rounds, subject, instance).await;
    }
    rounds.report
}

/// Checks the instances only.
pub async fn check_instances(subject: &Subject<'_>, progress: Listener<'_>) -> Report {
    let mut rounds = rounds::Rounds::new(progress);
    for instance in subject.config.instances.values() {
        instance::check(&mut rounds, subject, instance).await;
    }
    rounds.report
}

#[cfg(test)]
mod tests;
