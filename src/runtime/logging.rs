//! Logging: lines to standard error, as text for people or JSON for machines. Secrets never get here: types that hold
//! them do not print them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text, for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. Later calls change nothing.
///
/// # Errors
/// The filter can't be parsed.
pub fn start(filter: &str, format: Format) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| anyhow::anyhow!("--log {filter}: {error}; write a level (info) or target=level pairs"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a test or an embedding program logs already; its choice stands.
    let _ = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}
