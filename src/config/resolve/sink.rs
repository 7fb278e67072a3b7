//! Resolves routes from Kafka to ServiceNow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::budget::BufferSize;
use crate::engine::flap_detection::FlapSettings;
use crate::engine::retry::RetryDelays;
use crate::engine::settings::Settings;
use crate::mapping::{GroupBy, Rules, SinkMapping};
use crate::model::{EventOrdering, StateModel};
use crate::systems::{Decoder, TicketPer};

use super::super::raw::{
    RawFlapping, RawFormat, RawGrouping, RawImportSet, RawOnMissingLedger, RawOnUserEdit, RawOnUserResolve, RawOrder,
    RawSink, RawStates, RawTicketPer, RawWrite,
};
use super::super::resolved::{Grouping, Instance, Kafka, OnMissingLedger, Sink, Start, Topics, Write};
use super::super::units;
use super::super::validate::join;
use super::{Context, event, rules};

pub(super) fn resolve(
    name: String,
    mut raw: RawSink,
    at: &str,
    instance: Arc<Instance>,
    kafka: &Kafka,
    topics: &Topics,
    context: &mut Context<'_>,
) -> Sink {
    let key = |key: &str| join(at, key);
    let topic = raw.topic.take().unwrap_or_default();
    if context.has(&key("topic")) {
        context.check_topic_name(&key("topic"), &topic);
    }
    let mut own_topic = |name_in_file: Option<String>, topic_key: &str, suffix: &str| {
        let topic = name_in_file.unwrap_or_else(|| format!("{}.{name}{suffix}", topics.prefix));
        context.check_topic_name(&key(topic_key), &topic);
        topic
    };
    let group = own_topic(raw.group.take(), "group", "");
    let results = own_topic(raw.results.take(), "results", ".results");
    let dead_letters = own_topic(raw.dead_letters.take(), "dead_letters", ".dead-letters");
    let ledger = own_topic(raw.ledger.take(), "ledger", ".ledger");
    let suffix = if raw.grouping.is_some() { ".groups" } else { ".repartitioned" };
    let repartition_topic =
        repartition_topic(&raw, at, own_topic(raw.repartition_topic.clone(), "repartition_topic", suffix), context);
    let groups_topic = repartition_topic.clone().unwrap_or_default();
    let grouping = raw.grouping.take().map(|raw| grouping(&raw, &groups_topic, &key("grouping"), context));
    let is_event = raw.write == Some(RawWrite::Event);
    if is_event {
        event::reject_inapplicable_keys(&raw, at, context);
    }
    let table = if is_event { event::TABLE } else { "incident" };
    let table = raw.table.take().unwrap_or_else(|| table.into());
    context.check_column_name(&key("table"), &table);
    let decoder = decoder(&raw, &key("ticket_per"), context);
    let start = start(raw.start.as_deref(), &key("start"), context);
    let correlation_display = raw.correlation_display.take().unwrap_or_else(|| "nowbridge".into());
    if correlation_display.is_empty() || correlation_display.chars().count() > 100 {
        context.error(&key("correlation_display"), "use 1 to 100 characters");
    }
    let states =
        if is_event { event::states() } else { states(raw.states.take().unwrap_or_default(), &key("states"), context) };
    let write = write(&raw, &name, at, context);
    let mut settings = engine_settings(&raw, at, &instance, kafka, context);
    let defaults =
        if is_event { event::rules() } else { Rules { state_column: states.column.clone(), ..Rules::default() } };
    let rules = rules::resolve(&mut raw, at, defaults, context);
    if is_event {
        event::apply_event_defaults(&mut settings, raw.note_limit);
    }
    if let Write::Batch { size, .. } | Write::Event { size, .. } = write {
        // As many claims as fit into one request are needed per permit.
        settings.min_claim_window += size - 1;
    }
    settings.states = states;
    let mapping = compile(rules, at, context);
    settings.columns = mapping.columns();
    repartition_topic.as_ref().unwrap_or(&topic).clone_into(&mut settings.marker_prefix);
    Sink {
        mapping,
        instance,
        table,
        write,
        topic,
        group,
        results: raw.publish_results.unwrap_or(true).then_some(results),
        dead_letters,
        ledger,
        decoder,
        start,
        keyed_by_alert: raw.keyed_by_alert.unwrap_or(false),
        ordering: match raw.order {
            Some(RawOrder::OccurredAt) => EventOrdering::OccurredAt,
            Some(RawOrder::Log) | None => EventOrdering::Log,
        },
        repartition_topic,
        default_repartition_topic: format!("{}.{name}.repartitioned", topics.prefix),
        default_groups_topic: format!("{}.{name}.groups", topics.prefix),
        grouping,
        correlation_display,
        on_missing_ledger: match raw.on_missing_ledger {
            Some(RawOnMissingLedger::LookUp) => OnMissingLedger::LookUp,
            Some(RawOnMissingLedger::Refuse) | None => OnMissingLedger::Refuse,
        },
        settings,
        name,
    }
}

