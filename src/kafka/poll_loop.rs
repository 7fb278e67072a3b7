//! The poller's thread: polls, hands records out, starts and pauses partitions, leaves the group in the end.
//!
//! It never waits for the one who reads its events. Records stop flowing when the channel is full (all partitions are
//! paused, and resumed when half of it is free: a pause throws the prefetch away, so it must not flutter).

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as threads};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::Error;
use super::poller::PollerEvent;
use super::rebalance::{Command, Context, LAST_COMMIT, Reading, Shared, list_at};
use crate::model::Record;
use crate::runtime::clock;

/// How long one poll waits; also how long a command waits at most.
const POLL: Duration = Duration::from_millis(20);
/// A channel that was full for so long is met with a pause. Until then the thread only naps: a pause throws the
/// prefetch away and costs 150 ms until records flow again (seen on a real broker), more than a quick reader needs to
/// make room. Short enough for rebalances not to notice.
const NAPS: Duration = Duration::from_millis(100);
const NAP: Duration = Duration::from_millis(1);
/// A seek that is refused for so long is replaced by a new assignment of that partition.
const SEEK_PATIENCE: Duration = Duration::from_millis(500);
/// For the thread's own look-ups, which are rare.
const LOOKUP: Duration = Duration::from_secs(2);

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
            if self.run_commands() || self.shared.outlet.is_abandoned() {
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
            Some(Err(error)) => self.report_error(&error),
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
    fn run_commands(&mut self) -> bool {
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
                    self.shared.outlet.tell(PollerEvent::Fetching { partition, epoch, from });
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

    fn report_error(&self, error: &KafkaError) {
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

pub(super) fn owned(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
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
