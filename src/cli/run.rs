//! `nowbridge run`: runs the bridge and its console until a signal stops it.

use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::bridge::{self, topics};
use crate::config::Config;
use crate::console::{self, Console};
use crate::runtime::metrics;
use crate::runtime::supervision::{self, Supervisor};
use crate::source;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// The bridge can't start, or a route fails.
pub async fn run(config: Config) -> Result<()> {
    let stop = CancellationToken::new();
    supervision::cancel_on_signals(stop.clone())?;
    let exporter = console::install_metrics()?;
    let mut supervisor = Supervisor::new(stop.clone());
    let strictness = topics::strictness(&config, false);
    let statuses = bridge::start(&config, strictness, &mut supervisor, &stop).await?;
    let console = Console {
        listen: config.admin.listen,
        sinks: statuses.sinks,
        repartitions: statuses.repartitions,
        sources: statuses.sources,
        metrics: exporter,
        stopping: stop.clone(),
    };
    supervisor.spawn("source metrics", export_source_metrics(console.sources.clone(), stop.clone()));
    // The console stays available while the routes drain.
    let drained = CancellationToken::new();
    let serving = console::serve(console, drained.clone()).await?;
    tracing::info!(
        sinks = config.sinks.len(),
        sources = config.sources.len(),
        admin = %serving.address,
        "nowbridge started"
    );
    let outcome = supervisor.run().await;
    drained.cancel();
    // An error of the console's task is ignored; only the outcome of the routes matters.
    let _ = serving.task.await;
    outcome
}

/// Updates the metrics of the source routes every second.
async fn export_source_metrics(sources: Vec<(String, source::StatusHandle)>, stop: CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        for (name, status) in &sources {
            let status = status.get();
            let lag = status.instance_now.zip(status.cursor).map(|(now, cursor)| now - cursor);
            metrics::source(name, status.stats.published, status.stats.own_changes_skipped, lag);
        }
        tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(Duration::from_secs(1)) => {} }
    }
    Ok(())
}
