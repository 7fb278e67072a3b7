//! A secret and where it came from. Neither `Debug` nor any error shows its value.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

/// Longest secret file that is read.
const MAX_FILE: u64 = 64 << 10;

/// Where a secret came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The configuration itself or the environment: it stays as it is until the next start.
    Fixed,
    /// A file, which may change while the bridge runs (a mounted secret that is rotated).
    File(PathBuf),
}

/// A secret value.
#[derive(Clone)]
pub struct Secret {
    source: SecretSource,
    value: SecretString,
}

impl Secret {
    /// A secret that is given as text.
    pub fn fixed(value: impl Into<String>) -> Self {
        Self { source: SecretSource::Fixed, value: SecretString::from(value.into()) }
    }

    /// Reads a secret from a file; one line end after it is cut off.
    ///
    /// # Errors
    /// The file can't be read, is not UTF-8, is empty or far too large.
    pub fn from_file(path: &Path) -> std::io::Result<Self> {
        use std::io::{Error, ErrorKind::InvalidData};
        if std::fs::metadata(path)?.len() > MAX_FILE {
            return Err(Error::new(InvalidData, "the file is larger than 64 KiB, so it is no secret"));
        }
        let text = std::fs::read_to_string(path)?;
        let value = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
        if value.is_empty() {
            return Err(Error::new(InvalidData, "the file is empty"));
        }
        Ok(Self { source: SecretSource::File(path.to_owned()), value: SecretString::from(value.to_owned()) })
    }

    /// The value. Hand it to whoever needs it, and keep no copy.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// Where it came from.
    pub fn source(&self) -> &SecretSource {
        &self.source
    }

    /// The secret as its file has it now, where that differs; `None` where nothing changed or nothing can.
    ///
    /// # Errors
    /// The file can't be read any more.
    pub fn changed(&self) -> std::io::Result<Option<Self>> {
        match &self.source {
            SecretSource::Fixed => Ok(None),
            SecretSource::File(path) => {
                let now = Self::from_file(path)?;
                Ok((now.expose() != self.expose()).then_some(now))
            }
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({:?}, redacted)", self.source)
    }
}
