//! What every part of resolving needs: where keys stand, what went wrong, and readers of single values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::human;
use super::super::problems::ConfigError;
use super::super::raw::RawSecret;
use super::super::secret::Secret;
use super::super::tree::SourceLocation;

/// Collects problems while the configuration is resolved.
pub(in super::super) struct Context<'a> {
    /// Where each key stands.
    pub places: &'a BTreeMap<String, SourceLocation>,
    /// Relative file names start here.
    pub folder: &'a Path,
    /// What went wrong so far.
    pub errors: Vec<ConfigError>,
}

impl Context<'_> {
    /// Notes a problem at a key; where the key is not in the file, at the nearest one above it.
    pub fn error(&mut self, at: &str, message: &str) {
        let mut key = at;
        let place = loop {
            if let Some(place) = self.places.get(key) {
                break *place;
            }
            let Some(end) = key.rfind(['.', '[']) else { break self.places.get("").copied().unwrap_or_default() };
            key = key.get(..end).unwrap_or_default();
        };
        let error = ConfigError { line: place.line, column: place.column, at: at.to_owned(), message: message.into() };
        self.errors.push(error);
    }

    /// True where the file has this key.
    pub fn has(&self, at: &str) -> bool {
        self.places.contains_key(at)
    }

    /// A duration, or `default` where it is left out or wrong.
    pub fn duration(&mut self, at: &str, text: Option<&str>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        human::duration(text).unwrap_or_else(|message| {
            self.error(at, &message);
            default
        })
    }

    /// A duration within bounds.
    pub fn duration_in(&mut self, at: &str, text: Option<&str>, default: Duration, bounds: (&str, &str)) -> Duration {
        let value = self.duration(at, text, default);
        let bound = |text| human::duration(text).unwrap_or_default();
        if value < bound(bounds.0) || value > bound(bounds.1) {
            self.error(at, &format!("must be between {} and {}", bounds.0, bounds.1));
        }
        value
    }

    /// A secret; `None` where it is left out or can't be read.
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

    /// A file that must be there.
    pub fn file(&mut self, at: &str, name: Option<String>) -> Option<PathBuf> {
        let path = self.path(&name?);
        if let Err(error) = std::fs::File::open(&path) {
            self.error(at, &format!("{} can't be read: {error}", path.display()));
        }
        Some(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        // An absolute name replaces the folder.
        self.folder.join(name.strip_prefix("//").map_or(name.to_owned(), |rest| format!("/{rest}")))
    }

    /// Names of instances and routes stand in topic names, metrics and change ids.
    pub fn name(&mut self, at: &str, name: &str) {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 60 || !name.chars().all(fits) {
            let message = format!("`{name}` can't be a name; use up to 60 of a-z, 0-9, `-` and `_`");
            self.error(at, &message);
        }
    }

    /// A Kafka topic or group name.
    pub fn topic_name(&mut self, at: &str, name: &str) {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || name.len() > 249 || !name.chars().all(fits) || name == "." || name == ".." {
            self.error(at, &format!("`{name}` can't be a name in Kafka; use up to 249 letters, digits, `.`, `-`, `_`"));
        }
    }

    /// A ServiceNow table or column name.
    pub fn column_name(&mut self, at: &str, name: &str) {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 80 || !name.chars().all(fits) {
            let message =
                format!("`{name}` is no name of a ServiceNow table or column; it has a-z, 0-9 and `_` (not the label)");
            self.error(at, &message);
        }
    }
}
