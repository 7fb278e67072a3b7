//! The transactional producer: writes records, and optionally the offsets that were consumed for them, in one Kafka
//! transaction.
//!
//! All calls of librdkafka block, so the client has a thread of its own behind an async interface. A second producer
//! with the same transactional id fences the first one, whose next transaction then fails.
//!
//! Consumed offsets ([`ConsumedOffsets`]) are committed only while the lease on their partitions holds. The group
//! metadata is read first and the lease is checked after that. Metadata that was read while the lease held names a
//! member that the coordinator knew, so it rejects a commit that arrives too late. Metadata that is read later could be
//! that of a consumer that has just learned that it was removed from its group: it contains no member id, and the
//! coordinator accepts a commit without a member id unconditionally.

use std::sync::{Mutex, PoisonError, mpsc as threads};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};
use tokio::sync::oneshot;

use super::producer::{outcome_of, to_native_headers};
use super::{KafkaOptions, Outcome, PollerHandle, ProduceRequest, options};
use crate::model::Epoch;
use crate::runtime::clock;
use crate::runtime::failpoint::{self, Failpoint};

/// How long an abort waits for the acknowledgements of records in flight.
const ABORT_WAIT: Duration = Duration::from_millis(500);

/// The transaction was not committed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Another producer uses this transactional id now, so this one must stop.
    #[error("fenced by another producer with the same transactional id: {0}")]
    Fenced(String),
    /// The transaction was aborted. The same records may be sent again with this producer.
    #[error("the transaction was aborted: {0}")]
    Retriable(String),
    /// The outcome of the commit is unknown. A new producer with the same id settles the transaction; then the
    /// checkpoint or the group's offsets tell whether it was committed.
    #[error("the outcome of the commit is unknown: {0}")]
    Ambiguous(String),
    /// A record can never be written as it is (too large, unknown topic, missing ACL). The transaction was aborted.
    #[error("a record was rejected: {0}")]
    Rejected(String),
    /// This producer cannot be used any more; a new one may work.
    #[error("the transactional producer has failed: {0}")]
    Fatal(String),
}

/// How far a partition was consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumedOffset {
    pub partition: i32,
    /// The epoch in which the records were read.
    pub epoch: Epoch,
    /// One above the last consumed offset.
    pub next: i64,
}

/// Offsets of a consumer group that a transaction commits.
#[derive(Clone)]
pub struct ConsumedOffsets {
    /// The member of the group.
    pub consumer: PollerHandle,
    pub offsets: Vec<ConsumedOffset>,
    /// When the lease on the partitions ends, on the monotonic clock.
    pub lease: u64,
}

/// A transactional producer, with one transaction at a time. Dropping it ends its thread; the broker then aborts an
/// open transaction.
pub struct TransactionalProducer {
    jobs: threads::Sender<Job>,
}

struct Job {
    records: Vec<ProduceRequest>,
    consumed: Option<ConsumedOffsets>,
    reply: oneshot::Sender<Result<(), TransactionError>>,
}

