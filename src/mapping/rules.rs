//! The mapping rules of a sink route as plain values, before they are compiled.
//!
//! The defaults suit `incident` on a standard instance. A configuration overrides single rules.

use std::collections::BTreeMap;

use crate::model::Action;

/// Values and processing order of alerts of a severity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeverityRule {
    /// Raw value of `impact`; `None`: not written.
    pub impact: Option<String>,
    /// Raw value of `urgency`; `None`: not written.
    pub urgency: Option<String>,
    /// Order in which lanes are processed; 0 first.
    pub priority: u8,
    /// How long an alert must stay open before it gets a ticket, milliseconds; `None`: as for the route.
    pub hold_down: Option<u64>,
}

/// How an action is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionRule {
    /// Handled as this action.
    As(Action),
    /// Skipped; nothing is written.
    Ignore,
}

/// Rules of one sink route.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Templates by column; `None` removes a default.
    pub fields: BTreeMap<String, Option<String>>,
    /// Templates of columns that are written only when the ticket is resolved.
    pub closing: BTreeMap<String, Option<String>>,
    /// Default template of the work note. No note is written if it renders to nothing.
    pub note: Option<String>,
    /// Templates of the work note by action, which replace `note`; `None`: no note.
    pub notes: Vec<(Action, Option<String>)>,
    /// Rules by severity. A severity without a rule is handled as `unknown`.
    pub severity: BTreeMap<String, SeverityRule>,
    /// How long an alert must stay open before it gets a ticket, milliseconds.
    pub hold_down: u64,
    /// Actions that are handled as other actions, or skipped.
    pub actions: Vec<(Action, ActionRule)>,
    /// Lengths of columns in characters, if known. Longer values are truncated.
    pub lengths: BTreeMap<String, usize>,
    /// Only alerts whose key matches one of these patterns are processed (`*` matches any text); empty: all alerts.
    pub key_filter: Vec<String>,
    /// The state column. The engine writes it; rules may not.
    pub state_column: String,
    /// Further columns that rules may not write.
    pub reserved: Vec<&'static str>,
    /// Prefix of columns that are subfields of a column with a map (`additional_info.`), if there is one.
    pub subfield_prefix: Option<&'static str>,
}

/// An error in the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// The rule, as a path below the route: `fields.short_description`.
    pub path: String,
    /// The problem and the remedy.
    pub message: String,
}

/// Journal columns. A write appends to them; the bridge writes them only as notes.
pub const JOURNAL_COLUMNS: [&str; 4] = ["work_notes", "comments", "work_notes_list", "comments_and_work_notes"];

/// Columns that the bridge or the instance writes.
pub const RESERVED_COLUMNS: [&str; 10] = [
    "correlation_id",
    "correlation_display",
    "sys_id",
    "number",
    "sys_mod_count",
    "sys_created_on",
    "sys_created_by",
    "sys_updated_on",
    "sys_updated_by",
    "sys_class_name",
];

/// Returns every action with its name in events and configurations.
pub fn action_names() -> impl Iterator<Item = (&'static str, Action)> {
    const ALL: [Action; 13] = [
        Action::Open,
        Action::Update,
        Action::Acknowledge,
        Action::Unacknowledge,
        Action::Assign,
        Action::Note,
        Action::Suppress,
        Action::Unsuppress,
        Action::Resolve,
        Action::Reopen,
        Action::Merge,
        Action::Split,
        Action::FollowUp,
    ];
    ALL.into_iter().map(|action| (action_name(action), action))
}

/// Returns the name of an action.
pub fn action_name(action: Action) -> &'static str {
    match action {
        Action::Open => "open",
        Action::Update => "update",
        Action::Acknowledge => "acknowledge",
        Action::Unacknowledge => "unacknowledge",
        Action::Assign => "assign",
        Action::Note => "note",
        Action::Suppress => "suppress",
        Action::Unsuppress => "unsuppress",
        Action::Resolve => "resolve",
        Action::Reopen => "reopen",
        Action::Merge => "merge",
        Action::Split => "split",
        Action::FollowUp => "follow_up",
    }
}

fn template(text: &str) -> Option<String> {
    Some(text.to_owned())
}

impl Default for Rules {
    fn default() -> Self {
        let rule = |impact: &str, urgency: &str, priority| SeverityRule {
            impact: Some(impact.into()),
            urgency: Some(urgency.into()),
            priority,
            hold_down: None,
        };
        Self {
            fields: BTreeMap::from([
                ("short_description".into(), template("{{ title }}")),
                ("description".into(), template(DESCRIPTION)),
                ("impact".into(), template("{{ impact }}")),
                ("urgency".into(), template("{{ urgency }}")),
            ]),
            closing: BTreeMap::from([
                ("close_code".into(), template(CLOSE_CODE)),
                ("close_notes".into(), template(CLOSE_NOTES)),
            ]),
            note: template(NOTE),
            notes: Vec::new(),
            severity: BTreeMap::from([
                ("critical".into(), rule("1", "1", 0)),
                ("high".into(), rule("2", "1", 1)),
                ("medium".into(), rule("2", "2", 2)),
                ("low".into(), rule("3", "2", 3)),
                ("info".into(), rule("3", "3", 4)),
                ("unknown".into(), rule("2", "2", 2)),
            ]),
            hold_down: 0,
            actions: vec![(Action::Suppress, ActionRule::Ignore), (Action::Unsuppress, ActionRule::Ignore)],
            lengths: [
                ("short_description", 160),
                ("description", 4000),
                ("close_notes", 4000),
                ("close_code", 40),
                ("correlation_display", 100),
                ("category", 40),
                ("subcategory", 40),
                ("contact_type", 40),
                ("impact", 40),
                ("urgency", 40),
            ]
            .into_iter()
            .map(|(column, length)| (column.to_owned(), length))
            .collect(),
            key_filter: Vec::new(),
            state_column: "state".into(),
            reserved: Vec::new(),
            subfield_prefix: None,
        }
    }
}

/// An event without a description keeps the ticket's description: a value that renders to nothing is not written.
const DESCRIPTION: &str = "{{ description }}";

/// Every ServiceNow release up to Quebec has the close code `Solved (Permanently)`; newer ones also have `Resolved by
/// caller` and others. Routes can override it.
const CLOSE_CODE: &str = r#"{{ resolution.code or "Solved (Permanently)" }}"#;

const CLOSE_NOTES: &str = r#"{{ resolution.notes or ("Resolved by " ~ (actor or source) ~ (" (" ~ resolution.reason ~ ")" if resolution.reason else "") ~ ".") }}"#;

const NOTE: &str = r#"
{%- if note -%}{% if actor %}{{ actor }}: {% endif %}{{ note }}
{%- elif action == "merge" -%}Merged into {{ merged_into or "another alert" }}.
{%- elif action == "split" -%}Split off another alert.
{%- elif action == "follow_up" -%}Follow-up: {{ title or object_id }}.
{%- endif -%}"#;
