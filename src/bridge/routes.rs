//! From the configuration's plain values to the values that a sink or source route runs with.

use std::sync::Arc;

use super::clients;
use super::repartition::start_at;
use crate::config::{Config, OnLost, Sink, Source, SourceStart, Write};
use crate::kafka::KafkaOptions;
use crate::ledger::{self, Identity, StartAt};
use crate::mapping::{KEY_RULE, RecordMapping};
use crate::quota::Pace;
use crate::servicenow::Client;
use crate::sink::{BatchSettings, Route};
use crate::source::{self, SourceRoute, SourceTopics, Timing};

/// What the ledger of a route belongs to. `partitions` are those of the topic that the sink reads.
pub fn identity(sink: &Sink, cluster_id: Option<String>, partitions: i32) -> Identity {
    Identity {
        cluster_id,
        topic: sink.reads().to_owned(),
        partitions,
        instance: sink.instance.url.clone(),
        route: sink.name.clone(),
        table: sink.table.clone(),
        key_rule: KEY_RULE.into(),
        topic_generation: 0,
    }
}

/// How a route's records are read. `partitions` are those of the topic that the sink reads.
pub fn record_mapping(sink: &Sink, partitions: i32) -> RecordMapping {
    RecordMapping {
        decoder: sink.decoder.clone(),
        copartitioned: sink.copartitioned,
        rekeyed_from: sink.rekeyed.as_ref().map(|_| sink.topic.as_str().into()),
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
        mapping: record_mapping(sink, partitions),
        correlation_display: sink.correlation_display.clone(),
        batch: match sink.write {
            Write::Table | Write::ImportSet { .. } => None,
            Write::Batch { size, linger } | Write::Event { size, linger, .. } => Some(BatchSettings { size, linger }),
        },
        client,
        new_credentials: clients::new_credentials(&sink.instance),
        pace,
        settings: sink.settings.clone(),
        identity: identity(sink, cluster_id, partitions),
        // Of a re-keyed route the stage begins where the user wants; what it has written is all to be applied.
        start: if sink.rekeyed.is_some() { StartAt::Earliest } else { start_at(sink) },
        on_lost: match sink.on_lost {
            OnLost::Refuse => ledger::OnLost::Refuse,
            OnLost::LookUp => ledger::OnLost::LookUp,
        },
        instance_date,
    }
}

pub(super) fn source_route(config: &Config, source: &Source, client: Client, pace: Arc<Pace>) -> SourceRoute {
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
