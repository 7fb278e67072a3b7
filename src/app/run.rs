//! `nowbridge run`: topics checked, routes made, everything supervised until it is told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

use super::clients::{self, Clients};
use super::{rekey, renamed, topics};
use crate::config::{Config, OnLost, Sink, Source, SourceStart, Write};
use crate::console::{self, Console};
use crate::doctor;
use crate::kafka::KafkaOptions;
use crate::kafka::topics::{Strictness, Topics};
use crate::ledger::{self, Identity, StartAt};
use crate::metrics;
use crate::servicenow::{Client, Pace};
use crate::sink::{self, Reading, Route, StatusHandle, Together};
use crate::source::{self, Sharing, SourceRoute, SourceTopics, Timing};
use crate::supervise::{self, Supervisor};

/// Each call to Kafka at start takes at most this long.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The rule by which keys become correlations; a ledger made with another rule is refused.
const KEY_RULE: &str = "plain-or-sha256/1";

/// What a running bridge shows of itself.
#[derive(Default, Clone)]
pub struct Views {
    /// Sink routes by name.
    pub sinks: Vec<(String, StatusHandle)>,
    /// The re-keying of sink routes, by their names.
    pub rekeys: Vec<(String, &'static str, crate::rekey::StatusHandle)>,
    /// Source routes by name.
    pub sources: Vec<(String, source::StatusHandle)>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Topics can't be used, or a route can't go on.
pub async fn run(config: Config) -> Result<()> {
    let stop = CancellationToken::new();
    supervise::on_signals(stop.clone())?;
    let exporter = console::install_metrics()?;
    let mut supervisor = Supervisor::new(stop.clone());
    let strictness = topics::strictness(&config, false);
    let views = start(&config, strictness, &mut supervisor, &stop).await?;
    let page = Console {
        listen: config.admin.listen,
        routes: views.sinks,
        rekeys: views.rekeys,
        sources: views.sources,
        metrics: exporter,
        stopping: stop.clone(),
    };
    supervisor.spawn("source metrics", tell_sources(page.sources.clone(), stop.clone()));
    // The page is served while the routes drain, and says so.
    let drained = CancellationToken::new();
    let serving = console::serve(page, drained.clone()).await?;
    tracing::info!(
        sinks = config.sinks.len(),
        sources = config.sources.len(),
        admin = %serving.address,
        "runs"
    );
    let outcome = supervisor.run().await;
    drained.cancel();
    // Nothing is lost with the page's task; the routes' outcome is what counts.
    let _ = serving.task.await;
    outcome
}

/// Shows the source routes' numbers as metrics until the end.
async fn tell_sources(sources: Vec<(String, source::StatusHandle)>, stop: CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        for (name, status) in &sources {
            let status = status.snapshot();
            let lag = status.instance_now.zip(status.cursor).map(|(now, cursor)| now - cursor);
            metrics::source(name, status.stats.published, status.stats.echoes, lag);
        }
        tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(Duration::from_secs(1)) => {} }
    }
    Ok(())
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
    let topics = Topics::new(&options, TIMEOUT);
    let inputs = topics::ensure(config, &topics, strictness).await?;
    let cluster_id = topics.cluster_id().await.context("can't learn the cluster's id")?;
    let paces: BTreeMap<&str, Arc<Pace>> =
        config.instances.keys().filter_map(|name| Some((name.as_str(), pace_of(config, name)?))).collect();
    let mut views = Views::default();
    let mut clients = Clients::default();
    let dates = greet(config, &mut clients).await?;
    for (sink, &partitions) in config.sinks.iter().zip(&inputs).filter(|_| !strictness.embedded) {
        let known = ledger::identity(&options, &sink.ledger, &sink.group, TIMEOUT).await;
        let known = known.with_context(|| format!("can't learn what the ledger {} belongs to", sink.ledger))?;
        rekey::refuse_switch(sink, &options, partitions, known.as_ref()).await?;
        if known.is_none() {
            renamed::refuse(config, sink, &options).await?;
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
        for stage in rekey::stages(config, sink, &options, partitions) {
            let (status, stop, what) = (crate::rekey::StatusHandle::default(), stop.clone(), stage.step.name());
            views.rekeys.push((sink.name.clone(), what, status.clone()));
            let task = async move { Ok(crate::rekey::run(stage, status, stop).await?) };
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
            patience: TIMEOUT,
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
        let date = match doctor::greet(&clients.of_sink(sink)?).await {
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

/// What the ledger of a route belongs to. `partitions` are those of the topic that the sink reads.
pub(super) fn identity(sink: &Sink, cluster_id: Option<String>, partitions: i32) -> Identity {
    Identity {
        cluster_id,
        topic: sink.reads().to_owned(),
        partitions,
        instance: sink.instance.url.clone(),
        route: sink.name.clone(),
        table: sink.table.clone(),
        key_rule: KEY_RULE.into(),
        incarnation: 0,
    }
}

/// How a route's records are read. `partitions` are those of the topic that the sink reads.
pub(super) fn reading(sink: &Sink, partitions: i32) -> Reading {
    Reading {
        decoder: sink.decoder.clone(),
        copartitioned: sink.copartitioned,
        rekeyed_from: sink.rekeyed.as_ref().map(|_| sink.topic.as_str().into()),
        partitions: usize::try_from(partitions).unwrap_or(1),
        mapping: Arc::clone(&sink.mapping),
    }
}

fn sink_route(
    config: &Config,
    sink: &Sink,
    options: &KafkaOptions,
    partitions: i32,
    (cluster_id, instance_date): (Option<String>, Option<i64>),
    client: Client,
    pace: Arc<Pace>,
) -> Route {
    Route {
        name: sink.name.as_str().into(),
        kafka: options.clone(),
        topic: sink.reads().into(),
        group: sink.group.clone(),
        session_timeout: config.kafka.session_timeout,
        max_poll_interval: config.kafka.max_poll_interval,
        ledger: sink.ledger.as_str().into(),
        results: sink.results.as_deref().map(Into::into),
        dead_letters: sink.dead_letters.as_str().into(),
        reading: reading(sink, partitions),
        correlation_display: sink.correlation_display.clone(),
        batch: match sink.write {
            Write::Table | Write::ImportSet { .. } => None,
            Write::Batch { size, linger } | Write::Event { size, linger, .. } => Some(Together { size, linger }),
        },
        client,
        new_credentials: clients::new_credentials(&sink.instance),
        pace,
        settings: sink.settings.clone(),
        identity: identity(sink, cluster_id, partitions),
        // Of a re-keyed route the stage begins where the user wants; what it has written is all to be applied.
        start: if sink.rekeyed.is_some() { StartAt::Earliest } else { rekey::start_at(sink) },
        on_lost: match sink.on_lost {
            OnLost::Refuse => ledger::OnLost::Refuse,
            OnLost::LookUp => ledger::OnLost::LookUp,
        },
        instance_date,
    }
}

fn source_route(config: &Config, source: &Source, client: Client, pace: Arc<Pace>) -> SourceRoute {
    let instance = &source.instance;
    let mut settings = source::Settings::new(&source.name, &instance.name, &source.table, instance.auth.user());
    settings.filter.clone_from(&source.filter);
    settings.watched.clone_from(&source.fields);
    settings.integrations = source.integration_users.iter().cloned().collect();
    settings.publish_echoes = source.include_echoes;
    settings.journal = source.journal;
    settings.start = match source.start {
        SourceStart::All => source::Start::All,
        SourceStart::None => source::Start::None,
        SourceStart::Since(ms) => source::Start::Since(ms.div_euclid(1000)),
    };
    settings.overlap = i64::try_from(source.overlap.as_secs()).unwrap_or(i64::MAX);
    settings.lag = i64::try_from(source.lag.as_secs()).unwrap_or(i64::MAX);
    settings.page = u32::try_from(source.page).unwrap_or(1000);
    let mut timing = Timing { interval: source.interval, auth_retry: instance.auth_retry, ..Timing::default() };
    timing.quota = instance.rate.map(|rate| f64::from(rate.count) / rate.per.as_secs_f64());
    SourceRoute {
        settings: Arc::new(settings),
        topics: SourceTopics {
            changes: source.topic.clone(),
            rows: source.rows.clone(),
            checkpoints: config.topics.checkpoints(),
        },
        transactional_id: format!("{}.{}", config.topics.prefix, source.name),
        group: format!("{}.{}", config.topics.prefix, source.name),
        timing,
        client,
        new_credentials: clients::new_credentials(instance),
        gate: Arc::new(pace),
        status: source::StatusHandle::default(),
    }
}
