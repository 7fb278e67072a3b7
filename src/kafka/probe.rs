//! A first look at a cluster, for `check`: does it answer, does it let us in, may we use the group.
//!
//! librdkafka tells a wrong password or a bad certificate only through its error callback, while the call that failed
//! because of it just runs out of time; so the callback is listened to here, and the first telling error ends the
//! wait. Joins no group and writes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::{Error, KafkaOptions};

/// Between two looks at what the callback has heard.
const STEP: Duration = Duration::from_millis(500);

/// A cluster that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Brokers it has.
    pub brokers: usize,
    /// Its id, where it tells one.
    pub id: Option<String>,
}

/// Why a cluster can't be used. The text is librdkafka's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// User, password or mechanism are refused.
    #[error("the broker refuses the credentials: {0}")]
    Credentials(String),
    /// TLS can't be agreed on.
    #[error("TLS fails: {0}")]
    Tls(String),
    /// A host name is unknown.
    #[error("a broker's name can't be resolved: {0}")]
    Name(String),
    /// No broker answers.
    #[error("no broker answers: {0}")]
    Silent(String),
    /// The client could not be made.
    #[error("can't make a client: {0}")]
    Client(String),
}

#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<(RDKafkaErrorCode, String)>>>);

impl ClientContext for Ear {
    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Unreachable brokers are told of again and again.
            if heard.len() < 100 {
                heard.push((code, reason.to_owned()));
            }
        }
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        // The check tells what went wrong; its log need not repeat it.
        tracing::debug!(target: "librdkafka", ?level, fac, "{message}");
    }
}

impl ConsumerContext for Ear {}

impl Ear {
    /// What can't get better by waiting.
    fn verdict(&self) -> Option<Unreachable> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().find_map(|(code, reason)| match code {
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

    /// The likeliest reason for silence.
    fn silence(&self, otherwise: &KafkaError) -> Unreachable {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |code| heard.iter().find(|(c, _)| *c == code).map(|(_, reason)| reason.clone());
        if let Some(reason) = of(RDKafkaErrorCode::Resolve) {
            return Unreachable::Name(reason);
        }
        let said = of(RDKafkaErrorCode::BrokerTransportFailure).or_else(|| heard.first().map(|(_, r)| r.clone()));
        Unreachable::Silent(said.unwrap_or_else(|| otherwise.to_string()))
    }
}

/// Asks the cluster who it is.
///
/// # Errors
/// Why it can't be used, as soon as that is certain, else after `timeout`.
pub async fn reach(options: &KafkaOptions, timeout: Duration) -> Result<Cluster, Unreachable> {
    let config = options.lookup();
    let look = move || {
        let ear = Ear::default();
        let client: BaseConsumer<Ear> = config
            .create_with_context(ear.clone())
            .map_err(|error: KafkaError| Unreachable::Client(error.to_string()))?;
        let deadline = Instant::now() + timeout;
        loop {
            let asked = client.fetch_metadata(None, STEP.min(timeout));
            // Errors wait in the queue until somebody polls.
            while client.poll(Duration::ZERO).is_some() {}
            match asked {
                Ok(metadata) => {
                    let id = client.client().fetch_cluster_id(STEP);
                    return Ok(Cluster { brokers: metadata.brokers().len(), id });
                }
                Err(error) => {
                    if let Some(verdict) = ear.verdict() {
                        return Err(verdict);
                    }
                    if Instant::now() >= deadline {
                        return Err(ear.silence(&error));
                    }
                }
            }
        }
    };
    let joined = tokio::task::spawn_blocking(look).await;
    joined.unwrap_or_else(|error| Err(Unreachable::Client(format!("the look was cut short: {error}"))))
}

/// Asks for the group's offset of partition 0 of `topic`: needs the right to describe both, and joins nothing.
/// Answers the offset, `None` where the group has committed none.
///
/// # Errors
/// The coordinator refuses or does not answer.
pub async fn group_offset(
    options: &KafkaOptions,
    group: &str,
    topic: &str,
    timeout: Duration,
) -> Result<Option<i64>, Error> {
    let config = options.group_consumer(group, Duration::from_secs(45), Duration::from_secs(300));
    let (topic, what) = (topic.to_owned(), format!("can't read the offsets of the group {group}"));
    let look = move || {
        let client: BaseConsumer<Ear> =
            config.create_with_context(Ear::default()).map_err(|error| Error::call("can't make a client", error))?;
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let found = client.committed_offsets(list, timeout).map_err(|error| Error::call(what.clone(), error))?;
        let Some(element) = found.elements().into_iter().next() else { return Ok(None) };
        element.error().map_err(|error| Error::call(what, error))?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    };
    let joined = tokio::task::spawn_blocking(look).await;
    joined.unwrap_or_else(|error| Err(Error::Unexpected(format!("a look-up was cut short: {error}"))))
}
