//! A route's ledger over the years, by command: what stands in it, a key forgotten, the ledger taken along when the
//! instance's address or the route's name changes, or begun anew when it is lost or no longer fits; events of the past
//! applied again, or only their values.
//!
//! Whatever changes the ledger here does what a member would do after it had taken the partition over, so it refuses
//! while the route's groups have members, and says that none may be started meanwhile: that is looked at, not
//! prevented. Each change may be cut short anywhere and be given again. A resync changes no ledger: it puts records into
//! the input, of a bridge that runs. Nothing here speaks to ServiceNow.

pub mod delete;
pub mod headers;
pub mod list;
pub mod rename;
pub mod reprocess;
pub mod resync;

pub use delete::{Traces, forget, traces};
pub use headers::{Begin, adopt, differences, rebuild};
pub use list::{Filter, KeyState, Line, Summary, lines};
pub use rename::{Old, rename};
pub use reprocess::{Again, Reread, reprocess, reread};
pub use resync::{Found, Stale, put, stale};

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::{self, KafkaOptions, Outcome, ProduceError, ProduceRequest, Producer, groups};
use crate::ledger::header::Difference;
use crate::ledger::{Header, Identity, LedgerPartition, Survey, SurveyError};
use crate::model::StateModel;

/// Records on their way at once.
const TOGETHER: usize = 500;

/// A route's ledger, and what it should belong to.
#[derive(Clone)]
pub struct Site {
    /// The cluster.
    pub options: KafkaOptions,
    /// Writes the ledger.
    pub producer: Producer,
    /// The ledger topic; it exists.
    pub ledger: Arc<str>,
    /// Its partitions.
    pub partitions: i32,
    /// The topic that the sink reads.
    pub input: String,
    /// The route's consumer group.
    pub group: String,
    /// What the route is now.
    pub identity: Identity,
    /// The route's state values.
    pub states: StateModel,
    /// For each call to the cluster.
    pub timeout: Duration,
}

/// Why a command was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bridges are running.
    #[error(
        "the group {group} has members ({members}): stop all bridges of this route first, and start none until this is \
         done"
    )]
    Running {
        /// The group.
        group: String,
        /// Who.
        members: String,
    },
    /// It differs in what this command does not resolve.
    #[error("the ledger {topic} {difference}: that is resolved by `{}`", .difference.command)]
    Otherwise {
        /// The ledger topic.
        topic: String,
        /// In what.
        difference: Difference,
    },
    /// A partition has no header.
    #[error(
        "partition {partition} of the ledger {topic} does not say what it belongs to: the bridge has never had it, or it \
         was lost. `nowbridge ledger rebuild` begins it anew"
    )]
    NoHeader {
        /// The ledger topic.
        topic: String,
        /// Its partition.
        partition: i32,
    },
    /// Where reading goes on can't be told.
    #[error(
        "{input}/{partition} holds {low} to {high}, and the group {group} {committed}: say from where to read on with \
         `--from earliest`, `--from latest` or `--from 2026-01-31T00:00:00Z`"
    )]
    From {
        /// The topic.
        input: String,
        /// The partition.
        partition: i32,
        /// First offset that exists.
        low: i64,
        /// One above the last.
        high: i64,
        /// The group.
        group: String,
        /// Its offset, in words.
        committed: String,
    },
    /// What is to be copied has writes whose outcome nobody knows yet.
    #[error(
        "{count} writes are unsettled, such as that of key {key}: start the bridge once as it was, until `/readyz` says \
         ready, stop it in order, and give the command again"
    )]
    Unsettled {
        /// How many.
        count: usize,
        /// One of them.
        key: String,
    },
    /// What is parked would be applied twice: by its redrive, and by being read again.
    #[error(
        "{count} keys are parked, such as {key}: put their dead letters back or drop them first (`nowbridge dead-letters \
         redrive`), or their events would be applied twice"
    )]
    Parked {
        /// How many.
        count: usize,
        /// One of them.
        key: String,
    },
    /// The copy would be mixed with what is there.
    #[error(
        "the ledger {0} is not empty: the bridge has run under the new name already. Give the route a name that was never \
         used, or delete that ledger, if what was done under it may be forgotten"
    )]
    NotEmpty(String),
    /// The two ledgers have not as many partitions.
    #[error("the ledger {from} has {old} partitions, and {to} has {new}: they must have as many, as the input has")]
    Partitions {
        /// The old one.
        from: String,
        /// Its partitions.
        old: i32,
        /// The new one.
        to: String,
        /// Its partitions.
        new: i32,
    },
    /// There is no such ledger.
    #[error("there is no topic {0}; `--from-ledger` names the old ledger where it had another name")]
    NoLedger(String),
    /// A ledger can't be read.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// Kafka did not do what was asked.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// A record was not taken.
    #[error("can't write to {topic}/{partition}; what was written stands, and the command may be given again")]
    Produce {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Why.
        #[source]
        source: ProduceError,
    },
    /// A record was not acknowledged.
    #[error("{topic}/{partition} did not acknowledge a record: {why}; the command may be given again")]
    NotAcked {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What the producer said.
        why: String,
    },
    /// A task was cut short.
    #[error("{0} was cut short")]
    Cut(&'static str),
}

