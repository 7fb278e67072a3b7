//! Reads one YAML file into a validated [`Config`].
//!
//! A YAML syntax error is reported alone. All other errors are reported together, each with line, column, key, problem
//! and remedy. Strings may contain `${NAME}` and `${NAME:-default}` from the environment (`$${` is a literal `${`);
//! secrets may be `file:/path`. Reading a configuration opens no connection.

mod errors;
mod interpolate;
mod raw;
mod resolve;
pub mod resolved;
mod secret;
mod tree;
pub mod units;
mod validate;

use std::path::Path;

pub use errors::{ConfigError, ConfigErrors};
pub use resolved::{
    Admin, Auth, Config, Instance, Kafka, OnMissingLedger, Sasl, Sink, Source, SourceStart, Start, Tls, Topics, Write,
};
pub use secret::{Secret, SecretSource};
pub use units::Rate;

/// Reads the configuration file at `path`, with variables from the environment of this process.
///
/// # Errors
/// The file can't be read, or contains errors; all of them are returned.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigErrors::for_file(path, format!("the file can't be read: {error}")))?;
    parse(&text, path, &|name| std::env::var(name).ok())
}

/// Reads a configuration from text. Messages contain `path`, and relative file names are resolved against its
/// directory. `env` looks up variables.
///
/// # Errors
/// All errors of the configuration.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
    let root = tree::parse(text).map_err(|error| ConfigErrors { file: path.to_owned(), errors: vec![error] })?;
    let validated = validate::validate(&root, &raw::schema(), env);
    let mut errors = validated.errors;
    let raw = match serde_json::from_value(validated.json) {
        Ok(raw) => raw,
        Err(error) if errors.is_empty() => {
            return Err(ConfigErrors::for_file(path, format!("the configuration can't be read: {error}")));
        }
        Err(_) => raw::Raw::default(),
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut context = resolve::Context { locations: &validated.locations, folder, errors: Vec::new() };
    let config = resolve::resolve(raw, path, &mut context);
    errors.append(&mut context.errors);
    if errors.is_empty() {
        return Ok(config);
    }
    errors.sort_by_key(|error| (error.line, error.column));
    errors.dedup();
    Err(ConfigErrors { file: path.to_owned(), errors })
}

/// The JSON schema of the configuration file, for editors.
pub fn schema() -> serde_json::Value {
    raw::schema()
}

/// A commented configuration with every key.
pub const EXAMPLE: &str = include_str!("example.yaml");

/// A minimal configuration.
pub const MINIMAL: &str = include_str!("minimal.yaml");

#[cfg(test)]
mod tests;
