//! The configuration file as written: every key, its meaning and its default. The JSON schema for editors
//! (`schemas/config.schema.json`) and the check for unknown keys are derived from these structs.
//!
//! Every key is an `Option`; `resolve` fills in the defaults. Required keys are marked `required`.

mod sink;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use sink::{
    RawEvent, RawFlapping, RawFormat, RawGrouping, RawImportSet, RawOnMissingLedger, RawOnUserEdit, RawOnUserResolve,
    RawOrder, RawSeverity, RawSink, RawStates, RawTicketPer, RawWrite,
};

/// Configuration of nowbridge.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// ServiceNow instances, by a name of your choice, which change events contain.
    #[schemars(required)]
    pub instances: Option<BTreeMap<String, RawInstance>>,
    /// The Kafka cluster.
    #[schemars(required)]
    pub kafka: Option<RawKafka>,
    /// Names and replication of the bridge's own topics.
    pub topics: Option<RawTopics>,
    /// Routes from Kafka to ServiceNow, by name.
    pub sinks: Option<BTreeMap<String, RawSink>>,
    /// Routes from ServiceNow to Kafka, by name.
    pub sources: Option<BTreeMap<String, RawSource>>,
    /// Health endpoints, metrics and the console.
    pub admin: Option<RawAdmin>,
}

/// A secret: the value itself, `${NAME}` from the environment, or `file:/path`, which is reloaded when it changes.
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
    /// Accept an `http://` address. Credentials are then sent unencrypted: for a simulator only. Default false.
    pub allow_http: Option<bool>,
    /// Credentials: `basic` or `oauth`.
    #[schemars(required)]
    pub auth: Option<RawAuth>,
    /// Total deadline of one request. Keep it above the transaction quota of the instance (60 s). Default `70s`.
    pub request_deadline: Option<String>,
    /// How long the instance may still commit a request after its connection was cut: the transaction quota of the
    /// instance. Default `60s`.
    pub max_transaction_time: Option<String>,
    /// Maximum number of concurrent requests of this process. The bridge starts with 4 and adapts to the instance's
    /// response times. Default 8.
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: Option<u32>,
    /// Limit of requests of all processes of the bridge together, such as `1000/hour`, `300/minute` or `50/second`.
    /// Each process uses the share of the partitions that it owns. A tenth is reserved for source routes, if there are
    /// any. Default: no limit. Rate limit rules that the instance reports (`X-RateLimit-Limit`) are always obeyed.
    pub rate: Option<String>,
    /// Window of the instance's rate limit rules. ServiceNow counts by the hour; other windows are for a simulator.
    /// Default `1h`.
    pub rate_limit_window: Option<String>,
    /// HTTP proxy, such as `http://proxy.example.com:3128`. The environment's proxy variables are ignored.
    pub proxy: Option<String>,
    /// PEM file of certificate authorities to trust in addition to the system's.
    pub ca_file: Option<String>,
    /// Backoff after rejected credentials. Five failures lock a ServiceNow account.
    pub auth_retry: Option<RawDelays>,
}

/// An exponential backoff: each delay is twice the previous one.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDelays {
    /// First delay. Default `1m`.
    pub first: Option<String>,
    /// Longest delay. Default `16m`.
    pub longest: Option<String>,
}

/// Credentials: either `basic` or `oauth`.
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
    /// User name of a dedicated integration user. Nobody else may write with it.
    #[schemars(required)]
    pub user: Option<String>,
    /// Password of the user.
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
    /// Client secret.
    #[schemars(required)]
    pub client_secret: Option<RawSecret>,
    /// User name that the OAuth application acts as. It distinguishes the bridge's own changes from those of users.
    #[schemars(required)]
    pub user: Option<String>,
}

/// The Kafka cluster.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKafka {
    /// Bootstrap servers, `host:port,host:port`.
    #[schemars(required)]
    pub bootstrap: Option<String>,
    /// Client id in the brokers' logs and quotas. Default `nowbridge`.
    pub client_id: Option<String>,
    /// SASL credentials. Default: no authentication.
    pub sasl: Option<RawSasl>,
    /// TLS. Default: plain text. `tls: {}` uses the system's certificate authorities.
    pub tls: Option<RawTls>,
    /// `session.timeout.ms`: without a heartbeat for this long, the group reassigns the partitions. Default `45s`.
    pub session_timeout: Option<String>,
    /// `max.poll.interval.ms`: without a poll for this long, the group reassigns the partitions. Not below
    /// `session_timeout`. Default `5m`.
    pub max_poll_interval: Option<String>,
    /// Further librdkafka properties. Properties on which delivery guarantees depend are rejected.
    pub properties: Option<BTreeMap<String, String>>,
}

/// SASL credentials.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSasl {
    /// SASL mechanism.
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
    /// Sends the password itself: use it with TLS only.
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
    /// PEM file of certificate authorities. Default: the system's.
    pub ca_file: Option<String>,
    /// PEM file of a client certificate.
    pub certificate_file: Option<String>,
    /// PEM file of the client certificate's key.
    pub key_file: Option<String>,
    /// Password of the key file.
    pub key_password: Option<RawSecret>,
}

/// The bridge's own topics.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTopics {
    /// Prefix of their names. Default `nowbridge`.
    pub prefix: Option<String>,
    /// Replication factor of topics that the bridge creates. Default 3.
    #[schemars(range(min = 1, max = 32))]
    pub replication: Option<u32>,
    /// Accept topics that can lose acknowledged records (replication below 3). For demos and tests. Default false.
    pub unsafe_topics: Option<bool>,
}

/// A route from ServiceNow to Kafka.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    /// Name of the instance. Optional if there is only one.
    pub instance: Option<String>,
    /// Table to watch.
    #[schemars(required)]
    pub table: Option<String>,
    /// Encoded query that rows must match, such as `assignment_group=<sys_id>`. Default: all rows.
    pub filter: Option<String>,
    /// Watched columns. Required unless the table is a known task table, which has a default list.
    pub fields: Option<Vec<String>>,
    /// Time between two polls. Default `10s`.
    pub interval: Option<String>,
    /// Each poll also reads rows updated up to this long before the cursor, because rows can become visible late.
    /// Default `2m`.
    pub lookback: Option<String>,
    /// Distance of the cursor to the instance's present time. Default `5s`.
    pub safety_lag: Option<String>,
    /// Rows per page. Default 500.
    #[schemars(range(min = 1, max = 10_000))]
    pub page_size: Option<u32>,
    /// Which existing rows to publish at the first start: `all`, `none`, or those updated since a time such as
    /// `2026-01-31T00:00:00Z`. Default `none`.
    pub start: Option<String>,
    /// Topic of the change events. Default `<prefix>.<route>.changes`.
    pub topic: Option<String>,
    /// Topic of the last published state of each row. Default `<prefix>.<route>.rows`.
    pub rows: Option<String>,
    /// User names of other integrations. Their changes get the origin `integration`.
    pub integration_users: Option<Vec<String>>,
    /// Publish the bridge's own changes too, with the origin `bridge`. Default false.
    pub include_echoes: Option<bool>,
    /// Publish work notes and comments. Default true.
    pub journal: Option<bool>,
}

/// Health endpoints, metrics and the console.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdmin {
    /// Address and port to listen on. Default `127.0.0.1:9464`.
    pub listen: Option<String>,
}

/// The JSON schema of the configuration file.
pub(super) fn schema() -> serde_json::Value {
    schemars::schema_for!(Raw).to_value()
}
