//! The driver: performs the engine's effects, and turns the results into its events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::attempt::{self, Attempt, SendCheck};
use super::batch::BatchState;
use super::drain_estimate::DrainLog;
use super::ownership::LoadGenerations;
use super::route::{Error, Route};
use super::status::StatusHandle;
use super::{Inputs, TICK_INTERVAL};
use crate::engine::Dispatcher;
use crate::engine::event::{BlockReason, Effect, Event, ProduceId, ProduceOutcome};
use crate::kafka::producer::{Delivery, Outcome, ProduceRequest, Producer};
use crate::kafka::{Poller, PollerEvent, PollerHandle, PollerSettings};
use crate::ledger::Loader;
use crate::model::{Epoch, HttpMethodSet};
use crate::quota::{PermitDecision, RequestClass, RequestLimiter};
use crate::runtime::clock;
use crate::runtime::error_chain;
use crate::runtime::failpoint::{self, Failpoint};
use crate::runtime::metrics;
use crate::servicenow::RowVersionsReceiver;

/// Delivery timeout of ledger records. Protocol rule 3 requires it to be below the drain timeout.
const LEDGER_PRODUCE_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval between two checks whether the files of the credentials have changed, milliseconds.
const CREDENTIALS_CHECK_INTERVAL: u64 = 5_000;

/// Delay before checking again whether another route has released a concurrency slot, milliseconds.
const SLOT_RETRY: u64 = 5;

/// Tag of records of the results topic, whose delivery the engine does not track.
pub(super) const UNTRACKED: u64 = 0;

/// Performs effects for one route.
pub struct Driver {
    pub(super) route: Arc<Route>,
    pub(super) dispatcher: Dispatcher,
    pub(super) poller: PollerHandle,
    pub(super) producer: Producer,
    pub(super) loader: Loader,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) status: StatusHandle,
    /// Partitions whose records are discarded until the poller reports the start of the last requested fetch.
    pub(super) awaiting_fetch: HashSet<i32>,
    pub(super) load_generations: LoadGenerations,
    pub(super) batching: Option<BatchState>,
    /// Records for which the producer's queue was full, in order.
    pub(super) produce_queue: Vec<ProduceRequest>,
    /// Records of the results topic that wait for the next flush.
    pub(super) results: Vec<ProduceRequest>,
    /// Time of the last flush of `results` on the mono clock.
    pub(super) results_flushed_at: u64,
    /// Milliseconds until the next permit may be available; `None` if no request waits for one.
    permit_wait: Option<u64>,
    /// The number of available permits last reported to the engine.
    available_permits: usize,
    pub(super) drain_log: DrainLog,
    last_tick: u64,
    pub(super) last_status: u64,
    last_credentials: u64,
    pub(super) epochs: HashMap<i32, Epoch>,
    row_versions: RowVersionsReceiver,
}

impl Driver {
    /// Creates the clients and joins the group.
    ///
    /// # Errors
    /// A client could not be created.
    pub fn start(route: Route, status: StatusHandle) -> Result<(Self, Inputs), Error> {
        let (producer, deliveries) = Producer::new(&route.kafka, LEDGER_PRODUCE_TIMEOUT).map_err(Error::Kafka)?;
        let mut settings = PollerSettings::new(&route.kafka, &route.topic, &route.group);
        settings.session_timeout = route.session_timeout;
        settings.max_poll_interval = route.max_poll_interval;
        settings.drain_timeout = Duration::from_millis(route.settings.drain_timeout + 500);
        settings.capacity = 4096;
        let (poller, poller_events) = Poller::spawn(settings).map_err(Error::Kafka)?;
        let loader = Loader {
            options: route.kafka.clone(),
            producer: producer.clone(),
            poller: poller.clone(),
            topic: Arc::clone(&route.ledger),
            group: route.group.clone(),
            identity: route.identity.clone(),
            member: format!("{}-{}", route.name, std::process::id()),
            host: host_name(),
            start: route.start,
            on_missing_ledger: route.on_missing_ledger,
            timeout: Duration::from_secs(10),
        };
        let batching = route.batch.map(BatchState::new);
        let (events, events_input) = mpsc::unbounded_channel();
        let row_versions = route.row_versions.subscribe();
        let mut driver = Self {
            dispatcher: Dispatcher::new(route.settings.clone()),
            route: Arc::new(route),
            poller,
            producer,
            loader,
            events,
            status,
            awaiting_fetch: HashSet::new(),
            load_generations: LoadGenerations::default(),
            batching,
            produce_queue: Vec::new(),
            results: Vec::new(),
            results_flushed_at: 0,
            permit_wait: None,
            available_permits: 0,
            drain_log: DrainLog::default(),
            last_tick: 0,
            last_status: 0,
            last_credentials: 0,
            epochs: HashMap::new(),
            row_versions,
        };
        if let Some(date) = driver.route.instance_date {
            driver.apply(Event::InstanceTime { date }, &mut Vec::new());
        }
        Ok((driver, Inputs { poller: poller_events, deliveries, events: events_input }))
    }

