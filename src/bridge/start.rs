//! Starts all routes of a configuration: creates and checks topics, compares ledgers with routes, logs in to the
//! instances, and spawns the tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use super::clients::{self, Clients};
use super::routes::{SharedByInstance, sink_route, source_route};
use super::{KAFKA_TIMEOUT, detect_rename, repartition, topics};
use crate::check;
use crate::config::Config;
use crate::kafka::topics::{Strictness, Topics};
use crate::ledger;
use crate::runtime::supervision::Supervisor;
use crate::sink::{self, StatusHandle};
use crate::source::{self, OwnershipSettings};

/// The status handles of a running bridge.
#[derive(Default, Clone)]
pub struct RouteStatuses {
    /// By name of the sink route.
    pub sinks: Vec<(String, StatusHandle)>,
    /// By name of the sink route, and name of the stage.
    pub repartitions: Vec<(String, &'static str, crate::repartition::StatusHandle)>,
    /// By name of the source route.
    pub sources: Vec<(String, source::StatusHandle)>,
}

/// Starts all routes of a configuration under a supervisor.
///
/// # Errors
/// A topic is unusable, a client can't be created, or a route must not start with its ledger.
pub async fn start(
    config: &Config,
    strictness: Strictness,
    supervisor: &mut Supervisor,
    stop: &CancellationToken,
) -> Result<RouteStatuses> {
    let options = clients::kafka(&config.kafka);
    let topics = Topics::new(&options, KAFKA_TIMEOUT);
    let inputs = topics::ensure(config, &topics, strictness).await?;
    let cluster_id = topics.cluster_id().await.context("can't read the cluster id")?;
    let mut shared: BTreeMap<&str, SharedByInstance> =
        config.instances.keys().filter_map(|name| Some((name.as_str(), shared_by(config, name)?))).collect();
    let mut statuses = RouteStatuses::default();
    let mut clients = Clients::default();
    let instance_dates = log_in(config, &mut clients).await?;
    for (sink, &partitions) in config.sinks.iter().zip(&inputs).filter(|_| !strictness.embedded) {
        let known = ledger::read_identity(&options, &sink.ledger, &sink.group, KAFKA_TIMEOUT).await;
        let known = known.with_context(|| format!("can't read the header of the ledger {}", sink.ledger))?;
        repartition::reject_switch(sink, &options, partitions, known.as_ref()).await?;
        if known.is_none() {
            detect_rename::reject_renamed(config, sink, &options).await?;
        }
    }
    for (sink, partitions) in config.sinks.iter().zip(inputs) {
        let shared = shared.entry(&sink.instance.name).or_insert_with(|| SharedByInstance::new(&sink.instance, false));
        let date = instance_dates.get(sink.instance.name.as_str()).copied().flatten();
        let client = clients.for_sink(sink)?;
        let route = sink_route(config, sink, &options, partitions, (cluster_id.clone(), date), client, shared);
        let status = StatusHandle::default();
        statuses.sinks.push((sink.name.clone(), status.clone()));
        for stage in repartition::stages(config, sink, &options, partitions) {
            let (status, stop, stage_name) =
                (crate::repartition::StatusHandle::default(), stop.clone(), stage.step.name());
            statuses.repartitions.push((sink.name.clone(), stage_name, status.clone()));
            let task = async move { Ok(crate::repartition::run(stage, status, stop).await?) };
            supervisor.spawn(format!("{stage_name} of {}", sink.name), task);
        }
        let stop = stop.clone();
        supervisor.spawn(format!("sink {}", sink.name), async move { Ok(sink::run(route, status, stop).await?) });
    }
    if !config.sources.is_empty() {
        let mut routes = Vec::new();
        for source in &config.sources {
            let shared =
                shared.entry(&source.instance.name).or_insert_with(|| SharedByInstance::new(&source.instance, true));
            let route = source_route(config, source, clients.for_source(source)?, shared);
            statuses.sources.push((source.name.clone(), route.status.clone()));
            routes.push(route);
        }
        let ownership = OwnershipSettings {
            topic: config.topics.ownership(),
            group: format!("{}.sources", config.topics.prefix),
            session_timeout: config.kafka.session_timeout,
            max_poll_interval: config.kafka.max_poll_interval,
            drain: Duration::from_secs(10),
            timeout: KAFKA_TIMEOUT,
        };
        let stop = stop.clone();
        supervisor.spawn("sources", async move { Ok(source::run_all(routes, &options, &ownership, stop).await?) });
    }
    Ok(statuses)
}

fn shared_by(config: &Config, instance: &str) -> Option<SharedByInstance> {
    let sources = config.sources.iter().any(|source| source.instance.name == instance);
    config.instances.get(instance).map(|instance| SharedByInstance::new(instance, sources))
}

/// Logs in to the instances that sinks write to, by one request each, so that no route's first write has to wait until
/// another request has verified the credentials. Returns the clock of each instance that responded. If an instance does
/// not respond, its routes wait for it.
async fn log_in<'a>(config: &'a Config, clients: &mut Clients) -> Result<BTreeMap<&'a str, Option<i64>>> {
    let mut instance_dates = BTreeMap::new();
    for sink in &config.sinks {
        let name = sink.instance.name.as_str();
        if instance_dates.contains_key(name) {
            continue;
        }
        let date = match check::log_in(&clients.for_sink(sink)?).await {
            Ok(login) => login.date,
            Err(failure) => {
                tracing::warn!(
                    instance = name,
                    code = failure.code,
                    "instance does not respond yet, its routes will retry: {}",
                    failure.message
                );
                None
            }
        };
        instance_dates.insert(name, date);
    }
    Ok(instance_dates)
}