/// Returns the internal topic if the route repartitions its topic.
fn repartition_topic(raw: &RawSink, at: &str, topic: String, context: &mut Context<'_>) -> Option<String> {
    let repartition = raw.repartition.unwrap_or(false) || raw.grouping.is_some();
    if repartition && raw.keyed_by_alert == Some(true) {
        let (key, message) = if raw.grouping.is_some() {
            ("keyed_by_alert", "a route with `grouping` repartitions its topic anyway; remove `keyed_by_alert`")
        } else {
            ("repartition", "`repartition: true` is not needed with `keyed_by_alert: true`; remove one of them")
        };
        context.error(&join(at, key), message);
    }
    if !repartition && raw.repartition_topic.is_some() {
        context.error(
            &join(at, "repartition_topic"),
            "`repartition_topic` requires `repartition: true` or `grouping`; remove it or set one of them",
        );
    }
    repartition.then_some(topic)
}

/// Resolves `grouping`. The names of its other topics are derived from `groups_topic`.
fn grouping(raw: &RawGrouping, groups_topic: &str, at: &str, context: &mut Context<'_>) -> Grouping {
    let rule = join(at, "group_by");
    let text = raw.group_by.as_deref().unwrap_or_default();
    let compiled = GroupBy::compile(text);
    if let Err(message) = &compiled
        && context.has(&rule)
    {
        context.error(&rule, message);
    }
    Grouping {
        group_by: compiled.unwrap_or_else(|_| GroupBy::by_key()),
        max_listed: usize::try_from(raw.max_listed.unwrap_or(20)).unwrap_or(20),
        input_topic: format!("{groups_topic}.input"),
        state_topic: format!("{groups_topic}.state"),
    }
}

/// Resolves `write` and the section of its parameters.
fn write(raw: &RawSink, route: &str, at: &str, context: &mut Context<'_>) -> Write {
    let batch_at = join(at, "batch");
    let batch = raw.batch.as_ref();
    let linger = batch.and_then(|batch| batch.linger.as_deref());
    let linger = context.duration_in(&join(&batch_at, "linger"), linger, Duration::from_millis(100), ("0", "10s"));
    if batch.is_some() && raw.write != Some(RawWrite::Batch) {
        context.error(&batch_at, "`batch` requires `write: batch`; remove it or set that");
    }
    if raw.import_set.is_some() && raw.write != Some(RawWrite::ImportSet) {
        let message = "`import_set` requires `write: import_set`; remove it or set that";
        context.error(&join(at, "import_set"), message);
    }
    if raw.event.is_some() && raw.write != Some(RawWrite::Event) {
        context.error(&join(at, "event"), "`event` requires `write: event`; remove it or set that");
    }
    match raw.write {
        Some(RawWrite::Event) => event::write(raw.event.as_ref(), route, &join(at, "event"), context),
        Some(RawWrite::Batch) => {
            let size = batch.and_then(|batch| batch.size).unwrap_or(20);
            Write::Batch { size: usize::try_from(size).unwrap_or(20).max(2), linger }
        }
        Some(RawWrite::ImportSet) => import_set(raw.import_set.as_ref(), &join(at, "import_set"), context),
        Some(RawWrite::Table) | None => Write::Table,
    }
}

/// Resolves the staging table and its columns.
fn import_set(raw: Option<&RawImportSet>, at: &str, context: &mut Context<'_>) -> Write {
    let value = |field: fn(&RawImportSet) -> &Option<String>| raw.and_then(|raw| field(raw).clone());
    let Some(staging) = value(|raw| &raw.staging) else {
        if raw.is_none() {
            let message = "`write: import_set` needs the name of a staging table: `import_set: { staging: u_... }`";
            context.error(at, message);
        }
        return Write::Table;
    };
    let prefix = value(|raw| &raw.prefix).unwrap_or_else(|| "u_".into());
    let coalesce = value(|raw| &raw.coalesce).unwrap_or_else(|| "u_sys_id".into());
    context.check_column_name(&join(at, "staging"), &staging);
    context.check_column_name(&join(at, "coalesce"), &coalesce);
    // A prefix is valid if a name can start with it.
    context.check_column_name(&join(at, "prefix"), &format!("{prefix}x"));
    if coalesce == "sys_id" {
        let message = "`sys_id` belongs to the staging row itself; create a column such as `u_sys_id`";
        context.error(&join(at, "coalesce"), message);
    }
    Write::ImportSet { staging, prefix, coalesce }
}

fn compile(rules: Rules, at: &str, context: &mut Context<'_>) -> Arc<SinkMapping> {
    let mapping = SinkMapping::compile(rules).unwrap_or_else(|errors| {
        for error in errors {
            context.error(&format!("{at}.{}", error.path), &error.message);
        }
        SinkMapping::default()
    });
    Arc::new(mapping)
}

fn decoder(raw: &RawSink, at: &str, context: &mut Context<'_>) -> Decoder {
    match raw.format {
        Some(RawFormat::Alertmanager) => Decoder::Alertmanager(match raw.ticket_per {
            Some(RawTicketPer::Alert) => TicketPer::Alert,
            Some(RawTicketPer::Group) | None => TicketPer::Group,
        }),
        Some(RawFormat::Canonical) | None => {
            if raw.ticket_per.is_some() {
                context.error(at, "`ticket_per` requires `format: alertmanager`; remove it or set that");
            }
            Decoder::Canonical
        }
    }
}

