//! The configuration as the rest of the bridge sees it: checked, with defaults filled in, templates compiled and
//! secrets read. Nothing here can be wrong any more, and nothing here needs to be parsed again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::settings::Settings;
use crate::mapping::{GroupBy, SinkMapping};
use crate::systems::Decoder;

use super::human::Rate;
use super::secret::Secret;

/// Everything the configuration file says.
#[derive(Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// ServiceNow instances by name.
    pub instances: BTreeMap<String, Arc<Instance>>,
    /// The Kafka cluster.
    pub kafka: Kafka,
    /// How the bridge's own topics are named and made.
    pub topics: Topics,
    /// Routes from Kafka to ServiceNow.
    pub sinks: Vec<Sink>,
    /// Routes from ServiceNow to Kafka.
    pub sources: Vec<Source>,
    /// Health, metrics and the operator's page.
    pub admin: Admin,
}

/// A ServiceNow instance.
#[derive(Clone)]
pub struct Instance {
    /// Name in the configuration; stands in change events.
    pub name: String,
    /// `https://example.service-now.com`, without a trailing slash.
    pub url: String,
    /// How the bridge logs in.
    pub auth: Auth,
    /// Total deadline of one request; above the instance's own 60 s.
    pub request_deadline: Duration,
    /// How long the instance may go on with a request whose connection is gone: its transaction quota.
    pub settle_time: Duration,
    /// Requests at once, over all routes of this instance and process.
    pub concurrency: usize,
    /// Requests in a time, over all routes of this instance and all members; `None`: unlimited.
    pub rate: Option<Rate>,
    /// The window of the instance's own rate-limit rules.
    pub rule_window: Duration,
    /// Proxy URL; the environment's proxy variables are not looked at.
    pub proxy: Option<String>,
    /// PEM file of certificate authorities trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// First and longest delay between probes with credentials that failed.
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
            // Its URL may hold a password.
            .field("proxy", &self.proxy.as_ref().map(|_| "redacted"))
            .finish_non_exhaustive()
    }
}

/// Credentials of an instance.
#[derive(Debug, Clone)]
pub enum Auth {
    /// User and password with every request.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// OAuth 2.0 client credentials at `/oauth_token.do`.
    ClientCredentials {
        /// Client id of the instance's OAuth application.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// User name that the application acts as: `sys_updated_by` of our writes.
        user: String,
    },
}

impl Auth {
    /// User name that the bridge writes as.
    pub fn user(&self) -> &str {
        match self {
            Self::Basic { user, .. } | Self::ClientCredentials { user, .. } => user,
        }
    }
}

/// The Kafka cluster and how to talk to it.
#[derive(Clone)]
pub struct Kafka {
    /// `host:port,host:port`.
    pub bootstrap: String,
    /// Name by which the brokers know this client.
    pub client_id: String,
    /// User and password; `None`: no SASL.
    pub sasl: Option<Sasl>,
    /// TLS; `None`: plain text.
    pub tls: Option<Tls>,
    /// Consumer's `session.timeout.ms`.
    pub session_timeout: Duration,
    /// Consumer's `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
    /// librdkafka properties passed through, already checked.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("bootstrap", &self.bootstrap)
            .field("sasl", &self.sasl)
            .field("tls", &self.tls)
            // Values may be secrets under names that we do not know.
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// SASL credentials.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// Value of `sasl.mechanism`: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub mechanism: &'static str,
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// TLS to the brokers.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of certificate authorities; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
    /// Password of the key file.
    pub key_password: Option<Secret>,
}

/// The bridge's own topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// First part of their names.
    pub prefix: String,
    /// Replication factor of topics that the bridge makes.
    pub replication: i32,
    /// Accept topics that may lose acknowledged records; for demos and tests.
    pub unsafe_topics: bool,
}

impl Topics {
    /// The topic in which the source routes keep their cursors.
    pub fn checkpoints(&self) -> String {
        format!("{}.checkpoints", self.prefix)
    }

    /// The topic of what was done with dead letters.
    pub fn redrives(&self) -> String {
        format!("{}.redrives", self.prefix)
    }

    /// The topic by which source routes are shared out among instances of the bridge.
    pub fn ownership(&self) -> String {
        format!("{}.ownership", self.prefix)
    }
}

/// Where reading begins when the group has no offset yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record.
    Earliest,
    /// With what is published from now on.
    Latest,
    /// With the first record at or after this instant, Unix milliseconds.
    At(i64),
}

/// What to do where the ledger is gone although the route has worked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLost {
    /// Stop and name the command that rebuilds it.
    Refuse,
    /// Go on, and look every unknown key up before a ticket is made.
    LookUp,
}

