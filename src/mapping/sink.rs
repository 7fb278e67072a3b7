//! The compiled mapping of a sink route.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::TemplateContext;
use super::event_id_hash;
use super::rules::{ActionRule, JOURNAL_COLUMNS, RESERVED_COLUMNS, RuleError, Rules, action_name};
use super::template::{Template, Templates};
use crate::model::{Action, AlertEvent, Column, EventOrder, Intent, Position};

/// Maximum number of characters of a note; longer ones are truncated. The engine splits long notes, and no sensible
/// text is longer.
const MAX_NOTE_LENGTH: usize = 200_000;

/// Length of a column in characters if it is not known.
const DEFAULT_LENGTH: usize = 4_000;

/// An event could not be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct MappingError {
    /// Stable code for dead letters.
    pub code: &'static str,
    /// The rule, as a path below the route: `fields.short_description`.
    pub path: String,
    /// The problem and the remedy.
    pub message: String,
}

#[derive(Debug, Clone)]
struct ColumnRule {
    column: Column,
    length: usize,
    template: Template,
    path: String,
}

/// The compiled rules of a route.
#[derive(Debug, Clone, Default)]
pub struct SinkMapping {
    templates: Templates,
    fields: Vec<ColumnRule>,
    closing: Vec<ColumnRule>,
    note: Option<Template>,
    notes: Vec<(Action, Option<Template>)>,
    rules: Rules,
}

impl SinkMapping {
    /// The patterns of which a key must match one; empty: all keys are processed.
    pub fn key_filter(&self) -> &[String] {
        &self.rules.key_filter
    }

    /// Compiles rules.
    ///
    /// # Errors
    /// All errors of the rules.
    pub fn compile(rules: Rules) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let mut templates = Templates::default();
        let fields = compile_columns("fields", &rules.fields, &rules, &mut templates, &mut errors);
        let closing = compile_columns("closing", &rules.closing, &rules, &mut templates, &mut errors);
        for rule in &closing {
            if rules.fields.get(&*rule.column).is_some_and(Option::is_some) {
                let message = "the column is also listed under `fields`; remove it from one of them".into();
                errors.push(RuleError { path: rule.path.clone(), message });
            }
        }
        let mut note = |path: String, text: Option<&String>| {
            let text = text?;
            templates.add(&path, text).map_err(|message| errors.push(RuleError { path, message })).ok()
        };
        let default_note = note("notes.default".into(), rules.note.as_ref());
        let notes = rules
            .notes
            .iter()
            .map(|(action, text)| (*action, note(format!("notes.{}", action_name(*action)), text.as_ref())))
            .collect();
        if errors.is_empty() {
            Ok(Self { templates, fields, closing, note: default_note, notes, rules })
        } else {
            Err(errors)
        }
    }

    /// Maps `event`, which is at `position` and counts as `order` says, to an intent; `None` if a rule skips it.
    ///
    /// # Errors
    /// A template failed for this event, for example because it uses a label that the event does not have.
    pub fn map(
        &self,
        event: &Arc<AlertEvent>,
        position: Position,
        order: EventOrder,
    ) -> Result<Option<Intent>, MappingError> {
        let Some(action) = event.action.and_then(|action| self.action(action)) else { return Ok(None) };
        if !self.rules.key_filter.is_empty()
            && !self.rules.key_filter.iter().any(|pattern| key_matches(pattern, &event.key))
        {
            return Ok(None);
        }
        let severity = TemplateContext::severity(event, action);
        let known = severity.and_then(|severity| self.rules.severity.get(severity));
        let rule = known.or_else(|| self.rules.severity.get("unknown"));
        let values = rule.filter(|_| severity.is_some());
        let (impact, urgency) = values.map_or((None, None), |rule| (rule.impact.clone(), rule.urgency.clone()));
        let context = Arc::new(TemplateContext { event: Arc::clone(event), action, impact, urgency });
        // An action that does not affect the state is only a note: its event may lack the alert's values.
        let fields = if action.affects_state() { self.values(&self.fields, &context)? } else { Vec::new() };
        let closing = if action.closes() { self.values(&self.closing, &context)? } else { Vec::new() };
        Ok(Some(Intent {
            position,
            key: Arc::from(event.key.as_str()),
            action,
            fields,
            closing,
            note: self.note(action, &context)?,
            event_id: (event.event_id_native && !event.event_id.is_empty()).then(|| event_id_hash(&event.event_id)),
            episode: event.episode.as_deref().filter(|_| action.opens()).map(event_id_hash),
            occurred_at: event.occurred_at,
            order,
            priority: rule.map_or(2, |rule| rule.priority),
            hold_down: rule.and_then(|rule| rule.hold_down).unwrap_or(self.rules.hold_down),
        }))
    }

    /// Returns all columns that this mapping can write, sorted. These are the columns to read of a row.
    pub fn columns(&self) -> Vec<Column> {
        let mut all: Vec<Column> = self.fields.iter().chain(&self.closing).map(|rule| rule.column.clone()).collect();
        all.sort();
        all
    }

    /// Returns these columns with the maximum length of a value in characters; 0 if it is not known.
    pub fn lengths(&self) -> impl Iterator<Item = (&str, usize)> {
        let known = |column: &str| self.rules.lengths.get(column).copied().unwrap_or(0);
        self.fields.iter().chain(&self.closing).map(move |rule| (&*rule.column, known(&rule.column)))
    }

    fn action(&self, action: Action) -> Option<Action> {
        match self.rules.actions.iter().find(|(from, _)| *from == action) {
            Some((_, ActionRule::As(target))) => Some(*target),
            Some((_, ActionRule::Ignore)) => None,
            None => Some(action),
        }
    }

    fn values(
        &self,
        rules: &[ColumnRule],
        context: &Arc<TemplateContext>,
    ) -> Result<Vec<(Column, String)>, MappingError> {
        let mut values = Vec::with_capacity(rules.len());
        for rule in rules {
            let text = self.templates.render(&rule.template, context).map_err(|message| MappingError {
                code: "mapping",
                path: rule.path.clone(),
                message,
            })?;
            let text = sanitize(&text, rule.length);
            if !text.is_empty() {
                values.push((rule.column.clone(), text));
            }
        }
        Ok(values)
    }

    fn note(&self, action: Action, context: &Arc<TemplateContext>) -> Result<Option<String>, MappingError> {
        let specific = self.notes.iter().find(|(known, _)| *known == action).map(|(_, template)| template);
        let Some(template) = specific.unwrap_or(&self.note) else { return Ok(None) };
        let text = self.templates.render(template, context).map_err(|message| MappingError {
            code: "mapping",
            path: format!("notes.{}", if specific.is_some() { action_name(action) } else { "default" }),
            message,
        })?;
        let text = sanitize(&text, MAX_NOTE_LENGTH);
        Ok((!text.is_empty()).then_some(text))
    }
}

