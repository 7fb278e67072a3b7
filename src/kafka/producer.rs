//! The idempotent producer: `acks=all`, records of a partition keep their order, exactly one delivery for each record.
//!
//! The outcome of a delivery is [`Outcome::Acked`], [`Outcome::Rejected`] (certainly not written) or
//! [`Outcome::Unknown`] (the record may still be written, even later). rdkafka does not expose librdkafka's per-message
//! status, so a delivery that timed out is unknown even if the record was never sent, which is safe. Deliveries are
//! sent to an unbounded channel, because the thread that sends them must never wait for the thread that produces.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as RdHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tokio::sync::{mpsc, oneshot};

use super::polling_producer::PollingProducer;
use super::{Error, KafkaOptions, options};
use crate::model::record::Header;

/// The first of the tags that [`Producer::produce_and_wait`] uses.
const INTERNAL_TAGS: u64 = 1 << 63;

/// A record to produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    pub topic: Arc<str>,
    /// `None`: by the hash of the key.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<Header>,
    /// Returned in the delivery; below 2^63. 0 if nobody waits for the delivery.
    pub tag: u64,
}

/// The outcome of a produced record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged by all in-sync replicas.
    Acked {
        partition: i32,
        offset: i64,
        /// The timestamp that this client has set, Unix milliseconds. With `LogAppendTime` the broker replaces it,
        /// which only readers see.
        timestamp: Option<i64>,
    },
    /// Certainly not written.
    Rejected(String),
    /// Timed out or failed in flight: the record may still be written.
    Unknown(String),
}

/// The delivery report of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The tag of the request.
    pub tag: u64,
    pub outcome: Outcome,
}

/// The client did not accept a record.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The client's queue is full. Retry with the returned request after some deliveries.
    #[error("the producer's queue is full")]
    QueueFull(Box<ProduceRequest>),
    /// The record can never be written as it is.
    #[error("can't produce to {topic}")]
    Rejected {
        topic: Arc<str>,
        #[source]
        source: KafkaError,
    },
    /// The client failed permanently, and a new one could not be created.
    #[error("the producer failed permanently")]
    Broken(#[source] Error),
}

/// A producer; clones are cheap and share one client.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    options: KafkaOptions,
    timeout: Duration,
    client: RwLock<Arc<PollingProducer<Context>>>,
    deliveries: Arc<Deliveries>,
    next_tag: AtomicU64,
}

/// Distributes deliveries: to [`Producer::produce_and_wait`] or to the channel.
struct Deliveries {
    channel: mpsc::UnboundedSender<Delivery>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
    /// Accepted records without a delivery. librdkafka's own count includes deliveries that it has already reported.
    in_flight: AtomicUsize,
}

impl Producer {
    /// Creates the client, which connects in the background. A record that is not acknowledged within `timeout` fails.
    pub fn new(options: &KafkaOptions, timeout: Duration) -> Result<(Self, mpsc::UnboundedReceiver<Delivery>), Error> {
        let (channel, receiver) = mpsc::unbounded_channel();
        let deliveries = Arc::new(Deliveries { channel, waiting: Mutex::default(), in_flight: AtomicUsize::new(0) });
        let client = RwLock::new(Arc::new(connect(options, timeout, &deliveries)?));
        let inner =
            Inner { options: options.clone(), timeout, client, deliveries, next_tag: AtomicU64::new(INTERNAL_TAGS) };
        Ok((Self { inner: Arc::new(inner) }, receiver))
    }

