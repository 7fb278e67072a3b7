//! The rules of a sink route as plain values, before they are compiled.
//!
//! The defaults are those of `incident` on a standard instance; a configuration overrides them one by one.

use std::collections::BTreeMap;

use crate::model::Action;

/// What a severity means for a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// Raw value of `impact`; `None` writes none.
    pub impact: Option<String>,
    /// Raw value of `urgency`; `None` writes none.
    pub urgency: Option<String>,
    /// Order in which lanes are drawn; 0 first.
    pub priority: u8,
    /// How long an alert of this severity must stay open before it gets a ticket, milliseconds; `None`: the route's.
    pub hold_down: Option<u64>,
}

/// What is done with an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionRule {
    /// Taken as this action.
    As(Action),
    /// Left out; nothing is written.
    Ignore,
}

/// Rules of one sink route.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Column to template; `None` takes a default away.
    pub fields: BTreeMap<String, Option<String>>,
    /// Columns written only when the ticket is resolved, and their templates.
    pub closing: BTreeMap<String, Option<String>>,
    /// Template of the work note for any action; where it renders to nothing, there is no note.
    pub note: Option<String>,
    /// Templates of the work note for single actions, instead of `note`.
    pub notes: Vec<(Action, Option<String>)>,
    /// Severity to weight; a severity that is not named is taken as `unknown`.
    pub severity: BTreeMap<String, Weight>,
    /// How long an alert must stay open before it gets a ticket, milliseconds.
    pub hold_down: u64,
    /// Actions taken as others, or left out.
    pub actions: Vec<(Action, ActionRule)>,
    /// Length of columns in characters, where known; longer values are cut.
    pub lengths: BTreeMap<String, usize>,
    /// Only alerts whose key matches one of these patterns (`*` stands for any text); empty: all.
    pub only: Vec<String>,
    /// The state column, which the engine writes and rules may not.
    pub state_column: String,
    /// Further columns that rules may not write.
    pub reserved: Vec<&'static str>,
    /// Begins the names of columns that are parts of one (`additional_info.`), if there is one.
    pub parted: Option<&'static str>,
}

/// Something wrong with the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which rule, as path below the route: `fields.short_description`.
    pub at: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Journal columns: they append and are written as notes only.
pub const JOURNAL_COLUMNS: [&str; 4] = ["work_notes", "comments", "work_notes_list", "comments_and_work_notes"];

/// Columns that the bridge or the instance itself keeps.
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

/// Every action and its name, as it stands in events and in configurations.
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

/// The name of an action.
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
        let weight = |impact: &str, urgency: &str, priority| Weight {
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
                ("critical".into(), weight("1", "1", 0)),
                ("high".into(), weight("2", "1", 1)),
                ("medium".into(), weight("2", "2", 2)),
                ("low".into(), weight("3", "2", 3)),
                ("info".into(), weight("3", "3", 4)),
                ("unknown".into(), weight("2", "2", 2)),
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
            only: Vec::new(),
            state_column: "state".into(),
            reserved: Vec::new(),
            parted: None,
        }
    }
}

/// An event without a description leaves the ticket's as it is: a value that renders to nothing is not written.
const DESCRIPTION: &str = "{{ description }}";

/// `Solved (Permanently)` is the close code that every release up to Quebec has; newer ones know `Resolved by caller`
/// and others beside it. It can be set per route.
const CLOSE_CODE: &str = r#"{{ resolution.code or "Solved (Permanently)" }}"#;

const CLOSE_NOTES: &str = r#"{{ resolution.notes or ("Resolved by " ~ (actor or source) ~ (" (" ~ resolution.reason ~ ")" if resolution.reason else "") ~ ".") }}"#;

const NOTE: &str = r#"
{%- if note -%}{% if actor %}{{ actor }}: {% endif %}{{ note }}
{%- elif action == "merge" -%}Merged into {{ merged_into or "another alert" }}.
{%- elif action == "split" -%}Split off another alert.
{%- elif action == "follow_up" -%}Follow-up: {{ title or object_id }}.
{%- endif -%}"#;
