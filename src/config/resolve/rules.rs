//! Resolves the mapping rules of a sink route: the defaults, overridden by the file.

use std::time::Duration;

use crate::mapping::{ActionRule, Rules, SeverityRule, action_names};
use crate::model::severity::SEVERITIES;

use super::super::raw::{RawSeverity, RawSink};
use super::super::validate::join;
use super::Context;

/// Bounds of hold times. Held events are unresolved: the longer they are held, the more is read again after a restart.
pub(super) const HOLD_BOUNDS: (&str, &str) = ("0s", "1h");

/// Returns the default `rules` overridden by the file.
pub(super) fn resolve(raw: &mut RawSink, at: &str, mut rules: Rules, context: &mut Context<'_>) -> Rules {
    let subfield_prefix = rules.subfield_prefix;
    for (key, overrides, templates) in
        [("fields", raw.fields.take(), &mut rules.fields), ("closing", raw.closing.take(), &mut rules.closing)]
    {
        for (column, template) in overrides.unwrap_or_default() {
            // A subfield of a column that contains a map.
            let name = subfield_prefix.and_then(|prefix| column.strip_prefix(prefix)).unwrap_or(&column);
            context.check_column_name(&join(&join(at, key), &column), name);
            templates.insert(column, template);
        }
    }
    notes(raw, &join(at, "notes"), &mut rules, context);
    severities(raw, &join(at, "severity"), &mut rules, context);
    actions(raw, &join(at, "actions"), &mut rules, context);
    for (column, length) in raw.lengths.take().unwrap_or_default() {
        rules.lengths.insert(column, length as usize);
    }
    rules.key_filter = raw.key_filter.take().unwrap_or_default();
    rules.hold_down = millis_in(&join(at, "hold_down"), raw.hold_down.as_deref(), Duration::ZERO, HOLD_BOUNDS, context);
    rules
}

/// Parses a duration and checks its bounds; milliseconds.
pub(super) fn millis_in(
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
            context
                .error(&join(at, &name), &format!("`{name}` is not an action; accepted: default, {}", all_actions()));
        }
    }
}

fn severities(raw: &mut RawSink, at: &str, rules: &mut Rules, context: &mut Context<'_>) {
    for (name, RawSeverity { impact, urgency, priority, hold_down }) in raw.severity.take().unwrap_or_default() {
        if !SEVERITIES.contains(&name.as_str()) {
            let message = format!("`{name}` is not a severity; accepted: {}", SEVERITIES.join(", "));
            context.error(&join(at, &name), &message);
            continue;
        }
        let hold_down = hold_down.map(|text| {
            millis_in(&join(&join(at, &name), "hold_down"), Some(&text), Duration::ZERO, HOLD_BOUNDS, context)
        });
        let empty = SeverityRule { impact: None, urgency: None, priority: 2, hold_down: None };
        let rule = rules.severity.entry(name).or_insert(empty);
        rule.hold_down = hold_down;
        rule.impact = impact.or_else(|| rule.impact.take());
        rule.urgency = urgency.or_else(|| rule.urgency.take());
        rule.priority = priority.unwrap_or(rule.priority);
    }
}

fn actions(raw: &mut RawSink, at: &str, rules: &mut Rules, context: &mut Context<'_>) {
    for (name, target) in raw.actions.take().unwrap_or_default() {
        let find = |wanted: &str| action_names().find(|(known, _)| *known == wanted).map(|(_, action)| action);
        let Some(action) = find(&name) else {
            context.error(&join(at, &name), &format!("`{name}` is not an action; accepted: {}", all_actions()));
            continue;
        };
        let rule = if target == "ignore" { Some(ActionRule::Ignore) } else { find(&target).map(ActionRule::As) };
        let Some(rule) = rule else {
            let message = format!("`{target}` is not an action; accepted: ignore, {}", all_actions());
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