impl TransactionalProducer {
    /// Connects, fences earlier producers with this id and settles their open transactions. Takes at most `timeout`,
    /// which also limits each transaction, on the broker too.
    pub async fn init(
        options: &KafkaOptions,
        transactional_id: &str,
        timeout: Duration,
    ) -> Result<Self, TransactionError> {
        let config = options.transactional_producer(transactional_id, timeout);
        let (jobs, inbox) = threads::channel();
        let (ready, reply) = oneshot::channel();
        let run = move || match Worker::init(&config, timeout) {
            Ok(worker) => {
                let _ = ready.send(Ok(()));
                worker.run(&inbox);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("kafka-transactions".into()).spawn(run);
        thread.map_err(|error| TransactionError::Fatal(format!("can't start a thread: {error}")))?;
        reply.await.unwrap_or_else(|_| Err(thread_ended()))?;
        Ok(Self { jobs })
    }

    /// Writes records in one transaction. Their tags are not used.
    pub async fn send_all(&self, records: Vec<ProduceRequest>) -> Result<(), TransactionError> {
        self.send_with_offsets(records, None).await
    }

    /// Writes records, and commits consumed offsets, in one transaction.
    pub async fn send_with_offsets(
        &self,
        records: Vec<ProduceRequest>,
        consumed: Option<ConsumedOffsets>,
    ) -> Result<(), TransactionError> {
        let (reply, response) = oneshot::channel();
        self.jobs.send(Job { records, consumed, reply }).map_err(|_| thread_ended())?;
        response.await.unwrap_or_else(|_| Err(thread_ended()))
    }
}

fn thread_ended() -> TransactionError {
    TransactionError::Fatal("its thread has ended".into())
}

/// Keeps the first failed delivery, because it says more than the error of the transaction.
#[derive(Default)]
struct Context {
    failure: Mutex<Option<KafkaError>>,
}

impl Context {
    fn take_failure(&self) -> Option<KafkaError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
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
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}

struct Worker {
    client: BaseProducer<Context>,
    timeout: Duration,
}

impl Worker {
    fn init(config: &rdkafka::ClientConfig, timeout: Duration) -> Result<Self, TransactionError> {
        let client: BaseProducer<Context> = config
            .create_with_context(Context::default())
            .map_err(|error| TransactionError::Fatal(error.to_string()))?;
        let worker = Self { client, timeout };
        let deadline = Instant::now() + timeout;
        loop {
            match worker.client.init_transactions(remaining(deadline)) {
                Ok(()) => return Ok(worker),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
                Err(error) if is_retriable(&error) => return Err(TransactionError::Retriable(error.to_string())),
                Err(error) => return Err(worker.fatal_error(&error)),
            }
        }
    }

    fn run(self, inbox: &threads::Receiver<Job>) {
        while let Ok(job) = inbox.recv() {
            let result = self.transact(&job);
            // The client cannot be used after these errors.
            let is_unusable = matches!(
                result,
                Err(TransactionError::Fenced(_) | TransactionError::Fatal(_) | TransactionError::Ambiguous(_))
            );
            let _ = job.reply.send(result);
            if is_unusable {
                return;
            }
        }
    }

    fn transact(&self, job: &Job) -> Result<(), TransactionError> {
        let deadline = Instant::now() + self.timeout;
        self.client.context().take_failure();
        self.client.begin_transaction().map_err(|error| self.fatal_error(&error))?;
        for record in &job.records {
            if let Err(error) = self.send(record, deadline) {
                return Err(self.abort(&error));
            }
        }
        if let Some(consumed) = &job.consumed {
            self.add_offsets(consumed, deadline)?;
        }
        self.wait_for_acks(deadline);
        failpoint::hit(Failpoint::Transaction);
        self.commit(deadline)?;
        failpoint::hit(Failpoint::Committed);
        Ok(())
    }

    /// Adds the consumed offsets to the transaction; aborts it if the lease does not hold.
    fn add_offsets(&self, consumed: &ConsumedOffsets, deadline: Instant) -> Result<(), TransactionError> {
        let ConsumedOffsets { consumer, offsets, lease } = consumed;
        let metadata = consumer.group_metadata();
        let is_owner = clock::mono() < *lease
            && offsets.iter().all(|offset| consumer.epoch_of(offset.partition) == Some(offset.epoch));
        let (Some(metadata), true) = (metadata, is_owner) else {
            let reason = KafkaError::ConsumerCommit(RDKafkaErrorCode::RebalanceInProgress);
            return Err(self.abort(&reason));
        };
        let list = consumer.offset_list(offsets);
        loop {
            let error = match self.client.send_offsets_to_transaction(&list, &metadata, remaining(deadline)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match &error {
                KafkaError::Transaction(cause) if cause.is_fatal() => return Err(self.fatal_error(&error)),
                KafkaError::Transaction(cause)
                    if cause.is_retriable() && !cause.txn_requires_abort() && Instant::now() < deadline => {}
                _ => return Err(self.abort(&error)),
            }
        }
    }

    /// Waits until no record is in flight. `commit_transaction` of librdkafka polls for 100 ms at a time while a record
    /// is in flight, even if the acknowledgement arrives sooner, so it is called only afterwards.
    fn wait_for_acks(&self, deadline: Instant) {
        while self.client.in_flight_count() > 0 && Instant::now() < deadline {
            // Sends lingering records without waiting; `poll` waits.
            if self.client.flush(Duration::ZERO).is_ok() {
                return;
            }
            self.client.poll(Duration::from_millis(1));
        }
    }

    fn send(&self, request: &ProduceRequest, deadline: Instant) -> Result<(), KafkaError> {
        loop {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&request.topic);
            record.partition = request.partition;
            record.key = request.key.as_deref();
            record.payload = request.value.as_deref();
            record.headers = to_native_headers(&request.headers);
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                    self.client.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Flushes and commits. A commit without a response may be retried; its outcome is unknown until then.
    fn commit(&self, deadline: Instant) -> Result<(), TransactionError> {
        loop {
            let error = match self.client.commit_transaction(remaining(deadline)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match &error {
                // The commit was not sent.
                KafkaError::Flush(_) => return Err(self.abort(&error)),
                KafkaError::Transaction(cause) if cause.txn_requires_abort() => return Err(self.abort(&error)),
                KafkaError::Transaction(cause) if cause.is_fatal() => return Err(self.fatal_error(&error)),
                KafkaError::Transaction(cause) if cause.is_retriable() && Instant::now() < deadline => {}
                _ => return Err(TransactionError::Ambiguous(error.to_string())),
            }
        }
    }

    /// Aborts the transaction. `abort_transaction` of librdkafka waits for all records in flight, but does not poll for
    /// their acknowledgements, so it is called only when no record is in flight. Otherwise it would take the whole
    /// timeout and leave an unusable client.
    fn abort(&self, error: &KafkaError) -> TransactionError {
        let deadline = Instant::now() + self.timeout;
        self.wait_for_acks(Instant::now() + ABORT_WAIT);
        // Records that were not sent yet must not be sent in a failed transaction.
        self.client.purge(PurgeConfig::default().queue());
        self.wait_for_acks(Instant::now() + ABORT_WAIT);
        loop {
            match self.client.abort_transaction(remaining(deadline)) {
                Ok(()) => break,
                Err(abort_error) if is_retriable(&abort_error) && Instant::now() < deadline => {}
                Err(abort_error) => return self.fatal_error(&abort_error),
            }
        }
        let cause = self.client.context().take_failure().unwrap_or_else(|| error.clone());
        self.discard_deliveries();
        let text = if cause == *error { error.to_string() } else { format!("{error}: {cause}") };
        match outcome_of(&cause) {
            Outcome::Rejected(_) if !is_purge(&cause) => TransactionError::Rejected(text),
            _ => TransactionError::Retriable(text),
        }
    }

    /// Discards the delivery reports of purged records, so that they do not count as failures of the next transaction.
    fn discard_deliveries(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.client.in_flight_count() > 0 && Instant::now() < deadline {
            self.client.poll(Duration::from_millis(1));
        }
        self.client.context().take_failure();
    }

    fn fatal_error(&self, error: &KafkaError) -> TransactionError {
        let fatal = self.client.client().fatal_error();
        let code = fatal.as_ref().map(|(code, _)| *code).or_else(|| error.rdkafka_error_code());
        let text = fatal.map_or_else(|| error.to_string(), |(_, text)| text);
        match code {
            Some(
                RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch,
            ) => TransactionError::Fenced(text),
            _ => TransactionError::Fatal(text),
        }
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(cause) if cause.is_retriable())
}

/// Whether the record was purged by an abort, which says nothing about the record.
fn is_purge(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
