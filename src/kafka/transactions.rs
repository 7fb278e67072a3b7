//! The transactional producer: some records, and what was consumed for them, in one Kafka transaction, or nothing of it.
//!
//! All calls block in librdkafka, so the client lives on a thread of its own, behind an async interface. A second
//! producer with the same transactional id fences the first, which learns it at its next transaction.
//!
//! Consumed offsets ([`Consumed`]) are committed only while their partitions are certainly ours. The group's metadata is
//! taken first and then the lease looked at, in this order: what was taken while the lease stood names a member that the
//! coordinator knew, so a commit that arrives too late is refused. Taken later it could be that of a consumer that has
//! just learned that it was put out of its group: without a member's id, which the coordinator takes without a question.

use std::sync::{Mutex, PoisonError, mpsc as threads};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig};
use tokio::sync::oneshot;

use super::producer::{native_headers, outcome_of};
use super::{KafkaOptions, Outcome, PollerHandle, ProduceRequest, options};
use crate::model::Epoch;
use crate::runtime::clock;
use crate::runtime::failpoint::{self, Point};

/// How long an abort waits for the answers to what was sent.
const ANSWERS: Duration = Duration::from_millis(500);

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Another instance took this transactional id over: stop, it works now.
    #[error("another instance has taken over: {0}")]
    Fenced(String),
    /// Nothing of it is visible; the same records may be sent again with this producer.
    #[error("the transaction was aborted: {0}")]
    Retriable(String),
    /// Whether it was committed is not known: make a new producer with the same id (which settles the old
    /// transaction), read the checkpoint, and go on from there.
    #[error("the commit was not answered: {0}")]
    InDoubt(String),
    /// A record can never be written as it is (too large, no such topic, no right to it). Nothing is visible.
    #[error("a record was refused: {0}")]
    Refused(String),
    /// This producer is of no use any more; a new one may be.
    #[error("the transactional producer has failed: {0}")]
    Fatal(String),
}

/// Offsets of a group that are committed by a transaction.
#[derive(Clone)]
pub struct Consumed {
    /// The group's member.
    pub by: PollerHandle,
    /// Partition, the epoch in which it was read, and the offset to go on from.
    pub offsets: Vec<(i32, Epoch, i64)>,
    /// Until when the partitions are certainly ours, on the mono clock.
    pub lease: u64,
}

/// A producer that writes transactions, one at a time. Dropping it ends its thread; a transaction under way is aborted
/// by the broker.
pub struct TransactionalProducer {
    jobs: threads::Sender<Job>,
}

struct Job {
    records: Vec<ProduceRequest>,
    consumed: Option<Consumed>,
    answer: oneshot::Sender<Result<(), TransactionError>>,
}

impl TransactionalProducer {
    /// Connects, fences earlier producers of this id and settles what they left open. Takes at most `timeout`, which
    /// also bounds each transaction, on the broker too.
    pub async fn init(
        options: &KafkaOptions,
        transactional_id: &str,
        timeout: Duration,
    ) -> Result<Self, TransactionError> {
        let config = options.transactional_producer(transactional_id, timeout);
        let (jobs, inbox) = threads::channel();
        let (ready, answer) = oneshot::channel();
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
        answer.await.unwrap_or_else(|_| Err(gone()))?;
        Ok(Self { jobs })
    }

    /// Writes all these records in one transaction. Tags are not used.
    pub async fn send_all(&self, records: Vec<ProduceRequest>) -> Result<(), TransactionError> {
        self.send_consumed(records, None).await
    }

    /// Writes all these records, and how far their input was consumed, in one transaction.
    pub async fn send_consumed(
        &self,
        records: Vec<ProduceRequest>,
        consumed: Option<Consumed>,
    ) -> Result<(), TransactionError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { records, consumed, answer }).map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> TransactionError {
    TransactionError::Fatal("its thread has ended".into())
}

