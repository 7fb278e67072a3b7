//! A sink route as written in the file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// A route from Kafka to ServiceNow.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawSink {
    /// Name of the instance. Optional if there is only one.
    pub instance: Option<String>,
    /// Topic with the alert events.
    #[schemars(required)]
    pub topic: Option<String>,
    /// Consumer group. Default `<prefix>.<route>`.
    pub group: Option<String>,
    /// Format of the records. Default `canonical`.
    pub format: Option<RawFormat>,
    /// For the format `alertmanager`: one ticket per notification group or per alert. Default `group`.
    pub ticket_per: Option<RawTicketPer>,
    /// Where to start reading if the consumer group has no offset: `earliest`, `latest` or a time such as
    /// `2026-01-31T00:00:00Z`. Default `earliest`.
    pub start: Option<String>,
    /// Table to write. Default `incident`.
    pub table: Option<String>,
    /// How to write the table: one request per write (`table`), many writes per request (`batch`), through a staging
    /// table (`import_set`), or as events of Event Management (`event`). Default `table`.
    pub write: Option<RawWrite>,
    /// For `write: batch`: size and linger of a batch.
    pub batch: Option<RawBatch>,
    /// For `write: import_set`: the staging table.
    pub import_set: Option<RawImportSet>,
    /// For `write: event`: source and class of the events, size and linger of a request.
    pub event: Option<RawEvent>,
    /// Value of `correlation_display`, which names this bridge in its tickets. Default `nowbridge`.
    pub correlation_display: Option<String>,
    /// Templates by column. They are added to the defaults (short_description, description, impact, urgency) and
    /// override them; an empty value removes a default. A value that renders to nothing is not written.
    pub fields: Option<BTreeMap<String, Option<String>>>,
    /// Templates of columns that are written only when a ticket is resolved. They are added to the defaults (close_code
    /// and close_notes) and override them.
    pub closing: Option<BTreeMap<String, Option<String>>>,
    /// Templates of the work note: `default`, or by name of an action. An empty value writes no note.
    pub notes: Option<BTreeMap<String, Option<String>>>,
    /// Impact, urgency, priority and hold-down by severity. Severities that are not listed keep their defaults.
    pub severity: Option<BTreeMap<String, RawSeverity>>,
    /// Actions to handle as another action, or to `ignore`. Default `suppress: ignore`, `unsuppress: ignore`.
    pub actions: Option<BTreeMap<String, String>>,
    /// Raw values of the state column. Default: those of `incident`.
    pub states: Option<RawStates>,
    /// Lengths of columns in characters, in addition to the known ones. Longer values are truncated.
    #[schemars(inner(range(min = 1, max = 1_000_000)))]
    pub lengths: Option<BTreeMap<String, u32>>,
    /// What to do with a column that a user has changed: `keep` the user's value, or `overwrite` it. Default `keep`.
    pub on_user_edit: Option<BTreeMap<String, RawOnUserEdit>>,
    /// What an opening event does after a user has resolved or closed the ticket, if its sender does not name firings:
    /// `reopen` the ticket (within `reopen_window`, else create a new one), or `keep` it until the alert was over.
    /// Default `reopen`. Where firings are named (`episode`), only a new one opens the ticket again.
    pub on_user_resolve: Option<RawOnUserResolve>,
    /// What decides which of two events of an alert is newer: its place in the `log` of its partition, or `occurred_at`,
    /// for a sender whose deliveries overtake each other (retried webhooks) and whose clocks agree. A change of state
    /// that is older than the last one is not applied, its note is. Default `log`.
    pub order: Option<RawOrder>,
    /// How long an alert must stay open before it gets a ticket, or before its resolved ticket is reopened. An alert
    /// that is over sooner gets none. Default `0s`.
    pub hold_down: Option<String>,
    /// Limit the state changes of alerts that open and resolve again and again; a note says so. Default: off.
    pub flapping: Option<RawFlapping>,
    /// An alert that opens again at most this long after its resolution reopens its ticket. Default `24h`.
    pub reopen_window: Option<String>,
    /// A ticket is written at most this long after its row was read, or after three permits if that takes longer. A
    /// longer age saves reads, and the bridge overwrites what users change meanwhile. Default `5s`, at least `1s`.
    pub max_row_age: Option<String>,
    /// Something else guarantees that all records of an alert share a partition, although the record key is not the
    /// alert's key. Default false.
    pub keyed_by_alert: Option<bool>,
    /// Copy the topic to an internal topic that is partitioned by the alert's key, for topics whose record key is not
    /// the alert's key. Default false.
    pub repartition: Option<bool>,
    /// For `repartition`: the internal topic. Default `<prefix>.<route>.repartitioned`; with `grouping`
    /// `<prefix>.<route>.groups`, together with `<topic>.input` and `<topic>.state`.
    pub repartition_topic: Option<String>,
    /// Write many alerts into one ticket, which lists them. Such a route always repartitions its topic. Default: off.
    pub grouping: Option<RawGrouping>,
    /// Process only alerts whose key matches one of these patterns, in which `*` matches any text. For a canary.
    pub key_filter: Option<Vec<String>>,
    /// What to do if the ledger is missing although the route has run before: `refuse` to start until the ledger is
    /// rebuilt, or `look_up` every unknown key in ServiceNow before a ticket is created. Default `refuse`.
    pub on_missing_ledger: Option<RawOnMissingLedger>,
    /// Limit of unresolved events. Above it, reading pauses.
    pub budget: Option<RawBudget>,
    /// Maximum number of characters of work notes in one write. Longer notes are split. Default 16000.
    #[schemars(range(min = 200, max = 1_000_000))]
    pub note_limit: Option<u32>,
    /// Consecutive rejected writes that stop the route. Default 20.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rejection_limit: Option<u32>,
    /// Topic of the results: one record per applied write. Default `<prefix>.<route>.results`.
    pub results: Option<String>,
    /// Publish results. Default true.
    pub publish_results: Option<bool>,
    /// Topic of rejected records. Default `<prefix>.<route>.dead-letters`.
    pub dead_letters: Option<String>,
    /// Topic in which the bridge stores which ticket belongs to which alert. Default `<prefix>.<route>.ledger`.
    pub ledger: Option<String>,
}

