//! Supervises the named tasks of the process, and handles its signals.
//!
//! Guarantees: when the first task ends, with or without an error, the shared token stops the others, which must end
//! within a deadline. The process exits with the first error. A second signal exits immediately.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time for all tasks to stop: the slowest one drains a sink, leaves the group, and flushes the producer.
const DEADLINE: Duration = Duration::from_secs(40);

/// Exit code after a second signal.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// A set of named tasks.
pub struct Supervisor {
    tasks: JoinSet<(String, Result<()>)>,
    stop: CancellationToken,
}

impl Supervisor {
    /// Creates a set without tasks. `stop` is canceled when the first task ends.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), stop }
    }

    /// Starts a task.
    pub fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = Result<()>> + Send + 'static) {
        let name = name.into();
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Waits until all tasks have ended.
    ///
    /// # Errors
    /// The first error of a task; a task panicked; some tasks did not stop in time.
    pub async fn run(mut self) -> Result<()> {
        let mut first: Option<anyhow::Error> = None;
        loop {
            let next = if self.stop.is_cancelled() {
                match tokio::time::timeout(DEADLINE, self.tasks.join_next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        return first.map_or_else(
                            || Err(anyhow!("some tasks did not stop within {} s", DEADLINE.as_secs())),
                            Err,
                        );
                    }
                }
            } else {
                self.tasks.join_next().await
            };
            let Some(joined) = next else { break };
            match joined {
                Ok((name, Ok(()))) => tracing::debug!(task = name, "task ended"),
                Ok((name, Err(error))) => {
                    first.get_or_insert(error.context(format!("task {name} failed")));
                }
                Err(error) => {
                    first.get_or_insert(anyhow::Error::new(error).context("a task panicked"));
                }
            }
            self.stop.cancel();
        }
        first.map_or(Ok(()), Err)
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT, and exits immediately at the second.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn cancel_on_signals(stop: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    tokio::spawn(async move {
        loop {
            let name = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
            if stop.is_cancelled() {
                tracing::warn!("second signal, exiting immediately");
                #[expect(clippy::exit, reason = "the only place that exits immediately")]
                std::process::exit(EXIT_SECOND_SIGNAL);
            }
            tracing::info!("received {name}, draining");
            stop.cancel();
        }
    });
    Ok(())
}