/// Keeps the first failed delivery, which says more than the transaction's own error.
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
        tracing::warn!(target: "librdkafka", %error, "{reason}");
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
            match worker.client.init_transactions(left(deadline)) {
                Ok(()) => return Ok(worker),
                Err(error) if is_retriable(&error) && Instant::now() < deadline => {}
                Err(error) if is_retriable(&error) => return Err(TransactionError::Retriable(error.to_string())),
                Err(error) => return Err(worker.useless(&error)),
            }
        }
    }

    fn run(self, inbox: &threads::Receiver<Job>) {
        while let Ok(job) = inbox.recv() {
            let result = self.transact(&job);
            // After these nothing more can be done with this client.
            let ended = matches!(
                result,
                Err(TransactionError::Fenced(_) | TransactionError::Fatal(_) | TransactionError::InDoubt(_))
            );
            let _ = job.answer.send(result);
            if ended {
                return;
            }
        }
    }

    fn transact(&self, job: &Job) -> Result<(), TransactionError> {
        let deadline = Instant::now() + self.timeout;
        self.client.context().take_failure();
        self.client.begin_transaction().map_err(|error| self.useless(&error))?;
        for record in &job.records {
            if let Err(error) = self.send(record, deadline) {
                return Err(self.abort(&error));
            }
        }
        if let Some(consumed) = &job.consumed {
            self.consume(consumed, deadline)?;
        }
        self.await_acks(deadline);
        failpoint::pass(Point::Transaction);
        self.commit(deadline)?;
        failpoint::pass(Point::Committed);
        Ok(())
    }

    fn consume(&self, consumed: &Consumed, deadline: Instant) -> Result<(), TransactionError> {
        let metadata = consumed.by.group_metadata();
        let stands = clock::mono() < consumed.lease
            && consumed.offsets.iter().all(|(partition, epoch, _)| consumed.by.epoch_of(*partition) == Some(*epoch));
        let (Some(metadata), true) = (metadata, stands) else {
            let why = KafkaError::ConsumerCommit(RDKafkaErrorCode::RebalanceInProgress);
            return Err(self.abort(&why));
        };
        let offsets: Vec<(i32, i64)> = consumed.offsets.iter().map(|(partition, _, at)| (*partition, *at)).collect();
        let list = consumed.by.offsets(&offsets);
        loop {
            let error = match self.client.send_offsets_to_transaction(&list, &metadata, left(deadline)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match &error {
                KafkaError::Transaction(cause) if cause.is_fatal() => return Err(self.useless(&error)),
                KafkaError::Transaction(cause)
                    if cause.is_retriable() && !cause.txn_requires_abort() && Instant::now() < deadline => {}
                _ => return Err(self.abort(&error)),
            }
        }
    }

    /// `commit_transaction` of the client library polls for 100 ms at a time while anything is unanswered, however
    /// quickly the answers come; so it is called when there is nothing to wait for.
    fn await_acks(&self, deadline: Instant) {
        while self.client.in_flight_count() > 0 && Instant::now() < deadline {
            // Hands over what lingers; the wait itself is the poll's.
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
            record.headers = native_headers(&request.headers);
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                    self.client.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Flushes and commits. A commit that is not answered may be repeated; what it did is not known until then.
    fn commit(&self, deadline: Instant) -> Result<(), TransactionError> {
        loop {
            let error = match self.client.commit_transaction(left(deadline)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match &error {
                // Before the commit was sent.
                KafkaError::Flush(_) => return Err(self.abort(&error)),
                KafkaError::Transaction(cause) if cause.txn_requires_abort() => return Err(self.abort(&error)),
                KafkaError::Transaction(cause) if cause.is_fatal() => return Err(self.useless(&error)),
                KafkaError::Transaction(cause) if cause.is_retriable() && Instant::now() < deadline => {}
                _ => return Err(TransactionError::InDoubt(error.to_string())),
            }
        }
    }

    /// The client library waits for the answers to everything that was sent, and they come only to who polls; so it is
    /// called when there is nothing to wait for. Else each abort took the whole timeout, and left a useless client.
    fn abort(&self, error: &KafkaError) -> TransactionError {
        let deadline = Instant::now() + self.timeout;
        self.await_acks(Instant::now() + ANSWERS);
        // What is left is not sent any more in a transaction that has failed.
        self.client.purge(PurgeConfig::default().queue());
        self.await_acks(Instant::now() + ANSWERS);
        loop {
            match self.client.abort_transaction(left(deadline)) {
                Ok(()) => break,
                Err(again) if is_retriable(&again) && Instant::now() < deadline => {}
                Err(failed) => return self.useless(&failed),
            }
        }
        let cause = self.client.context().take_failure().unwrap_or_else(|| error.clone());
        self.drain();
        let text = if cause == *error { error.to_string() } else { format!("{error}: {cause}") };
        match outcome_of(&cause) {
            Outcome::Refused(_) if !is_purge(&cause) => TransactionError::Refused(text),
            _ => TransactionError::Retriable(text),
        }
    }

    /// Takes the answers to what an abort has purged, lest they be taken for failures of the next transaction.
    fn drain(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.client.in_flight_count() > 0 && Instant::now() < deadline {
            self.client.poll(Duration::from_millis(1));
        }
        self.client.context().take_failure();
    }

    fn useless(&self, error: &KafkaError) -> TransactionError {
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

/// An abort purges what was queued; that says nothing about the records.
fn is_purge(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
