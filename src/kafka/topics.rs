//! The topics that the bridge needs: what they must be like, making them, and finding out what is wrong with them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Error, KafkaOptions};

/// What a topic is for; decides which settings it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A route's input: only its partition count matters.
    Input,
    /// A ledger: compacted, durable, stamped by the broker.
    Ledger,
    /// Rows, checkpoints: compacted and durable.
    Table,
    /// Dead letters: durable, never compacted.
    DeadLetters,
    /// Results, changes, signals.
    Stream,
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Partitions; `None`: any number (at creation the broker's default).
    pub partitions: Option<i32>,
    /// Replicas at creation; `None`: the broker's default.
    pub replication: Option<i32>,
    /// Further settings at creation, which win over the purpose's own.
    pub settings: BTreeMap<String, String>,
}

/// What surrounds the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strictness {
    /// `unsafe_topics`: one broker will do (demo, tests).
    pub unsafe_topics: bool,
    /// librdkafka's mock cluster: no CreateTopics, no DescribeConfigs, no compaction.
    pub embedded: bool,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicState {
    /// Partitions.
    pub partitions: i32,
    /// Fewest replicas of any partition.
    pub replication: i32,
    /// Its settings; empty where the broker does not tell them.
    pub settings: BTreeMap<String, String>,
}

/// Something wrong with a topic, in plain words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic.
    pub topic: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
    /// True: the bridge must not start. False: a warning.
    pub fatal: bool,
}

impl TopicSpec {
    /// A topic of this purpose, all else by default.
    pub fn new(name: impl Into<String>, purpose: Purpose) -> Self {
        Self { name: name.into(), purpose, partitions: None, replication: None, settings: BTreeMap::new() }
    }

    /// With so many partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// With so many replicas at creation.
    #[must_use]
    pub fn replication(mut self, replication: i32) -> Self {
        self.replication = Some(replication);
        self
    }
}

/// Describes and makes topics.
pub struct Topics {
    options: KafkaOptions,
    timeout: Duration,
}

impl Topics {
    /// Each call takes at most `timeout`, roughly.
    pub fn new(options: &KafkaOptions, timeout: Duration) -> Self {
        Self { options: options.clone(), timeout }
    }

    /// The settings that a topic of this spec is made with.
    pub fn creation_settings(spec: &TopicSpec, strictness: Strictness) -> BTreeMap<String, String> {
        let _ = strictness;
        spec.settings.clone()
    }

    /// The cluster's id, where it tells one.
    pub async fn cluster_id(&self) -> Result<Option<String>, Error> {
        Err(Error::Unexpected("not built yet".into()))
    }

    /// The topic as it is; `None` where there is none.
    pub async fn describe(&self, name: &str) -> Result<Option<TopicState>, Error> {
        let _ = (name, &self.options, self.timeout);
        Err(Error::Unexpected("not built yet".into()))
    }

    /// Makes those topics that are not there. Answers the names of those made.
    pub async fn create_missing(&self, specs: &[TopicSpec], strictness: Strictness) -> Result<Vec<String>, Error> {
        let _ = (specs, strictness);
        Err(Error::Unexpected("not built yet".into()))
    }

    /// Everything that is wrong with these topics.
    pub async fn check(&self, specs: &[TopicSpec], strictness: Strictness) -> Result<Vec<Finding>, Error> {
        let _ = (specs, strictness);
        Err(Error::Unexpected("not built yet".into()))
    }
}

/// What is wrong with one topic.
pub fn judge(spec: &TopicSpec, state: Option<&TopicState>, strictness: Strictness) -> Vec<Finding> {
    let _ = (spec, state, strictness);
    Vec::new()
}
