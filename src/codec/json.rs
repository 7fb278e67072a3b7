//! JSON with a bound on size and errors that say where.

use serde::de::DeserializeOwned;

/// Why bytes are not the JSON that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// More bytes than allowed.
    #[error("the value has {size} bytes, and at most {limit} are read; publish less, or leave out the raw body")]
    TooLarge {
        /// Bytes found.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not JSON, or not of the expected shape.
    #[error("{message} at line {line}, column {column}")]
    Malformed {
        /// What the parser said.
        message: String,
        /// From 1.
        line: usize,
        /// From 1; 0 where the parser can't tell.
        column: usize,
    },
}

/// Parses at most `limit` bytes. Depth is bounded by the parser (128 levels).
///
/// # Errors
/// Too large, not JSON, or not of the shape of `T`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, JsonError> {
    if bytes.len() > limit {
        return Err(JsonError::TooLarge { size: bytes.len(), limit });
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        let message = match text.rfind(" at line ") {
            _ if text.starts_with("recursion limit") => "nested more than 128 levels deep".to_owned(),
            Some(end) => text[..end].to_owned(),
            None => text,
        };
        JsonError::Malformed { message, line: error.line(), column: error.column() }
    })
}

/// Unix milliseconds as RFC 3339 in UTC; an instant beyond year 9999 becomes the epoch.
pub fn rfc3339(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
}
