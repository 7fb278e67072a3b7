//! One YAML file, read once, into a [`Config`] in which nothing can be wrong any more.
//!
//! A YAML syntax error is reported alone; every other error at once, with line, column, key, what is wrong and what
//! to do. Strings may hold `${NAME}` and `${NAME:-default}` from the environment (`$${` is a literal `${`); secrets
//! may be `file:/path`. Reading a configuration opens no connection.

pub mod human;
mod interpolate;
mod problems;
mod raw;
mod resolve;
pub mod resolved;
mod secret;
mod shape;
mod tree;

use std::path::Path;

pub use human::Rate;
pub use problems::{ConfigError, ConfigErrors};
pub use resolved::{
    Admin, Auth, Config, Instance, Kafka, OnLost, Sasl, Sink, Source, SourceStart, Start, Tls, Topics, Write,
};
pub use secret::{Secret, SecretSource};

/// Reads the configuration file at `path`, with variables from this process's environment.
///
/// # Errors
/// The file can't be read, or everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigErrors::whole(path, format!("can't be read: {error}")))?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// Reads a configuration from text. `path` is used in messages, and relative file names start from its folder;
/// `env` looks up variables.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
    let root = tree::parse(text).map_err(|error| ConfigErrors { path: path.to_owned(), errors: vec![error] })?;
    let shaped = shape::shape(&root, &raw::schema(), env);
    let mut errors = shaped.errors;
    let raw = match serde_json::from_value(shaped.json) {
        Ok(raw) => raw,
        Err(error) if errors.is_empty() => {
            return Err(ConfigErrors::whole(path, format!("can't be understood: {error}")));
        }
        Err(_) => raw::Raw::default(),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut context = resolve::Context { places: &shaped.places, folder, errors: Vec::new() };
    let config = resolve::resolve(raw, path, &mut context);
    errors.append(&mut context.errors);
    if errors.is_empty() {
        return Ok(config);
    }
    errors.sort_by_key(|error| (error.line, error.column));
    errors.dedup();
    Err(ConfigErrors { path: path.to_owned(), errors })
}

/// The JSON schema of the configuration file, for editors.
pub fn schema() -> serde_json::Value {
    raw::schema()
}

/// A configuration with every key and what it means.
pub const EXAMPLE: &str = include_str!("example.yaml");

/// The least that works.
pub const MINIMAL: &str = include_str!("minimal.yaml");

#[cfg(test)]
mod tests;
