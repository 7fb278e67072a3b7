//! A sink route as it stands in the file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// A route from Kafka to ServiceNow.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawSink {
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
    /// How the table is written: each write a request of its own (`table`), many in one (`batch`), or rows of a staging
    /// table (`import_set`); or each is an event of Event Management (`event`). Default `table`.
    pub write: Option<RawWrite>,
    /// For `write: batch`: how requests are put together.
    pub batch: Option<RawBatch>,
    /// For `write: import_set`: the staging table.
    pub import_set: Option<RawImportSet>,
    /// For `write: event`: what the events say of their sender, and how they are put together.
    pub event: Option<RawEvent>,
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
    /// How long an alert must stay open before it gets a ticket, or before its resolved ticket is reopened. One that is
    /// over sooner gets none. Default `0s`.
    pub hold_down: Option<String>,
    /// Hold the state of alerts that open and resolve again and again; a note says so. Default: off.
    pub flapping: Option<RawFlapping>,
    /// An alert that comes back at most this long after its resolution reopens its ticket. Default `24h`.
    pub reopen_window: Option<String>,
    /// Rows last seen longer ago are read before they are written; `0`: always. Default `5m`.
    pub row_freshness: Option<String>,
    /// You vouch that all records of an alert share a partition although they are not keyed by its key. Default false.
    pub copartitioned: Option<bool>,
    /// Re-key the topic through an internal one, because its records are not keyed by the alert's key. Default false.
    pub rekey: Option<bool>,
    /// For `rekey`: the internal topic. Default `<prefix>.<route>.rekeyed`; with `digest` `<prefix>.<route>.digests`, and
    /// beside it `<that>.grouped` and `<that>.groups`.
    pub rekeyed: Option<String>,
    /// Many alerts in one ticket, which lists them. Such a route re-keys its topic by itself. Default: off.
    pub digest: Option<RawDigest>,
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

/// Which alerts share a ticket.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawDigest {
    /// Template: alerts of which it makes the same text share a ticket; those of which it makes nothing, or which lack
    /// what it names, keep one of their own.
    #[schemars(required)]
    pub group_by: Option<String>,
    /// How many alerts a ticket names, the open and worst first. Default 20.
    #[schemars(range(min = 1, max = 200))]
    pub list: Option<u32>,
}

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawWrite {
    /// By the Table API.
    Table,
    /// By the Table API inside of the Batch API.
    Batch,
    /// By the Import Set API: a transform map writes the table.
    ImportSet,
    /// As events of Event Management, of which the instance makes alerts.
    Event,
}

/// What events say of their sender, and how they are put together.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawEvent {
    /// Their `source`. Default `nowbridge`.
    pub source: Option<String>,
    /// Their `event_class`, the instance of the source. Default: the route's name.
    pub class: Option<String>,
    /// Most events in one request. Default 50.
    #[schemars(range(min = 1, max = 1000))]
    pub size: Option<u32>,
    /// How long an event waits for others to leave with; critical alerts don't. Default `100ms`.
    pub linger: Option<String>,
}

/// The staging table of an import set. Its transform map must coalesce on one column, which holds the ticket's sys_id.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawImportSet {
    /// Name of the staging table, whose transform map writes the route's table.
    #[schemars(required)]
    pub staging: Option<String>,
    /// Begins the names of its columns, before the table's: `u_short_description`. Default `u_`.
    pub prefix: Option<String>,
    /// Its column with the ticket's sys_id, on which the transform map coalesces; empty for a new ticket. Default
    /// `u_sys_id`.
    pub coalesce: Option<String>,
}

/// How requests are put together.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawBatch {
    /// Most requests in one. The instance serves them one after the other and ends a batch after 30 s. Default 20.
    #[schemars(range(min = 2, max = 100))]
    pub size: Option<u32>,
    /// How long a request waits for others to leave with; critical alerts don't. Default `100ms`.
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

/// What is one ticket.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawBy {
    /// The notification group.
    Group,
    /// The single alert.
    Alert,
}

/// Whose value stands.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawPeople {
    /// The person's.
    Keep,
    /// The bridge's.
    Overwrite,
}

/// What to do without a ledger.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawOnLost {
    /// Stop and say so.
    Refuse,
    /// Look every unknown key up.
    LookUp,
}

/// What a severity means for a ticket.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RawWeight {
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
pub(in super::super) struct RawFlapping {
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
pub(in super::super) struct RawStates {
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
pub(in super::super) struct RawBudget {
    /// Alert events. Default 100000.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub events: Option<u32>,
    /// Size of their records. Default `64MiB`.
    pub size: Option<String>,
}
