//! Templates of values, compiled when the configuration is loaded.
//!
//! They are strict minijinja templates: rendering an undefined value is an error (`labels.team | default("none")`
//! prevents it), testing for it (`if labels.team`) is not. Null renders as nothing. The work of each rendering is
//! limited, so that no event can delay the route. Plain texts and single variables, which most rules are, don't use the
//! template engine.

use std::sync::Arc;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};

use super::context::TemplateContext;

/// Fuel of one rendering: about this many instructions, each with 64 bytes of text.
const FUEL: u64 = 100_000;

/// Variables of templates.
const VARIABLES: [&str; 21] = [
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

/// Two more variables of templates.
const MORE_VARIABLES: [&str; 2] = ["source", "url"];

/// Functions of the template engine, which it reports as variables.
const FUNCTIONS: [&str; 4] = ["range", "dict", "namespace", "debug"];

/// Returns the names of all variables.
pub(super) fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.into_iter().chain(MORE_VARIABLES)
}

/// A compiled template.
#[derive(Debug, Clone)]
pub(super) enum Template {
    /// Plain text.
    Literal(Arc<str>),
    /// A single variable, `{{ name }}`.
    Variable(&'static str),
    /// Any other template, by its name in the environment.
    Compiled(Arc<str>),
}

/// The templates of a route.
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
    /// Compiles a template. `name` is the path of its rule.
    pub(super) fn add(&mut self, name: &str, text: &str) -> Result<Template, String> {
        if !text.contains("{{") && !text.contains("{%") && !text.contains("{#") {
            return Ok(Template::Literal(text.trim().into()));
        }
        if let Some(variable) = single_variable(text) {
            return Ok(Template::Variable(variable));
        }
        self.environment.add_template_owned(name.to_owned(), text.to_owned()).map_err(|error| {
            let line = error.line().filter(|line| *line > 1).map(|l| format!(" (line {l} of the template)"));
            format!("invalid template: {}{}", describe(&error), line.unwrap_or_default())
        })?;
        let template = self.environment.get_template(name).map_err(|error| describe(&error))?;
        let used = template.undeclared_variables(false);
        let mut unknown: Vec<String> = used
            .into_iter()
            .filter(|name| {
                ![&VARIABLES[..], &MORE_VARIABLES, &FUNCTIONS].iter().any(|known| known.contains(&name.as_str()))
            })
            .collect();
        unknown.sort();
        match unknown.first() {
            None => Ok(Template::Compiled(name.into())),
            Some(first) => Err(format!(
                "unknown variable `{first}`; templates may use {}, {}; for other fields of the event use `event.{first}`",
                VARIABLES.join(", "),
                MORE_VARIABLES.join(", ")
            )),
        }
    }

    /// Renders a template and trims the result.
    pub(super) fn render(&self, template: &Template, context: &Arc<TemplateContext>) -> Result<String, String> {
        match template {
            Template::Literal(text) => Ok(text.to_string()),
            Template::Variable(name) => Ok(context.text(name).map_or_else(String::new, |text| text.trim().to_owned())),
            Template::Compiled(name) => {
                let template = self.environment.get_template(name).map_err(|error| describe(&error))?;
                template.render(Value::from_dyn_object(Arc::clone(context))).map(|text| text.trim().to_owned()).map_err(
                    |error| {
                        let hint = match error.kind() {
                            ErrorKind::UndefinedError => {
                                "; add a default for events without it, as in `labels.x | default(\"\")`"
                            }
                            ErrorKind::OutOfFuel => "; the template needs too much work for one value",
                            _ => "",
                        };
                        format!("the template failed for this event: {}{hint}", describe(&error))
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

/// Returns the name of the variable if the template is a single `{{ name }}`.
fn single_variable(text: &str) -> Option<&'static str> {
    let name = text.trim().strip_prefix("{{")?.strip_suffix("}}")?.trim();
    VARIABLES
        .iter()
        .chain(&MORE_VARIABLES)
        .find(|known| **known == name && **known != "event" && **known != "labels" && **known != "resolution")
        .copied()
}
