//! `nowbridge run`: starts the bridge and serves its console until a signal stops it.

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
/// Topics can't be used, or a route can't go on.
pub async fn run(config: Config) -> Result<()> {
    let stop = CancellationToken::new();
    supervision::on_signals(stop.clone())?;
    let exporter = console::install_metrics()?;
    let mut supervisor = Supervisor::new(stop.clone());
    let strictness = topics::strictness(&config, false);
    let views = bridge::start(&config, strictness, &mut supervisor, &stop).await?;
    let page = Console {
        listen: config.admin.listen,
        routes: views.sinks,
        repartitions: views.repartitions,
        sources: views.sources,
        metrics: exporter,
        stopping: stop.clone(),
    };
    supervisor.spawn("source metrics", tell_sources(page.sources.clone(), stop.clone()));
    // The page is served while the routes drain, and says so.
    let drained = CancellationToken::new();
    let serving = console::serve(page, drained.clone()).await?;
    tracing::info!(
        sinks = config.sinks.len(),
        sources = config.sources.len(),
        admin = %serving.address,
        "runs"
    );
    let outcome = supervisor.run().await;
    drained.cancel();
    // Nothing is lost with the page's task; the routes' outcome is what counts.
    let _ = serving.task.await;
    outcome
}

/// Shows the source routes' numbers as metrics until the end.
async fn tell_sources(sources: Vec<(String, source::StatusHandle)>, stop: CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        for (name, status) in &sources {
            let status = status.snapshot();
            let lag = status.instance_now.zip(status.cursor).map(|(now, cursor)| now - cursor);
            metrics::source(name, status.stats.published, status.stats.echoes, lag);
        }
        tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(Duration::from_secs(1)) => {} }
    }
    Ok(())
}
