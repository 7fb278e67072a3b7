//! Connects to a cluster for `check`: is it reachable, are the credentials accepted, and may the group be used.
//!
//! librdkafka reports a wrong password or a bad certificate only through its error callback, while the call that failed
//! for this reason just times out. So this module collects the errors of the callback, and the first permanent one ends
//! the wait. It joins no group and writes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::{Error, KafkaOptions, lookups};

/// Timeout of one request, after which the collected errors are checked.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// A reachable cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Number of brokers.
    pub brokers: usize,
    /// The cluster id, if the brokers return it.
    pub id: Option<String>,
}

/// The cluster cannot be used. The texts are those of librdkafka.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// User, password or mechanism were rejected.
    #[error("the broker rejected the credentials: {0}")]
    Credentials(String),
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    #[error("the host name of a broker can't be resolved: {0}")]
    UnknownHost(String),
    #[error("no broker answers: {0}")]
    NoAnswer(String),
    #[error("can't create a client: {0}")]
    Client(String),
}

/// Client context that collects the errors of librdkafka.
#[derive(Clone, Default)]
struct ErrorCollector(Arc<Mutex<Vec<CollectedError>>>);

struct CollectedError {
    code: RDKafkaErrorCode,
    reason: String,
}

impl ClientContext for ErrorCollector {
    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Unreachable brokers are reported repeatedly.
            if errors.len() < 100 {
                errors.push(CollectedError { code, reason: reason.to_owned() });
            }
        }
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        // The result of the check contains the error, so the log need not.
        tracing::debug!(target: "librdkafka", ?level, fac, "{message}");
    }
}

impl ConsumerContext for ErrorCollector {}

impl ErrorCollector {
    /// Returns the first error that waiting does not resolve.
    fn permanent_error(&self) -> Option<Unreachable> {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        errors.iter().find_map(|CollectedError { code, reason }| match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(Unreachable::Credentials(reason.clone()))
            }
            RDKafkaErrorCode::UnsupportedSASLMechanism | RDKafkaErrorCode::IllegalSASLState => {
                Some(Unreachable::Credentials(reason.clone()))
            }
            RDKafkaErrorCode::SSL => Some(Unreachable::Tls(reason.clone())),
            _ => None,
        })
    }

    /// Returns the most likely reason for a timeout; `otherwise` if no error was collected.
    fn timeout_reason(&self, otherwise: &KafkaError) -> Unreachable {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |code| errors.iter().find(|error| error.code == code).map(|error| error.reason.clone());
        if let Some(reason) = find(RDKafkaErrorCode::Resolve) {
            return Unreachable::UnknownHost(reason);
        }
        let reason = find(RDKafkaErrorCode::BrokerTransportFailure);
        let reason = reason.or_else(|| errors.first().map(|error| error.reason.clone()));
        Unreachable::NoAnswer(reason.unwrap_or_else(|| otherwise.to_string()))
    }
}

/// Connects to the cluster.
///
/// # Errors
/// The cluster cannot be used. A permanent error is returned at once, any other after `timeout`.
pub async fn connect(options: &KafkaOptions, timeout: Duration) -> Result<Cluster, Unreachable> {
    let config = options.lookup();
    let call = move || {
        let errors = ErrorCollector::default();
        let client: BaseConsumer<ErrorCollector> = config
            .create_with_context(errors.clone())
            .map_err(|error: KafkaError| Unreachable::Client(error.to_string()))?;
        let deadline = Instant::now() + timeout;
        loop {
            let response = client.fetch_metadata(None, ATTEMPT_TIMEOUT.min(timeout));
            // A poll calls the error callback for queued errors.
            while client.poll(Duration::ZERO).is_some() {}
            match response {
                Ok(metadata) => {
                    let id = client.client().fetch_cluster_id(ATTEMPT_TIMEOUT);
                    return Ok(Cluster { brokers: metadata.brokers().len(), id });
                }
                Err(error) => {
                    if let Some(permanent) = errors.permanent_error() {
                        return Err(permanent);
                    }
                    if Instant::now() >= deadline {
                        return Err(errors.timeout_reason(&error));
                    }
                }
            }
        }
    };
    let joined = tokio::task::spawn_blocking(call).await;
    joined.unwrap_or_else(|error| Err(Unreachable::Client(format!("the connection attempt was aborted: {error}"))))
}

/// Returns the group's committed offset of partition 0 of `topic`; `None` if there is none. It requires the right to
/// describe both, and does not join the group.
///
/// # Errors
/// The coordinator denies access or does not answer.
pub async fn group_offset(
    options: &KafkaOptions,
    group: &str,
    topic: &str,
    timeout: Duration,
) -> Result<Option<i64>, Error> {
    let config = options.group_consumer(group, Duration::from_secs(45), Duration::from_secs(300));
    let (topic, action) = (topic.to_owned(), format!("can't read the offsets of the group {group}"));
    let call = move || {
        let client: BaseConsumer<ErrorCollector> = config
            .create_with_context(ErrorCollector::default())
            .map_err(|error| Error::call("can't create a client", error))?;
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let found =
            lookups::committed_offsets(&client, &list, timeout).map_err(|error| Error::call(action.clone(), error))?;
        let Some(element) = found.elements().into_iter().next() else { return Ok(None) };
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    };
    let joined = tokio::task::spawn_blocking(call).await;
    joined.unwrap_or_else(|error| Err(Error::Unexpected(format!("a look-up was aborted: {error}"))))
}
