//! The resolved configuration, as the other modules use it: validated, with defaults filled in, templates compiled and
//! secrets read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::settings::Settings;
use crate::mapping::{GroupBy, SinkMapping};
use crate::model::EventOrdering;
use crate::systems::Decoder;

use super::secret::Secret;
use super::units::Rate;

/// A validated configuration.
#[derive(Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// ServiceNow instances, by name.
    pub instances: BTreeMap<String, Arc<Instance>>,
    pub kafka: Kafka,
    pub topics: Topics,
    /// Routes from Kafka to ServiceNow.
    pub sinks: Vec<Sink>,
    /// Routes from ServiceNow to Kafka.
    pub sources: Vec<Source>,
    pub admin: Admin,
}

/// A ServiceNow instance.
#[derive(Clone)]
pub struct Instance {
    /// Name in the configuration. Change events contain it.
    pub name: String,
    /// `https://example.service-now.com`, without a trailing slash.
    pub url: String,
    pub auth: Auth,
    /// Total deadline of one request; above the instance's transaction quota, 60 s.
    pub request_deadline: Duration,
    /// How long the instance may still commit a request after its connection was cut: its transaction quota.
    pub max_transaction_time: Duration,
    /// Maximum number of concurrent requests of all routes of this instance in this process.
    pub concurrency: usize,
    /// Limit of requests of all routes of this instance in all processes; `None`: unlimited.
    pub rate: Option<Rate>,
    /// Window of the instance's own rate limit rules.
    pub rate_limit_window: Duration,
    /// Proxy URL. The environment's proxy variables are ignored.
    pub proxy: Option<String>,
    /// PEM file of certificate authorities trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// First and longest delay between probes after rejected credentials.
    pub auth_retry: (Duration, Duration),
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("name", &self.name)
            .field("url", &self.url)
            .field("auth", &self.auth)
            .field("concurrency", &self.concurrency)
            .field("rate", &self.rate)
            // The URL may contain a password.
            .field("proxy", &self.proxy.as_ref().map(|_| "redacted"))
            .finish_non_exhaustive()
    }
}

/// Credentials of an instance.
#[derive(Debug, Clone)]
pub enum Auth {
    /// User and password in every request.
    Basic { user: String, password: Secret },
    /// OAuth 2.0 client credentials at `/oauth_token.do`.
    ClientCredentials {
        /// Client id of the instance's OAuth application.
        client_id: String,
        client_secret: Secret,
        /// User name that the application acts as: `sys_updated_by` of the bridge's writes.
        user: String,
    },
}

impl Auth {
    /// Returns the user name that the bridge writes as.
    pub fn user(&self) -> &str {
        match self {
            Self::Basic { user, .. } | Self::ClientCredentials { user, .. } => user,
        }
    }
}

/// The connection to the Kafka cluster.
#[derive(Clone)]
pub struct Kafka {
    /// `host:port,host:port`.
    pub bootstrap: String,
    /// `client.id` in the brokers' logs and quotas.
    pub client_id: String,
    /// `None`: no SASL.
    pub sasl: Option<Sasl>,
    /// `None`: plain text.
    pub tls: Option<Tls>,
    /// Consumer's `session.timeout.ms`.
    pub session_timeout: Duration,
    /// Consumer's `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
    /// Further librdkafka properties. None of them is a protected one.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("bootstrap", &self.bootstrap)
            .field("sasl", &self.sasl)
            .field("tls", &self.tls)
            // Any value may be a secret.
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// SASL credentials.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// Value of `sasl.mechanism`: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub mechanism: &'static str,
    pub user: String,
    pub password: Secret,
}

/// TLS to the brokers.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of certificate authorities; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key_file: Option<PathBuf>,
    /// Password of the key file.
    pub key_password: Option<Secret>,
}

/// The bridge's own topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Prefix of their names.
    pub prefix: String,
    /// Replication factor of topics that the bridge creates.
    pub replication: i32,
    /// Accept topics that can lose acknowledged records; for demos and tests.
    pub unsafe_topics: bool,
}

impl Topics {
    /// Returns the name of the topic that contains the cursors of the source routes.
    pub fn checkpoints(&self) -> String {
        format!("{}.checkpoints", self.prefix)
    }

    /// Returns the name of the topic that records which dead letters were redriven or discarded.
    pub fn redrives(&self) -> String {
        format!("{}.redrives", self.prefix)
    }

    /// Returns the name of the topic whose consumer group assigns source routes to the processes of the bridge.
    pub fn ownership(&self) -> String {
        format!("{}.ownership", self.prefix)
    }
}

/// Where a sink starts reading if its consumer group has no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// At the end of the topic.
    Latest,
    /// At the first record with this timestamp or a later one, Unix milliseconds.
    At(i64),
}

/// What to do if the ledger is missing although the route has run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissingLedger {
    /// Stop the route with an error that names the command to rebuild the ledger.
    Refuse,
    /// Look up every unknown key in ServiceNow before a ticket is created.
    LookUp,
}

