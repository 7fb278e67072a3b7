//! Shared by all parts of `resolve`: the locations of keys, the errors so far, and parsers and checks of single values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::errors::ConfigError;
use super::super::raw::RawSecret;
use super::super::secret::Secret;
use super::super::tree::SourceLocation;
use super::super::units;

/// Collects errors while the configuration is resolved.
pub(in super::super) struct Context<'a> {
    /// The location of each key in the file, by its path.
    pub locations: &'a BTreeMap<String, SourceLocation>,
    /// Relative file names are resolved against this directory.
    pub folder: &'a Path,
    /// The errors so far.
    pub errors: Vec<ConfigError>,
}

impl Context<'_> {
    /// Adds an error at a key. If the key is not in the file, the error gets the location of its nearest ancestor.
    pub fn error(&mut self, at: &str, message: &str) {
        let mut key = at;
        let location = loop {
            if let Some(location) = self.locations.get(key) {
                break *location;
            }
            let Some(end) = key.rfind(['.', '[']) else { break self.locations.get("").copied().unwrap_or_default() };
            key = key.get(..end).unwrap_or_default();
        };
        let error =
            ConfigError { line: location.line, column: location.column, key: at.to_owned(), message: message.into() };
        self.errors.push(error);
    }

    /// True if the file contains this key.
    pub fn has(&self, at: &str) -> bool {
        self.locations.contains_key(at)
    }

    /// Parses a duration; `default` if it is missing or invalid.
    pub fn duration(&mut self, at: &str, text: Option<&str>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        units::duration(text).unwrap_or_else(|message| {
            self.error(at, &message);
            default
        })
    }

    /// Parses a duration and checks its bounds, which are inclusive.
    pub fn duration_in(&mut self, at: &str, text: Option<&str>, default: Duration, bounds: (&str, &str)) -> Duration {
        let value = self.duration(at, text, default);
        let bound = |text| units::duration(text).unwrap_or_default();
        if value < bound(bounds.0) || value > bound(bounds.1) {
            self.error(at, &format!("must be between {} and {}", bounds.0, bounds.1));
        }
        value
    }

    /// Reads a secret; `None` if it is missing or can't be read.
    pub fn secret(&mut self, at: &str, raw: Option<RawSecret>) -> Option<Secret> {
        let text = raw?.0;
        if let Some(file) = text.strip_prefix("file:") {
            let path = self.path(file);
            return Secret::from_file(&path)
                .map_err(|error| {
                    let path = path.display();
                    self.error(at, &format!("the secret file {path} can't be read: {error}"));
                })
                .ok();
        }
        if text.is_empty() {
            self.error(at, "the secret is empty; is the environment variable set?");
        }
        Some(Secret::fixed(text))
    }

    /// Resolves the name of a file, which must be readable.
    pub fn file(&mut self, at: &str, name: Option<String>) -> Option<PathBuf> {
        let path = self.path(&name?);
        if let Err(error) = std::fs::File::open(&path) {
            self.error(at, &format!("{} can't be read: {error}", path.display()));
        }
        Some(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        // An absolute name replaces the directory.
        self.folder.join(name.strip_prefix("//").map_or(name.to_owned(), |rest| format!("/{rest}")))
    }

    /// Checks the name of an instance or route. Topic names, metrics and change ids contain it.
    pub fn check_name(&mut self, at: &str, name: &str) {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 60 || !name.chars().all(is_allowed) {
            let message = format!("`{name}` is not a valid name; use up to 60 characters of a-z, 0-9, `-` and `_`");
            self.error(at, &message);
        }
    }

    /// Checks the name of a Kafka topic or consumer group.
    pub fn check_topic_name(&mut self, at: &str, name: &str) {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > 249 || !name.chars().all(is_allowed) || name == "." || name == ".." {
            self.error(
                at,
                &format!("`{name}` is not a valid Kafka name; use up to 249 letters, digits, `.`, `-`, `_`"),
            );
        }
    }

    /// Checks the name of a ServiceNow table or column.
    pub fn check_column_name(&mut self, at: &str, name: &str) {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 80 || !name.chars().all(is_allowed) {
            let message =
                format!("`{name}` is not a ServiceNow table or column name; use a-z, 0-9 and `_` (not the label)");
            self.error(at, &message);
        }
    }
}
