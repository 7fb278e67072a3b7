//! The poller's thread: polls, hands records out, starts and pauses partitions, and lives through rebalances.
//!
//! It never waits for the one who reads its events. Records stop flowing when the channel is full (all partitions are
//! paused, and resumed when half of it is free: a pause throws the prefetch away, so it must not flutter), and what
//! must be told is told in a reserve behind the records' share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as threads};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::committer::Commits;
use super::ownership::Ownership;
use super::poller::{PollerEvent, PollerSettings};
use super::{Error, options};
use crate::clock;
use crate::model::{Epoch, Record};

/// Events that are not records may always be told; so many of them may be unread.
const RESERVE: usize = 8192;
/// How long one poll waits; also how long a command waits at most.
const POLL: Duration = Duration::from_millis(20);
/// A channel that was full for so long is met with a pause. Until then the thread only naps: a pause throws the
/// prefetch away and costs 150 ms until records flow again (seen on a real broker), more than a quick reader needs to
/// make room. Short enough for rebalances not to notice.
const NAPS: Duration = Duration::from_millis(100);
const NAP: Duration = Duration::from_millis(1);
/// What the callback waits beyond the drain deadline, for the last commit.
const LAST_COMMIT: Duration = Duration::from_millis(1500);
/// A seek that is refused for so long is replaced by a new assignment of that partition.
const SEEK_PATIENCE: Duration = Duration::from_millis(500);
/// For the thread's own look-ups, which are rare.
const LOOKUP: Duration = Duration::from_secs(2);

/// What the handle tells the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Fetch { partition: i32, epoch: Epoch, from: i64 },
    Pause(bool),
    Release { partition: i32, epoch: Epoch, offset: Option<i64> },
    Stall(Duration),
    Close,
}

/// Where events go.
pub(super) struct Outlet {
    events: mpsc::Sender<PollerEvent>,
    backlog: Mutex<VecDeque<PollerEvent>>,
    capacity: usize,
}

impl Outlet {
    pub(super) fn new(capacity: usize) -> (Self, mpsc::Receiver<PollerEvent>) {
        let capacity = capacity.max(2);
        let (events, receiver) = mpsc::channel(capacity + RESERVE);
        (Self { events, backlog: Mutex::default(), capacity }, receiver)
    }

    /// Tells it, later if there is no room even in the reserve. Order is kept.
    pub(super) fn tell(&self, event: PollerEvent) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        backlog.push_back(event);
        self.drain(&mut backlog);
    }

    /// Tells it if there is room: for events that are only news.
    pub(super) fn offer(&self, event: PollerEvent) {
        let backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if backlog.is_empty() {
            let _ = self.events.try_send(event);
        }
    }

    fn flush(&self) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        self.drain(&mut backlog);
    }

    fn drain(&self, backlog: &mut VecDeque<PollerEvent>) {
        while let Some(event) = backlog.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                backlog.push_front(event);
                return;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.events.capacity() <= RESERVE
    }

    fn has_room_again(&self) -> bool {
        self.events.capacity() >= RESERVE + self.capacity / 2
    }

    fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }
}

/// What thread, committer and handle share.
pub(super) struct Shared {
    pub(super) settings: PollerSettings,
    pub(super) ownership: Ownership,
    pub(super) outlet: Outlet,
    pub(super) commits: Commits,
    pub(super) last_poll: AtomicU64,
}

impl Shared {
    pub(super) fn new(settings: PollerSettings, outlet: Outlet) -> Self {
        let last_poll = AtomicU64::new(clock::mono());
        Self { settings, ownership: Ownership::default(), outlet, commits: Commits::default(), last_poll }
    }
}

/// How far a partition of ours is.
#[derive(Debug, Clone, Copy)]
enum Reading {
    /// Assigned; nothing is fetched.
    Idle,
    /// To be started.
    Wanted { from: i64, since: Instant },
    /// Records flow; `next` is the lowest offset that may come.
    Flowing { next: i64 },
}

/// librdkafka's way to us. Everything in `inside` is used by the poller's thread only, within `poll` or between polls.
pub(super) struct Context {
    shared: Arc<Shared>,
    inside: Mutex<Inside>,
}

