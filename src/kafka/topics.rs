//! The topics of the bridge: their specifications, their creation, and checks of their settings.
//!
//! Acknowledged records of a ledger must survive the loss of a broker. Hence the requirements for replication, which
//! only `unsafe_topics` disables. [`check_topic`] is pure; [`Topics`] queries the cluster. No look-up creates a topic
//! by accident.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::options::Logging;
pub use super::topic_checks::check_topic;
use super::{Error, KafkaOptions};

/// The purpose of a topic, which determines its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The input of a route: only its number of partitions matters.
    Input,
    /// A ledger: compacted, durable, `LogAppendTime`.
    Ledger,
    /// Rows, checkpoints, groups, redrive markers: compacted and durable.
    Table,
    /// Dead letters: durable, not compacted.
    DeadLetters,
    /// Internal topics of a route with `repartition` or `grouping`: durable, retained for days.
    Repartitioned,
    /// Results, changes, signals.
    Stream,
}

/// The specification of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub purpose: Purpose,
    /// `None`: any number (at creation the broker's default).
    pub partitions: Option<i32>,
    /// Replication factor at creation; `None`: 3 for durable topics, unless `unsafe_topics`; else the broker's default.
    pub replication: Option<i32>,
    /// Further settings at creation, which override those of the purpose.
    pub settings: BTreeMap<String, String>,
}

/// How long repartitioned records are retained, so how long the sink may take to read them, in milliseconds. A week is
/// also the broker's default.
pub(super) const REPARTITIONED_RETENTION_MS: i64 = 7 * 24 * 3_600_000;

/// How strict the checks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strictness {
    /// The setting `unsafe_topics`: one broker is enough (demo, tests).
    pub unsafe_topics: bool,
    /// librdkafka's mock cluster, which supports neither CreateTopics nor DescribeConfigs nor compaction.
    pub embedded: bool,
}

/// The state of a topic in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicState {
    pub partitions: i32,
    /// The lowest number of replicas of a partition.
    pub replication: i32,
    /// Empty if the broker does not return them.
    pub settings: BTreeMap<String, String>,
}

/// A problem of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub topic: String,
    pub problem: String,
    pub remedy: String,
    /// True: the bridge does not start. False: a warning.
    pub fatal: bool,
}

impl TopicSpec {
    /// A topic with the default settings of its purpose.
    pub fn new(name: impl Into<String>, purpose: Purpose) -> Self {
        Self { name: name.into(), purpose, partitions: None, replication: None, settings: BTreeMap::new() }
    }

    /// Sets the number of partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Sets the replication factor at creation.
    #[must_use]
    pub fn replication(mut self, replication: i32) -> Self {
        self.replication = Some(replication);
        self
    }
}

/// Describes, checks and creates topics.
pub struct Topics {
    options: KafkaOptions,
    timeout: Duration,
}

impl Topics {
    /// `timeout` limits each call to the cluster.
    pub fn new(options: &KafkaOptions, timeout: Duration) -> Self {
        Self { options: options.clone(), timeout }
    }

