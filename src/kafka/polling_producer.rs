//! A producer with a thread that polls for delivery reports.
//!
//! It differs from rdkafka's `ThreadedProducer` only in the duration of a poll. That one polls for 100 ms at a time,
//! and a poll of rdkafka spins during the last fraction of a millisecond. An idle bridge spent half of its CPU time
//! there.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::{BaseProducer, ProducerContext};

use super::Error;

/// Duration of a poll. Delivery reports are handled within it, so only the end of the producer waits for it. The
/// fraction of a millisecond makes a poll without delivery reports end with its last whole millisecond.
const POLL: Duration = Duration::from_micros(500_050);

/// The producer. Dropping it waits for the thread, for half a second at most.
pub(super) struct PollingProducer<C: ProducerContext + 'static> {
    client: Arc<BaseProducer<C>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<C: ProducerContext + 'static> PollingProducer<C> {
    /// Creates the client, which connects in the background.
    pub(super) fn new(config: &ClientConfig, context: C) -> Result<Self, Error> {
        let client = BaseProducer::from_config_and_context(config, context)
            .map_err(|error| Error::call("can't create a producer", error))?;
        let (client, stopped) = (Arc::new(client), Arc::new(AtomicBool::new(false)));
        let (poll_client, stop) = (Arc::clone(&client), Arc::clone(&stopped));
        let poll = move || {
            while !stop.load(Ordering::Acquire) {
                poll_client.poll(POLL);
            }
        };
        let name = "kafka-delivery";
        let thread = std::thread::Builder::new().name(name.into()).spawn(poll);
        let thread = thread.map_err(|source| Error::Thread { name, source })?;
        Ok(Self { client, stopped, thread: Some(thread) })
    }
}

impl<C: ProducerContext + 'static> Deref for PollingProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.client
    }
}

impl<C: ProducerContext + 'static> Drop for PollingProducer<C> {
    /// Joins the thread, so that the client is dropped with it: librdkafka's threads must not run when the process
    /// ends.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the producer's polling thread panicked");
        }
    }
}