struct Inside {
    commands: threads::Receiver<Command>,
    /// Commands that came while the callback waited for releases.
    deferred: VecDeque<Command>,
    readings: HashMap<i32, Reading>,
}

impl Context {
    pub(super) fn new(shared: Arc<Shared>, commands: threads::Receiver<Command>) -> Self {
        let inside = Inside { commands, deferred: VecDeque::new(), readings: HashMap::new() };
        Self { shared, inside: Mutex::new(inside) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing may be fetched before the ledger is read: assigned at the end and paused at once, so that no committed
    /// offset is looked up (where there is none, that would be an error), then sought and resumed by `fetch`.
    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: &[i32]) {
        let topic = &self.shared.settings.topic;
        let list = list_at(topic, partitions, Offset::End);
        if let Err(error) = consumer.incremental_assign(&list) {
            return self.trouble(None, format!("can't take the partitions {partitions:?} of {topic}: {error}"));
        }
        if let Err(error) = consumer.pause(&list) {
            self.trouble(None, format!("can't pause the partitions {partitions:?} of {topic}: {error}"));
        }
        for &partition in partitions {
            self.inside().readings.insert(partition, Reading::Idle);
            let epoch = self.shared.ownership.gain(partition);
            self.shared.outlet.tell(PollerEvent::Assigned { partition, epoch });
        }
    }

    fn lost(&self, partitions: &[i32]) {
        for &partition in partitions {
            self.inside().readings.remove(&partition);
            if let Some(epoch) = self.shared.ownership.end(partition) {
                self.shared.outlet.tell(PollerEvent::Lost { partition, epoch });
            }
        }
    }

    /// Waits until each is released or the drain deadline has passed, commits what was released, and lets go.
    fn revoked(&self, partitions: &[i32]) {
        let shared = &self.shared;
        let mut waiting: HashMap<i32, Epoch> = HashMap::new();
        for &partition in partitions {
            self.inside().readings.remove(&partition);
            if let Some(epoch) = shared.ownership.epoch_of(partition) {
                waiting.insert(partition, epoch);
                shared.outlet.tell(PollerEvent::Revoked { partition, epoch });
            }
        }
        let deadline = Instant::now() + shared.settings.drain;
        let last = self.await_releases(&mut waiting, deadline);
        if !waiting.is_empty() {
            let mut late: Vec<_> = waiting.into_keys().collect();
            late.sort_unstable();
            self.trouble(None, format!("partitions {late:?} were not released in time; what is in flight is in doubt"));
        }
        if !last.is_empty() && !shared.commits.finish(&last, Instant::now() + LAST_COMMIT) {
            self.trouble(None, "the last offsets were not committed in time; the ledger's mark stands".into());
        }
        for &partition in partitions {
            shared.ownership.end(partition);
        }
    }

    fn await_releases(&self, waiting: &mut HashMap<i32, Epoch>, deadline: Instant) -> Vec<(i32, Epoch, i64)> {
        let mut last = Vec::new();
        while !waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now()).min(POLL);
            let command = self.inside().commands.recv_timeout(left);
            self.shared.outlet.flush();
            match command {
                Ok(Command::Release { partition, epoch, offset }) => {
                    if waiting.get(&partition) == Some(&epoch) {
                        waiting.remove(&partition);
                        last.extend(offset.map(|offset| (partition, epoch, offset)));
                    }
                }
                Ok(other) => self.inside().deferred.push_back(other),
                Err(threads::RecvTimeoutError::Disconnected) => break,
                Err(threads::RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= deadline || self.shared.outlet.is_abandoned() {
                break;
            }
        }
        last
    }

    fn trouble(&self, partition: Option<i32>, what: String) {
        tracing::warn!(partition, "{what}");
        self.shared.outlet.offer(PollerEvent::Trouble { partition, what });
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        options::log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble(None, format!("{error}: {reason}"));
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        if err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            return self.assigned(consumer, &partitions);
        }
        if consumer.assignment_lost() {
            self.lost(&partitions);
        } else {
            self.revoked(&partitions);
        }
        if let Err(error) = consumer.incremental_unassign(list) {
            self.trouble(None, format!("can't let the partitions {partitions:?} go: {error}"));
        }
    }
}