    /// Returns the settings with which a topic is created.
    pub fn creation_settings(spec: &TopicSpec, strictness: Strictness) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        let mut set = |name: &str, value: &str| {
            settings.insert(name.to_owned(), value.to_owned());
        };
        match spec.purpose {
            Purpose::Ledger | Purpose::Table => {
                set("cleanup.policy", "compact");
                // Compacted early and often, so that a read of the topic is not much larger than its current content.
                set("segment.bytes", "16777216");
                set("segment.ms", "3600000");
                set("min.cleanable.dirty.ratio", "0.1");
                set("delete.retention.ms", "3600000");
            }
            Purpose::DeadLetters | Purpose::Stream => set("cleanup.policy", "delete"),
            Purpose::Repartitioned => {
                set("cleanup.policy", "delete");
                set("retention.ms", &REPARTITIONED_RETENTION_MS.to_string());
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

    /// Returns the replication factor with which a topic is created; `None`: the broker's default.
    fn creation_replication(spec: &TopicSpec, strictness: Strictness) -> Option<i32> {
        let default = (is_durable(spec.purpose) && !strictness.unsafe_topics).then_some(3);
        spec.replication.or(default)
    }

    /// Returns the cluster id, if the brokers return it.
    pub async fn cluster_id(&self) -> Result<Option<String>, Error> {
        let timeout = self.timeout;
        self.with_client(move |client| Ok(client.client().fetch_cluster_id(timeout))).await
    }

    /// Returns the names of all topics that this user may describe.
    pub async fn list_names(&self) -> Result<Vec<String>, Error> {
        let timeout = self.timeout;
        let fetch = move |client: &BaseConsumer<Logging>| {
            let metadata = client.client().fetch_metadata(None, timeout);
            metadata.map_err(|error| Error::call("can't list the topics", error))
        };
        let metadata = self.with_client(fetch).await?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Returns the number of a topic's partitions; `None` if the topic does not exist. Works with the mock cluster.
    pub async fn partitions(&self, name: &str) -> Result<Option<i32>, Error> {
        Ok(self.metadata(name, false).await?.map(|state| state.partitions))
    }

    /// Returns the state of a topic; `None` if it does not exist.
    pub async fn describe(&self, name: &str) -> Result<Option<TopicState>, Error> {
        let Some(mut state) = self.metadata(name, false).await? else { return Ok(None) };
        match self.settings(name).await {
            Ok(settings) => state.settings = settings,
            Err(error) => tracing::debug!(topic = name, %error, "can't read the topic's configuration"),
        }
        Ok(Some(state))
    }

    /// Creates the topics that do not exist, and returns their names.
    pub async fn create_missing(&self, specs: &[TopicSpec], strictness: Strictness) -> Result<Vec<String>, Error> {
        let mut created = Vec::new();
        for spec in specs {
            if self.metadata(&spec.name, false).await?.is_some() {
                continue;
            }
            if !strictness.embedded && !self.create(spec, strictness).await? {
                continue;
            }
            self.wait_for_leaders(&spec.name, strictness.embedded).await?;
            created.push(spec.name.clone());
        }
        Ok(created)
    }

    /// Returns all problems of the topics.
    pub async fn check(&self, specs: &[TopicSpec], strictness: Strictness) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for spec in specs {
            // The mock cluster does not answer DescribeConfigs, so the request would take the whole timeout.
            let state = if strictness.embedded {
                self.metadata(&spec.name, false).await?
            } else {
                self.describe(&spec.name).await?
            };
            findings.extend(check_topic(spec, state.as_ref(), strictness));
        }
        Ok(findings)
    }

    /// Creates a topic; false if it exists by now.
    async fn create(&self, spec: &TopicSpec, strictness: Strictness) -> Result<bool, Error> {
        /// Stands for the broker's default in CreateTopics.
        const DEFAULT: i32 = -1;
        let action = || format!("can't create the topic {}", spec.name);
        let settings = Self::creation_settings(spec, strictness);
        let replication = Self::creation_replication(spec, strictness).unwrap_or(DEFAULT);
        let partitions = spec.partitions.unwrap_or(DEFAULT);
        let mut topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(replication));
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let response = self.admin()?.create_topics([&topic], &self.admin_options()).await;
        let results = response.map_err(|error| Error::call(action(), error))?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code @ RDKafkaErrorCode::InvalidReplicationFactor))) => {
                let hint = "the cluster has fewer brokers than `topics.replication` asks for; on a test cluster with \
                            one broker set `topics: { replication: 1, unsafe_topics: true }`";
                let action = format!("{} with replication factor {replication}: {hint}", action());
                Err(Error::call(action, KafkaError::AdminOp(code)))
            }
            Some(Err((_, code))) => Err(Error::call(action(), KafkaError::AdminOp(code))),
            None => Err(Error::Unexpected(format!("{}: the response does not contain the topic", action()))),
        }
    }

    /// Waits until each partition of a new topic has a leader, because it cannot be written to before.
    async fn wait_for_leaders(&self, name: &str, auto_create: bool) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        while self.metadata(name, auto_create).await?.is_none() {
            if Instant::now() > deadline {
                return Err(Error::Unexpected(format!("the topic {name} was created, but has no leaders yet")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Returns partitions and replicas; `None` if the topic does not exist or has no leaders yet.
    async fn metadata(&self, name: &str, auto_create: bool) -> Result<Option<TopicState>, Error> {
        let (name, timeout) = (name.to_owned(), self.timeout);
        let mut config = self.options.lookup();
        config.set("allow.auto.create.topics", if auto_create { "true" } else { "false" });
        let fetch = move |client: &BaseConsumer<Logging>| {
            let action = || format!("can't describe the topic {name}");
            let metadata = client.fetch_metadata(Some(&name), timeout).map_err(|error| Error::call(action(), error))?;
            let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
            match topic.error().map(RDKafkaErrorCode::from) {
                None => {}
                Some(
                    RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::LeaderNotAvailable,
                ) => return Ok(None),
                Some(code) => return Err(Error::call(action(), KafkaError::MetadataFetch(code))),
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
        self.with_configured_client(config, fetch).await
    }

    async fn settings(&self, name: &str) -> Result<BTreeMap<String, String>, Error> {
        let action = || format!("can't read the configuration of the topic {name}");
        let resource = ResourceSpecifier::Topic(name);
        let response = self.admin()?.describe_configs([&resource], &self.admin_options()).await;
        let results = response.map_err(|error| Error::call(action(), error))?;
        let Some(result) = results.into_iter().next() else { return Err(Error::Unexpected(action())) };
        let entries = result.map_err(|code| Error::call(action(), KafkaError::AdminOp(code)))?.entries;
        Ok(entries.into_iter().filter_map(|entry| entry.value.map(|value| (entry.name, value))).collect())
    }

    fn admin(&self) -> Result<AdminClient<Logging>, Error> {
        let client = self.options.admin().create_with_context(Logging);
        client.map_err(|error| Error::call("can't create an admin client", error))
    }

    fn admin_options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }

    /// Makes a blocking call with a new client.
    async fn with_client<T: Send + 'static>(
        &self,
        call: impl FnOnce(&BaseConsumer<Logging>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.with_configured_client(self.options.lookup(), call).await
    }

    async fn with_configured_client<T: Send + 'static>(
        &self,
        config: rdkafka::ClientConfig,
        call: impl FnOnce(&BaseConsumer<Logging>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let blocking = move || {
            let client: BaseConsumer<Logging> =
                config.create_with_context(Logging).map_err(|error| Error::call("can't create a client", error))?;
            call(&client)
        };
        let joined = tokio::task::spawn_blocking(blocking).await;
        joined.unwrap_or_else(|error| Err(Error::Unexpected(format!("a look-up was aborted: {error}"))))
    }
}

/// Whether records of the topic must survive the loss of a broker.
pub(super) fn is_durable(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Ledger | Purpose::Table | Purpose::DeadLetters | Purpose::Repartitioned)
}
