//! The admin HTTP server: `/livez`, `/readyz` with reasons, `/metrics` for Prometheus, `/status` as JSON, and `/`, the
//! console, a page that shows the status.
//!
//! It reads the status of the routes. The only change it offers is a POST to `/routes/<route>/resume`, which resumes a
//! stopped sink route; the request needs a header that pages of other origins cannot send. It reads no request bodies
//! and exposes no secrets. It has no authentication: bind it to a loopback address or put a proxy with authentication
//! in front of it.

mod endpoints;
mod view;

pub use endpoints::RESUME_HEADER;

use std::net::SocketAddr;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::repartition;
use crate::runtime::metrics;
use crate::sink;
use crate::source;

/// Time between two runs of the metrics recorder's maintenance, which merges the samples of histograms.
const RECORDER_MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);

/// Buckets of the write latency, in seconds: from a write to a local simulator to one that waited for the maintenance
/// of an instance.
const LATENCY_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0];

/// The settings of the admin server and the statuses that it shows.
pub struct Console {
    /// Port 0 chooses a free port.
    pub listen: SocketAddr,
    /// Sink routes by name.
    pub sinks: Vec<(String, sink::StatusHandle)>,
    /// Stages before sink routes: the route's name, the stage's name (its key in `/status`), the status.
    pub repartitions: Vec<(String, &'static str, repartition::StatusHandle)>,
    /// Source routes by name.
    pub sources: Vec<(String, source::StatusHandle)>,
    /// From [`install_metrics`].
    pub metrics: PrometheusHandle,
    /// Canceled when the bridge begins to shut down; from then on it is not ready.
    pub stopping: CancellationToken,
}

/// A running admin server.
#[derive(Debug)]
pub struct RunningConsole {
    /// The listening address with the actual port.
    pub address: SocketAddr,
    /// Ends after `shutdown` is canceled and the requests in progress are complete.
    pub task: JoinHandle<()>,
}

/// Why the admin server or the metrics recorder could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't listen on {address}; choose another address with `admin.listen`")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    /// A process can have only one recorder.
    #[error("can't install the metrics recorder")]
    Metrics(#[source] BuildError),
}

/// Installs the metrics recorder of this process, and describes all metrics.
///
/// # Errors
/// The process has a recorder already.
pub fn install_metrics() -> Result<PrometheusHandle, Error> {
    let recorder = recorder().map_err(Error::Metrics)?;
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|error| Error::Metrics(error.into()))?;
    metrics::describe_all();
    Ok(handle)
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let latency = Matcher::Full("nowbridge_write_latency_seconds".into());
    Ok(PrometheusBuilder::new().set_buckets_for_metric(latency, LATENCY_BUCKETS)?.build_recorder())
}

/// Starts the admin server. It runs until `shutdown` is canceled.
///
/// # Errors
/// The address is not available.
pub async fn serve(console: Console, shutdown: CancellationToken) -> Result<RunningConsole, Error> {
    let address = console.listen;
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let recorder = console.metrics.clone();
    let router = endpoints::router(console);
    let task = tokio::spawn(async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let maintenance = async {
            loop {
                tokio::time::sleep(RECORDER_MAINTENANCE_INTERVAL).await;
                recorder.run_upkeep();
            }
        };
        tokio::select! {
            ended = server => {
                if let Err(error) = ended {
                    tracing::error!(%error, "admin server failed");
                }
            }
            () = maintenance => {}
        }
    });
    Ok(RunningConsole { address, task })
}

#[cfg(test)]
mod tests;
