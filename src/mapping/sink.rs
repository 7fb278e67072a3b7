//! The compiled mapping of a sink route.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event_id_digest;
use super::rules::{ActionRule, JOURNAL_COLUMNS, Problem, RESERVED_COLUMNS, Rules, action_name};
use super::scope::Scope;
use super::template::{Template, Templates};
use crate::model::{Action, AlertEvent, Column, Intent, Position};

/// Characters of a note that are kept; the engine splits long notes, and a text beyond this is a mistake.
const MAX_NOTE: usize = 200_000;

/// Length of columns of which nothing is known.
const UNKNOWN_LENGTH: usize = 4_000;

/// An event could not be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct MappingError {
    /// Stable code for dead letters.
    pub code: &'static str,
    /// Which rule, as path below the route: `fields.short_description`.
    pub at: String,
    /// What went wrong and what to do.
    pub message: String,
}

#[derive(Debug, Clone)]
struct ColumnRule {
    column: Column,
    length: usize,
    template: Template,
    at: String,
}

/// A route's rules, compiled. Cheap to share; mapping takes `&self`.
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
    /// Compiles rules.
    ///
    /// # Errors
    /// Every problem found, not only the first.
    pub fn compile(rules: Rules) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut templates = Templates::default();
        let fields = columns("fields", &rules.fields, &rules, &mut templates, &mut problems);
        let closing = columns("closing", &rules.closing, &rules, &mut templates, &mut problems);
        for rule in &closing {
            if rules.fields.get(&*rule.column).is_some_and(Option::is_some) {
                let message = "the column stands under `fields` too; keep it in one of the two".into();
                problems.push(Problem { at: rule.at.clone(), message });
            }
        }
        let mut note = |at: String, text: Option<&String>| {
            let text = text?;
            templates.add(&at, text).map_err(|message| problems.push(Problem { at, message })).ok()
        };
        let default = note("notes.default".into(), rules.note.as_ref());
        let notes = rules
            .notes
            .iter()
            .map(|(action, text)| (*action, note(format!("notes.{}", action_name(*action)), text.as_ref())))
            .collect();
        if problems.is_empty() {
            Ok(Self { templates, fields, closing, note: default, notes, rules })
        } else {
            Err(problems)
        }
    }

    /// What `event` wants written; `None` where a rule leaves it out.
    ///
    /// # Errors
    /// A template failed on this event, such as one that prints a label the event lacks.
    pub fn map(&self, event: &Arc<AlertEvent>, position: Position) -> Result<Option<Intent>, MappingError> {
        let Some(action) = event.action.and_then(|action| self.action(action)) else { return Ok(None) };
        if !self.rules.only.is_empty() && !self.rules.only.iter().any(|pattern| matches(pattern, &event.key)) {
            return Ok(None);
        }
        let severity = Scope::severity(event);
        let weight = self.rules.severity.get(severity).or_else(|| self.rules.severity.get("unknown"));
        let (impact, urgency) = weight.map_or((None, None), |w| (w.impact.clone(), w.urgency.clone()));
        let scope = Arc::new(Scope { event: Arc::clone(event), action, impact, urgency });
        // An action that bears no state is only a note: its event need not carry the alert's values at all.
        let fields = if action.affects_state() { self.values(&self.fields, &scope)? } else { Vec::new() };
        let closing = if action.closes() { self.values(&self.closing, &scope)? } else { Vec::new() };
        Ok(Some(Intent {
            position,
            key: Arc::from(event.key.as_str()),
            action,
            fields,
            closing,
            note: self.note(action, &scope)?,
            event_id: (event.event_id_native && !event.event_id.is_empty()).then(|| event_id_digest(&event.event_id)),
            occurred_at: event.occurred_at,
            priority: weight.map_or(2, |w| w.priority),
            hold_down: weight.and_then(|w| w.hold_down).unwrap_or(self.rules.hold_down),
        }))
    }

    /// Columns that this mapping may ever write, sorted: what a row is asked for.
    pub fn columns(&self) -> Vec<Column> {
        let mut all: Vec<Column> = self.fields.iter().chain(&self.closing).map(|rule| rule.column.clone()).collect();
        all.sort();
        all
    }

    /// Those columns with the most characters that a value may have; 0 where their length is not known.
    pub fn lengths(&self) -> impl Iterator<Item = (&str, usize)> {
        let known = |column: &str| self.rules.lengths.get(column).copied().unwrap_or(0);
        self.fields.iter().chain(&self.closing).map(move |rule| (&*rule.column, known(&rule.column)))
    }

    fn action(&self, action: Action) -> Option<Action> {
        match self.rules.actions.iter().find(|(from, _)| *from == action) {
            Some((_, ActionRule::As(other))) => Some(*other),
            Some((_, ActionRule::Ignore)) => None,
            None => Some(action),
        }
    }

    fn values(&self, rules: &[ColumnRule], scope: &Arc<Scope>) -> Result<Vec<(Column, String)>, MappingError> {
        let mut values = Vec::with_capacity(rules.len());
        for rule in rules {
            let text = self.templates.render(&rule.template, scope).map_err(|message| MappingError {
                code: "mapping",
                at: rule.at.clone(),
                message,
            })?;
            let text = clean(&text, rule.length);
            if !text.is_empty() {
                values.push((rule.column.clone(), text));
            }
        }
        Ok(values)
    }

    fn note(&self, action: Action, scope: &Arc<Scope>) -> Result<Option<String>, MappingError> {
        let own = self.notes.iter().find(|(known, _)| *known == action).map(|(_, template)| template);
        let Some(template) = own.unwrap_or(&self.note) else { return Ok(None) };
        let text = self.templates.render(template, scope).map_err(|message| MappingError {
            code: "mapping",
            at: format!("notes.{}", if own.is_some() { action_name(action) } else { "default" }),
            message,
        })?;
        let text = clean(&text, MAX_NOTE);
        Ok((!text.is_empty()).then_some(text))
    }
}

fn columns(
    what: &str,
    wanted: &BTreeMap<String, Option<String>>,
    rules: &Rules,
    templates: &mut Templates,
    problems: &mut Vec<Problem>,
) -> Vec<ColumnRule> {
    let mut compiled = Vec::new();
    for (column, text) in wanted {
        let Some(text) = text else { continue };
        let at = format!("{what}.{column}");
        if let Some(message) = refusal(column, rules) {
            problems.push(Problem { at, message });
            continue;
        }
        match templates.add(&at, text) {
            Ok(template) => {
                let length = rules.lengths.get(column).copied().unwrap_or(UNKNOWN_LENGTH);
                compiled.push(ColumnRule { column: column.as_str().into(), length, template, at });
            }
            Err(message) => problems.push(Problem { at, message }),
        }
    }
    compiled
}

/// Why a column can't be a field.
fn refusal(column: &str, rules: &Rules) -> Option<String> {
    if column == rules.state_column {
        return Some("the state follows from the alert's life; use `states` and `actions` to change how".into());
    }
    if JOURNAL_COLUMNS.contains(&column) {
        return Some("journal columns append with every write; use `notes`".into());
    }
    if RESERVED_COLUMNS.contains(&column) || rules.reserved.contains(&column) {
        return Some(format!("`{column}` is kept by the bridge or by ServiceNow itself; choose another column"));
    }
    None
}

/// The instance drops NUL and cuts at the column's length without a word; what was sent must be what stands.
fn clean(text: &str, length: usize) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).take(length).collect();
    text.trim_end().to_owned()
}

/// Whether a key fits a pattern, where `*` stands for any text.
pub fn matches(pattern: &str, key: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = key.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}
