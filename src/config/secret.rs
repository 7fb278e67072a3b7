//! A secret and its source. Neither `Debug` nor any error shows its value.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

/// Size limit of a secret file, bytes.
const MAX_FILE_SIZE: u64 = 64 << 10;

/// The source of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The configuration file or the environment: unchanged until the next start.
    Fixed,
    /// A file, which can change while the bridge runs (a mounted secret that is rotated).
    File(PathBuf),
}

/// A secret value.
#[derive(Clone)]
pub struct Secret {
    source: SecretSource,
    value: SecretString,
}

impl Secret {
    /// Creates a secret from text.
    pub fn fixed(value: impl Into<String>) -> Self {
        Self { source: SecretSource::Fixed, value: SecretString::from(value.into()) }
    }

    /// Reads a secret from a file, without one trailing line end.
    ///
    /// # Errors
    /// The file can't be read, is not UTF-8, is empty or larger than 64 KiB.
    pub fn from_file(path: &Path) -> std::io::Result<Self> {
        use std::io::{Error, ErrorKind::InvalidData};
        if std::fs::metadata(path)?.len() > MAX_FILE_SIZE {
            return Err(Error::new(InvalidData, "the file is larger than 64 KiB, too large for a secret"));
        }
        let text = std::fs::read_to_string(path)?;
        let value = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
        if value.is_empty() {
            return Err(Error::new(InvalidData, "the file is empty"));
        }
        Ok(Self { source: SecretSource::File(path.to_owned()), value: SecretString::from(value.to_owned()) })
    }

    /// Returns the value. Keep no copy of it.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// The source of the secret.
    pub fn source(&self) -> &SecretSource {
        &self.source
    }

    /// Reads the file again and returns the secret if it changed; `None` if it is unchanged or not from a file.
    ///
    /// # Errors
    /// The file can no longer be read.
    pub fn read_if_changed(&self) -> std::io::Result<Option<Self>> {
        match &self.source {
            SecretSource::Fixed => Ok(None),
            SecretSource::File(path) => {
                let current = Self::from_file(path)?;
                Ok((current.expose() != self.expose()).then_some(current))
            }
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({:?}, redacted)", self.source)
    }
}