    /// Passes a record to the client. Records of one partition keep their order. After `Ok`, exactly one delivery with
    /// this tag follows.
    pub fn produce(&self, request: ProduceRequest) -> Result<(), ProduceError> {
        let in_flight = &self.inner.deliveries.in_flight;
        // Counted before it is sent, because its delivery may arrive before `send` returns.
        in_flight.fetch_add(1, Ordering::AcqRel);
        let accepted = self.enqueue(request);
        if accepted.is_err() {
            in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        accepted
    }

    fn enqueue(&self, request: ProduceRequest) -> Result<(), ProduceError> {
        let client = self.client();
        match send(&client, request) {
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::Fatal), request)) => {
                let client = self.replace(&client).map_err(ProduceError::Broken)?;
                send(&client, *request).map_err(produce_error)
            }
            result => result.map_err(produce_error),
        }
    }

    /// Produces one record and waits for its delivery. The request's tag is not used.
    pub async fn produce_and_wait(&self, mut request: ProduceRequest) -> Result<Outcome, ProduceError> {
        let tag = self.inner.next_tag.fetch_add(1, Ordering::Relaxed);
        request.tag = tag;
        let (sender, receiver) = oneshot::channel();
        self.inner.deliveries.waiting().insert(tag, sender);
        if let Err(error) = self.produce(request) {
            self.inner.deliveries.waiting().remove(&tag);
            return Err(error);
        }
        Ok(receiver.await.unwrap_or_else(|_| Outcome::Unknown("the producer was closed".into())))
    }

    /// Returns the number of accepted records without a delivery.
    pub fn in_flight(&self) -> usize {
        self.inner.deliveries.in_flight.load(Ordering::Acquire)
    }

    /// Waits until all accepted records are delivered, or until the timeout. Blocks.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.client().flush(timeout).map_err(|error| Error::call("records are still in flight", error))
    }

    fn client(&self) -> Arc<PollingProducer<Context>> {
        Arc::clone(&self.inner.client.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces a failed client: an idempotent client that has lost its sequence never recovers. The deliveries of its
    /// records arrive when it is dropped.
    fn replace(&self, failed: &Arc<PollingProducer<Context>>) -> Result<Arc<PollingProducer<Context>>, Error> {
        let mut current = self.inner.client.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, failed) {
            tracing::warn!("the producer failed permanently, creating a new one");
            *current = Arc::new(connect(&self.inner.options, self.inner.timeout, &self.inner.deliveries)?);
        }
        Ok(Arc::clone(&current))
    }
}

fn connect(
    options: &KafkaOptions,
    timeout: Duration,
    deliveries: &Arc<Deliveries>,
) -> Result<PollingProducer<Context>, Error> {
    let context = Context { deliveries: Arc::clone(deliveries) };
    PollingProducer::new(&options.producer(timeout), context)
}

fn send(client: &PollingProducer<Context>, request: ProduceRequest) -> Result<(), (KafkaError, Box<ProduceRequest>)> {
    let Ok(tag) = usize::try_from(request.tag) else {
        return Err((KafkaError::MessageProduction(RDKafkaErrorCode::InvalidArgument), Box::new(request)));
    };
    let mut record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(&request.topic, tag);
    record.partition = request.partition;
    record.key = request.key.as_deref();
    record.payload = request.value.as_deref();
    record.headers = to_native_headers(&request.headers);
    let result = client.send(record).map_err(|(error, _)| error);
    result.map_err(|error| (error, Box::new(request)))
}

pub(super) fn to_native_headers(headers: &[Header]) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let add =
        |native: OwnedHeaders, (name, value): &Header| native.insert(RdHeader { key: name, value: value.as_deref() });
    Some(headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), add))
}

fn produce_error((source, request): (KafkaError, Box<ProduceRequest>)) -> ProduceError {
    match source {
        KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => ProduceError::QueueFull(request),
        source => ProduceError::Rejected { topic: request.topic, source },
    }
}

/// Returns the outcome of a failed delivery. It is rejected only if the error says that the broker did not append the
/// record, or that it was not sent.
pub(super) fn outcome_of(error: &KafkaError) -> Outcome {
    use RDKafkaErrorCode as Code;
    let text = error.to_string();
    let KafkaError::MessageProduction(code) = error else { return Outcome::Unknown(text) };
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::InvalidRequiredAcks
        | Code::PolicyViolation
        | Code::PurgeQueue => Outcome::Rejected(text),
        _ => Outcome::Unknown(text),
    }
}

impl Deliveries {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, delivery: Delivery) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        if delivery.tag < INTERNAL_TAGS {
            // The channel is closed if the receiver was dropped.
            let _ = self.channel.send(delivery);
        } else if let Some(sender) = self.waiting().remove(&delivery.tag) {
            let _ = sender.send(delivery.outcome);
        }
    }
}

struct Context {
    deliveries: Arc<Deliveries>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        options::log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        options::log_error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let outcome = match result {
            Ok(message) => Outcome::Acked {
                partition: message.partition(),
                offset: message.offset(),
                timestamp: message.timestamp().to_millis(),
            },
            Err((error, _)) => outcome_of(error),
        };
        self.deliveries.deliver(Delivery { tag: tag as u64, outcome });
    }
}
