//! What an operator sees of a running bridge, over HTTP: `/livez`, `/readyz` with reasons, `/metrics` for Prometheus,
//! `/status` as JSON and `/`, a page that shows the same.
//!
//! It reads the routes' statuses and changes nothing, but for one thing: a POST to `/routes/<route>/resume`, with a
//! header that no page elsewhere can send, lets a route go on that stands still. It reads no bodies and shows no
//! secrets. There is no login: it belongs on a loopback address or behind something that has one.

mod answers;
mod view;

pub use answers::ASKED;

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

/// Between two rounds in which the metrics recorder folds what histograms have collected.
const UPKEEP: Duration = Duration::from_secs(5);

/// Milliseconds: from a write on a local simulator to one that waited for an instance's maintenance.
const LATENCY: &[f64] = &[
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    150.0,
    200.0,
    300.0,
    500.0,
    750.0,
    1_000.0,
    2_000.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    3_600_000.0,
];

/// What the console shows.
pub struct Console {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Sink routes by name.
    pub routes: Vec<(String, sink::StatusHandle)>,
    /// The re-keying of sink routes, by their names.
    pub repartitions: Vec<(String, &'static str, repartition::StatusHandle)>,
    /// Source routes by name.
    pub sources: Vec<(String, source::StatusHandle)>,
    /// What [`install_metrics`] gave.
    pub metrics: PrometheusHandle,
    /// Cancelled when the bridge begins to finish its work: from then on it is not ready.
    pub stopping: CancellationToken,
}

/// A console that listens.
#[derive(Debug)]
pub struct Serving {
    /// The address, with the port that was free.
    pub address: SocketAddr,
    /// Ends after `shutdown` was cancelled and the requests at work were answered.
    pub task: JoinHandle<()>,
}

/// Why there is no console or no metrics.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be listened on.
    #[error("can't listen on {address}; choose another address with `admin.listen`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The metrics recorder could not be installed; a process has one.
    #[error("can't install the metrics recorder")]
    Metrics(#[source] BuildError),
}

/// Installs the recorder that all metrics of this process go to, and describes them.
///
/// # Errors
/// There is a recorder already.
pub fn install_metrics() -> Result<PrometheusHandle, Error> {
    let recorder = recorder().map_err(Error::Metrics)?;
    let handle = recorder.handle();
    ::metrics::set_global_recorder(recorder).map_err(|error| Error::Metrics(error.into()))?;
    metrics::describe_all();
    Ok(handle)
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let latency = Matcher::Suffix("_milliseconds".into());
    Ok(PrometheusBuilder::new().set_buckets_for_metric(latency, LATENCY)?.build_recorder())
}

/// Listens, and serves until `shutdown` is cancelled.
///
/// # Errors
/// The address can't be listened on.
pub async fn serve(console: Console, shutdown: CancellationToken) -> Result<Serving, Error> {
    let address = console.listen;
    let refused = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let recorder = console.metrics.clone();
    let router = answers::router(console);
    let task = tokio::spawn(async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                recorder.run_upkeep();
            }
        };
        tokio::select! {
            ended = server => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the console ended");
                }
            }
            () = upkeep => {}
        }
    });
    Ok(Serving { address, task })
}

#[cfg(test)]
mod tests;