/// Starts the thread.
pub(super) fn start(consumer: Arc<BaseConsumer<Context>>, shared: Arc<Shared>) -> Result<(), Error> {
    let name = "kafka-poller";
    let poll_loop = PollLoop { consumer, shared, paused: false, full: None, stopped: false };
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || poll_loop.run());
    thread.map(drop).map_err(|source| Error::Thread { name, source })
}

struct PollLoop {
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
    /// The engine asked for it.
    paused: bool,
    /// Since when the channel is full.
    full: Option<Instant>,
    /// What librdkafka was told last: the flowing partitions are paused.
    stopped: bool,
}

impl PollLoop {
    fn run(mut self) {
        loop {
            if self.naps() {
                std::thread::sleep(NAP);
            } else {
                self.poll();
            }
            self.shared.outlet.flush();
            if self.obey() || self.shared.outlet.is_abandoned() {
                break;
            }
            self.start_wanted();
            self.regulate();
        }
        self.close();
    }

    fn poll(&self) {
        self.shared.last_poll.store(clock::mono(), Ordering::Release);
        match self.consumer.poll(POLL) {
            Some(Ok(message)) => self.take(&message),
            Some(Err(error)) => self.complain(&error),
            None => {}
        }
    }

    /// Whether room in the channel is waited for without polling.
    fn naps(&self) -> bool {
        !self.stopped && self.full.is_some_and(|since| since.elapsed() < NAPS)
    }

    fn take(&self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        let Some(epoch) = self.shared.ownership.epoch_of(partition) else { return };
        if let Some(Reading::Flowing { next }) = self.consumer.context().inside().readings.get_mut(&partition) {
            if offset < *next {
                return;
            }
            *next = offset + 1;
        } else {
            return;
        }
        let record = owned(&self.shared.settings.topic, message);
        self.shared.outlet.tell(PollerEvent::Record { epoch, record });
    }

    /// Takes commands; true when it is time to end.
    fn obey(&mut self) -> bool {
        loop {
            let mut inside = self.consumer.context().inside();
            let command = match inside.deferred.pop_front() {
                Some(command) => command,
                None => match inside.commands.try_recv() {
                    Ok(command) => command,
                    Err(threads::TryRecvError::Empty) => return false,
                    Err(threads::TryRecvError::Disconnected) => return true,
                },
            };
            match command {
                Command::Fetch { partition, epoch, from } => {
                    if self.shared.ownership.stands(partition, epoch) {
                        inside.readings.insert(partition, Reading::Wanted { from, since: Instant::now() });
                    }
                }
                Command::Pause(paused) => self.paused = paused,
                // Nothing is being taken from us (any more), so there is nothing to let go.
                Command::Release { .. } => {}
                Command::Stall(time) => {
                    drop(inside);
                    std::thread::sleep(time);
                }
                Command::Close => return true,
            }
        }
    }

    fn start_wanted(&self) {
        let wanted: Vec<_> = {
            let inside = self.consumer.context().inside();
            let wanted = |(partition, reading): (&i32, &Reading)| match *reading {
                Reading::Wanted { from, since } => Some((*partition, from, since)),
                Reading::Idle | Reading::Flowing { .. } => None,
            };
            inside.readings.iter().filter_map(wanted).collect()
        };
        for (partition, from, since) in wanted {
            if self.seek(partition, from, since) {
                self.consumer.context().inside().readings.insert(partition, Reading::Flowing { next: from });
                if let Some(epoch) = self.shared.ownership.epoch_of(partition) {
                    self.shared.outlet.tell(PollerEvent::Fetching { partition, epoch });
                }
            }
        }
    }

