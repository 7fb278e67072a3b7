//! What the commands on a route work on: its ledger and its dead letters, ready to be read and changed.

use anyhow::{Context, Result, bail};

use super::{KAFKA_TIMEOUT, clients, routes, topics};
use crate::config::{Config, Sink};
use crate::dead_letters::LetterStore;
use crate::kafka::Producer;
use crate::kafka::topics::{Purpose, TopicSpec, Topics};
use crate::ledger::admin::Site;

/// The sink route of that name; without a name, the only one.
///
/// # Errors
/// There is no such route, or there are several and none was named.
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

/// The ledger of a route. `create`: the ledger topic is created where it does not exist.
///
/// # Errors
/// The input or the ledger topic does not exist, or the cluster does not answer.
pub async fn ledger(config: &Config, sink: &Sink, create: bool) -> Result<Site> {
    let options = clients::kafka(&config.kafka);
    let cluster = Topics::new(&options, KAFKA_TIMEOUT);
    let input = cluster.partitions(sink.reads()).await?;
    let input = input.with_context(|| format!("route {}: topic {} does not exist", sink.name, sink.reads()))?;
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
    Ok(Site {
        identity: routes::identity(sink, cluster.cluster_id().await?, input),
        producer,
        ledger: sink.ledger.as_str().into(),
        partitions,
        input: sink.reads().to_owned(),
        group: sink.group.clone(),
        states: sink.settings.states.clone(),
        timeout: KAFKA_TIMEOUT,
        options,
    })
}

/// The dead letters of a route.
pub fn dead_letters(config: &Config, sink: &Sink) -> LetterStore {
    LetterStore {
        options: clients::kafka(&config.kafka),
        route: sink.name.clone(),
        input: sink.reads().to_owned(),
        group: sink.group.clone(),
        dead_letters: sink.dead_letters.clone(),
        marks: config.topics.redrives(),
        transactional_id: format!("{}.redrive.{}", config.topics.prefix, sink.name),
        timeout: KAFKA_TIMEOUT,
    }
}

/// Creates the topic that records which dead letters were redriven or discarded: bridges of earlier releases have not
/// created it.
///
/// # Errors
/// The cluster does not answer or refuses.
pub async fn create_redrives_topic(config: &Config, store: &LetterStore) -> Result<()> {
    let spec = TopicSpec::new(store.marks.clone(), Purpose::Table).partitions(1).replication(config.topics.replication);
    let cluster = Topics::new(&store.options, KAFKA_TIMEOUT);
    let created = cluster.create_missing(&[spec], topics::strictness(config, false)).await;
    created.with_context(|| format!("can't create the topic {}", store.marks))?;
    Ok(())
}