    /// Returns the rate limiter of the instance.
    pub fn limiter(&self) -> &RequestLimiter {
        &self.route.limiter
    }

    /// Applies one event and performs its effects.
    pub fn apply(&mut self, event: Event, effects: &mut Vec<Effect>) {
        self.dispatcher.apply(event, clock::now(), effects);
        for effect in effects.drain(..) {
            perform(self, effect);
        }
    }

    /// Returns the milliseconds until the next work is due.
    pub fn until_wake(&self) -> u64 {
        let now = clock::mono();
        let engine = self.dispatcher.next_wake().map_or(TICK_INTERVAL, |at| at.saturating_sub(now));
        let permit = self.permit_wait.unwrap_or(TICK_INTERVAL);
        let produce_queue = if self.produce_queue.is_empty() { TICK_INTERVAL } else { SLOT_RETRY };
        engine.min(permit).min(produce_queue).clamp(1, TICK_INTERVAL)
    }

    /// Reports to the engine when the consumer was last polled.
    pub fn report_last_poll(&mut self, effects: &mut Vec<Effect>) {
        let at = self.poller.last_poll();
        self.apply(Event::Polled { at }, effects);
    }

    /// Does periodic work that is due.
    pub fn tick(&mut self, effects: &mut Vec<Effect>) {
        let now = clock::mono();
        self.flush_produce_queue();
        self.flush_results_if_due(now);
        self.reload_credentials(now, effects);
        while let Some(versions) = self.row_versions.receive() {
            self.apply(Event::RowVersionsSeen { versions }, effects);
        }
        if self.status.take_resume_request() {
            tracing::info!(route = %self.route.name, "resume requested");
            self.route.client.retry_credentials();
            self.apply(Event::ResumeRequested, effects);
        }
        if now >= self.last_tick + TICK_INTERVAL || self.dispatcher.next_wake().is_some_and(|at| at <= now) {
            self.last_tick = now;
            self.apply(Event::Tick, effects);
        }
    }

    /// Reloads the credentials if their files have changed while the instance rejects them, and retries immediately.
    fn reload_credentials(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let rejected = matches!(self.dispatcher.blocked_by(), Some(BlockReason::Unauthorized(_)));
        if !rejected || now < self.last_credentials + CREDENTIALS_CHECK_INTERVAL {
            return;
        }
        self.last_credentials = now;
        let Some(auth) = (self.route.new_credentials)() else { return };
        match self.route.client.replace_credentials(auth) {
            Ok(()) => {
                tracing::info!(route = %self.route.name, "credentials changed, retrying");
                self.apply(Event::ResumeRequested, effects);
            }
            Err(error) => {
                tracing::error!(route = %self.route.name, error = error_chain::chain(&error), "can't use the new credentials");
            }
        }
    }

    /// Grants the engine permits while it has requests and the limiter has permits.
    pub fn use_permits(&mut self, effects: &mut Vec<Effect>) {
        let available_permits = self.limiter().available(clock::mono()) * self.batch_size().unwrap_or(1);
        if available_permits != self.available_permits {
            self.available_permits = available_permits;
            self.apply(Event::AvailablePermits { permits: available_permits }, effects);
        }
        self.permit_wait = None;
        let mut without = HttpMethodSet::NONE;
        while let Some(next_request) = self.dispatcher.next_request(clock::now(), without) {
            let class = if next_request.critical { RequestClass::Urgent } else { RequestClass::Normal };
            let batch_size = self.batch_size();
            if let Some(wait) = batch_size.and_then(|_| self.linger(next_request)) {
                self.permit_wait = Some(wait);
                return;
            }
            let wait = match self.limiter().try_acquire(self.permit_request(next_request, class), clock::mono()) {
                PermitDecision::Granted { slot } => {
                    match batch_size {
                        None => self.send_one(slot, class, without, effects),
                        Some(size) => self.send_batch(size, slot, class, effects),
                    }
                    continue;
                }
                PermitDecision::RuleLimited(ms) if batch_size.is_none() => {
                    // Requests of other methods may still be sent.
                    without = without.with(next_request.method);
                    ms
                }
                PermitDecision::RateLimited(ms) | PermitDecision::RuleLimited(ms) => ms,
                PermitDecision::AtConcurrencyLimit => SLOT_RETRY,
            };
            self.permit_wait = Some(self.permit_wait.map_or(wait, |earlier| earlier.min(wait)));
            if !without.contains(next_request.method) {
                return;
            }
        }
    }

