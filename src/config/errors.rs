//! The errors of a configuration file.

use std::path::PathBuf;

/// One error of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Line in the file, from 1; 0 if the error concerns the file as a whole.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// The key, such as `sinks.incidents.table`; empty if the error concerns the file as a whole.
    pub key: String,
    /// The problem and the remedy.
    pub message: String,
}

/// All errors of a configuration file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    pub file: PathBuf,
    /// Never empty.
    pub errors: Vec<ConfigError>,
}

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if error.line > 0 {
                write!(f, ":{}:{}", error.line, error.column)?;
            }
            if !error.key.is_empty() {
                write!(f, ": {}", error.key)?;
            }
            write!(f, ": {}", error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    pub(super) fn for_file(file: &std::path::Path, message: String) -> Self {
        let error = ConfigError { line: 0, column: 0, key: String::new(), message };
        Self { file: file.to_owned(), errors: vec![error] }
    }
}
