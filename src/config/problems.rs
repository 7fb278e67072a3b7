//! Everything that is wrong with a configuration, each with its place.

use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Line in the file, from 1; 0 where it concerns the file as a whole.
    pub line: u64,
    /// Column, from 1; counts characters.
    pub column: u64,
    /// The key, such as `sinks[0].table`; empty for the file as a whole.
    pub at: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// All that is wrong, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub errors: Vec<ConfigError>,
}

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.path.display())?;
            if error.line > 0 {
                write!(f, ":{}:{}", error.line, error.column)?;
            }
            if !error.at.is_empty() {
                write!(f, ": {}", error.at)?;
            }
            write!(f, ": {}", error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    pub(super) fn whole(path: &std::path::Path, message: String) -> Self {
        let error = ConfigError { line: 0, column: 0, at: String::new(), message };
        Self { path: path.to_owned(), errors: vec![error] }
    }
}
