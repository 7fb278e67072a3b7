//! The process's named tasks: all end when one ends, and why is told.
//!
//! Guarantees: the first task that ends, well or badly, stops the others through the shared token; the others get a
//! deadline; the first error is what the process exits with. A second signal exits at once.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the slowest task may take to end: the sink's drain, leaving the group, and flushing.
const DEADLINE: Duration = Duration::from_secs(40);

/// Exit code of a process that was told twice to stop.
const TOLD_TWICE: i32 = 130;

/// A set of named tasks.
pub struct Supervisor {
    tasks: JoinSet<(String, Result<()>)>,
    stop: CancellationToken,
}

impl Supervisor {
    /// No tasks yet; `stop` is cancelled when the first one ends.
    pub fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), stop }
    }

    /// Starts a task.
    pub fn spawn(&mut self, name: impl Into<String>, task: impl Future<Output = Result<()>> + Send + 'static) {
        let name = name.into();
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// The first error of a task; a task that panicked; tasks that did not end in time.
    pub async fn run(mut self) -> Result<()> {
        let mut first: Option<anyhow::Error> = None;
        loop {
            let next = if self.stop.is_cancelled() {
                match tokio::time::timeout(DEADLINE, self.tasks.join_next()).await {
                    Ok(next) => next,
                    Err(_) => return first.map_or_else(|| Err(anyhow!("some tasks did not end in time")), Err),
                }
            } else {
                self.tasks.join_next().await
            };
            let Some(ended) = next else { break };
            match ended {
                Ok((name, Ok(()))) => tracing::debug!(task = name, "ended"),
                Ok((name, Err(error))) => {
                    first.get_or_insert(error.context(format!("{name} ended")));
                }
                Err(error) => {
                    first.get_or_insert(anyhow::Error::new(error).context("a task died"));
                }
            }
            self.stop.cancel();
        }
        first.map_or(Ok(()), Err)
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT; exits at once at the second.
///
/// # Errors
/// The signals can't be listened to.
pub fn on_signals(stop: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            if stop.is_cancelled() {
                tracing::warn!("told twice to stop; exits at once");
                #[expect(clippy::exit, reason = "the one place that ends the process at once")]
                std::process::exit(TOLD_TWICE);
            }
            tracing::info!("told to stop; drains");
            stop.cancel();
        }
    });
    Ok(())
}
