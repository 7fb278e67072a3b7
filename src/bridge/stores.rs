//! Opens the ledger and the dead letters of a route, for the commands that read and change them.

use anyhow::{Context, Result, bail};

use super::{KAFKA_TIMEOUT, clients, routes, topics};
use crate::config::{Config, Sink};
use crate::dead_letters::DeadLetterStore;
use crate::kafka::Producer;
use crate::kafka::topics::{Purpose, TopicSpec, Topics};
use crate::ledger::admin::RouteLedger;

/// Returns the sink route with this name; without a name, the only sink route.
///
/// # Errors
/// There is no such route, or there are several and no name was given.
pub fn select_sink<'a>(config: &'a Config, route: Option<&str>) -> Result<&'a Sink> {
    let names = || config.sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>().join(", ");
    match (route, config.sinks.as_slice()) {
        (_, []) => bail!("the configuration has no sink route"),
        (Some(name), sinks) => sinks
            .iter()
            .find(|sink| sink.name == name)
            .with_context(|| format!("there is no sink route {name:?}; the sink routes are: {}", names())),
        (None, [sink]) => Ok(sink),
        (None, _) => bail!("there are several sink routes, select one with --route: {}", names()),
    }
}

/// Returns the number of partitions of a topic; `None` if it does not exist.
///
/// # Errors
/// The cluster does not respond.
pub async fn partitions(config: &Config, topic: &str) -> Result<Option<i32>> {
    Ok(Topics::new(&clients::kafka(&config.kafka), KAFKA_TIMEOUT).partitions(topic).await?)
}

/// Opens the ledger of a route. `create`: creates the ledger topic if it does not exist.
///
/// # Errors
/// The input or the ledger topic does not exist, or the cluster does not respond.
pub async fn ledger(config: &Config, sink: &Sink, create: bool) -> Result<RouteLedger> {
    let options = clients::kafka(&config.kafka);
    let cluster = Topics::new(&options, KAFKA_TIMEOUT);
    let input = cluster.partitions(sink.consumed_topic()).await?;
    let input =
        input.with_context(|| format!("route {}: topic {} does not exist", sink.name, sink.consumed_topic()))?;
    if create {
        let spec = TopicSpec::new(&sink.ledger, Purpose::Ledger).partitions(input);
        let spec = spec.replication(config.topics.replication);
        let created = cluster.create_missing(&[spec], topics::strictness(config, false)).await;
        created.context("can't create the ledger topic")?;
    }
    let partitions = cluster.partitions(&sink.ledger).await?;
    let partitions = partitions.with_context(|| {
        format!(
            "the ledger {} does not exist: the bridge has never run, or the topic was deleted (see `ledger rebuild`)",
            sink.ledger
        )
    })?;
    let (producer, _) = Producer::new(&options, KAFKA_TIMEOUT)?;
    Ok(RouteLedger {
        identity: routes::identity(sink, cluster.cluster_id().await?, input),
        producer,
        topic: sink.ledger.as_str().into(),
        partitions,
        input: sink.consumed_topic().to_owned(),
        group: sink.group.clone(),
        states: sink.settings.states.clone(),
        timeout: KAFKA_TIMEOUT,
        options,
    })
}

/// Opens the dead letters of a route.
pub fn dead_letters(config: &Config, sink: &Sink) -> DeadLetterStore {
    DeadLetterStore {
        options: clients::kafka(&config.kafka),
        route: sink.name.clone(),
        input: sink.consumed_topic().to_owned(),
        group: sink.group.clone(),
        dead_letters: sink.dead_letters.clone(),
        redrives_topic: config.topics.redrives(),
        transactional_id: format!("{}.redrive.{}", config.topics.prefix, sink.name),
        timeout: KAFKA_TIMEOUT,
    }
}

/// Creates the topic that records which dead letters were redriven or discarded: bridges of earlier releases have not
/// created it.
///
/// # Errors
/// The cluster does not respond, or rejects the request.
pub async fn create_redrives_topic(config: &Config, store: &DeadLetterStore) -> Result<()> {
    let spec = TopicSpec::new(store.redrives_topic.clone(), Purpose::Table)
        .partitions(1)
        .replication(config.topics.replication);
    let cluster = Topics::new(&store.options, KAFKA_TIMEOUT);
    let created = cluster.create_missing(&[spec], topics::strictness(config, false)).await;
    created.with_context(|| format!("can't create the topic {}", store.redrives_topic))?;
    Ok(())
}