fn start(text: Option<&str>, at: &str, context: &mut Context<'_>) -> Start {
    match text {
        None | Some("earliest") => Start::Earliest,
        Some("latest") => Start::Latest,
        Some(text) => text.parse::<jiff::Timestamp>().map_or_else(
            |_| {
                let message =
                    format!("`{text}` is neither `earliest`, `latest` nor a time such as `2026-01-31T00:00:00Z`");
                context.error(at, &message);
                Start::Earliest
            },
            |time| Start::At(time.as_millisecond()),
        ),
    }
}

/// Resolves the state values. The engine maps a value to a phase, so no value may occur twice.
fn states(raw: RawStates, at: &str, context: &mut Context<'_>) -> StateModel {
    let default = StateModel::default();
    let model = StateModel {
        column: raw.column.unwrap_or(default.column),
        new: raw.new.unwrap_or(default.new),
        in_progress: raw.in_progress.unwrap_or(default.in_progress),
        on_hold: raw.on_hold.unwrap_or(default.on_hold),
        resolved: raw.resolved.unwrap_or(default.resolved),
        closed: raw.closed.unwrap_or(default.closed),
    };
    context.check_column_name(&join(at, "column"), &model.column);
    let mut seen = BTreeSet::new();
    let single_values = [&model.new, &model.in_progress, &model.resolved];
    for value in single_values.into_iter().chain(&model.on_hold).chain(&model.closed) {
        if value.is_empty() {
            context.error(at, "a state value is empty");
        } else if !seen.insert(value) {
            context.error(at, &format!("the value `{value}` occurs twice; each value must mean a single state"));
        }
    }
    model
}

fn engine_settings(raw: &RawSink, at: &str, instance: &Instance, kafka: &Kafka, context: &mut Context<'_>) -> Settings {
    let default = Settings::default();
    let key = |key: &str| join(at, key);
    let time = Duration::from_millis;
    let window = raw.reopen_window.as_deref();
    let window = context.duration_in(&key("reopen_window"), window, time(default.reopen_window), ("0", "365d"));
    let max_row_age = raw.max_row_age.as_deref();
    let max_row_age = context.duration_in(&key("max_row_age"), max_row_age, time(default.max_row_age), ("1s", "365d"));
    let budget = raw.budget.as_ref();
    let size = budget.and_then(|b| b.size.as_deref()).map_or(default.budget.bytes, |text| {
        units::size(text).unwrap_or_else(|message| {
            context.error(&join(&key("budget"), "size"), &message);
            default.budget.bytes
        })
    });
    if size < 1 << 20 {
        context.error(&join(&key("budget"), "size"), "must be at least 1MiB, so that any single record fits");
    }
    let mut overwrite_columns = BTreeSet::new();
    for (column, value) in raw.on_user_edit.iter().flatten() {
        context.check_column_name(&join(&key("on_user_edit"), column), column);
        if *value == RawOnUserEdit::Overwrite {
            overwrite_columns.insert(column.as_str().into());
        }
    }
    let max_poll_interval = millis(kafka.max_poll_interval);
    Settings {
        bridge_user: instance.auth.user().to_owned(),
        reopen_window: millis(window),
        max_row_age: millis(max_row_age),
        request_deadline: millis(instance.request_deadline),
        max_transaction_time: millis(instance.max_transaction_time),
        session_timeout: millis(kafka.session_timeout),
        max_poll_interval,
        // A short interval, as in tests, must leave time for the lease.
        poll_interval_margin: default.poll_interval_margin.min(max_poll_interval / 4),
        // A claim is acked within milliseconds; with many slots, some become free in that time.
        min_claim_window: 2 + instance.concurrency / 8,
        auth_retry: RetryDelays { first: millis(instance.auth_retry.0), max: millis(instance.auth_retry.1) },
        flapping: flapping(raw.flapping.as_ref(), &key("flapping"), context),
        rejection_limit: raw.rejection_limit.unwrap_or(default.rejection_limit),
        budget: BufferSize {
            events: budget.and_then(|b| b.events).map_or(default.budget.events, |n| n as usize),
            bytes: size,
        },
        note_limit: raw.note_limit.map_or(default.note_limit, |n| n as usize),
        overwrite_columns,
        reopen_after_user: raw.on_user_resolve != Some(RawOnUserResolve::Keep),
        ..default
    }
}

fn flapping(raw: Option<&RawFlapping>, at: &str, context: &mut Context<'_>) -> Option<FlapSettings> {
    let raw = raw?;
    let default = Duration::from_secs(600);
    let bounds = ("1s", "24h");
    Some(FlapSettings {
        changes: raw.changes.map_or(6, |n| n as usize),
        within: rules::millis_in(&join(at, "within"), raw.within.as_deref(), default, bounds, context),
        hold: rules::millis_in(&join(at, "hold"), raw.hold.as_deref(), default, rules::HOLD_BOUNDS, context),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
