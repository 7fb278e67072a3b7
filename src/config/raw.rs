//! The configuration file as it is written: every key, what it means and its default. The JSON schema for editors
//! (`schemas/config.schema.json`) and the check for unknown keys come from these structs.
//!
//! Everything that a person may leave out is an `Option`; `resolve` fills in the defaults. Keys that must be there
//! are marked `required`.

mod sink;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use sink::{
    RawBy, RawDigest, RawEvent, RawFlapping, RawFormat, RawImportSet, RawOnLost, RawPeople, RawSink, RawStates,
    RawWeight, RawWrite,
};

/// Configuration of nowbridge.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// ServiceNow instances, by a name of your choice that stands in change events.
    #[schemars(required)]
    pub instances: Option<BTreeMap<String, RawInstance>>,
    /// The Kafka cluster.
    #[schemars(required)]
    pub kafka: Option<RawKafka>,
    /// Names and safety of the bridge's own topics.
    pub topics: Option<RawTopics>,
    /// Routes from Kafka to ServiceNow, by name.
    pub sinks: Option<BTreeMap<String, RawSink>>,
    /// Routes from ServiceNow to Kafka, by name.
    pub sources: Option<BTreeMap<String, RawSource>>,
    /// Health, metrics and the operator's page.
    pub admin: Option<RawAdmin>,
}

/// A secret: the value itself, `${NAME}` from the environment, or `file:/path`, which is read again when it changes.
#[derive(Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct RawSecret(pub String);

/// A ServiceNow instance.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInstance {
    /// Address, such as `https://example.service-now.com`.
    #[schemars(required)]
    pub url: Option<String>,
    /// Accept an `http://` address. Credentials then travel in the clear: for a simulator only. Default false.
    pub allow_http: Option<bool>,
    /// How to log in: `basic` or `oauth`.
    #[schemars(required)]
    pub auth: Option<RawAuth>,
    /// Total deadline of one request. Keep it above the instance's own transaction quota (60 s). Default `70s`.
    pub request_deadline: Option<String>,
    /// How long the instance may still commit a request whose connection is gone; its transaction quota. Default `60s`.
    pub settle_time: Option<String>,
    /// Requests at once in this process, at most. It starts with 4 and follows how the instance bears it. Default 8.
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: Option<u32>,
    /// Requests in a time, such as `1000/hour`, `300/minute` or `50/second`, of all instances of the bridge together:
    /// each takes the share of the partitions that it holds. A tenth is kept for source routes, where there are any.
    /// Default: no limit of ours; rules that the instance names in its answers (`X-RateLimit-Limit`) are kept in any
    /// case.
    pub rate: Option<String>,
    /// The window in which the instance counts its rate-limit rules. ServiceNow counts hours; other windows are for a
    /// simulator. Default `1h`.
    pub rule_window: Option<String>,
    /// HTTP proxy, such as `http://proxy.example.com:3128`. Proxy variables of the environment are not used.
    pub proxy: Option<String>,
    /// PEM file of certificate authorities that are trusted beside the system's.
    pub ca_file: Option<String>,
    /// How often credentials that were refused are tried again. Five failures lock a ServiceNow account.
    pub auth_retry: Option<RawDelays>,
}

/// First and longest delay; each delay doubles the one before.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDelays {
    /// First delay.
    pub first: Option<String>,
    /// Longest delay.
    pub longest: Option<String>,
}

/// Credentials; exactly one of the two.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAuth {
    /// User and password.
    pub basic: Option<RawBasic>,
    /// OAuth 2.0 client credentials.
    pub oauth: Option<RawOauth>,
}

/// User and password.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBasic {
    /// User name of an integration user of its own; people must not write with it.
    #[schemars(required)]
    pub user: Option<String>,
    /// Its password.
    #[schemars(required)]
    pub password: Option<RawSecret>,
}

/// OAuth 2.0 client credentials.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOauth {
    /// Client id of the instance's OAuth application.
    #[schemars(required)]
    pub client_id: Option<String>,
    /// Its client secret.
    #[schemars(required)]
    pub client_secret: Option<RawSecret>,
    /// User name that the OAuth application acts as; it tells our own changes from people's.
    #[schemars(required)]
    pub user: Option<String>,
}

