//! A producer whose answers are taken by a thread of its own, as soon as they come.
//!
//! It is rdkafka's `ThreadedProducer` but for how the thread waits: that one polls for 100 ms at a time, and a poll of
//! rdkafka's ends by spinning through the last part of a millisecond, for which nothing is left to wait. An idle bridge
//! spent half of its CPU there.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseProducer, ProducerContext};

use super::Error;

/// How long a poll takes. Answers end no poll, they are handed on within it; only the end of the producer waits for it.
/// The part of a millisecond is there so that a poll in which nothing came is over when its last whole millisecond is.
const POLL: Duration = Duration::from_micros(500_050);

/// The producer. Dropping it waits for the thread, half a second at most.
pub(super) struct PolledProducer<C: ProducerContext + 'static> {
    client: Arc<BaseProducer<C>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<C: ProducerContext + 'static> PolledProducer<C> {
    /// Makes the client; it connects in the background.
    pub(super) fn new(config: &ClientConfig, context: C) -> Result<Self, Error> {
        let client = BaseProducer::from_config_and_context(config, context)
            .map_err(|error| Error::call("can't make a producer", error))?;
        let (client, stopped) = (Arc::new(client), Arc::new(AtomicBool::new(false)));
        let (polled, stop) = (Arc::clone(&client), Arc::clone(&stopped));
        let poll = move || {
            while !stop.load(Ordering::Acquire) {
                polled.poll(POLL);
            }
        };
        let name = "kafka-answers";
        let thread = std::thread::Builder::new().name(name.into()).spawn(poll);
        let thread = thread.map_err(|source| Error::Thread { name, source })?;
        Ok(Self { client, stopped, thread: Some(thread) })
    }
}

impl<C: ProducerContext + 'static> Deref for PolledProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.client
    }
}

impl<C: ProducerContext + 'static> Drop for PolledProducer<C> {
    /// The client must not outlive it: librdkafka's threads and the end of the process don't go together.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that takes the producer's answers has panicked");
        }
    }
}