fn compile_columns(
    section: &str,
    columns: &BTreeMap<String, Option<String>>,
    rules: &Rules,
    templates: &mut Templates,
    errors: &mut Vec<RuleError>,
) -> Vec<ColumnRule> {
    let mut compiled = Vec::new();
    for (column, text) in columns {
        let Some(text) = text else { continue };
        let path = format!("{section}.{column}");
        if let Some(message) = rejection_reason(column, rules) {
            errors.push(RuleError { path, message });
            continue;
        }
        match templates.add(&path, text) {
            Ok(template) => {
                let length = rules.lengths.get(column).copied().unwrap_or(DEFAULT_LENGTH);
                compiled.push(ColumnRule { column: column.as_str().into(), length, template, path });
            }
            Err(message) => errors.push(RuleError { path, message }),
        }
    }
    compiled
}

/// Returns the reason why rules may not write a column.
fn rejection_reason(column: &str, rules: &Rules) -> Option<String> {
    if column == rules.state_column {
        return Some("the bridge computes the state; use `states` and `actions` to configure it".into());
    }
    if JOURNAL_COLUMNS.contains(&column) {
        return Some("each write appends to a journal column; use `notes`".into());
    }
    if RESERVED_COLUMNS.contains(&column) || rules.reserved.contains(&column) {
        return Some(format!("`{column}` is written by the bridge or by ServiceNow itself; use another column"));
    }
    None
}

/// Removes control characters and truncates. The instance silently drops NUL and truncates at the column's length, and
/// the stored value must equal the sent one.
fn sanitize(text: &str, length: usize) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).take(length).collect();
    text.trim_end().to_owned()
}

/// Returns true if a key matches a pattern, in which `*` matches any text.
pub fn key_matches(pattern: &str, key: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = key.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(start) = rest.find(part) else { return false };
        rest = rest.get(start + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}
