//! The driver: performs the engine's effects, and turns what comes back into its events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::attempt::{self, Attempt, Right};
use super::batch::Batching;
use super::drain_estimate::Forecast;
use super::ownership::Tenures;
use super::route::{Error, Route};
use super::status::{PartitionStatus, StatusHandle};
use super::{Inlets, TICK};
use crate::engine::Dispatcher;
use crate::engine::event::{BlockReason, Effect, Event, OpId, ProduceOutcome};
use crate::kafka::producer::{Delivery, Outcome, ProduceRequest, Producer};
use crate::kafka::{Poller, PollerEvent, PollerHandle, PollerSettings};
use crate::ledger::Loader;
use crate::model::{Epoch, HttpMethods};
use crate::quota::{Pace, PermitDecision, RequestClass};
use crate::runtime::clock;
use crate::runtime::error_chain;
use crate::runtime::failpoint::{self, Point};
use crate::runtime::metrics;

/// How long a ledger record may be on its way: protocol rule 3 wants it below the drain deadline.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two tries to take a partition over.
const TAKE_OVER_AGAIN: Duration = Duration::from_secs(1);

/// Between two looks whether the credentials' files have changed.
const CREDENTIALS_EVERY: u64 = 5_000;

/// Between two looks whether another route has given a concurrency slot back.
const BUSY: u64 = 5;

/// Records of the results topic need no answer; deliveries of it carry this tag.
pub(super) const NOBODY: u64 = 0;

/// Performs effects for one route.
pub struct Driver {
    pub(super) route: Arc<Route>,
    pub(super) dispatcher: Dispatcher,
    pub(super) poller: PollerHandle,
    pub(super) producer: Producer,
    loader: Loader,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) status: StatusHandle,
    /// Partitions whose records are left unread until the poller says that they come from the last fetch.
    pub(super) unfetched: HashSet<i32>,
    pub(super) tenures: Tenures,
    pub(super) batching: Option<Batching>,
    /// Produces that the producer's queue had no room for, in order.
    pub(super) backlog: Vec<ProduceRequest>,
    /// Records of the results topic that are being gathered, and when the last ones were passed on.
    pub(super) results: Vec<ProduceRequest>,
    pub(super) results_passed: u64,
    /// Milliseconds until the pace has a permit, where one is wanted.
    pace_wait: Option<u64>,
    /// What the engine was told last of the permits that are free.
    room: usize,
    pub(super) forecast: Forecast,
    last_tick: u64,
    pub(super) last_status: u64,
    last_credentials: u64,
    pub(super) epochs: HashMap<i32, Epoch>,
}

