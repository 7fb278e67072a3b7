//! Shares source routes among the instances of the bridge: a consumer group over a small internal topic, one partition
//! a route. Whoever is assigned the partition runs the route.
//!
//! The group makes one owner likely, not certain: an instance that was frozen may believe to own a route that another
//! has taken over. Certain it is by the transactional id, which fences the older of the two, so a mistake here costs
//! time and never a doubled change. A revoked route finishes its transaction first, at most for the drain time.

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

/// How routes are shared.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// The internal topic; at least as many partitions as there are source routes.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// `session.timeout.ms`: how long a dead instance's routes rest.
    pub session_timeout: Duration,
    /// `max.poll.interval.ms`.
    pub max_poll_interval: Duration,
    /// How long a revoked route may finish its transaction.
    pub drain: Duration,
    /// How long the cluster may take to answer at the start.
    pub patience: Duration,
}

/// Why the routes can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the cluster.
    #[error("can't share the source routes over topic {topic}")]
    Kafka {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: kafka::Error,
    },
    /// No topic, or one that is too small.
    #[error(
        "topic {topic} has {have} partitions and there are {need} source routes: each needs one; \
         `nowbridge topics create` tells how to add them"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// Its partitions, 0 where it does not exist.
        have: i32,
        /// Routes.
        need: usize,
    },
    /// The group's thread ended although nobody asked it to.
    #[error("the consumer of group {group} ended by itself")]
    Ended {
        /// The group.
        group: String,
    },
}

/// Runs the routes that the group gives to this process until the token is cancelled. All instances must be given the
/// same routes: a route's partition is its place in the order of names.
///
/// # Errors
/// Where the topic is not there or too small, or the consumer can't be made.
pub async fn run(
    mut routes: Vec<SourceRoute>,
    options: &KafkaOptions,
    sharing: &Sharing,
    stop: CancellationToken,
) -> Result<(), Error> {
    routes.sort_by(|a, b| a.settings.route.cmp(&b.settings.route));
    check(&routes, options, sharing).await?;
    let settings = PollerSettings {
        session_timeout: sharing.session_timeout,
        max_poll_interval: sharing.max_poll_interval,
        drain: sharing.drain,
        ..PollerSettings::new(options, &sharing.topic, &sharing.group)
    };
    let (handle, mut events) =
        Poller::spawn(settings).map_err(|source| Error::Kafka { topic: sharing.topic.clone(), source })?;
    let mut owner = Owner { routes, options: options.clone(), drain: sharing.drain, handle, running: HashMap::new() };
    let ended = owner.follow(&mut events, &stop).await;
    owner.stop_all().await;
    if !owner.handle.leave(events, sharing.drain + Duration::from_secs(5)).await {
        tracing::warn!("leaving the group of source routes took too long; its session will end by itself");
    }
    if ended && !stop.is_cancelled() { Err(Error::Ended { group: sharing.group.clone() }) } else { Ok(()) }
}

async fn check(routes: &[SourceRoute], options: &KafkaOptions, sharing: &Sharing) -> Result<(), Error> {
    let topic = sharing.topic.clone();
    let state = Topics::new(options, sharing.patience).partitions(&topic).await;
    let have = state.map_err(|source| Error::Kafka { topic: topic.clone(), source })?.unwrap_or(0);
    let need = routes.len();
    if usize::try_from(have).unwrap_or(0) < need { Err(Error::Partitions { topic, have, need }) } else { Ok(()) }
}

struct Owner {
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

impl Owner {
    /// Follows the group; true where it ended by itself.
    async fn follow(&mut self, events: &mut mpsc::Receiver<PollerEvent>, stop: &CancellationToken) -> bool {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return false,
                event = events.recv() => event,
            };
            match event {
                None | Some(PollerEvent::Closed) => return true,
                Some(PollerEvent::Assigned { partition, epoch }) => self.start(partition, epoch),
                Some(PollerEvent::Revoked { partition, epoch }) => self.let_go(partition, epoch),
                Some(PollerEvent::Lost { partition, .. }) => {
                    // Somebody else has it; what is under way here will be fenced.
                    if let Some(running) = self.running.remove(&partition) {
                        running.stop.cancel();
                    }
                }
                Some(PollerEvent::Trouble { what, .. }) => tracing::warn!(what, "sharing of source routes"),
                Some(_) => {}
            }
        }
    }

    fn start(&mut self, partition: i32, epoch: Epoch) {
        let Some(route) = usize::try_from(partition).ok().and_then(|i| self.routes.get(i)).cloned() else { return };
        tracing::info!(route = %route.settings.route, "this instance runs the source route now");
        let stop = CancellationToken::new();
        let (token, options, handle) = (stop.clone(), self.options.clone(), self.handle.clone());
        let task = tokio::spawn(async move {
            let owned = move || handle.epoch_of(partition) == Some(epoch);
            run_owned(&route, &options, &owned, &token).await;
            route.status.state(State::Standby);
        });
        if let Some(old) = self.running.insert(partition, Running { stop, task }) {
            old.stop.cancel();
        }
    }

    fn let_go(&mut self, partition: i32, epoch: Epoch) {
        let (handle, drain) = (self.handle.clone(), self.drain);
        let running = self.running.remove(&partition);
        // Apart, so that several routes drain at once.
        tokio::spawn(async move {
            if let Some(running) = running {
                end(running, drain).await;
            }
            handle.release(partition, epoch, None);
        });
    }

    async fn stop_all(&mut self) {
        let ends: Vec<_> = self.running.drain().map(|(_, running)| tokio::spawn(end(running, self.drain))).collect();
        for end in ends {
            // A task that was cut off has ended too.
            let _ = end.await;
        }
        for route in &self.routes {
            route.status.state(State::Stopped { reason: String::new() });
        }
    }
}

/// Cancels a route and waits for its end; one that takes longer is cut off, and fenced by the next owner.
async fn end(mut running: Running, drain: Duration) {
    running.stop.cancel();
    if tokio::time::timeout(drain, &mut running.task).await.is_err() {
        running.task.abort();
    }
}
