//! The poller thread: polls, sends records, starts and pauses partitions, and finally leaves the group.
//!
//! It never waits for the reader of its events. If the channel is full, it pauses all partitions, and resumes them when
//! half of the channel is free: a pause discards the prefetched records, so pauses must not alternate quickly.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as threads};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::Error;
use super::poller::PollerEvent;
use super::rebalance::{Command, Context, FINAL_COMMIT_TIMEOUT, FetchState, Shared, offset_list};
use crate::model::Record;
use crate::runtime::clock;

/// Duration of one poll, and so the longest delay of a command.
const POLL: Duration = Duration::from_millis(20);
/// How long the channel may be full before fetching is paused. Until then the thread only sleeps: a pause discards the
/// prefetched records and costs 150 ms until records arrive again (measured with a real broker), more than a fast
/// reader needs to make room. Short enough not to delay rebalances.
const FULL_GRACE: Duration = Duration::from_millis(100);
const FULL_SLEEP: Duration = Duration::from_millis(1);
/// How long a seek may fail before the partition is assigned again instead.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);
/// For the thread's own look-ups, which are rare.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts the thread.
pub(super) fn start(consumer: Arc<BaseConsumer<Context>>, shared: Arc<Shared>) -> Result<(), Error> {
    let name = "kafka-poller";
    let poll_loop = PollLoop { consumer, shared, pause_requested: false, full_since: None, is_paused: false };
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || poll_loop.run());
    thread.map(drop).map_err(|source| Error::Thread { name, source })
}

struct PollLoop {
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
    /// Set by [`Command::Pause`].
    pause_requested: bool,
    full_since: Option<Instant>,
    /// Whether the fetching partitions are paused in librdkafka.
    is_paused: bool,
}

impl PollLoop {
    fn run(mut self) {
        loop {
            if self.is_within_full_grace() {
                std::thread::sleep(FULL_SLEEP);
            } else {
                self.poll();
            }
            self.shared.events.flush();
            if self.run_commands() || self.shared.events.is_closed() {
                break;
            }
            self.start_requested();
            self.update_pause();
        }
        self.close();
    }

    fn poll(&self) {
        self.shared.last_poll.store(clock::mono(), Ordering::Release);
        match self.consumer.poll(POLL) {
            Some(Ok(message)) => self.send_record(&message),
            Some(Err(error)) => self.handle_error(&error),
            None => {}
        }
    }

    /// Whether the channel is full and fetching is not paused yet.
    fn is_within_full_grace(&self) -> bool {
        !self.is_paused && self.full_since.is_some_and(|since| since.elapsed() < FULL_GRACE)
    }

    fn send_record(&self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        let Some(epoch) = self.shared.ownership.epoch_of(partition) else { return };
        if let Some(FetchState::Fetching { next }) = self.consumer.context().state().fetch_states.get_mut(&partition) {
            if offset < *next {
                return;
            }
            *next = offset + 1;
        } else {
            return;
        }
        let record = to_record(&self.shared.settings.topic, message);
        self.shared.events.send(PollerEvent::Record { epoch, record });
    }

    /// Runs the commands that have arrived; true if the thread must end.
    fn run_commands(&mut self) -> bool {
        loop {
            let mut state = self.consumer.context().state();
            let command = match state.deferred.pop_front() {
                Some(command) => command,
                None => match state.commands.try_recv() {
                    Ok(command) => command,
                    Err(threads::TryRecvError::Empty) => return false,
                    Err(threads::TryRecvError::Disconnected) => return true,
                },
            };
            match command {
                Command::Fetch { partition, epoch, from } => {
                    if self.shared.ownership.is_current(partition, epoch) {
                        let requested = FetchState::Requested { from, since: Instant::now() };
                        state.fetch_states.insert(partition, requested);
                    }
                }
                Command::Pause(paused) => self.pause_requested = paused,
                // No partition is being revoked (any more), so there is nothing to release.
                Command::Release { .. } => {}
                Command::Stall(time) => {
                    drop(state);
                    std::thread::sleep(time);
                }
                Command::Close => return true,
            }
        }
    }

    /// Starts fetching from the partitions for which it was requested.
    fn start_requested(&self) {
        let requested: Vec<_> = {
            let state = self.consumer.context().state();
            let requested = |(partition, fetch_state): (&i32, &FetchState)| match *fetch_state {
                FetchState::Requested { from, since } => Some((*partition, from, since)),
                FetchState::Idle | FetchState::Fetching { .. } => None,
            };
            state.fetch_states.iter().filter_map(requested).collect()
        };
        for (partition, from, since) in requested {
            if self.seek(partition, from, since) {
                self.consumer.context().state().fetch_states.insert(partition, FetchState::Fetching { next: from });
                if let Some(epoch) = self.shared.ownership.epoch_of(partition) {
                    self.shared.events.send(PollerEvent::Fetching { partition, epoch, from });
                }
            }
        }
    }