/// The Kafka cluster.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKafka {
    /// Brokers to begin with, `host:port,host:port`.
    #[schemars(required)]
    pub bootstrap: Option<String>,
    /// Name by which the brokers know this client, in logs and quotas. Default `nowbridge`.
    pub client_id: Option<String>,
    /// User and password; left out: none.
    pub sasl: Option<RawSasl>,
    /// TLS; left out: plain text. `tls: {}` uses the system's certificate authorities.
    pub tls: Option<RawTls>,
    /// After how long without a sign of life the group gives our partitions away. Default `45s`.
    pub session_timeout: Option<String>,
    /// After how long without a poll it does. Not below `session_timeout`. Default `5m`.
    pub max_poll_interval: Option<String>,
    /// Further librdkafka properties, passed through as they are; those that guarantees rest on are refused.
    pub properties: Option<BTreeMap<String, String>>,
}

/// SASL user and password.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSasl {
    /// How the password is proven.
    #[schemars(required)]
    pub mechanism: Option<RawMechanism>,
    /// User name.
    #[schemars(required)]
    pub user: Option<String>,
    /// Password.
    #[schemars(required)]
    pub password: Option<RawSecret>,
}

/// SASL mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum RawMechanism {
    /// The password is sent; use it with TLS only.
    #[serde(rename = "plain")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "scram-sha-256")]
    Scram256,
    /// SCRAM with SHA-512.
    #[serde(rename = "scram-sha-512")]
    Scram512,
}

/// TLS to the brokers.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    /// PEM file of certificate authorities; left out: the system's.
    pub ca_file: Option<String>,
    /// PEM file of a client certificate.
    pub certificate_file: Option<String>,
    /// PEM file of its key.
    pub key_file: Option<String>,
    /// Password of the key file.
    pub key_password: Option<RawSecret>,
}

/// The bridge's own topics.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTopics {
    /// First part of their names. Default `nowbridge`.
    pub prefix: Option<String>,
    /// Replication factor of topics that the bridge makes. Default 3.
    #[schemars(range(min = 1, max = 32))]
    pub replication: Option<u32>,
    /// Accept topics that may lose acknowledged records (replication below 3). For demos and tests. Default false.
    pub unsafe_topics: Option<bool>,
}

/// A route from ServiceNow to Kafka.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    /// Name of the instance; may be left out where there is only one.
    pub instance: Option<String>,
    /// Table to watch.
    #[schemars(required)]
    pub table: Option<String>,
    /// Encoded query that rows must match, such as `assignment_group=<sys_id>`. Default: all rows.
    pub filter: Option<String>,
    /// Watched columns. Task tables have a default list.
    pub fields: Option<Vec<String>>,
    /// Between two polls. Default `10s`.
    pub interval: Option<String>,
    /// How far each poll looks back, for rows that become visible late. Default `2m`.
    pub overlap: Option<String>,
    /// How far the cursor stays behind the instance's clock. Default `5s`.
    pub lag: Option<String>,
    /// Rows in one page. Default 500.
    #[schemars(range(min = 1, max = 10_000))]
    pub page: Option<u32>,
    /// What to do at the first start with rows that are there already: publish `all`, `none`, or those updated since a
    /// time such as `2026-01-31T00:00:00Z`. Default `none`.
    pub start: Option<String>,
    /// Topic of the change events. Default `<prefix>.<route>.changes`.
    pub topic: Option<String>,
    /// Topic of the rows as last published. Default `<prefix>.<route>.rows`.
    pub rows: Option<String>,
    /// User names of other integrations; their changes are marked so.
    pub integration_users: Option<Vec<String>>,
    /// Publish the bridge's own changes too, marked so. Default false.
    pub include_echoes: Option<bool>,
    /// Publish work notes and comments. Default true.
    pub journal: Option<bool>,
}

/// Health, metrics and the operator's page.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdmin {
    /// Address and port. Default `127.0.0.1:9464`.
    pub listen: Option<String>,
}

/// The JSON schema of the file.
pub(super) fn schema() -> serde_json::Value {
    schemars::schema_for!(Raw).to_value()
}
