//! Templates of values, compiled when the configuration is loaded.
//!
//! They are minijinja, strict: printing what an event lacks is an error (`labels.team | default("none")` is the way
//! to allow for it), while testing for it (`if labels.team`) is not. Null prints as nothing. Each rendering has a
//! budget of work, so that no event can hold up the route. Plain text and a single variable, which most rules are,
//! never reach the template engine.

use std::sync::Arc;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

use super::scope::Scope;

/// Work that one rendering may do: about as many instructions, and 64 bytes each of text.
const FUEL: u64 = 100_000;

/// What templates may use, and nothing else at the top level.
const NAMES: [&str; 21] = [
    "action",
    "actor",
    "description",
    "event",
    "event_id",
    "impact",
    "instance",
    "key",
    "kind",
    "labels",
    "merged_into",
    "note",
    "number",
    "object_id",
    "occurred_at",
    "priority",
    "resolution",
    "severity",
    "status",
    "title",
    "urgency",
];

/// Names beside [`NAMES`]: the two that clash with nothing but read better.
const MORE_NAMES: [&str; 2] = ["source", "url"];

/// Functions of the engine that count as names.
const FUNCTIONS: [&str; 4] = ["range", "dict", "namespace", "debug"];

/// All of them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(MORE_NAMES)
}

/// One template.
#[derive(Debug, Clone)]
pub(super) enum Template {
    /// The text itself.
    Literal(Arc<str>),
    /// `{{ name }}`.
    Variable(&'static str),
    /// Anything else: its name in the environment.
    Compiled(Arc<str>),
}

/// All templates of a route.
#[derive(Debug, Clone)]
pub(super) struct Templates {
    environment: Environment<'static>,
}

impl Default for Templates {
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(|out, state, value| {
            if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
        });
        Self { environment }
    }
}

impl Templates {
    /// Compiles one template, named by its rule.
    pub(super) fn add(&mut self, name: &str, text: &str) -> Result<Template, String> {
        if !text.contains("{{") && !text.contains("{%") && !text.contains("{#") {
            return Ok(Template::Literal(text.trim().into()));
        }
        if let Some(variable) = single_variable(text) {
            return Ok(Template::Variable(variable));
        }
        self.environment.add_template_owned(name.to_owned(), text.to_owned()).map_err(|error| {
            let line = error.line().filter(|line| *line > 1).map(|l| format!(" (line {l} of the template)"));
            format!("the template can't be read: {}{}", describe(&error), line.unwrap_or_default())
        })?;
        let template = self.environment.get_template(name).map_err(|error| describe(&error))?;
        let used = template.undeclared_variables(false);
        let mut unknown: Vec<String> = used
            .into_iter()
            .filter(|name| ![&NAMES[..], &MORE_NAMES, &FUNCTIONS].iter().any(|known| known.contains(&name.as_str())))
            .collect();
        unknown.sort();
        match unknown.first() {
            None => Ok(Template::Compiled(name.into())),
            Some(first) => Err(format!(
                "`{first}` is nothing a template knows; it may use {}, {}; other parts of the event as `event.{first}`",
                NAMES.join(", "),
                MORE_NAMES.join(", ")
            )),
        }
    }

    /// Renders; blanks around the result are cut off.
    pub(super) fn render(&self, template: &Template, scope: &Arc<Scope>) -> Result<String, String> {
        match template {
            Template::Literal(text) => Ok(text.to_string()),
            Template::Variable(name) => Ok(scope.text(name).map_or_else(String::new, |text| text.trim().to_owned())),
            Template::Compiled(name) => {
                let template = self.environment.get_template(name).map_err(|error| describe(&error))?;
                template.render(Value::from_dyn_object(Arc::clone(scope))).map(|text| text.trim().to_owned()).map_err(
                    |error| {
                        let hint = match error.kind() {
                            ErrorKind::UndefinedError => {
                                "; allow for events without it, as in `labels.x | default(\"\")`"
                            }
                            ErrorKind::OutOfFuel => "; the template does too much work for one value",
                            _ => "",
                        };
                        format!("the template failed on this event: {}{hint}", describe(&error))
                    },
                )
            }
        }
    }
}

fn describe(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// The name in `{{ name }}`, where that is all there is.
fn single_variable(text: &str) -> Option<&'static str> {
    let name = text.trim().strip_prefix("{{")?.strip_suffix("}}")?.trim();
    NAMES
        .iter()
        .chain(&MORE_NAMES)
        .find(|known| **known == name && **known != "event" && **known != "labels" && **known != "resolution")
        .copied()
}