    /// Grants the engine one permit and sends the resulting request on this slot.
    fn send_one(&mut self, slot: usize, class: RequestClass, without: HttpMethodSet, effects: &mut Vec<Effect>) {
        self.dispatcher.apply(Event::PermitGranted { without }, clock::now(), effects);
        let mut slot = Some(slot);
        for effect in effects.drain(..) {
            match effect {
                Effect::SendRequest { id, partition, epoch, lease_until, body } => {
                    // One permit causes one request. A second one would be a defect; it waits for the owner of slot 0.
                    let slot = slot.take().unwrap_or(0);
                    let load_generation = self.load_generations.current(partition);
                    let check = SendCheck { partition, epoch, load_generation, lease_until };
                    let attempt = Attempt { id, check, body, slot, class };
                    let display = &self.route.correlation_display;
                    attempt::spawn(
                        attempt,
                        &self.route.client,
                        &self.route.limiter,
                        (&self.poller, &self.load_generations),
                        display,
                        &self.events,
                    );
                }
                other => perform(self, other),
            }
        }
        if let Some(unused) = slot {
            self.route.limiter.release(unused);
        }
    }

    /// Handles a delivery report of the producer.
    pub fn handle_delivery(&mut self, delivery: Delivery, effects: &mut Vec<Effect>) {
        if delivery.tag == UNTRACKED {
            if let Outcome::Rejected(error) | Outcome::Unknown(error) = delivery.outcome {
                metrics::result_lost(&self.route.name);
                tracing::warn!(route = %self.route.name, error, "result record not acknowledged");
            }
            return;
        }
        let outcome = match delivery.outcome {
            Outcome::Acked { .. } => ProduceOutcome::Acked,
            Outcome::Rejected(error) => {
                tracing::warn!(route = %self.route.name, error, "Kafka rejected a record");
                ProduceOutcome::NotWritten
            }
            Outcome::Unknown(error) => {
                tracing::warn!(route = %self.route.name, error, "unknown whether Kafka stored a record");
                ProduceOutcome::Unknown
            }
        };
        self.apply(Event::ProduceCompleted { produce_id: ProduceId(delivery.tag), outcome }, effects);
    }

    /// Whether draining is complete.
    pub fn is_drained(&self) -> bool {
        self.dispatcher.outstanding() == 0 && self.produce_queue.is_empty()
    }

    /// Leaves the group: releases the partitions, writes marks and offsets, and flushes the producer.
    ///
    /// # Errors
    /// None so far.
    pub async fn close(mut self, mut inputs: Inputs) -> Result<(), Error> {
        let mut effects = Vec::new();
        self.poller.close();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(8);
        loop {
            tokio::select! {
                biased;
                Some(delivery) = inputs.deliveries.recv() => self.handle_delivery(delivery, &mut effects),
                Some(event) = inputs.events.recv() => self.apply(event, &mut effects),
                event = inputs.poller.recv() => match event {
                    None | Some(PollerEvent::Closed) => break,
                    Some(event) => self.handle_poller_event(event, &mut effects)?,
                },
                () = tokio::time::sleep(Duration::from_millis(20)) => self.tick(&mut effects),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        self.flush_results();
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(LEDGER_PRODUCE_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(route = %self.route.name, "Kafka did not acknowledge all records before shutdown; the next owner of each partition verifies the affected writes");
        }
        tracing::info!(route = %self.route.name, "drained, left the consumer group");
        Ok(())
    }
}

pub(super) fn perform(driver: &mut Driver, effect: Effect) {
    match effect {
        Effect::ProduceLedgerRecord { produce_id, partition, write } => {
            driver.produce_ledger_record(produce_id, partition, &write);
        }
        Effect::CommitOffset { partition, epoch, offset } => {
            failpoint::hit(Failpoint::Commit);
            driver.poller.commit(partition, epoch, offset);
        }
        Effect::ProduceResult(report) => driver.produce_result(*report),
        Effect::Observe(observation) => driver.observe(observation),
        Effect::ProduceDeadLetter { produce_id, dead_letter } => driver.produce_dead_letter(produce_id, &dead_letter),
        Effect::TakeOverPartition { partition, epoch } => {
            driver.awaiting_fetch.insert(partition);
            driver.load_generations.advance(partition);
            driver.take_over(partition, epoch);
        }
        Effect::StartFetching { partition, epoch, start_offset } => {
            driver.poller.fetch(partition, epoch, start_offset);
        }
        Effect::PauseFetching => driver.poller.pause(),
        Effect::ResumeFetching => driver.poller.resume(),
        Effect::ReleasePartition { partition, epoch, offset } => driver.poller.release(partition, epoch, offset),
        // Requests result from permits only, and `use_permits` handles those. A request without a permit is answered as
        // not sent, so that its lane does not wait forever.
        Effect::SendRequest { id, .. } => {
            let answer = crate::model::Answer::NotSent { reason: "no permit".into() };
            let event = Event::RequestCompleted {
                request: id,
                issued_at: 0,
                instance_date: None,
                answer,
                already_counted: false,
            };
            let _ = driver.events.send(event);
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
