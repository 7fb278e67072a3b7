//! The driver: performs the engine's effects, and turns what comes back into its events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::attempt::{self, Attempt};
use super::crash_point::{self, Point};
use super::route::{Error, Route};
use super::status::{PartitionStatus, StatusHandle};
use super::{Inlets, TICK, prepare, take};
use crate::codec;
use crate::engine::Dispatcher;
use crate::engine::event::{
    DeadLetter, Effect, Event, LedgerWrite, Observation, OpId, ProduceOutcome, Report, Standing,
};
use crate::kafka::producer::{Delivery, Outcome, ProduceError, ProduceRequest, Producer};
use crate::kafka::{Poller, PollerEvent, PollerHandle, PollerSettings};
use crate::ledger::{self, Loader};
use crate::model::{Epoch, Key};
use crate::servicenow::{Pace, Take};
use crate::{clock, metrics};

/// How long a ledger record may be on its way: protocol rule 3 wants it below the drain deadline.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two tries to take a partition over.
const TAKE_OVER_AGAIN: Duration = Duration::from_secs(1);

/// Between two looks whether the credentials' files have changed.
const CREDENTIALS_EVERY: u64 = 5_000;

/// Between two looks whether another route has given a concurrency slot back.
const BUSY: u64 = 5;

/// Records of the results topic need no answer; deliveries of it carry this tag.
const NOBODY: u64 = 0;