/// How a route writes its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Each write is a request of its own.
    Table,
    /// Many requests in one.
    Batch {
        /// Most requests in one.
        size: usize,
        /// How long a request waits for others.
        linger: Duration,
    },
    /// Each write is a row of a staging table.
    ImportSet {
        /// The staging table.
        staging: String,
        /// Begins the names of its columns.
        prefix: String,
        /// Its column with the ticket's sys_id.
        coalesce: String,
    },
    /// Each write is an event, many in one request.
    Event {
        /// Their `source`.
        source: String,
        /// Their `event_class`; empty: none.
        class: String,
        /// Most events in one request.
        size: usize,
        /// How long an event waits for others.
        linger: Duration,
    },
}

/// A route from Kafka to ServiceNow.
#[derive(Debug)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// Where it writes.
    pub instance: Arc<Instance>,
    /// Table it writes, such as `incident`.
    pub table: String,
    /// How it writes it.
    pub write: Write,
    /// Input topic.
    pub topic: String,
    /// Consumer group.
    pub group: String,
    /// Results topic; `None`: none are published.
    pub results: Option<String>,
    /// Dead-letter topic.
    pub dead_letters: String,
    /// Ledger topic.
    pub ledger: String,
    /// Reads its records.
    pub decoder: Decoder,
    /// Maps its alert events.
    pub mapping: Arc<SinkMapping>,
    /// Where reading begins.
    pub start: Start,
    /// The user vouches that all records of an alert share a partition.
    pub copartitioned: bool,
    /// The internal topic to which its records are re-keyed, and which it then reads; `None`: it reads its topic.
    pub rekeyed: Option<String>,
    /// The internal topic's name where none is given and the route makes no digests.
    pub default_rekeyed: String,
    /// The same of a route that makes digests.
    pub default_digests: String,
    /// Which alerts share a ticket; `None`: each has its own.
    pub digest: Option<Digest>,
    /// Value of `correlation_display`: names this bridge in its tickets.
    pub correlation_display: String,
    /// What to do without a ledger.
    pub on_lost: OnLost,
    /// What the engine must know.
    pub settings: Settings,
}

impl Sink {
    /// The topic that the sink reads, by whose positions its ledger and its dead letters go.
    pub fn reads(&self) -> &str {
        self.rekeyed.as_deref().unwrap_or(&self.topic)
    }

    /// The consumer group that re-keys its topic.
    pub fn rekey_group(&self) -> String {
        format!("{}.rekey", self.group)
    }

    /// The consumer group that makes its digests.
    pub fn digest_group(&self) -> String {
        format!("{}.digest", self.group)
    }

    /// All consumer groups of the route with the topics that they read.
    pub fn groups(&self) -> Vec<(String, String)> {
        let mut groups = vec![(self.group.clone(), self.reads().to_owned())];
        groups.extend(self.rekeyed.as_ref().map(|_| (self.rekey_group(), self.topic.clone())));
        groups.extend(self.digest.as_ref().map(|digest| (self.digest_group(), digest.grouped.clone())));
        groups
    }
}

/// How a route makes digests.
#[derive(Debug, Clone)]
pub struct Digest {
    /// Which alerts go together.
    pub group_by: GroupBy,
    /// How many of them a ticket names.
    pub list: usize,
    /// The internal topic that is keyed by groups.
    pub grouped: String,
    /// The compacted table of the groups.
    pub table: String,
}

/// What a source route publishes of rows that exist before its first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceStart {
    /// All of them.
    All,
    /// None: only what changes from now on.
    None,
    /// Those updated since this instant, Unix milliseconds.
    Since(i64),
}

/// A route from ServiceNow to Kafka.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Where it reads.
    pub instance: Arc<Instance>,
    /// Table it watches.
    pub table: String,
    /// Encoded query that rows must match; empty: all.
    pub filter: String,
    /// Watched columns.
    pub fields: Vec<String>,
    /// Between two polls.
    pub interval: Duration,
    /// How far before the cursor each poll looks again, for rows that become visible late.
    pub overlap: Duration,
    /// How far the cursor stays behind the instance's clock.
    pub lag: Duration,
    /// Rows in one page.
    pub page: usize,
    /// What to do with rows that exist before the first start.
    pub start: SourceStart,
    /// Topic of the change events.
    pub topic: String,
    /// Topic of the last published state of each row.
    pub rows: String,
    /// User names whose changes are marked `integration`.
    pub integration_users: Vec<String>,
    /// Publish the bridge's own changes too.
    pub include_echoes: bool,
    /// Publish work notes and comments.
    pub journal: bool,
}

/// The admin address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port to listen on.
    pub listen: std::net::SocketAddr,
}
