//! Routes from Kafka to ServiceNow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::flap_detection::Flapping;
use crate::engine::settings::Settings;
use crate::mapping::{GroupBy, Rules, SinkMapping};
use crate::model::StateModel;
use crate::systems::{By, Decoder};

use super::super::human;
use super::super::raw::{
    RawBy, RawDigest, RawFlapping, RawFormat, RawImportSet, RawOnLost, RawPeople, RawSink, RawStates, RawWrite,
};
use super::super::resolved::{Digest, Instance, Kafka, OnLost, Sink, Start, Topics, Write};
use super::super::shape::join;
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
        context.topic_name(&key("topic"), &topic);
    }
    let mut own_topic = |given: Option<String>, what: &str, suffix: &str| {
        let topic = given.unwrap_or_else(|| format!("{}.{name}{suffix}", topics.prefix));
        context.topic_name(&key(what), &topic);
        topic
    };
    let group = own_topic(raw.group.take(), "group", "");
    let results = own_topic(raw.results.take(), "results", ".results");
    let dead_letters = own_topic(raw.dead_letters.take(), "dead_letters", ".dead-letters");
    let ledger = own_topic(raw.ledger.take(), "ledger", ".ledger");
    let suffix = if raw.digest.is_some() { ".digests" } else { ".rekeyed" };
    let rekeyed = rekeyed(&raw, at, own_topic(raw.rekeyed.clone(), "rekeyed", suffix), context);
    let inner = rekeyed.clone().unwrap_or_default();
    let digest = raw.digest.take().map(|raw| digest(&raw, &inner, &key("digest"), context));
    let is_event = raw.write == Some(RawWrite::Event);
    if is_event {
        event::refuse_others(&raw, at, context);
    }
    let table = if is_event { event::TABLE } else { "incident" };
    let table = raw.table.take().unwrap_or_else(|| table.into());
    context.column_name(&key("table"), &table);
    let decoder = decoder(&raw, &key("by"), context);
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
        event::settle(&mut settings, raw.note_limit);
    }
    if let Write::Batch { size, .. } | Write::Event { size, .. } = write {
        // A permit finds as many claims as go into one request.
        settings.claims_ahead += size - 1;
    }
    settings.states = states;
    rekeyed.as_ref().unwrap_or(&topic).clone_into(&mut settings.marker_prefix);
    Sink {
        mapping: compile(rules, at, context),
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
        copartitioned: raw.copartitioned.unwrap_or(false),
        rekeyed,
        default_rekeyed: format!("{}.{name}.rekeyed", topics.prefix),
        default_digests: format!("{}.{name}.digests", topics.prefix),
        digest,
        correlation_display,
        on_lost: match raw.on_lost {
            Some(RawOnLost::LookUp) => OnLost::LookUp,
            Some(RawOnLost::Refuse) | None => OnLost::Refuse,
        },
        settings,
        name,
    }
}

/// The internal topic, where the route is re-keyed.
fn rekeyed(raw: &RawSink, at: &str, topic: String, context: &mut Context<'_>) -> Option<String> {
    let rekey = raw.rekey.unwrap_or(false) || raw.digest.is_some();
    if rekey && raw.copartitioned == Some(true) {
        let (what, message) = if raw.digest.is_some() {
            ("copartitioned", "a route with `digest` re-keys its topic, so that this says nothing; remove it")
        } else {
            ("rekey", "`copartitioned: true` vouches for what `rekey: true` brings about; remove one of them")
        };
        context.error(&join(at, what), message);
    }
    if !rekey && raw.rekeyed.is_some() {
        context.error(
            &join(at, "rekeyed"),
            "`rekeyed` belongs to `rekey: true` or `digest`; remove it or set one of them",
        );
    }
    rekey.then_some(topic)
}

/// Which alerts share a ticket.
fn digest(raw: &RawDigest, inner: &str, at: &str, context: &mut Context<'_>) -> Digest {
    let rule = join(at, "group_by");
    let text = raw.group_by.as_deref().unwrap_or_default();
    let compiled = GroupBy::compile(text);
    if let Err(message) = &compiled
        && context.has(&rule)
    {
        context.error(&rule, message);
    }
    Digest {
        group_by: compiled.unwrap_or_else(|_| GroupBy::by_key()),
        list: usize::try_from(raw.list.unwrap_or(20)).unwrap_or(20),
        grouped: format!("{inner}.grouped"),
        table: format!("{inner}.groups"),
    }
}

