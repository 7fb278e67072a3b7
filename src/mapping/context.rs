//! The variables of templates. Each value is computed on access, because most templates consist of a single variable
//! and computing all values costs more than the rest of the mapping.

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, Serde};

use super::rules::action_name;
use super::template::variables;
use crate::model::{Action, AlertEvent};

/// The context in which the templates of one event are rendered.
#[derive(Debug)]
pub(super) struct TemplateContext {
    pub event: Arc<AlertEvent>,
    pub action: Action,
    pub impact: Option<String>,
    pub urgency: Option<String>,
}

impl TemplateContext {
    /// Returns the event's severity. An event without one has the severity `unknown` if it opens the alert, else none:
    /// an update or a resolution that does not name the severity leaves it as it is.
    pub fn severity(event: &AlertEvent, action: Action) -> Option<&str> {
        let known = event.severity.as_deref().filter(|severity| *severity != "unknown");
        known.or_else(|| action.opens().then_some("unknown"))
    }

    /// Returns the value of a text variable; `None` if it has no value or is not a text.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let event = &*self.event;
        let borrowed = match name {
            "action" => Some(action_name(self.action)),
            "actor" => event.actor.as_deref(),
            "description" => event.description.as_deref(),
            "event_id" => Some(event.event_id.as_str()),
            "impact" => self.impact.as_deref(),
            "instance" => event.instance.as_deref(),
            "key" => Some(event.key.as_str()),
            "kind" => Some(event.kind.as_str()),
            "merged_into" => event.json.get("merged_into").and_then(serde_json::Value::as_str),
            "note" => event.note.as_deref(),
            "number" => event.number.as_deref(),
            "object_id" => Some(event.object_id.as_str()),
            "occurred_at" => {
                let at = jiff::Timestamp::from_millisecond(event.occurred_at).unwrap_or_default();
                return Some(Cow::Owned(at.to_string()));
            }
            "priority" => event.priority.as_deref(),
            "severity" => Self::severity(event, self.action),
            "source" => Some(event.system.as_str()),
            "status" => Some(event.status.as_str()),
            "title" => event.title.as_deref(),
            "url" => event.url.as_deref(),
            "urgency" => self.urgency.as_deref(),
            _ => None,
        };
        borrowed.map(Cow::Borrowed)
    }

    fn resolution(&self) -> Value {
        let resolution = self.event.resolution.as_ref();
        let text = |value: Option<&String>| value.map_or(Value::from(()), |text| Value::from(text.as_str()));
        Value::from_pairs([
            ("reason", text(resolution.and_then(|r| r.reason.as_ref()))),
            ("code", text(resolution.and_then(|r| r.code.as_ref()))),
            ("notes", text(resolution.and_then(|r| r.notes.as_ref()))),
        ])
    }
}

impl Object for TemplateContext {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        match name {
            "event" => Some(Value::from(Serde(&self.event.json))),
            "labels" => Some(Value::from(Serde(&self.event.labels))),
            "resolution" => Some(self.resolution()),
            // A variable without a value is null, which renders as nothing; other names are undefined.
            _ => variables()
                .any(|known| known == name)
                .then(|| self.text(name).map_or(Value::from(()), |t| Value::from(&*t))),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(variables().map(Value::from).collect())
    }
}
