//! The mapping rules of a sink route: what the file says, over the defaults.

use std::time::Duration;

use crate::mapping::{ActionRule, Rules, Weight, action_names};
use crate::model::severity::SEVERITIES;

use super::super::raw::{RawSink, RawWeight};
use super::super::shape::join;
use super::Context;

/// What is held is unresolved: the longer, the more is read again after a restart.
pub(super) const LONGEST_HOLD: (&str, &str) = ("0s", "1h");

/// What the file says, over `rules`.
pub(super) fn resolve(raw: &mut RawSink, at: &str, mut rules: Rules, context: &mut Context<'_>) -> Rules {
    let parted = rules.parted;
    for (what, given, into) in
        [("fields", raw.fields.take(), &mut rules.fields), ("closing", raw.closing.take(), &mut rules.closing)]
    {
        for (column, template) in given.unwrap_or_default() {
            // A part of a column that holds several values by their names.
            let name = parted.and_then(|parted| column.strip_prefix(parted)).unwrap_or(&column);
            context.column_name(&join(&join(at, what), &column), name);
            into.insert(column, template);
        }
    }
    notes(raw, &join(at, "notes"), &mut rules, context);
    severities(raw, &join(at, "severity"), &mut rules, context);
    actions(raw, &join(at, "actions"), &mut rules, context);
    for (column, length) in raw.lengths.take().unwrap_or_default() {
        rules.lengths.insert(column, length as usize);
    }
    rules.only = raw.only.take().unwrap_or_default();
    rules.hold_down = span(&join(at, "hold_down"), raw.hold_down.as_deref(), Duration::ZERO, LONGEST_HOLD, context);
    rules
}

/// A span in milliseconds.
pub(super) fn span(
    at: &str,
    text: Option<&str>,
    default: Duration,
    bounds: (&str, &str),
    context: &mut Context<'_>,
) -> u64 {
    u64::try_from(context.duration_in(at, text, default, bounds).as_millis()).unwrap_or(u64::MAX)
}

fn notes(raw: &mut RawSink, at: &str, rules: &mut Rules, context: &mut Context<'_>) {
    for (name, template) in raw.notes.take().unwrap_or_default() {
        if name == "default" {
            rules.note = template;
        } else if let Some((_, action)) = action_names().find(|(known, _)| *known == name) {
            rules.notes.push((action, template));
        } else {
            context.error(&join(at, &name), &format!("`{name}` is no action; accepted: default, {}", all_actions()));
        }
    }
}

fn severities(raw: &mut RawSink, at: &str, rules: &mut Rules, context: &mut Context<'_>) {
    for (name, RawWeight { impact, urgency, priority, hold_down }) in raw.severity.take().unwrap_or_default() {
        if !SEVERITIES.contains(&name.as_str()) {
            let message = format!("`{name}` is no severity; accepted: {}", SEVERITIES.join(", "));
            context.error(&join(at, &name), &message);
            continue;
        }
        let hold_down = hold_down
            .map(|text| span(&join(&join(at, &name), "hold_down"), Some(&text), Duration::ZERO, LONGEST_HOLD, context));
        let none = Weight { impact: None, urgency: None, priority: 2, hold_down: None };
        let weight = rules.severity.entry(name).or_insert(none);
        weight.hold_down = hold_down;
        weight.impact = impact.or_else(|| weight.impact.take());
        weight.urgency = urgency.or_else(|| weight.urgency.take());
        weight.priority = priority.unwrap_or(weight.priority);
    }
}

fn actions(raw: &mut RawSink, at: &str, rules: &mut Rules, context: &mut Context<'_>) {
    for (name, target) in raw.actions.take().unwrap_or_default() {
        let find = |wanted: &str| action_names().find(|(known, _)| *known == wanted).map(|(_, action)| action);
        let Some(action) = find(&name) else {
            context.error(&join(at, &name), &format!("`{name}` is no action; accepted: {}", all_actions()));
            continue;
        };
        let rule = if target == "ignore" { Some(ActionRule::Ignore) } else { find(&target).map(ActionRule::As) };
        let Some(rule) = rule else {
            let message = format!("`{target}` is no action; accepted: ignore, {}", all_actions());
            context.error(&join(at, &name), &message);
            continue;
        };
        rules.actions.retain(|(known, _)| *known != action);
        rules.actions.push((action, rule));
    }
}

fn all_actions() -> String {
    action_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}