/// How the table is written.
fn write(raw: &RawSink, route: &str, at: &str, context: &mut Context<'_>) -> Write {
    let batch_at = join(at, "batch");
    let batch = raw.batch.as_ref();
    let linger = batch.and_then(|batch| batch.linger.as_deref());
    let linger = context.duration_in(&join(&batch_at, "linger"), linger, Duration::from_millis(100), ("0", "10s"));
    if batch.is_some() && raw.write != Some(RawWrite::Batch) {
        context.error(&batch_at, "`batch` belongs to `write: batch`; remove it or set that");
    }
    if raw.import_set.is_some() && raw.write != Some(RawWrite::ImportSet) {
        let why = "`import_set` belongs to `write: import_set`; remove it or set that";
        context.error(&join(at, "import_set"), why);
    }
    if raw.event.is_some() && raw.write != Some(RawWrite::Event) {
        context.error(&join(at, "event"), "`event` belongs to `write: event`; remove it or set that");
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

/// The staging table and its columns.
fn import_set(raw: Option<&RawImportSet>, at: &str, context: &mut Context<'_>) -> Write {
    let given = |of: fn(&RawImportSet) -> &Option<String>| raw.and_then(|raw| of(raw).clone());
    let Some(staging) = given(|raw| &raw.staging) else {
        if raw.is_none() {
            let needs = "`write: import_set` needs the name of a staging table: `import_set: { staging: u_... }`";
            context.error(at, needs);
        }
        return Write::Table;
    };
    let prefix = given(|raw| &raw.prefix).unwrap_or_else(|| "u_".into());
    let coalesce = given(|raw| &raw.coalesce).unwrap_or_else(|| "u_sys_id".into());
    context.column_name(&join(at, "staging"), &staging);
    context.column_name(&join(at, "coalesce"), &coalesce);
    // Whatever may begin a name may be one.
    context.column_name(&join(at, "prefix"), &format!("{prefix}x"));
    if coalesce == "sys_id" {
        context.error(&join(at, "coalesce"), "`sys_id` is the staging row's own; make a column such as `u_sys_id`");
    }
    Write::ImportSet { staging, prefix, coalesce }
}

fn compile(rules: Rules, at: &str, context: &mut Context<'_>) -> Arc<SinkMapping> {
    let mapping = SinkMapping::compile(rules).unwrap_or_else(|problems| {
        for problem in problems {
            context.error(&format!("{at}.{}", problem.at), &problem.message);
        }
        SinkMapping::default()
    });
    Arc::new(mapping)
}

fn decoder(raw: &RawSink, at: &str, context: &mut Context<'_>) -> Decoder {
    match raw.format {
        Some(RawFormat::Alertmanager) => Decoder::Alertmanager(match raw.by {
            Some(RawBy::Alert) => By::Alert,
            Some(RawBy::Group) | None => By::Group,
        }),
        Some(RawFormat::Canonical) | None => {
            if raw.by.is_some() {
                context.error(at, "`by` belongs to the format `alertmanager`; remove it or set that format");
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

/// The state values. The engine tells phases apart by them, so no value may mean two.
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
    context.column_name(&join(at, "column"), &model.column);
    let mut seen = BTreeSet::new();
    let single = [&model.new, &model.in_progress, &model.resolved];
    for value in single.into_iter().chain(&model.on_hold).chain(&model.closed) {
        if value.is_empty() {
            context.error(at, "a state value is empty");
        } else if !seen.insert(value) {
            context.error(at, &format!("the value `{value}` means two states; each value may stand once"));
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
    let freshness = raw.row_freshness.as_deref();
    let freshness = context.duration_in(&key("row_freshness"), freshness, time(default.row_freshness), ("0", "365d"));
    let budget = raw.budget.as_ref();
    let size = budget.and_then(|b| b.size.as_deref()).map_or(default.budget.1, |text| {
        human::size(text).unwrap_or_else(|message| {
            context.error(&join(&key("budget"), "size"), &message);
            default.budget.1
        })
    });
    if size < 1 << 20 {
        context.error(&join(&key("budget"), "size"), "must be at least 1MiB, so that any one record fits");
    }
    let mut overwrite = BTreeSet::new();
    for (column, whose) in raw.people.iter().flatten() {
        context.column_name(&join(&key("people"), column), column);
        if *whose == RawPeople::Overwrite {
            overwrite.insert(column.as_str().into());
        }
    }
    let max_poll_interval = millis(kafka.max_poll_interval);
    Settings {
        bridge_user: instance.auth.user().to_owned(),
        reopen_window: millis(window),
        row_freshness: millis(freshness),
        request_deadline: millis(instance.request_deadline),
        settle_time: millis(instance.settle_time),
        session_timeout: millis(kafka.session_timeout),
        max_poll_interval,
        // A short interval, as tests have it, must leave some lease over.
        poll_margin: default.poll_margin.min(max_poll_interval / 4),
        // A claim is acked within milliseconds; of many slots some will have come free by then.
        claims_ahead: 2 + instance.concurrency / 8,
        auth_retry: (millis(instance.auth_retry.0), millis(instance.auth_retry.1)),
        flapping: flapping(raw.flapping.as_ref(), &key("flapping"), context),
        brake: raw.brake.unwrap_or(default.brake),
        budget: (budget.and_then(|b| b.events).map_or(default.budget.0, |n| n as usize), size),
        note_limit: raw.note_limit.map_or(default.note_limit, |n| n as usize),
        overwrite,
        ..default
    }
}

fn flapping(raw: Option<&RawFlapping>, at: &str, context: &mut Context<'_>) -> Option<Flapping> {
    let raw = raw?;
    let ten = Duration::from_secs(600);
    let bounds = ("1s", "24h");
    Some(Flapping {
        changes: raw.changes.map_or(6, |n| n as usize),
        within: rules::span(&join(at, "within"), raw.within.as_deref(), ten, bounds, context),
        hold: rules::span(&join(at, "hold"), raw.hold.as_deref(), ten, rules::LONGEST_HOLD, context),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
