//! The idempotent producer: acks from all in-sync replicas, order kept, every produce answered exactly once.
//!
//! An answer is [`Outcome::Acked`], [`Outcome::Refused`] (certainly not written) or [`Outcome::Unknown`] (it may still
//! land, even later). rdkafka doesn't hand out librdkafka's per-message status, so a delivery that timed out counts
//! as unknown even where nothing left this machine; the safe side. Answers come on an unbounded channel, because the
//! thread that delivers them must never wait for the one that produces.

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

use super::polling_producer::PolledProducer;
use super::{Error, KafkaOptions, options};
use crate::model::record::Header;

/// Tags from here on are the producer's own, for [`Producer::produce_and_wait`].
const OWN_TAGS: u64 = 1 << 63;

/// A record to produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; `None`: by the key's hash.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<Header>,
    /// Comes back in the delivery; below 2^63. 0 where nobody waits.
    pub tag: u64,
}

/// How a produce ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged by all in-sync replicas.
    Acked {
        /// Where it stands.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Its timestamp in Unix milliseconds, as this client stamped it (the broker's own time, where the topic
        /// stamps by append, is seen only by readers).
        timestamp: Option<i64>,
    },
    /// Certainly not written.
    Refused(String),
    /// Timed out or failed in flight: it may still land.
    Unknown(String),
}

/// The answer to a produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The request's tag.
    pub tag: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The client's queue is full: try again when deliveries have come in. The request is given back.
    #[error("the producer's queue is full")]
    QueueFull(Box<ProduceRequest>),
    /// It can never be taken as it is.
    #[error("can't produce to {topic}")]
    Refused {
        /// The topic.
        topic: Arc<str>,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// The client is in a state from which only a new one helps, and making that failed.
    #[error("the producer has failed for good")]
    Broken(#[source] Error),
}

/// A cheap handle; clones share one client.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    options: KafkaOptions,
    timeout: Duration,
    client: RwLock<Arc<PolledProducer<Context>>>,
    deliveries: Arc<Deliveries>,
    next_tag: AtomicU64,
}

/// Where answers go: to those who wait for one, else to the channel.
struct Deliveries {
    channel: mpsc::UnboundedSender<Delivery>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
    /// librdkafka's own count includes answers that it has already handed out.
    unanswered: AtomicUsize,
}

impl Producer {
    /// Makes the client; it connects in the background. A record is given up `timeout` after it was taken.
    pub fn new(options: &KafkaOptions, timeout: Duration) -> Result<(Self, mpsc::UnboundedReceiver<Delivery>), Error> {
        let (channel, receiver) = mpsc::unbounded_channel();
        let deliveries = Arc::new(Deliveries { channel, waiting: Mutex::default(), unanswered: AtomicUsize::new(0) });
        let client = RwLock::new(Arc::new(connect(options, timeout, &deliveries)?));
        let inner = Inner { options: options.clone(), timeout, client, deliveries, next_tag: AtomicU64::new(OWN_TAGS) };
        Ok((Self { inner: Arc::new(inner) }, receiver))
    }

    /// Hands a record to the client. Records of one partition keep their order. `Ok` means that exactly one delivery
    /// with this tag follows.
    pub fn produce(&self, request: ProduceRequest) -> Result<(), ProduceError> {
        let unanswered = &self.inner.deliveries.unanswered;
        // Counted before it is sent, since its answer may come before `send` returns.
        unanswered.fetch_add(1, Ordering::AcqRel);
        let taken = self.hand_over(request);
        if taken.is_err() {
            unanswered.fetch_sub(1, Ordering::AcqRel);
        }
        taken
    }

    fn hand_over(&self, request: ProduceRequest) -> Result<(), ProduceError> {
        let client = self.client();
        match send(&client, request) {
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::Fatal), request)) => {
                let client = self.replace(&client).map_err(ProduceError::Broken)?;
                send(&client, *request).map_err(refusal)
            }
            sent => sent.map_err(refusal),
        }
    }

    /// Produces one record and waits for its answer; the request's tag is not used.
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

    /// Records taken and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.inner.deliveries.unanswered.load(Ordering::Acquire)
    }

    /// Waits until everything taken is answered, or the time is up. Blocks.
    pub fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.client().flush(timeout).map_err(|error| Error::call("records are still unanswered", error))
    }

    fn client(&self) -> Arc<PolledProducer<Context>> {
        Arc::clone(&self.inner.client.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// An idempotent client that lost its sequence never recovers. Its unanswered records are answered when it is
    /// dropped.
    fn replace(&self, failed: &Arc<PolledProducer<Context>>) -> Result<Arc<PolledProducer<Context>>, Error> {
        let mut current = self.inner.client.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, failed) {
            tracing::warn!("the producer failed for good; a new one takes over");
            *current = Arc::new(connect(&self.inner.options, self.inner.timeout, &self.inner.deliveries)?);
        }
        Ok(Arc::clone(&current))
    }
}

fn connect(
    options: &KafkaOptions,
    timeout: Duration,
    deliveries: &Arc<Deliveries>,
) -> Result<PolledProducer<Context>, Error> {
    let context = Context { deliveries: Arc::clone(deliveries) };
    PolledProducer::new(&options.producer(timeout), context)
}

fn send(client: &PolledProducer<Context>, request: ProduceRequest) -> Result<(), (KafkaError, Box<ProduceRequest>)> {
    let Ok(tag) = usize::try_from(request.tag) else {
        return Err((KafkaError::MessageProduction(RDKafkaErrorCode::InvalidArgument), Box::new(request)));
    };
    let mut record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(&request.topic, tag);
    record.partition = request.partition;
    record.key = request.key.as_deref();
    record.payload = request.value.as_deref();
    record.headers = native_headers(&request.headers);
    let refused = client.send(record).map_err(|(error, _)| error);
    refused.map_err(|error| (error, Box::new(request)))
}

pub(super) fn native_headers(headers: &[Header]) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let add =
        |native: OwnedHeaders, (name, value): &Header| native.insert(RdHeader { key: name, value: value.as_deref() });
    Some(headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), add))
}

fn refusal((source, request): (KafkaError, Box<ProduceRequest>)) -> ProduceError {
    match source {
        KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => ProduceError::QueueFull(request),
        source => ProduceError::Refused { topic: request.topic, source },
    }
}

/// What a failed delivery means. Only codes that say the broker did not append, or that nothing was sent, refuse.
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
        | Code::PurgeQueue => Outcome::Refused(text),
        _ => Outcome::Unknown(text),
    }
}

impl Deliveries {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, delivery: Delivery) {
        self.unanswered.fetch_sub(1, Ordering::AcqRel);
        if delivery.tag < OWN_TAGS {
            // A closed channel means that nobody is left to be told.
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
        tracing::warn!(target: "librdkafka", %error, "{reason}");
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
