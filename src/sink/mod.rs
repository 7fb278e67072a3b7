//! Kafka to ServiceNow: the loop of one route around the engine.
//!
//! `select()` waits for the next input (records, acks, responses, loaded ledgers, time, shutdown) and decides nothing:
//! the [`Dispatcher`](crate::engine::Dispatcher) decides, and `driver` performs its effects. The loop owns the
//! dispatcher and its clients, so delivery state needs no lock. It guarantees what the engine requires of its driver:
//! effects are performed in order, every produce and every request is answered exactly once, and the lease is compared
//! with the clock immediately before a request is sent.

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
pub use status::{BlockedPartition, KafkaError, Status, StatusHandle};

/// Limit of draining after a SIGTERM, while the consumer still polls (protocol rule 3d).
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

/// Longest interval between two ticks of the dispatcher, milliseconds. Bounds the delay of its maintenance.
const TICK_INTERVAL: u64 = 100;

/// Maximum number of events received from one channel per iteration of the loop.
const MAX_EVENTS: usize = 256;

/// The channels that the loop receives from.
pub struct Inputs {
    /// Events of the poller and the committer.
    pub poller: mpsc::Receiver<PollerEvent>,
    /// Delivery reports of the producer.
    pub deliveries: mpsc::UnboundedReceiver<Delivery>,
    /// Completed requests and loaded ledgers.
    pub events: mpsc::UnboundedReceiver<Event>,
}

/// Runs a route until `stop` is canceled and its work is drained, or until a permanent error.
///
/// # Errors
/// The Kafka clients cannot run. Failures of the instance are never an error here.
pub async fn run(route: Route, status: StatusHandle, stop: CancellationToken) -> Result<(), Error> {
    let (mut driver, mut inputs) = Driver::start(route, status)?;
    let mut draining_since: Option<u64> = None;
    let mut effects: Vec<Effect> = Vec::new();
    loop {
        if stop.is_cancelled() && draining_since.is_none() {
            draining_since = Some(clock::mono());
            driver.apply(Event::Drain, &mut effects);
        }
        if let Some(since) = draining_since
            && (driver.is_drained()
                || clock::mono() >= since + u64::try_from(DRAIN_TIMEOUT.as_millis()).unwrap_or(u64::MAX))
        {
            break;
        }
        select(&mut driver, &mut inputs, &mut effects, &stop, draining_since.is_some()).await?;
        driver.use_permits(&mut effects);
        driver.publish_status();
    }
    driver.close(inputs).await
}

/// Waits for the next input, receives all input that is available, and applies it.
async fn select(
    driver: &mut Driver,
    inputs: &mut Inputs,
    effects: &mut Vec<Effect>,
    stop: &CancellationToken,
    draining: bool,
) -> Result<(), Error> {
    let wait = driver.until_wake();
    let mut poller_events = Vec::new();
    let mut deliveries = Vec::new();
    let mut events = Vec::new();
    // Inputs that finish work come before those that start work.
    tokio::select! {
        biased;
        n = inputs.deliveries.recv_many(&mut deliveries, MAX_EVENTS) => if n == 0 { return Err(Error::Ended("producer")) },
        n = inputs.events.recv_many(&mut events, MAX_EVENTS) => if n == 0 { return Err(Error::Ended("requests")) },
        n = inputs.poller.recv_many(&mut poller_events, MAX_EVENTS) => if n == 0 { return Err(Error::Ended("poller")) },
        () = tokio::time::sleep(Duration::from_millis(wait)) => {}
        () = stop.cancelled(), if !draining => {}
    }
    driver.report_last_poll(effects);
    for delivery in deliveries {
        driver.handle_delivery(delivery, effects);
    }
    for event in events {
        driver.apply(event, effects);
    }
    for event in poller_events {
        driver.handle_poller_event(event, effects)?;
    }
    driver.tick(effects);
    Ok(())
}
