//! The `group_by` rule of a route: which alerts share a ticket. Pure and total: an alert for which the template renders
//! nothing, or fails because a label is missing, belongs to no group and gets its own ticket.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::context::TemplateContext;
use super::template::{Template, Templates};
use crate::model::{Action, AlertEvent};

/// Prefix of the key of a group's ticket, before the group's name.
const PREFIX: &str = "group:";

/// Characters of a group's name that its key contains. Longer names are truncated and get a hash.
const MAX_NAME_LENGTH: usize = 200;

/// Returns the group's name in the key of its ticket.
pub fn group_name(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub struct GroupBy {
    templates: Templates,
    template: Template,
    text: Arc<str>,
}

impl GroupBy {
    /// A rule that gives each alert its own group: a placeholder for an invalid rule, which is reported.
    pub fn by_key() -> Self {
        Self { templates: Templates::default(), template: Template::Variable("key"), text: "{{ key }}".into() }
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// The template is invalid, or renders the same text for all alerts.
    pub fn compile(text: &str) -> Result<Self, String> {
        let mut templates = Templates::default();
        let template = templates.add("group_by", text)?;
        if matches!(template, Template::Literal(_)) {
            return Err(
                "the template contains no variable, so that all alerts would share one ticket; use for example \
                        `{{ labels.service }}`"
                    .into(),
            );
        }
        Ok(Self { templates, template, text: text.into() })
    }

    /// Returns the template as written in the configuration.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the key of the group's ticket; `None` if the alert belongs to no group.
    pub fn key(&self, event: &Arc<AlertEvent>) -> Option<String> {
        let action = event.action.unwrap_or(Action::Update);
        let context = Arc::new(TemplateContext { event: Arc::clone(event), action, impact: None, urgency: None });
        let text = self.templates.render(&self.template, &context).ok()?;
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if text.chars().nth(MAX_NAME_LENGTH).is_none() {
            return Some(format!("{PREFIX}{text}"));
        }
        let head: String = text.chars().take(MAX_NAME_LENGTH).collect();
        let hash = hex::encode(Sha256::digest(text.as_bytes()).get(..8).unwrap_or_default());
        Some(format!("{PREFIX}{head}…{hash}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(labels: &[(&str, &str)]) -> Arc<AlertEvent> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Arc::new(AlertEvent { key: "k".into(), labels, action: Some(Action::Open), ..AlertEvent::default() })
    }

    #[test]
    fn alerts_with_the_same_text_share_a_group_and_alerts_without_text_have_none() {
        let rule = GroupBy::compile("{{ labels.service }}/{{ labels.site | default('here') }}").expect("a rule");
        assert_eq!(rule.key(&event(&[("service", "shop")])).as_deref(), Some("group:shop/here"));
        assert_eq!(rule.key(&event(&[("service", "shop"), ("site", "b\n")])).as_deref(), Some("group:shop/b"));
        assert_eq!(rule.key(&event(&[("site", "b")])), None, "the label is missing");
        let rule = GroupBy::compile("{{ labels.service | default('') }}").expect("a rule");
        assert_eq!(rule.key(&event(&[])), None);
    }

    #[test]
    fn long_group_names_have_different_and_short_keys() {
        let rule = GroupBy::compile("{{ labels.service }}").expect("a rule");
        let key =
            |end: &str| rule.key(&event(&[("service", &format!("{}{end}", "x".repeat(5_000)))])).expect("a group");
        assert_ne!(key("a"), key("b"));
        assert!(key("a").len() < 300);
    }

    #[test]
    fn a_rule_must_depend_on_the_alert() {
        assert!(GroupBy::compile("shop").expect_err("rejected").contains("share one ticket"));
        assert!(GroupBy::compile("{{ service }}").expect_err("rejected").contains("unknown variable"));
    }
}
