//! Starts every route of a configuration: topics created and checked, ledgers compared with the routes, instances greeted,
//! tasks spawned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use super::clients::{self, Clients};
use super::routes::{sink_route, source_route};
use super::{KAFKA_TIMEOUT, detect_rename, repartition, topics};
use crate::check;
use crate::config::Config;
use crate::kafka::topics::{Strictness, Topics};
use crate::ledger;
use crate::quota::Pace;
use crate::runtime::supervision::Supervisor;
use crate::sink::{self, StatusHandle};
use crate::source::{self, Sharing};

/// What a running bridge shows of itself.
#[derive(Default, Clone)]
pub struct Views {
    /// Sink routes by name.
    pub sinks: Vec<(String, StatusHandle)>,
    /// The re-keying of sink routes, by their names.
    pub repartitions: Vec<(String, &'static str, crate::repartition::StatusHandle)>,
    /// Source routes by name.
    pub sources: Vec<(String, source::StatusHandle)>,
}

/// Starts every route of a configuration under a supervisor. The demo uses it, too.
///
/// # Errors
/// Topics can't be used, or a client can't be made.
pub async fn start(
    config: &Config,
    strictness: Strictness,
    supervisor: &mut Supervisor,
    stop: &CancellationToken,
) -> Result<Views> {
    let options = clients::kafka(&config.kafka);
    let topics = Topics::new(&options, KAFKA_TIMEOUT);
    let inputs = topics::ensure(config, &topics, strictness).await?;
    let cluster_id = topics.cluster_id().await.context("can't learn the cluster's id")?;
    let paces: BTreeMap<&str, Arc<Pace>> =
        config.instances.keys().filter_map(|name| Some((name.as_str(), pace_of(config, name)?))).collect();
    let mut views = Views::default();
    let mut clients = Clients::default();
    let dates = greet(config, &mut clients).await?;
    for (sink, &partitions) in config.sinks.iter().zip(&inputs).filter(|_| !strictness.embedded) {
        let known = ledger::identity(&options, &sink.ledger, &sink.group, KAFKA_TIMEOUT).await;
        let known = known.with_context(|| format!("can't learn what the ledger {} belongs to", sink.ledger))?;
        repartition::refuse_switch(sink, &options, partitions, known.as_ref()).await?;
        if known.is_none() {
            detect_rename::refuse(config, sink, &options).await?;
        }
    }
    for (sink, partitions) in config.sinks.iter().zip(inputs) {
        let pace =
            paces.get(sink.instance.name.as_str()).map_or_else(|| clients::pace(&sink.instance, false), Arc::clone);
        let date = dates.get(sink.instance.name.as_str()).copied().flatten();
        let client = clients.of_sink(sink)?;
        let route = sink_route(config, sink, &options, partitions, (cluster_id.clone(), date), client, pace);
        let status = StatusHandle::default();
        views.sinks.push((sink.name.clone(), status.clone()));
        for stage in repartition::stages(config, sink, &options, partitions) {
            let (status, stop, what) = (crate::repartition::StatusHandle::default(), stop.clone(), stage.step.name());
            views.repartitions.push((sink.name.clone(), what, status.clone()));
            let task = async move { Ok(crate::repartition::run(stage, status, stop).await?) };
            supervisor.spawn(format!("{what} of {}", sink.name), task);
        }
        let stop = stop.clone();
        supervisor.spawn(format!("sink {}", sink.name), async move { Ok(sink::run(route, status, stop).await?) });
    }
    if !config.sources.is_empty() {
        let mut routes = Vec::new();
        for one in &config.sources {
            let pace =
                paces.get(one.instance.name.as_str()).map_or_else(|| clients::pace(&one.instance, true), Arc::clone);
            let route = source_route(config, one, clients.of_source(one)?, pace);
            views.sources.push((one.name.clone(), route.status.clone()));
            routes.push(route);
        }
        let sharing = Sharing {
            topic: config.topics.ownership(),
            group: format!("{}.sources", config.topics.prefix),
            session_timeout: config.kafka.session_timeout,
            max_poll_interval: config.kafka.max_poll_interval,
            drain: Duration::from_secs(10),
            patience: KAFKA_TIMEOUT,
        };
        let stop = stop.clone();
        supervisor.spawn("sources", async move { Ok(source::run_all(routes, &options, &sharing, stop).await?) });
    }
    Ok(views)
}

fn pace_of(config: &Config, instance: &str) -> Option<Arc<Pace>> {
    let sources = config.sources.iter().any(|source| source.instance.name == instance);
    config.instances.get(instance).map(|instance| clients::pace(instance, sources))
}

/// Greets the instances that sinks write to, by one request each, so that no route's first write has to wait for
/// another's proof of the credentials; each one's clock, where it answered. An instance that does not answer is no
/// obstacle; its routes wait for it.
async fn greet<'a>(config: &'a Config, clients: &mut Clients) -> Result<BTreeMap<&'a str, Option<i64>>> {
    let mut dates = BTreeMap::new();
    for sink in &config.sinks {
        let name = sink.instance.name.as_str();
        if dates.contains_key(name) {
            continue;
        }
        let date = match check::greet(&clients.of_sink(sink)?).await {
            Ok(greeting) => greeting.date,
            Err(failure) => {
                tracing::warn!(
                    instance = name,
                    code = failure.code,
                    "the instance does not answer yet: {}",
                    failure.message
                );
                None
            }
        };
        dates.insert(name, date);
    }
    Ok(dates)
}