/// Performs effects for one route.
pub struct Driver {
    route: Arc<Route>,
    dispatcher: Dispatcher,
    poller: PollerHandle,
    producer: Producer,
    loader: Loader,
    events: mpsc::UnboundedSender<Event>,
    status: StatusHandle,
    /// Partitions whose records are left unread until the poller says that they come from the last fetch.
    unfetched: HashSet<i32>,
    /// Produces that the producer's queue had no room for, in order.
    backlog: Vec<ProduceRequest>,
    /// Milliseconds until the pace has a permit, where one is wanted.
    pace_wait: Option<u64>,
    /// What the engine was told last of the permits that are free.
    room: usize,
    last_tick: u64,
    last_status: u64,
    last_credentials: u64,
    epochs: HashMap<i32, Epoch>,
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
            backlog: Vec::new(),
            pace_wait: None,
            room: 0,
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
        self.renew_credentials(now, effects);
        if now >= self.last_tick + TICK || self.dispatcher.next_wake().is_some_and(|at| at <= now) {
            self.last_tick = now;
            self.apply(Event::Tick, effects);
        }
    }

    /// While the instance refuses the credentials, their files are looked at now and then; new ones are tried at once.
    fn renew_credentials(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let refused = matches!(self.dispatcher.standing(), Some(Standing::Unauthorised(_)));
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
                tracing::error!(route = %self.route.name, error = chain(&error), "can't use the new credentials");
            }
        }
    }

    /// Gives the engine as many permits as it wants and the pace has.
    pub fn spend_permits(&mut self, effects: &mut Vec<Effect>) {
        let room = self.pace().room(clock::mono());
        if room != self.room {
            self.room = room;
            self.apply(Event::Room { permits: room }, effects);
        }
        self.pace_wait = None;
        while self.dispatcher.wants_permit(clock::now()) {
            match take(self) {
                Take::Granted { slot } => {
                    self.dispatcher.apply(Event::Permit, clock::now(), effects);
                    let mut slot = Some(slot);
                    for effect in effects.drain(..) {
                        match effect {
                            Effect::Request { id, partition, epoch, lease_until, body } => {
                                // One permit, one request; a second would be a defect and waits for the slot's owner.
                                let slot = slot.take().unwrap_or(0);
                                let attempt = Attempt { id, owner: (partition, epoch), lease_until, body, slot };
                                let display = &self.route.correlation_display;
                                attempt::spawn(
                                    attempt,
                                    &self.route.client,
                                    &self.route.pace,
                                    &self.poller,
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
                Take::Wait(ms) => {
                    self.pace_wait = Some(ms);
                    return;
                }
                Take::Busy => {
                    self.pace_wait = Some(BUSY);
                    return;
                }
            }
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

    /// Something that the poller or the committer says.
    ///
    /// # Errors
    /// The poller has ended.
    pub fn heard(&mut self, event: PollerEvent, effects: &mut Vec<Effect>) -> Result<(), Error> {
        match event {
            PollerEvent::Record { epoch, record } => {
                if !self.unfetched.contains(&record.partition) {
                    let partition = record.partition;
                    metrics::received(&self.route.name, 1);
                    let record = prepare::prepare(&self.route, record);
                    self.apply(Event::Received { partition, epoch, record }, effects);
                }
            }
            PollerEvent::Fetching { partition, epoch } => {
                if self.epochs.get(&partition) == Some(&epoch) {
                    self.unfetched.remove(&partition);
                }
            }
            PollerEvent::Committed { partition, epoch, sent_at, offset } => {
                self.apply(Event::Committed { partition, epoch, sent_at, offset }, effects);
            }
            PollerEvent::Assigned { partition, epoch } => {
                tracing::info!(route = %self.route.name, partition, "was assigned a partition");
                self.epochs.insert(partition, epoch);
                self.unfetched.insert(partition);
                self.status.update(|s| s.started = true);
                self.apply(Event::Assigned { partition, epoch }, effects);
            }
            PollerEvent::Revoked { partition, epoch } => {
                tracing::info!(route = %self.route.name, partition, "gives a partition back");
                self.forget_held(partition);
                self.apply(Event::Revoked { partition, epoch }, effects);
            }
            PollerEvent::Lost { partition, epoch } => {
                tracing::warn!(route = %self.route.name, partition, "lost a partition");
                self.forget_held(partition);
                self.apply(Event::Lost { partition, epoch }, effects);
            }
            PollerEvent::CommitFailed { partition, what, .. } => {
                tracing::debug!(route = %self.route.name, partition, what, "an offset commit has to be repeated");
            }
            PollerEvent::Trouble { partition, what } => {
                tracing::warn!(route = %self.route.name, partition, what, "kafka is in trouble");
                self.status.update(|s| s.trouble = Some((what, clock::mono())));
            }
            PollerEvent::OutOfRange { partition, wanted, low, high, .. } => {
                let gone = low.saturating_sub(wanted);
                let held = format!(
                    "offset {wanted} of {} is not there any more ({gone} records were deleted before they were read; \
                     the partition holds {low} to {high}); set the group's offset with kafka-consumer-groups and \
                     restart",
                    self.route.topic
                );
                tracing::error!(route = %self.route.name, partition, "{held}");
                self.hold(partition, held);
            }
            PollerEvent::Closed => return Err(Error::Ended("poller")),
        }
        Ok(())
    }

    fn hold(&self, partition: i32, held: String) {
        self.status.update(|s| {
            s.held.insert(partition, PartitionStatus { held });
        });
    }

    fn forget_held(&mut self, partition: i32) {
        self.epochs.remove(&partition);
        self.status.update(|s| {
            s.held.remove(&partition);
        });
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
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(LEDGER_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(route = %self.route.name, "some records were unanswered at the end; the next owner settles them");
        }
        tracing::info!(route = %self.route.name, "drained and left the group");
        Ok(())
    }

    /// Shows the present state, a few times a second at most.
    pub fn publish_status(&mut self) {
        let now = clock::now();
        if now.mono < self.last_status + 200 {
            return;
        }
        self.last_status = now.mono;
        let snapshot = self.dispatcher.snapshot(now);
        metrics::route(&self.route.name, &snapshot, self.pace().in_flight());
        let standing = self.dispatcher.standing().map(|s| in_words(s, now.mono));
        let parked = self.dispatcher.parked().take(100).map(|(k, r)| (k.to_string(), r.to_owned())).collect();
        self.status.update(|s| {
            s.snapshot = snapshot;
            s.standing = standing;
            s.parked = parked;
            s.pulse = now.mono;
        });
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
                        let held = chain(&error);
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

    fn produce(&mut self, request: ProduceRequest) {
        if !self.backlog.is_empty() {
            self.backlog.push(request);
            return;
        }
        self.try_produce(request);
    }

    fn try_produce(&mut self, request: ProduceRequest) {
        let tag = request.tag;
        match self.producer.produce(request) {
            Ok(()) => {}
            Err(ProduceError::QueueFull(request)) => self.backlog.insert(0, *request),
            Err(error) => {
                tracing::warn!(route = %self.route.name, error = chain(&error), "can't produce");
                if tag != NOBODY {
                    // Answered through the channel, never from within `apply`.
                    let _ = self.events.send(Event::Produced { op: OpId(tag), outcome: ProduceOutcome::Refused });
                }
            }
        }
    }

    fn flush_backlog(&mut self) {
        let waiting = std::mem::take(&mut self.backlog);
        for request in waiting {
            self.produce(request);
        }
    }

    fn ledger(&mut self, op: OpId, partition: i32, write: &LedgerWrite) {
        let (key, value) = ledger::wire::encode(write);
        self.produce(ProduceRequest {
            topic: Arc::clone(&self.route.ledger),
            partition: Some(partition),
            key: Some(key),
            value,
            headers: Vec::new(),
            tag: op.0,
        });
        match write {
            LedgerWrite::Claim(..) => crash_point::pass(Point::Claim),
            LedgerWrite::Entry(..) => crash_point::pass(Point::Entry),
            _ => {}
        }
    }

    fn dead_letter(&mut self, op: OpId, letter: &DeadLetter) {
        metrics::dead_letter(&self.route.name, &letter.code);
        self.status.count("dead_letters", 1);
        tracing::warn!(
            route = %self.route.name, topic = %letter.raw.topic, position = %letter.position,
            key = letter.key.as_deref(), code = letter.code, reason = letter.reason, "dead letter"
        );
        let described = codec::Letter {
            code: &letter.code,
            reason: &letter.reason,
            position: letter.position,
            key: letter.key.as_deref(),
            route: &self.route.name,
            superseded: &letter.superseded,
        };
        let (key, value, headers) = codec::dead_letter(&letter.raw, &described, clock::unix());
        let topic = Arc::clone(&self.route.dead_letters);
        self.produce(ProduceRequest { topic, partition: None, key, value, headers, tag: op.0 });
    }

    fn result(&mut self, report: Report) {
        metrics::applied(&self.route.name, report.outcome, report.positions.len(), report.latency);
        self.status.count(report.outcome, 1);
        tracing::debug!(
            route = %self.route.name, key = %report.key, outcome = report.outcome, number = report.number,
            events = report.positions.len(), attempts = report.attempts, latency_ms = report.latency, "applied intent"
        );
        for warning in &report.warnings {
            tracing::warn!(route = %self.route.name, key = %report.key, number = report.number, warning, "stands otherwise");
        }
        let Some(topic) = self.route.results.clone() else { return };
        let fields = codec::ReportFields {
            schema: codec::ReportFields::SCHEMA.into(),
            route: self.route.name.to_string(),
            key: report.key.to_string(),
            outcome: report.outcome.into(),
            sys_id: report.sys_id,
            number: report.number,
            positions: codec::ReportFields::positions(&report.positions),
            fields: report.fields.into_iter().map(|(c, v)| (c.to_string(), v)).collect(),
            notes: report.notes as u64,
            attempts: report.attempts,
            latency_ms: report.latency,
            warnings: report.warnings,
            time: jiff::Timestamp::now().to_string(),
        };
        let (key, value) = codec::report(&fields);
        self.produce(ProduceRequest {
            topic,
            partition: None,
            key: Some(key),
            value: Some(value),
            headers: Vec::new(),
            tag: NOBODY,
        });
    }

    fn observe(&self, observation: Observation) {
        let route = &*self.route.name;
        metrics::observed(route, &observation);
        match observation {
            Observation::DoubtOpened(key, why) => tracing::warn!(route, key = &*key, why, "in doubt, looks"),
            Observation::DoubtSettled(key, there) => tracing::info!(route, key = &*key, there, "settled a doubt"),
            Observation::PersonKept(key, column) => {
                tracing::info!(route, key = &*key, column = &*column, "kept a person's value");
            }
            Observation::Skipped(key, why) => tracing::debug!(route, key = &*key, why, "skipped an event"),
            Observation::Unchanged(key) => tracing::debug!(route, key = &*key, "nothing to change"),
            Observation::Expired(key) => tracing::debug!(route, key = &*key, "forgot a finished ticket"),
            Observation::Parked(key, why) => tracing::warn!(route, key = &*key, why, "parked a key"),
            Observation::Unparked(key) => tracing::info!(route, key = &*key, "released a parked key"),
            Observation::Standing(Some(standing)) => match &standing {
                Standing::Draining => tracing::info!(route, "drains"),
                other => tracing::error!(route, why = in_words(other, clock::mono()), "the route stands still"),
            },
            Observation::Standing(None) => tracing::info!(route, "the route goes on"),
            Observation::Doubled(key, rows) => warn_doubled(route, &key, rows),
            Observation::Gone(key, sys_id) => tracing::warn!(route, key = &*key, sys_id, "the ticket is gone"),
            Observation::TokenRenewed(partition) => {
                tracing::warn!(route, partition, "a ledger record's delivery is unknown; takes a new token");
            }
        }
    }
}

fn perform(driver: &mut Driver, effect: Effect) {
    match effect {
        Effect::Produce { op, partition, write } => driver.ledger(op, partition, &write),
        Effect::Commit { partition, epoch, offset } => {
            crash_point::pass(Point::Commit);
            driver.poller.commit(partition, epoch, offset);
        }
        Effect::Result(report) => driver.result(*report),
        Effect::Observe(observation) => driver.observe(observation),
        Effect::DeadLetter { op, letter } => driver.dead_letter(op, &letter),
        Effect::TakeOver { partition, epoch } => {
            driver.unfetched.insert(partition);
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
            let event = Event::Answered { request: id, issued_at: 0, instance_date: None, answer };
            let _ = driver.events.send(event);
        }
    }
}

fn warn_doubled(route: &str, key: &Key, rows: usize) {
    tracing::warn!(route, key = &**key, rows, "more than one ticket carries this key; the oldest is kept");
}

fn in_words(standing: &Standing, now: u64) -> String {
    match standing {
        Standing::Unavailable(why) => format!("the instance is down, one probe at a time: {why}"),
        Standing::Unauthorised(why) => {
            format!("the instance refuses the credentials ({why}); set them right, the route goes on by itself")
        }
        Standing::Throttled(until) => {
            format!("the instance asked to wait {} s more", until.saturating_sub(now).div_ceil(1000))
        }
        Standing::Braked(why) => format!("stopped by the brake: {why}; find the cause, then restart"),
        Standing::Draining => "shutting down".into(),
    }
}

/// An error and its causes on one line; each `Display` tells only its own layer.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
