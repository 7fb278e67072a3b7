//! Creates sink and source routes from the configuration.

use std::sync::Arc;

use super::clients;
use super::repartition::start_at;
use crate::config::{Config, Instance, OnMissingLedger, Sink, Source, SourceStart, Write};
use crate::kafka::KafkaOptions;
use crate::ledger::{self, Identity, StartAt};
use crate::mapping::{KEY_RULE, RecordMapping};
use crate::quota::RequestLimiter;
use crate::servicenow::{Client, RowVersions};
use crate::sink::{BatchSettings, Route};
use crate::source::{self, SourceRoute, SourceTopics, Timing};

/// What the routes of one instance share in this process.
pub(super) struct SharedByInstance {
    pub(super) limiter: Arc<RequestLimiter>,
    pub(super) row_versions: RowVersions,
}

impl SharedByInstance {
    pub(super) fn new(instance: &Instance, has_sources: bool) -> Self {
        let limiter = clients::limiter(instance, has_sources);
        Self { limiter, row_versions: RowVersions::default() }
    }
}

/// Returns the identity of a route's ledger. `partitions` is the number of partitions of the topic that the sink reads.
pub fn identity(sink: &Sink, cluster_id: Option<String>, partitions: i32) -> Identity {
    Identity {
        cluster_id,
        topic: sink.consumed_topic().to_owned(),
        partitions,
        instance: sink.instance.url.clone(),
        route: sink.name.clone(),
        table: sink.table.clone(),
        key_rule: KEY_RULE.into(),
        topic_generation: 0,
    }
}

/// Returns how a route decodes and maps its records. `partitions` is the number of partitions of the topic that the
/// sink reads.
pub fn record_mapping(sink: &Sink, partitions: i32) -> RecordMapping {
    RecordMapping {
        decoder: sink.decoder.clone(),
        keyed_by_alert: sink.keyed_by_alert,
        ordering: sink.ordering,
        repartitioned_from: sink.repartition_topic.as_ref().map(|_| sink.topic.as_str().into()),
        partitions: usize::try_from(partitions).unwrap_or(1),
        mapping: Arc::clone(&sink.mapping),
    }
}

pub(super) fn sink_route(
    config: &Config,
    sink: &Sink,
    options: &KafkaOptions,
    partitions: i32,
    (cluster_id, instance_date): (Option<String>, Option<i64>),
    client: Client,
    shared: &SharedByInstance,
) -> Route {
    Route {
        name: sink.name.as_str().into(),
        kafka: options.clone(),
        topic: sink.consumed_topic().into(),
        group: sink.group.clone(),
        session_timeout: config.kafka.session_timeout,
        max_poll_interval: config.kafka.max_poll_interval,
        ledger: sink.ledger.as_str().into(),
        results: sink.results.as_deref().map(Into::into),
        dead_letters: sink.dead_letters.as_str().into(),
        mapping: record_mapping(sink, partitions),
        correlation_display: sink.correlation_display.clone(),
        batch: match sink.write {
            Write::Table | Write::ImportSet { .. } => None,
            Write::Batch { size, linger } | Write::Event { size, linger, .. } => Some(BatchSettings { size, linger }),
        },
        client,
        new_credentials: clients::new_credentials(&sink.instance),
        limiter: Arc::clone(&shared.limiter),
        row_versions: shared.row_versions.clone(),
        settings: sink.settings.clone(),
        identity: identity(sink, cluster_id, partitions),
        // With `repartition`, `start` applies to the stage, and the sink applies all records that the stage has
        // written.
        start: if sink.repartition_topic.is_some() { StartAt::Earliest } else { start_at(sink) },
        on_missing_ledger: match sink.on_missing_ledger {
            OnMissingLedger::Refuse => ledger::OnMissingLedger::Refuse,
            OnMissingLedger::LookUp => ledger::OnMissingLedger::LookUp,
        },
        instance_date,
    }
}

pub(super) fn source_route(config: &Config, source: &Source, client: Client, shared: &SharedByInstance) -> SourceRoute {
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
    settings.lookback = i64::try_from(source.lookback.as_secs()).unwrap_or(i64::MAX);
    settings.safety_lag = i64::try_from(source.safety_lag.as_secs()).unwrap_or(i64::MAX);
    settings.page_size = u32::try_from(source.page_size).unwrap_or(1000);
    let mut timing = Timing { interval: source.interval, auth_retry: instance.auth_retry, ..Timing::default() };
    timing.requests_per_second = instance.rate.map(|rate| f64::from(rate.count) / rate.per.as_secs_f64());
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
        row_versions: shared.row_versions.clone(),
        permits: Arc::new(Arc::clone(&shared.limiter)),
        status: source::StatusHandle::default(),
    }
}
