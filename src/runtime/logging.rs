//! Logging to standard error, as text or JSON. Secrets are never logged: types that contain secrets do not print them.
//! A log that cannot be written (a closed pipe) never stops the bridge.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::prelude::*;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text for terminals.
    Text,
    /// One JSON object per line.
    Json,
}

/// Initializes logging. Later calls have no effect.
///
/// # Errors
/// `filter` is neither a level (`info`) nor a list of `target=level` pairs (`nowbridge::sink=debug,warn`).
pub fn init(filter: &str, format: Format) -> anyhow::Result<()> {
    let targets: Targets = filter.parse().map_err(|error| {
        anyhow::anyhow!(
            "--log {filter}: {error}; use a level (info) or target=level pairs (nowbridge::sink=debug,warn)"
        )
    })?;
    // Without this hint the maximum level of the whole filter is unknown, and every trace record of every library gets
    // as far as the filter: a tenth of the CPU of a busy bridge.
    let no_double_close = filter_fn(|metadata| !is_double_close(metadata)).with_max_level_hint(Level::TRACE);
    let filter = targets.and(no_double_close);
    // A log line that cannot be written is dropped. By default the library would print an error, which panics on a
    // closed pipe.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let registry = tracing_subscriber::registry();
    // An error means that a test or an embedding program has initialized logging; its settings are kept.
    let _ = match format {
        Format::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_target(false);
            registry.with(lines.with_filter(filter)).try_init()
        }
        Format::Json => registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
    };
    Ok(())
}

/// The only error that rdkafka's consumer logs itself: its destructor could not close the consumer, which our poller
/// has closed before, with a deadline that the destructor lacks.
fn is_double_close(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    *metadata.level() == Level::ERROR && target.starts_with("rdkafka") && target.ends_with("base_consumer")
}
