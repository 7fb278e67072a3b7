//! Which alerts share a ticket: the rule of a route's digest. Pure and total: an alert of which the rule makes nothing, or
//! which lacks what the rule names, belongs to no group and keeps a ticket of its own.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::scope::Scope;
use super::template::{Template, Templates};
use crate::model::{Action, AlertEvent};

/// Before the group's text in the key of its ticket.
const PREFIX: &str = "digest:";

/// Characters of a group's text that stand in its key; of a longer one the rest is a hash.
const LENGTH: usize = 200;

/// The group's text in the key of its ticket.
pub fn group_name(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

/// The rule, compiled.
#[derive(Debug, Clone)]
pub struct GroupBy {
    templates: Templates,
    template: Template,
    text: Arc<str>,
}

impl GroupBy {
    /// Each alert is a group of its own: a stand-in where the rule is wrong, which is reported.
    pub fn by_key() -> Self {
        Self { templates: Templates::default(), template: Template::Variable("key"), text: "{{ key }}".into() }
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// It can't be read, or is the same for all alerts.
    pub fn compile(text: &str) -> Result<Self, String> {
        let mut templates = Templates::default();
        let template = templates.add("group_by", text)?;
        if matches!(template, Template::Literal(_)) {
            return Err("it names nothing of the alert, so that all would share one ticket; write for example \
                        `{{ labels.service }}`"
                .into());
        }
        Ok(Self { templates, template, text: text.into() })
    }

    /// The rule as it stands in the configuration.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key of the group's ticket; `None` where the alert belongs to no group.
    pub fn key(&self, event: &Arc<AlertEvent>) -> Option<String> {
        let action = event.action.unwrap_or(Action::Update);
        let scope = Arc::new(Scope { event: Arc::clone(event), action, impact: None, urgency: None });
        let text = self.templates.render(&self.template, &scope).ok()?;
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if text.chars().nth(LENGTH).is_none() {
            return Some(format!("{PREFIX}{text}"));
        }
        let head: String = text.chars().take(LENGTH).collect();
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
    fn alerts_with_the_same_text_share_a_group_and_those_without_have_none() {
        let rule = GroupBy::compile("{{ labels.service }}/{{ labels.site | default('here') }}").expect("a rule");
        assert_eq!(rule.key(&event(&[("service", "shop")])).as_deref(), Some("digest:shop/here"));
        assert_eq!(rule.key(&event(&[("service", "shop"), ("site", "b\n")])).as_deref(), Some("digest:shop/b"));
        assert_eq!(rule.key(&event(&[("site", "b")])), None, "it lacks what the rule names");
        let rule = GroupBy::compile("{{ labels.service | default('') }}").expect("a rule");
        assert_eq!(rule.key(&event(&[])), None);
    }

    #[test]
    fn long_groups_stay_apart_and_their_keys_short() {
        let rule = GroupBy::compile("{{ labels.service }}").expect("a rule");
        let key =
            |end: &str| rule.key(&event(&[("service", &format!("{}{end}", "x".repeat(5_000)))])).expect("a group");
        assert_ne!(key("a"), key("b"));
        assert!(key("a").len() < 300);
    }

    #[test]
    fn a_rule_must_tell_alerts_apart() {
        assert!(GroupBy::compile("shop").expect_err("refused").contains("share one ticket"));
        assert!(GroupBy::compile("{{ service }}").expect_err("refused").contains("nothing a template knows"));
    }
}