/// How a sink writes its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// One Table API request per write.
    Table,
    /// Many Table API requests in one Batch API request.
    Batch {
        /// Maximum number of requests in one batch.
        size: usize,
        /// How long a request waits for others to share its batch.
        linger: Duration,
    },
    /// Each write inserts a row into a staging table.
    ImportSet {
        /// Name of the staging table.
        staging: String,
        /// Prefix of the names of its columns.
        prefix: String,
        /// Staging column with the ticket's sys_id.
        coalesce: String,
    },
    /// Each write inserts an event of Event Management; one request contains many.
    Event {
        /// `source` of the events.
        source: String,
        /// `event_class` of the events; empty: none.
        class: String,
        /// Maximum number of events in one request.
        size: usize,
        /// How long an event waits for others to share its request.
        linger: Duration,
    },
}

/// A route from Kafka to ServiceNow.
#[derive(Debug)]
pub struct Sink {
    pub name: String,
    /// The instance that it writes to.
    pub instance: Arc<Instance>,
    /// The table that it writes, such as `incident`.
    pub table: String,
    pub write: Write,
    /// The user's topic. With `repartition`, the sink itself reads `repartition_topic`.
    pub topic: String,
    /// Consumer group.
    pub group: String,
    /// Results topic; `None`: no results are published.
    pub results: Option<String>,
    /// Dead-letter topic.
    pub dead_letters: String,
    /// Ledger topic.
    pub ledger: String,
    pub decoder: Decoder,
    pub mapping: Arc<SinkMapping>,
    pub start: Start,
    /// The user guarantees that all records of an alert share a partition.
    pub keyed_by_alert: bool,
    /// What decides which of two events of an alert is newer.
    pub ordering: EventOrdering,
    /// The internal topic that is partitioned by the alert's key and that the sink reads; `None`: it reads `topic`.
    pub repartition_topic: Option<String>,
    /// Default name of the internal topic, without `grouping`.
    pub default_repartition_topic: String,
    /// Default name of the internal topic, with `grouping`.
    pub default_groups_topic: String,
    /// `None`: one ticket per alert.
    pub grouping: Option<Grouping>,
    /// Value of `correlation_display`, which names this bridge in its tickets.
    pub correlation_display: String,
    pub on_missing_ledger: OnMissingLedger,
    /// Settings of the engine.
    pub settings: Settings,
}

impl Sink {
    /// Returns the topic that the sink reads. The positions in its ledger and dead letters refer to this topic.
    pub fn consumed_topic(&self) -> &str {
        self.repartition_topic.as_deref().unwrap_or(&self.topic)
    }

    /// Returns the consumer group of the repartition stage.
    pub fn repartition_group(&self) -> String {
        format!("{}.repartition", self.group)
    }

    /// Returns the consumer group of the grouping stage.
    pub fn grouping_group(&self) -> String {
        format!("{}.grouping", self.group)
    }

    /// Returns all consumer groups of the route, each with the topic that it reads.
    pub fn consumer_groups(&self) -> Vec<(String, String)> {
        let mut groups = vec![(self.group.clone(), self.consumed_topic().to_owned())];
        groups.extend(self.repartition_topic.as_ref().map(|_| (self.repartition_group(), self.topic.clone())));
        groups.extend(self.grouping.as_ref().map(|grouping| (self.grouping_group(), grouping.input_topic.clone())));
        groups
    }
}

/// Which alerts share a ticket, and the internal topics of the grouping stage.
#[derive(Debug, Clone)]
pub struct Grouping {
    pub group_by: GroupBy,
    /// How many alerts a ticket lists.
    pub max_listed: usize,
    /// The internal topic of alerts that is partitioned by the group's key; the input of the grouping stage.
    pub input_topic: String,
    /// The compacted topic with the state of the groups.
    pub state_topic: String,
}

/// Which existing rows a source publishes at its first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceStart {
    All,
    /// Only rows that change from then on.
    None,
    /// Rows updated since this time, Unix milliseconds.
    Since(i64),
}

/// A route from ServiceNow to Kafka.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub instance: Arc<Instance>,
    /// The watched table.
    pub table: String,
    /// Encoded query that rows must match; empty: all rows.
    pub filter: String,
    /// Watched columns.
    pub fields: Vec<String>,
    /// Time between two polls.
    pub interval: Duration,
    /// How long before the cursor each poll starts to read, because rows can become visible late.
    pub lookback: Duration,
    /// Distance of the cursor to the instance's present time.
    pub safety_lag: Duration,
    /// Rows per page.
    pub page_size: usize,
    pub start: SourceStart,
    /// Topic of the change events.
    pub topic: String,
    /// Topic of the last published state of each row.
    pub rows: String,
    /// User names whose changes get the origin `integration`.
    pub integration_users: Vec<String>,
    /// Publish the bridge's own changes too.
    pub include_echoes: bool,
    /// Publish work notes and comments.
    pub journal: bool,
}

/// The HTTP server with health endpoints, metrics and the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port to listen on.
    pub listen: std::net::SocketAddr,
}
