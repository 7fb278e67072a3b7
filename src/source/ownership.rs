//! Distributes the source routes among the bridge processes: a consumer group over a small internal topic with one
//! partition per route. The process to which the partition is assigned runs the route.
//!
//! The group makes a single owner likely, not certain: a frozen process may believe that it still owns a route that
//! another has taken over. The transactional id makes it certain: it fences the older owner. So a mistake here costs
//! time, but publishes no change twice. A revoked route first finishes its transaction, for at most the drain
//! timeout.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::run::{SourceRoute, run_owned};
use super::status::State;
use crate::kafka::topics::Topics;
use crate::kafka::{self, KafkaOptions, Poller, PollerEvent, PollerHandle, PollerSettings};
use crate::model::Epoch;

/// How the routes are distributed.
#[derive(Debug, Clone)]
pub struct OwnershipSettings {
    /// The internal topic. It has at least as many partitions as there are source routes.
    pub topic: String,
    pub group: String,
    /// `session.timeout.ms`: for how long the routes of a dead process have no owner.
    pub session_timeout: Duration,
    /// `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
    /// How long a revoked route may take to finish its transaction.
    pub drain: Duration,
    /// How long the cluster may take to respond at startup.
    pub timeout: Duration,
}

/// Why the routes cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topic's partitions could not be read, or the consumer could not be created.
    #[error("can't distribute the source routes over topic {topic}")]
    Kafka {
        topic: String,
        #[source]
        source: kafka::Error,
    },
    /// The topic does not exist or has too few partitions.
    #[error(
        "topic {topic} has {have} partitions, but each of the {need} source routes needs one; \
         `nowbridge topics create` shows how to add them"
    )]
    Partitions {
        topic: String,
        /// Its partitions; 0 if it does not exist.
        have: i32,
        /// Number of source routes.
        need: usize,
    },
    /// The consumer's thread ended without a request to stop.
    #[error("the consumer of group {group} ended unexpectedly")]
    Ended { group: String },
}

/// Runs the routes that the group assigns to this process until the token is canceled. All processes must have the
/// same routes: a route's partition is its index in the order of names.
///
/// # Errors
/// If the topic does not exist or is too small, or the consumer cannot be created.
pub async fn run(
    mut routes: Vec<SourceRoute>,
    options: &KafkaOptions,
    ownership: &OwnershipSettings,
    stop: CancellationToken,
) -> Result<(), Error> {
    routes.sort_by(|a, b| a.settings.route.cmp(&b.settings.route));
    check(&routes, options, ownership).await?;
    let settings = PollerSettings {
        session_timeout: ownership.session_timeout,
        max_poll_interval: ownership.max_poll_interval,
        drain_timeout: ownership.drain,
        ..PollerSettings::new(options, &ownership.topic, &ownership.group)
    };
    let (handle, mut events) =
        Poller::spawn(settings).map_err(|source| Error::Kafka { topic: ownership.topic.clone(), source })?;
    let mut owner =
        RouteOwner { routes, options: options.clone(), drain: ownership.drain, handle, running: HashMap::new() };
    let ended = owner.handle_events(&mut events, &stop).await;
    owner.stop_routes().await;
    if !owner.handle.leave(events, ownership.drain + Duration::from_secs(5)).await {
        tracing::warn!(
            "leaving the consumer group of the source routes timed out; the broker removes this member after its session timeout"
        );
    }
    if ended && !stop.is_cancelled() { Err(Error::Ended { group: ownership.group.clone() }) } else { Ok(()) }
}

async fn check(routes: &[SourceRoute], options: &KafkaOptions, ownership: &OwnershipSettings) -> Result<(), Error> {
    let topic = ownership.topic.clone();
    let state = Topics::new(options, ownership.timeout).partitions(&topic).await;
    let have = state.map_err(|source| Error::Kafka { topic: topic.clone(), source })?.unwrap_or(0);
    let need = routes.len();
    if usize::try_from(have).unwrap_or(0) < need { Err(Error::Partitions { topic, have, need }) } else { Ok(()) }
}

struct RouteOwner {
    routes: Vec<SourceRoute>,
    options: KafkaOptions,
    drain: Duration,
    handle: PollerHandle,
    running: HashMap<i32, Running>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RouteOwner {
    /// Handles the events of the group. Returns true if the consumer ended unexpectedly.
    async fn handle_events(&mut self, events: &mut mpsc::Receiver<PollerEvent>, stop: &CancellationToken) -> bool {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return false,
                event = events.recv() => event,
            };
            match event {
                None | Some(PollerEvent::Closed) => return true,
                Some(PollerEvent::Assigned { partition, epoch }) => self.assign(partition, epoch),
                Some(PollerEvent::Revoked { partition, epoch }) => self.revoke(partition, epoch),
                Some(PollerEvent::Lost { partition, .. }) => {
                    // Another process owns it. The transaction of this one will be fenced.
                    if let Some(running) = self.running.remove(&partition) {
                        running.stop.cancel();
                    }
                }
                Some(PollerEvent::Error { error, .. }) => {
                    tracing::warn!(error, "Kafka error in the consumer group of the source routes");
                }
                Some(_) => {}
            }
        }
    }

    fn assign(&mut self, partition: i32, epoch: Epoch) {
        let Some(route) = usize::try_from(partition).ok().and_then(|i| self.routes.get(i)).cloned() else { return };
        tracing::info!(route = %route.settings.route, "source route assigned");
        let stop = CancellationToken::new();
        let (token, options, handle) = (stop.clone(), self.options.clone(), self.handle.clone());
        let task = tokio::spawn(async move {
            let owned = move || handle.epoch_of(partition) == Some(epoch);
            run_owned(&route, &options, &owned, &token).await;
            route.status.set_state(State::Standby);
        });
        if let Some(old) = self.running.insert(partition, Running { stop, task }) {
            old.stop.cancel();
        }
    }

    fn revoke(&mut self, partition: i32, epoch: Epoch) {
        let (handle, drain) = (self.handle.clone(), self.drain);
        let running = self.running.remove(&partition);
        // In a task of its own, so that several routes drain at once.
        tokio::spawn(async move {
            if let Some(running) = running {
                stop_route(running, drain).await;
            }
            handle.release(partition, epoch, None);
        });
    }

    async fn stop_routes(&mut self) {
        let tasks: Vec<_> =
            self.running.drain().map(|(_, running)| tokio::spawn(stop_route(running, self.drain))).collect();
        for task in tasks {
            // An aborted task has ended too.
            let _ = task.await;
        }
        for route in &self.routes {
            route.status.set_state(State::Stopped { reason: String::new() });
        }
    }
}

/// Stops a route and waits for its end. A route that takes longer than `drain` is aborted; the next owner fences it.
async fn stop_route(mut running: Running, drain: Duration) {
    running.stop.cancel();
    if tokio::time::timeout(drain, &mut running.task).await.is_err() {
        running.task.abort();
    }
}
