//! The topics that the bridge needs: what they must be like, making them, and finding out what is wrong with them.
//!
//! What a ledger acknowledges must survive the loss of a broker, or an acknowledgement proves nothing: hence the
//! demands on replicas, which only `unsafe_topics` lifts. [`judge`] is pure; [`Topics`] asks the cluster. No look-up
//! here ever makes a topic by accident.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::options::Logging;
pub use super::topic_checks::judge;
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
    /// The internal topic of a route that is re-keyed: durable, read within days.
    Rekeyed,
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

/// Milliseconds in which the sink must have read what was re-keyed: a week, as the broker keeps other topics.
pub(super) const REKEYED_RETENTION: i64 = 7 * 24 * 3_600_000;

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
        let mut settings = BTreeMap::new();
        let mut set = |name: &str, value: &str| {
            settings.insert(name.to_owned(), value.to_owned());
        };
        match spec.purpose {
            Purpose::Ledger | Purpose::Table => {
                set("cleanup.policy", "compact");
                // Compacted early and often, so that it is read in the size of what stands in it.
                set("segment.bytes", "16777216");
                set("segment.ms", "3600000");
                set("min.cleanable.dirty.ratio", "0.1");
                set("delete.retention.ms", "3600000");
            }
            Purpose::DeadLetters | Purpose::Stream => set("cleanup.policy", "delete"),
            Purpose::Rekeyed => {
                set("cleanup.policy", "delete");
                set("retention.ms", &REKEYED_RETENTION.to_string());
            }
            Purpose::Input => {}
        }
        if spec.purpose == Purpose::Ledger {
            set("message.timestamp.type", "LogAppendTime");
        }
        if is_durable(spec.purpose) && !strictness.unsafe_topics {
            set("min.insync.replicas", "2");
            set("unclean.leader.election.enable", "false");
        }
        settings.extend(spec.settings.clone());
        settings
    }

    /// Replicas that a topic of this spec is made with; -1 is the broker's default.
    pub fn creation_replication(spec: &TopicSpec, strictness: Strictness) -> i32 {
        let default = if is_durable(spec.purpose) && !strictness.unsafe_topics { 3 } else { -1 };
        spec.replication.unwrap_or(default)
    }

    /// The cluster's id, where it tells one.
    pub async fn cluster_id(&self) -> Result<Option<String>, Error> {
        let timeout = self.timeout;
        self.look(move |client| Ok(client.client().fetch_cluster_id(timeout))).await
    }

    /// Names of all topics that this user may see.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let timeout = self.timeout;
        let ask = move |client: &BaseConsumer<Logging>| {
            let all = client.client().fetch_metadata(None, timeout);
            all.map_err(|error| Error::call("can't list the topics", error))
        };
        let all = self.look(ask).await?;
        Ok(all.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Partitions of a topic; `None` where there is none. Asks for nothing else, so the embedded broker answers, too.
    pub async fn partitions(&self, name: &str) -> Result<Option<i32>, Error> {
        Ok(self.shape(name, false).await?.map(|state| state.partitions))
    }

    /// The topic as it is; `None` where there is none.
    pub async fn describe(&self, name: &str) -> Result<Option<TopicState>, Error> {
        let Some(mut state) = self.shape(name, false).await? else { return Ok(None) };
        match self.settings(name).await {
            Ok(settings) => state.settings = settings,
            Err(error) => tracing::debug!(topic = name, %error, "the broker doesn't tell the topic's settings"),
        }
        Ok(Some(state))
    }

    /// Makes those topics that are not there. Answers the names of those made.
    pub async fn create_missing(&self, specs: &[TopicSpec], strictness: Strictness) -> Result<Vec<String>, Error> {
        let mut made = Vec::new();
        for spec in specs {
            if self.shape(&spec.name, false).await?.is_some() {
                continue;
            }
            if !strictness.embedded && !self.create(spec, strictness).await? {
                continue;
            }
            self.await_leaders(&spec.name, strictness.embedded).await?;
            made.push(spec.name.clone());
        }
        Ok(made)
    }

    /// Everything that is wrong with these topics.
    pub async fn check(&self, specs: &[TopicSpec], strictness: Strictness) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for spec in specs {
            // The mock cluster doesn't answer a question for settings at all; it would cost the whole timeout.
            let state = if strictness.embedded {
                self.shape(&spec.name, false).await?
            } else {
                self.describe(&spec.name).await?
            };
            findings.extend(judge(spec, state.as_ref(), strictness));
        }
        Ok(findings)
    }

    /// True where it was made, false where somebody else was quicker.
    async fn create(&self, spec: &TopicSpec, strictness: Strictness) -> Result<bool, Error> {
        let what = || format!("can't create the topic {}", spec.name);
        let settings = Self::creation_settings(spec, strictness);
        let replication = TopicReplication::Fixed(Self::creation_replication(spec, strictness));
        let mut topic = NewTopic::new(&spec.name, spec.partitions.unwrap_or(-1), replication);
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let answer = self.admin()?.create_topics([&topic], &self.patience()).await;
        let results = answer.map_err(|error| Error::call(what(), error))?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(Error::call(what(), KafkaError::AdminOp(code))),
            None => Err(Error::Unexpected(format!("{}: the broker did not answer", what()))),
        }
    }

    /// A new topic can be written to when each partition has a leader.
    async fn await_leaders(&self, name: &str, make: bool) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        while self.shape(name, make).await?.is_none() {
            if Instant::now() > deadline {
                return Err(Error::Unexpected(format!("the topic {name} was made, but has no leaders yet")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Partitions and replicas; `None` where the topic is not there or has no leaders yet.
    async fn shape(&self, name: &str, make: bool) -> Result<Option<TopicState>, Error> {
        let (name, timeout) = (name.to_owned(), self.timeout);
        let mut config = self.options.lookup();
        config.set("allow.auto.create.topics", if make { "true" } else { "false" });
        let look = move |client: &BaseConsumer<Logging>| {
            let what = || format!("can't describe the topic {name}");
            let metadata = client.fetch_metadata(Some(&name), timeout).map_err(|error| Error::call(what(), error))?;
            let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
            match topic.error().map(RDKafkaErrorCode::from) {
                None => {}
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::LeaderNotAvailable,
                ) => return Ok(None),
                Some(code) => return Err(Error::call(what(), KafkaError::MetadataFetch(code))),
            }
            if topic.partitions().is_empty() || topic.partitions().iter().any(|partition| partition.leader() < 0) {
                return Ok(None);
            }
            let fewest = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
            let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
            Ok(Some(TopicState {
                partitions: count(topic.partitions().len()),
                replication: count(fewest.unwrap_or(0)),
                settings: BTreeMap::new(),
            }))
        };
        self.look_with(config, look).await
    }

    async fn settings(&self, name: &str) -> Result<BTreeMap<String, String>, Error> {
        let what = || format!("can't read the settings of the topic {name}");
        let resource = ResourceSpecifier::Topic(name);
        let answer = self.admin()?.describe_configs([&resource], &self.patience()).await;
        let results = answer.map_err(|error| Error::call(what(), error))?;
        let Some(result) = results.into_iter().next() else { return Err(Error::Unexpected(what())) };
        let entries = result.map_err(|code| Error::call(what(), KafkaError::AdminOp(code)))?.entries;
        Ok(entries.into_iter().filter_map(|entry| entry.value.map(|value| (entry.name, value))).collect())
    }

    fn admin(&self) -> Result<AdminClient<Logging>, Error> {
        let client = self.options.admin().create_with_context(Logging);
        client.map_err(|error| Error::call("can't make an admin client", error))
    }

    fn patience(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }

    async fn look<T: Send + 'static>(
        &self,
        what: impl FnOnce(&BaseConsumer<Logging>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.look_with(self.options.lookup(), what).await
    }

    async fn look_with<T: Send + 'static>(
        &self,
        config: rdkafka::ClientConfig,
        what: impl FnOnce(&BaseConsumer<Logging>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let blocking = move || {
            let client: BaseConsumer<Logging> =
                config.create_with_context(Logging).map_err(|error| Error::call("can't make a client", error))?;
            what(&client)
        };
        let joined = tokio::task::spawn_blocking(blocking).await;
        joined.unwrap_or_else(|error| Err(Error::Unexpected(format!("a look-up was cut short: {error}"))))
    }
}

/// Purposes whose records must survive the loss of a broker.
pub(super) fn is_durable(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Ledger | Purpose::Table | Purpose::DeadLetters | Purpose::Rekeyed)
}