/// Which alerts share a ticket.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawGrouping {
    /// Template. Alerts for which it renders the same text share a ticket. Alerts for which it renders nothing, or
    /// fails because a label is missing, get a ticket of their own.
    #[schemars(required)]
    pub group_by: Option<String>,
    /// How many alerts a ticket lists: open alerts first, then by severity. Default 20.
    #[schemars(range(min = 1, max = 200))]
    pub max_listed: Option<u32>,
}

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawWrite {
    /// Table API.
    Table,
    /// Table API requests inside of the Batch API.
    Batch,
    /// Import Set API: a transform map writes the table.
    ImportSet,
    /// Events of Event Management, from which the instance creates alerts.
    Event,
}

/// Source and class of events, size and linger of a request.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawEvent {
    /// `source` of the events. Default `nowbridge`.
    pub source: Option<String>,
    /// `event_class` of the events, the instance of the source. Default: the route's name.
    pub class: Option<String>,
    /// Maximum number of events in one request. Default 50.
    #[schemars(range(min = 1, max = 1000))]
    pub size: Option<u32>,
    /// How long an event waits for others to share its request. Critical alerts do not wait. Default `100ms`.
    pub linger: Option<String>,
}

/// The staging table of an import set. Its transform map must coalesce on one column, which contains the ticket's
/// sys_id.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawImportSet {
    /// Name of the staging table, whose transform map writes the route's table.
    #[schemars(required)]
    pub staging: Option<String>,
    /// Prefix of the staging table's columns, before the names of the table's columns: `u_short_description`. Default
    /// `u_`.
    pub prefix: Option<String>,
    /// Staging column with the ticket's sys_id, on which the transform map coalesces; empty for a new ticket. Default
    /// `u_sys_id`.
    pub coalesce: Option<String>,
}

/// Size and linger of a batch.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawBatch {
    /// Maximum number of requests in one batch. The instance runs them one after the other and ends a batch after
    /// 30 s. Default 20.
    #[schemars(range(min = 2, max = 100))]
    pub size: Option<u32>,
    /// How long a request waits for others to share its batch. Critical alerts do not wait. Default `100ms`.
    pub linger: Option<String>,
}

/// Format of a topic's records.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawFormat {
    /// The canonical alert event, in its full or short form.
    Canonical,
    /// The webhook body of Prometheus Alertmanager.
    Alertmanager,
}

/// What gets a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawTicketPer {
    /// Each notification group.
    Group,
    /// Each alert.
    Alert,
}

/// Which value a column gets after a user has changed it.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawOnUserEdit {
    /// The user's value is kept.
    Keep,
    /// The bridge overwrites the user's value.
    Overwrite,
}

/// What an opening event does to a ticket that a user has resolved or closed.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawOnUserResolve {
    /// It opens the ticket again.
    Reopen,
    /// It does not, until the alert was over.
    Keep,
}

/// What decides which of two events of an alert is newer.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawOrder {
    /// Its place in the log.
    Log,
    /// Its time, as its sender gives it.
    OccurredAt,
}

/// What to do if the ledger is missing.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawOnMissingLedger {
    /// Stop the route with an error.
    Refuse,
    /// Look up every unknown key in ServiceNow.
    LookUp,
}

/// Values and processing order of alerts of a severity.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawSeverity {
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

/// Flap detection.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawFlapping {
    /// State changes (opened or resolved) within `within` from which an alert is flapping. Default 6.
    #[schemars(range(min = 2, max = 1000))]
    pub changes: Option<u32>,
    /// Time in which `changes` are counted. Default `10m`.
    pub within: Option<String>,
    /// While an alert is flapping, the state of its ticket changes at most once in this time. Default `10m`.
    pub hold: Option<String>,
}

/// Raw values of the state column.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawStates {
    /// The state column. Default `state`.
    pub column: Option<String>,
    /// A new ticket. Default 1.
    pub new: Option<String>,
    /// A ticket that somebody works on. Default 2.
    pub in_progress: Option<String>,
    /// A ticket that waits for something. Default [3].
    pub on_hold: Option<Vec<String>>,
    /// A resolved ticket. Default 6.
    pub resolved: Option<String>,
    /// A closed or canceled ticket; never written again. Default [7, 8].
    pub closed: Option<Vec<String>>,
}

/// Limit of unresolved events. Above it, reading pauses.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawBudget {
    /// Alert events. Default 100000.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub events: Option<u32>,
    /// Size of their records. Default `64MiB`.
    pub size: Option<String>,
}