impl Site {
    /// Refuses while any of these groups has members.
    ///
    /// # Errors
    /// One has, or the cluster does not say.
    pub async fn refuse_members(&self, groups: &[String]) -> Result<(), Error> {
        let (options, timeout, names) = (self.options.clone(), self.timeout, groups.to_vec());
        let look = move || {
            for group in names {
                let members = groups::members(&options, &group, timeout)?;
                if !members.is_empty() {
                    return Err(Error::Running { group, members: members.join(", ") });
                }
            }
            Ok(())
        };
        blocking("a look at the groups", look).await
    }

    /// Where a partition is read.
    pub fn place(&self, partition: i32) -> LedgerPartition {
        LedgerPartition {
            options: self.options.clone(),
            topic: Arc::clone(&self.ledger),
            group: self.group.clone(),
            partition,
            timeout: self.timeout,
        }
    }

    /// What stands in a partition; `progress` is told how many records have been read.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn survey(
        &self,
        partition: i32,
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Survey, Error> {
        let place = self.place(partition);
        blocking("reading the ledger", move || Ok(place.survey(&mut progress)?)).await
    }

    /// What a partition belongs to, where that is this route but for what the command given resolves.
    fn own_header(&self, partition: i32, survey: &Survey, resolves: Option<&str>) -> Result<Header, Error> {
        let Some(header) = survey.header.clone() else {
            return Err(Error::NoHeader { topic: self.ledger.to_string(), partition });
        };
        match header.differences(&self.identity).into_iter().find(|one| Some(one.command) != resolves) {
            Some(difference) => Err(Error::Otherwise { topic: self.ledger.to_string(), difference }),
            None => Ok(header),
        }
    }

    /// Produces records to a partition, in no promised order, and waits for all of them; the highest offset.
    async fn write(
        &self,
        topic: &Arc<str>,
        partition: i32,
        records: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<Option<i64>, Error> {
        let requests = records.into_iter().map(|(key, value)| ProduceRequest {
            topic: Arc::clone(topic),
            partition: Some(partition),
            key: Some(key),
            value,
            headers: Vec::new(),
            tag: 0,
        });
        self.send(requests).await
    }

    /// As [`Site::write`], of whole records.
    async fn send(&self, requests: impl IntoIterator<Item = ProduceRequest>) -> Result<Option<i64>, Error> {
        let mut requests = requests.into_iter().peekable();
        let mut last = None;
        while requests.peek().is_some() {
            let mut waiting = tokio::task::JoinSet::new();
            for request in requests.by_ref().take(TOGETHER) {
                let producer = self.producer.clone();
                let place = (request.topic.to_string(), request.partition.unwrap_or_default());
                waiting.spawn(async move { (place, producer.produce_and_wait(request).await) });
            }
            while let Some(ended) = waiting.join_next().await {
                let ((topic, partition), outcome) = ended.map_err(|_| Error::Cut("writing"))?;
                match outcome {
                    Ok(Outcome::Acked { offset, .. }) => last = last.max(Some(offset)),
                    Ok(Outcome::Refused(why) | Outcome::Unknown(why)) => {
                        return Err(Error::NotAcked { topic, partition, why });
                    }
                    Err(source) => return Err(Error::Produce { topic, partition, source }),
                }
            }
        }
        Ok(last)
    }
}

/// Refuses where a write is not settled yet.
fn refuse_unsettled(survey: &Survey) -> Result<(), Error> {
    let claims = &survey.loaded.claims;
    match claims.keys().next() {
        Some(key) => Err(Error::Unsettled { count: claims.len(), key: key.to_string() }),
        None => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(call).await.unwrap_or(Err(Error::Cut(what)))
}
