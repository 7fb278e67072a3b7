//! Kafka to ServiceNow: one route's loop around the engine.
//!
//! `select()` waits for whatever happens next (records, acks, answers, loaded ledgers, time, the wish to stop) and is
//! dumb; the [`Dispatcher`](crate::engine::Dispatcher) decides; `perform` does what it decided. The loop owns the
//! dispatcher and everything it talks to, so there is no lock around delivery state. It guarantees what the engine
//! asks of its driver: effects are performed in order, every produce and request is answered exactly once, and the
//! lease is compared with the clock immediately before a request leaves.

mod attempt;
mod batch;
mod drain_estimate;
mod driver;
mod ownership;
mod poller_events;
mod produce;
mod reporting;
mod route;
mod status;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::event::{Effect, Event};
use crate::kafka::PollerEvent;
use crate::kafka::producer::Delivery;
use crate::runtime::clock;

pub use batch::BatchSettings;
pub use driver::Driver;
pub use route::{Error, Route};
pub use status::{PartitionStatus, Status, StatusHandle};

/// How long finishing work may take after a SIGTERM, while still polling.
const DRAIN: Duration = Duration::from_secs(25);

/// The dispatcher is told the time at least this often; it bounds how late a housekeeping step comes.
const TICK: u64 = 100;

/// Events taken from one channel at once, before effects of all are performed.
const BATCH: usize = 256;

/// Everything the loop listens to.
pub struct Inlets {
    /// The poller and the committer.
    pub poller: mpsc::Receiver<PollerEvent>,
    /// Answers of produces.
    pub deliveries: mpsc::UnboundedReceiver<Delivery>,
    /// Answers of requests, and loaded ledgers.
    pub events: mpsc::UnboundedReceiver<Event>,
}

/// Runs a route until `stop` is cancelled and its work is drained, or until something fails for good.
///
/// # Errors
/// Kafka or the configuration makes it impossible to go on; what the instance does is never an error here.
pub async fn run(route: Route, status: StatusHandle, stop: CancellationToken) -> Result<(), Error> {
    let (mut driver, mut inlets) = Driver::start(route, status)?;
    let mut draining_since: Option<u64> = None;
    let mut effects: Vec<Effect> = Vec::new();
    loop {
        if stop.is_cancelled() && draining_since.is_none() {
            draining_since = Some(clock::mono());
            driver.apply(Event::Drain, &mut effects);
        }
        if let Some(since) = draining_since
            && (driver.is_drained() || clock::mono() >= since + u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX))
        {
            break;
        }
        select(&mut driver, &mut inlets, &mut effects, &stop, draining_since.is_some()).await?;
        driver.spend_permits(&mut effects);
        driver.publish_status();
    }
    driver.close(inlets).await
}

/// Waits for the next thing that happens, takes what else has come with it, and applies it.
async fn select(
    driver: &mut Driver,
    inlets: &mut Inlets,
    effects: &mut Vec<Effect>,
    stop: &CancellationToken,
    draining: bool,
) -> Result<(), Error> {
    let wait = driver.until_wake();
    let mut polled = Vec::new();
    let mut delivered = Vec::new();
    let mut events = Vec::new();
    // What ends work comes before what begins some.
    tokio::select! {
        biased;
        n = inlets.deliveries.recv_many(&mut delivered, BATCH) => if n == 0 { return Err(Error::Ended("producer")) },
        n = inlets.events.recv_many(&mut events, BATCH) => if n == 0 { return Err(Error::Ended("requests")) },
        n = inlets.poller.recv_many(&mut polled, BATCH) => if n == 0 { return Err(Error::Ended("poller")) },
        () = tokio::time::sleep(Duration::from_millis(wait)) => {}
        () = stop.cancelled(), if !draining => {}
    }
    driver.polled(effects);
    for delivery in delivered {
        driver.delivered(delivery, effects);
    }
    for event in events {
        driver.apply(event, effects);
    }
    for event in polled {
        driver.heard(event, effects)?;
    }
    driver.tick(effects);
    Ok(())
}
