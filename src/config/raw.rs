//! The configuration file as it is written: every key, what it means and its default. The JSON schema for editors
//! (`schemas/config.schema.json`) and the check for unknown keys come from these structs.
//!
//! Everything that a person may leave out is an `Option`; `resolve` fills in the defaults. Keys that must be there
//! are marked `required`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

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

/// A route from Kafka to ServiceNow.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSink {
    /// Name of the instance; may be left out where there is only one.
    pub instance: Option<String>,
    /// Topic with the alert events.
    #[schemars(required)]
    pub topic: Option<String>,
    /// Consumer group. Default `<prefix>.<route>`.
    pub group: Option<String>,
    /// Format of the records. Default `canonical`.
    pub format: Option<RawFormat>,
    /// For the format `alertmanager`: what is one ticket. Default `group`.
    pub by: Option<RawBy>,
    /// Where to begin when the group has no offset yet: `earliest`, `latest` or a time such as
    /// `2026-01-31T00:00:00Z`. Default `earliest`.
    pub start: Option<String>,
    /// Table to write. Default `incident`.
    pub table: Option<String>,
    /// Value of `correlation_display`, which names this bridge in its tickets. Default `nowbridge`.
    pub correlation_display: Option<String>,
    /// Columns and the templates of their values, beside and over the defaults (short_description, description,
    /// impact, urgency); an empty value takes a default away. A value that renders to nothing is not written.
    pub fields: Option<BTreeMap<String, Option<String>>>,
    /// Columns that are written only when a ticket is resolved, beside and over close_code and close_notes.
    pub closing: Option<BTreeMap<String, Option<String>>>,
    /// Templates of the work note: `default`, or by the name of an action; an empty value writes no note.
    pub notes: Option<BTreeMap<String, Option<String>>>,
    /// What severities mean; those not named keep their defaults.
    pub severity: Option<BTreeMap<String, RawWeight>>,
    /// What is done with actions: another action's name, or `ignore`. Default `suppress: ignore`, `unsuppress: ignore`.
    pub actions: Option<BTreeMap<String, String>>,
    /// Raw values of the state column. Default: those of `incident`.
    pub states: Option<RawStates>,
    /// Lengths of columns in characters, beside and over the known ones; longer values are cut.
    #[schemars(inner(range(min = 1, max = 1_000_000)))]
    pub lengths: Option<BTreeMap<String, u32>>,
    /// Whose value stands where a person has changed a column: `keep` the person's, or `overwrite` it. Default `keep`.
    pub people: Option<BTreeMap<String, RawPeople>>,
    /// How long an alert must stay open before it gets a ticket, or before its resolved ticket is reopened. One that is over
    /// sooner gets none. Default `0s`.
    pub hold_down: Option<String>,
    /// Hold the state of alerts that open and resolve again and again; a note says so. Default: off.
    pub flapping: Option<RawFlapping>,
    /// An alert that comes back at most this long after its resolution reopens its ticket. Default `24h`.
    pub reopen_window: Option<String>,
    /// Rows last seen longer ago are read before they are written; `0`: always. Default `5m`.
    pub row_freshness: Option<String>,
    /// You vouch that all records of an alert share a partition although they are not keyed by its key. Default false.
    pub copartitioned: Option<bool>,
    /// Only alerts whose key matches one of these patterns, where `*` stands for any text: a canary.
    pub only: Option<Vec<String>>,
    /// What to do when the ledger is gone: `refuse` to work until it is rebuilt, or `look_up` every unknown key in
    /// ServiceNow before a ticket is made. Default `refuse`.
    pub on_lost: Option<RawOnLost>,
    /// Most unresolved work before reading pauses.
    pub budget: Option<RawBudget>,
    /// Most characters of work notes in one write; longer notes are split. Default 16000.
    #[schemars(range(min = 200, max = 1_000_000))]
    pub note_limit: Option<u32>,
    /// Refusals in a row that stop the route. Default 20.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub brake: Option<u32>,
    /// Topic of what was done. Default `<prefix>.<route>.results`.
    pub results: Option<String>,
    /// Publish what was done. Default true.
    pub publish_results: Option<bool>,
    /// Topic of what could not be done. Default `<prefix>.<route>.dead-letters`.
    pub dead_letters: Option<String>,
    /// Topic of what the bridge must remember. Default `<prefix>.<route>.ledger`.
    pub ledger: Option<String>,
}

/// Format of a topic's records.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawFormat {
    /// The canonical alert event, in its full or short form.
    Canonical,
    /// The webhook body of Prometheus Alertmanager.
    Alertmanager,
}

/// What is one ticket.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawBy {
    /// The notification group.
    Group,
    /// The single alert.
    Alert,
}

/// Whose value stands.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawPeople {
    /// The person's.
    Keep,
    /// The bridge's.
    Overwrite,
}

/// What to do without a ledger.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOnLost {
    /// Stop and say so.
    Refuse,
    /// Look every unknown key up.
    LookUp,
}

/// What a severity means for a ticket.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWeight {
    /// Raw value of `impact`.
    pub impact: Option<String>,
    /// Raw value of `urgency`.
    pub urgency: Option<String>,
    /// Order in which waiting alerts are written; 0 first.
    #[schemars(range(min = 0, max = 9))]
    pub priority: Option<u8>,
    /// How long an alert of this severity must stay open before it gets a ticket. Default: the route's `hold_down`.
    pub hold_down: Option<String>,
}

/// When an alert flaps.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFlapping {
    /// Changes of its state, opened or resolved, that make an alert flap. Default 6.
    #[schemars(range(min = 2, max = 1000))]
    pub changes: Option<u32>,
    /// In so long. Default `10m`.
    pub within: Option<String>,
    /// Then the state of its ticket changes at most once in this time. Default `10m`.
    pub hold: Option<String>,
}

/// Raw values of the state column.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStates {
    /// The column. Default `state`.
    pub column: Option<String>,
    /// A new ticket. Default 1.
    pub new: Option<String>,
    /// Somebody works on it. Default 2.
    pub in_progress: Option<String>,
    /// It waits for somebody. Default [3].
    pub on_hold: Option<Vec<String>>,
    /// Resolved. Default 6.
    pub resolved: Option<String>,
    /// Closed or cancelled; never written again. Default [7, 8].
    pub closed: Option<Vec<String>>,
}

/// Most unresolved work before reading pauses.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBudget {
    /// Alert events. Default 100000.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub events: Option<u32>,
    /// Size of their records. Default `64MiB`.
    pub size: Option<String>,
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