impl Driver {
    /// Makes the clients and joins the group.
    ///
    /// # Errors
    /// A client could not be made.
    pub fn start(route: Route, status: StatusHandle) -> Result<(Self, Inlets), Error> {
        let (producer, deliveries) = Producer::new(&route.kafka, LEDGER_TIMEOUT).map_err(Error::Kafka)?;
        let mut settings = PollerSettings::new(&route.kafka, &route.topic, &route.group);
        settings.session_timeout = route.session_timeout;
        settings.max_poll_interval = route.max_poll_interval;
        settings.drain = Duration::from_millis(route.settings.drain + 500);
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
            on_lost: route.on_lost,
            timeout: Duration::from_secs(10),
        };
        let batching = route.batch.map(Batching::new);
        let (events, event_inlet) = mpsc::unbounded_channel();
        let mut driver = Self {
            dispatcher: Dispatcher::new(route.settings.clone()),
            route: Arc::new(route),
            poller,
            producer,
            loader,
            events,
            status,
            unfetched: HashSet::new(),
            tenures: Tenures::default(),
            batching,
            backlog: Vec::new(),
            results: Vec::new(),
            results_passed: 0,
            pace_wait: None,
            room: 0,
            forecast: Forecast::default(),
            last_tick: 0,
            last_status: 0,
            last_credentials: 0,
            epochs: HashMap::new(),
        };
        if let Some(date) = driver.route.instance_date {
            driver.apply(Event::InstanceTime { date }, &mut Vec::new());
        }
        Ok((driver, Inlets { poller: poller_events, deliveries, events: event_inlet }))
    }

    /// The quota that this route spends from.
    pub fn pace(&self) -> &Pace {
        &self.route.pace
    }

    /// Applies one event and performs what comes of it.
    pub fn apply(&mut self, event: Event, effects: &mut Vec<Effect>) {
        self.dispatcher.apply(event, clock::now(), effects);
        for effect in effects.drain(..) {
            perform(self, effect);
        }
    }

    /// Milliseconds until something is due.
    pub fn until_wake(&self) -> u64 {
        let now = clock::mono();
        let engine = self.dispatcher.next_wake().map_or(TICK, |at| at.saturating_sub(now));
        let pace = self.pace_wait.unwrap_or(TICK);
        let backlog = if self.backlog.is_empty() { TICK } else { BUSY };
        engine.min(pace).min(backlog).clamp(1, TICK)
    }

    /// Tells the engine when the consumer was last polled.
    pub fn polled(&mut self, effects: &mut Vec<Effect>) {
        let at = self.poller.last_poll();
        self.apply(Event::Polled { at }, effects);
    }

    /// Time for housekeeping, if it is.
    pub fn tick(&mut self, effects: &mut Vec<Effect>) {
        let now = clock::mono();
        self.flush_backlog();
        self.pass_results(now);
        self.renew_credentials(now, effects);
        if self.status.take_resume() {
            tracing::info!(route = %self.route.name, "a person asks the route to go on");
            self.route.client.try_again();
            self.apply(Event::Retry, effects);
        }
        if now >= self.last_tick + TICK || self.dispatcher.next_wake().is_some_and(|at| at <= now) {
            self.last_tick = now;
            self.apply(Event::Tick, effects);
        }
    }

    /// While the instance refuses the credentials, their files are looked at now and then; new ones are tried at once.
    fn renew_credentials(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let refused = matches!(self.dispatcher.blocked_by(), Some(BlockReason::Unauthorised(_)));
        if !refused || now < self.last_credentials + CREDENTIALS_EVERY {
            return;
        }
        self.last_credentials = now;
        let Some(auth) = (self.route.new_credentials)() else { return };
        match self.route.client.replace_credentials(auth) {
            Ok(()) => {
                tracing::info!(route = %self.route.name, "the credentials have changed; tries them");
                self.apply(Event::Retry, effects);
            }
            Err(error) => {
                tracing::error!(route = %self.route.name, error = error_chain::chain(&error), "can't use the new credentials");
            }
        }
    }

    /// Gives the engine as many permits as it wants and the pace has.
    pub fn spend_permits(&mut self, effects: &mut Vec<Effect>) {
        let room = self.pace().room(clock::mono()) * self.together().unwrap_or(1);
        if room != self.room {
            self.room = room;
            self.apply(Event::AvailablePermits { permits: room }, effects);
        }
        self.pace_wait = None;
        let mut without = HttpMethods::NONE;
        while let Some(wanted) = self.dispatcher.wanted(clock::now(), without) {
            let class = if wanted.critical { RequestClass::Urgent } else { RequestClass::Sink };
            let together = self.together();
            if let Some(wait) = together.and_then(|_| self.linger(wanted)) {
                self.pace_wait = Some(wait);
                return;
            }
            let wait = match self.pace().try_take(self.ask(wanted, class), clock::mono()) {
                PermitDecision::Granted { slot } => {
                    match together {
                        None => self.spend(slot, class, without, effects),
                        Some(size) => self.spend_together(size, slot, class, effects),
                    }
                    continue;
                }
                PermitDecision::Held(ms) if together.is_none() => {
                    // Requests of other methods may leave all the same.
                    without = without.with(wanted.method);
                    ms
                }
                PermitDecision::Wait(ms) | PermitDecision::Held(ms) => ms,
                PermitDecision::Busy => BUSY,
            };
            self.pace_wait = Some(self.pace_wait.map_or(wait, |other| other.min(wait)));
            if !without.contains(wanted.method) {
                return;
            }
        }
    }

    /// Gives the engine one permit, and sends the request that comes of it on this slot.
    fn spend(&mut self, slot: usize, class: RequestClass, without: HttpMethods, effects: &mut Vec<Effect>) {
        self.dispatcher.apply(Event::Permit { without }, clock::now(), effects);
        let mut slot = Some(slot);
        for effect in effects.drain(..) {
            match effect {
                Effect::Request { id, partition, epoch, lease_until, body } => {
                    // One permit, one request; a second would be a defect and waits for the slot's owner.
                    let slot = slot.take().unwrap_or(0);
                    let tenure = self.tenures.of(partition);
                    let right = Right { partition, epoch, tenure, lease_until };
                    let attempt = Attempt { id, right, body, slot, class };
                    let display = &self.route.correlation_display;
                    attempt::spawn(
                        attempt,
                        &self.route.client,
                        &self.route.pace,
                        (&self.poller, &self.tenures),
                        display,
                        &self.events,
                    );
                }
                other => perform(self, other),
            }
        }
        if let Some(unused) = slot {
            self.route.pace.release(unused);
        }
    }

    /// An answer of the producer.
    pub fn delivered(&mut self, delivery: Delivery, effects: &mut Vec<Effect>) {
        if delivery.tag == NOBODY {
            if let Outcome::Refused(why) | Outcome::Unknown(why) = delivery.outcome {
                metrics::result_lost(&self.route.name);
                tracing::warn!(route = %self.route.name, why, "lost a record of the results topic");
            }
            return;
        }
        let outcome = match delivery.outcome {
            Outcome::Acked { .. } => ProduceOutcome::Acked,
            Outcome::Refused(why) => {
                tracing::warn!(route = %self.route.name, why, "kafka refused a record");
                ProduceOutcome::Refused
            }
            Outcome::Unknown(why) => {
                tracing::warn!(route = %self.route.name, why, "a record's delivery is unknown");
                ProduceOutcome::Unknown
            }
        };
        self.apply(Event::Produced { op: OpId(delivery.tag), outcome }, effects);
    }

    /// True once nothing is in flight that a drain waits for.
    pub fn is_drained(&self) -> bool {
        self.dispatcher.finishing() == 0 && self.backlog.is_empty()
    }

    /// Leaves the group: partitions are revoked one last time, marks and offsets are written, the producer is flushed.
    ///
    /// # Errors
    /// None so far; the signature leaves room for what a close may find.
    pub async fn close(mut self, mut inlets: Inlets) -> Result<(), Error> {
        let mut effects = Vec::new();
        self.poller.close();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(8);
        loop {
            tokio::select! {
                biased;
                Some(delivery) = inlets.deliveries.recv() => self.delivered(delivery, &mut effects),
                Some(event) = inlets.events.recv() => self.apply(event, &mut effects),
                event = inlets.poller.recv() => match event {
                    None | Some(PollerEvent::Closed) => break,
                    Some(event) => self.heard(event, &mut effects)?,
                },
                () = tokio::time::sleep(Duration::from_millis(20)) => self.tick(&mut effects),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        self.flush_results();
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(LEDGER_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(route = %self.route.name, "some records were unanswered at the end; the next owner settles them");
        }
        tracing::info!(route = %self.route.name, "drained and left the group");
        Ok(())
    }

    fn take_over(&self, partition: i32, epoch: Epoch) {
        let (loader, poller, events) = (self.loader.clone(), self.poller.clone(), self.events.clone());
        let (status, name) = (self.status.clone(), Arc::clone(&self.route.name));
        tokio::spawn(async move {
            let route = Arc::clone(&name);
            let progress =
                Arc::new(move |read: u64| tracing::info!(route = %route, partition, read, "reads the ledger"));
            while poller.epoch_of(partition) == Some(epoch) {
                match loader.take_over(partition, progress.clone()).await {
                    Ok(ledger) => {
                        status.update(|s| {
                            s.held.remove(&partition);
                        });
                        let _ = events.send(Event::Loaded { partition, epoch, ledger: Box::new(ledger) });
                        return;
                    }
                    Err(error) => {
                        let held = error_chain::chain(&error);
                        if error.is_transient() {
                            tracing::warn!(route = %name, partition, error = held, "can't take the partition over yet");
                        } else {
                            tracing::error!(route = %name, partition, error = held, "the partition is held");
                        }
                        status.update(|s| {
                            s.held.insert(partition, PartitionStatus { held });
                        });
                        let pause = if error.is_transient() { TAKE_OVER_AGAIN } else { TAKE_OVER_AGAIN * 10 };
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        });
    }
}

pub(super) fn perform(driver: &mut Driver, effect: Effect) {
    match effect {
        Effect::Produce { op, partition, write } => driver.ledger(op, partition, &write),
        Effect::Commit { partition, epoch, offset } => {
            failpoint::pass(Point::Commit);
            driver.poller.commit(partition, epoch, offset);
        }
        Effect::Result(report) => driver.result(*report),
        Effect::Observe(observation) => driver.observe(observation),
        Effect::DeadLetter { op, letter } => driver.dead_letter(op, &letter),
        Effect::TakeOver { partition, epoch } => {
            driver.unfetched.insert(partition);
            driver.tenures.begin(partition);
            driver.take_over(partition, epoch);
        }
        Effect::Fetch { partition, epoch, from } => driver.poller.fetch(partition, epoch, from),
        Effect::Pause => driver.poller.pause(),
        Effect::Resume => driver.poller.resume(),
        Effect::Release { partition, epoch, offset } => driver.poller.release(partition, epoch, offset),
        // Requests come of permits only, and `spend_permits` takes them out; one without a permit is answered as
        // not sent, so that nothing hangs.
        Effect::Request { id, .. } => {
            let answer = crate::model::Answer::NotSent { reason: "no permit".into() };
            let event = Event::Answered { request: id, issued_at: 0, instance_date: None, answer, told: false };
            let _ = driver.events.send(event);
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