    /// Seeks while the partition is still paused; in the other order, records from the end could arrive first. Right
    /// after an assignment the partition is not started yet and the seek fails (`Erroneous state`), so it is retried.
    /// After an offset out of range the partition has stopped for good, and only a new assignment of it starts it.
    fn seek(&self, partition: i32, from: i64, since: Instant) -> bool {
        let topic = &self.shared.settings.topic;
        let list = offset_list(topic, &[partition], Offset::Offset(from));
        if let Err(error) = self.consumer.seek(topic, partition, Offset::Offset(from), Duration::from_secs(1)) {
            if since.elapsed() < SEEK_TIMEOUT {
                return false;
            }
            let reassigned =
                self.consumer.incremental_unassign(&list).and_then(|()| self.consumer.incremental_assign(&list));
            if let Err(assign_error) = reassigned {
                let message = format!("can't read {topic}/{partition} from offset {from}: {error}; {assign_error}");
                self.consumer.context().report_error(Some(partition), message);
                return false;
            }
        }
        let result = if self.is_paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = result {
            let message = format!("can't resume {topic}/{partition}: {error}");
            self.consumer.context().report_error(Some(partition), message);
            return false;
        }
        true
    }

    /// Pauses or resumes all fetching partitions, if necessary.
    fn update_pause(&mut self) {
        let events = &self.shared.events;
        self.full_since = match self.full_since {
            Some(since) => (!events.is_half_free()).then_some(since),
            None => events.is_full().then(Instant::now),
        };
        let pause = self.pause_requested || self.full_since.is_some();
        if pause == self.is_paused || (!self.pause_requested && self.is_within_full_grace()) {
            return;
        }
        let partitions: Vec<i32> = {
            let state = self.consumer.context().state();
            let fetching = state.fetch_states.iter().filter(|(_, state)| matches!(state, FetchState::Fetching { .. }));
            fetching.map(|(partition, _)| *partition).collect()
        };
        let list = offset_list(&self.shared.settings.topic, &partitions, Offset::Invalid);
        let result = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        match result {
            Ok(()) => self.is_paused = pause,
            Err(error) => self.consumer.context().report_error(None, format!("can't pause or resume: {error}")),
        }
    }

    fn handle_error(&self, error: &KafkaError) {
        match error {
            KafkaError::PartitionEOF(_) => {}
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.find_out_of_range();
            }
            other => self.consumer.context().report_error(None, other.to_string()),
        }
    }

    /// Finds the partitions whose next offset is out of range, because the error does not name the partition.
    fn find_out_of_range(&self) {
        let topic = &self.shared.settings.topic;
        let fetching: Vec<(i32, i64)> = {
            let state = self.consumer.context().state();
            let next = |(partition, fetch_state): (&i32, &FetchState)| match *fetch_state {
                FetchState::Fetching { next } => Some((*partition, next)),
                FetchState::Idle | FetchState::Requested { .. } => None,
            };
            state.fetch_states.iter().filter_map(next).collect()
        };
        for (partition, wanted) in fetching {
            let Some(epoch) = self.shared.ownership.epoch_of(partition) else { continue };
            let fetch_state = match self.consumer.fetch_watermarks(topic, partition, LOOKUP_TIMEOUT) {
                Ok((low, high)) if wanted < low || wanted > high => {
                    self.shared.events.send(PollerEvent::OutOfRange { partition, epoch, wanted, low, high });
                    FetchState::Idle
                }
                Ok(_) => continue,
                // It may be this partition. If so, fetching from the offset again causes the error again.
                Err(_) => FetchState::Requested { from: wanted, since: Instant::now() },
            };
            self.consumer.context().state().fetch_states.insert(partition, fetch_state);
        }
    }

    /// Leaves the group. A consumer that has not left in time is leaked, because its destructor would wait without a
    /// limit.
    fn close(self) {
        let drain_timeout = self.shared.settings.drain_timeout;
        let deadline = Instant::now() + drain_timeout + FINAL_COMMIT_TIMEOUT + Duration::from_secs(3);
        let mut has_left = self.consumer.close_queue().is_ok();
        while has_left && !self.consumer.closed() {
            drop(self.consumer.poll(POLL));
            has_left = Instant::now() < deadline;
        }
        self.shared.commits.stop();
        if !has_left {
            tracing::warn!(
                group = self.shared.settings.group,
                "the consumer could not leave its group in time; the broker removes this member after its session \
                 timeout"
            );
            std::mem::forget(Arc::clone(&self.consumer));
        }
        self.shared.events.send(PollerEvent::Closed);
    }
}

/// Copies a message.
pub(super) fn to_record(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
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
