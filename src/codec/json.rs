//! JSON with a size limit, and errors that contain line and column.

use serde::de::DeserializeOwned;

/// The bytes are not the expected JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("the value has {size} bytes, more than the limit of {limit}; publish less, or leave out the raw body")]
    TooLarge { size: usize, limit: usize },
    /// Not JSON, or not of the expected structure.
    #[error("{message} at line {line}, column {column}")]
    Malformed {
        /// The parser's message, without the place.
        message: String,
        /// From 1.
        line: usize,
        /// From 1; 0 if the parser does not know it.
        column: usize,
    },
}

/// Parses at most `limit` bytes. The parser limits the depth to 128 levels.
///
/// # Errors
/// Too large, not JSON, or not of the structure of `T`.
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

/// Formats Unix milliseconds as RFC 3339 in UTC; an instant after year 9999 becomes the Unix epoch.
pub fn rfc3339(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
}