    /// Sought while it is still paused: the other way round, records from the end could come first. Right after an
    /// assignment the partition isn't started yet and refuses (`Erroneous state`), so it is tried again; after an
    /// offset out of range it has stopped for good, and only a new assignment of it starts it.
    fn seek(&self, partition: i32, from: i64, since: Instant) -> bool {
        let topic = &self.shared.settings.topic;
        let here = list_at(topic, &[partition], Offset::Offset(from));
        if let Err(error) = self.consumer.seek(topic, partition, Offset::Offset(from), Duration::from_secs(1)) {
            if since.elapsed() < SEEK_PATIENCE {
                return false;
            }
            let again =
                self.consumer.incremental_unassign(&here).and_then(|()| self.consumer.incremental_assign(&here));
            if let Err(again) = again {
                let what = format!("can't read {topic}/{partition} from {from}: {error}; {again}");
                self.consumer.context().trouble(Some(partition), what);
                return false;
            }
        }
        let told = if self.stopped { self.consumer.pause(&here) } else { self.consumer.resume(&here) };
        if let Err(error) = told {
            self.consumer.context().trouble(Some(partition), format!("can't resume {topic}/{partition}: {error}"));
            return false;
        }
        true
    }

    /// Pauses or resumes all partitions that flow, where that has changed.
    fn regulate(&mut self) {
        let outlet = &self.shared.outlet;
        self.full = match self.full {
            Some(since) => (!outlet.has_room_again()).then_some(since),
            None => outlet.is_full().then(Instant::now),
        };
        let stop = self.paused || self.full.is_some();
        if stop == self.stopped || (!self.paused && self.naps()) {
            return;
        }
        let partitions: Vec<i32> = {
            let inside = self.consumer.context().inside();
            let flowing = inside.readings.iter().filter(|(_, reading)| matches!(reading, Reading::Flowing { .. }));
            flowing.map(|(partition, _)| *partition).collect()
        };
        let list = list_at(&self.shared.settings.topic, &partitions, Offset::Invalid);
        let told = if stop { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        match told {
            Ok(()) => self.stopped = stop,
            Err(error) => self.consumer.context().trouble(None, format!("can't pause or resume: {error}")),
        }
    }

    fn complain(&self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(_) => {}
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.find_out_of_range();
            }
            other => self.consumer.context().trouble(None, other.to_string()),
        }
    }

    /// The error doesn't say which partition it concerns.
    fn find_out_of_range(&self) {
        let topic = &self.shared.settings.topic;
        let flowing: Vec<(i32, i64)> = {
            let inside = self.consumer.context().inside();
            let next = |(partition, reading): (&i32, &Reading)| match *reading {
                Reading::Flowing { next } => Some((*partition, next)),
                Reading::Idle | Reading::Wanted { .. } => None,
            };
            inside.readings.iter().filter_map(next).collect()
        };
        for (partition, wanted) in flowing {
            let Some(epoch) = self.shared.ownership.epoch_of(partition) else { continue };
            let reading = match self.consumer.fetch_watermarks(topic, partition, LOOKUP) {
                Ok((low, high)) if wanted < low || wanted > high => {
                    self.shared.outlet.tell(PollerEvent::OutOfRange { partition, epoch, wanted, low, high });
                    Reading::Idle
                }
                Ok(_) => continue,
                // Which it was is not known; asking for it again brings the error back if it was this one.
                Err(_) => Reading::Wanted { from: wanted, since: Instant::now() },
            };
            self.consumer.context().inside().readings.insert(partition, reading);
        }
    }

    /// Leaves the group. A consumer that doesn't get it done in time is abandoned: its own destructor would wait
    /// without a bound.
    fn close(self) {
        let deadline = Instant::now() + self.shared.settings.drain + LAST_COMMIT + Duration::from_secs(3);
        let mut left = self.consumer.close_queue().is_ok();
        while left && !self.consumer.closed() {
            drop(self.consumer.poll(POLL));
            left = Instant::now() < deadline;
        }
        self.shared.commits.stop();
        if !left {
            tracing::warn!("the consumer could not leave its group in time; the group waits out its session");
            std::mem::forget(Arc::clone(&self.consumer));
        }
        self.shared.outlet.tell(PollerEvent::Closed);
    }
}

fn list_at(topic: &str, partitions: &[i32], offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        // Fails only for offsets that can't be expressed, which these can.
        let _ = list.add_partition_offset(topic, partition, offset);
    }
    list
}

fn owned(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        topic: Arc::clone(topic),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        timestamp: message.timestamp().to_millis(),
    }
}
