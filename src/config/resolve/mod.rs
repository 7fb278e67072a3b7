//! Resolves the raw configuration: fills in defaults, parses units, and checks names and dependencies between keys.
//! Each error is added to the context and resolving continues, so that all errors are reported at once.

mod context;
mod event;
mod instance;
mod kafka;
mod key_filters;
mod rules;
mod sink;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::raw::Raw;
use super::resolved::{Admin, Config, Instance, Topics};
use super::validate::join;
pub(super) use context::Context;

/// Resolves `raw`. The result is valid only if the context contains no errors.
pub(super) fn resolve(raw: Raw, path: &Path, context: &mut Context<'_>) -> Config {
    let mut instances = BTreeMap::new();
    for (name, raw) in raw.instances.unwrap_or_default() {
        let at = join("instances", &name);
        context.check_name(&at, &name);
        instances.insert(name.clone(), Arc::new(instance::resolve(name, raw, &at, context)));
    }
    if instances.is_empty() && context.has("instances") {
        context.error("instances", "add at least one ServiceNow instance");
    }
    let kafka = kafka::resolve(raw.kafka.unwrap_or_default(), context);
    let topics = topics(raw.topics.unwrap_or_default(), context);
    let mut sinks = Vec::new();
    for (name, raw) in raw.sinks.unwrap_or_default() {
        let at = join("sinks", &name);
        context.check_name(&at, &name);
        let instance = route_instance(raw.instance.as_deref(), &at, &instances, context);
        sinks.push(sink::resolve(name, raw, &at, instance, &kafka, &topics, context));
    }
    let mut sources = Vec::new();
    for (name, raw) in raw.sources.unwrap_or_default() {
        let at = join("sources", &name);
        context.check_name(&at, &name);
        let instance = route_instance(raw.instance.as_deref(), &at, &instances, context);
        sources.push(source::resolve(name, raw, &at, instance, &topics, context));
    }
    if sinks.is_empty() && sources.is_empty() {
        context.error("", "there is no route; add one under `sinks` (Kafka to ServiceNow) or `sources` (the reverse)");
    }
    let admin = admin(raw.admin.and_then(|admin| admin.listen), context);
    let config = Config { path: path.to_owned(), instances, kafka, topics, sinks, sources, admin };
    check_topics(&config, context);
    key_filters::check_key_filters(&config, context);
    config
}

fn topics(raw: super::raw::RawTopics, context: &mut Context<'_>) -> Topics {
    let prefix = raw.prefix.unwrap_or_else(|| "nowbridge".into());
    context.check_topic_name("topics.prefix", &prefix);
    let unsafe_topics = raw.unsafe_topics.unwrap_or(false);
    let replication = raw.replication.unwrap_or(if unsafe_topics { 1 } else { 3 });
    if replication < 3 && !unsafe_topics {
        let message = "below 3, the loss of one broker can lose acknowledged records, which breaks the delivery \
                       guarantees; use 3 or more, or set `unsafe_topics: true` for a demo or a test";
        context.error("topics.replication", message);
    }
    Topics { prefix, replication: i32::try_from(replication).unwrap_or(3), unsafe_topics }
}

fn admin(listen: Option<String>, context: &mut Context<'_>) -> Admin {
    let text = listen.unwrap_or_else(|| "127.0.0.1:9464".into());
    let listen = text.parse().unwrap_or_else(|_| {
        context.error("admin.listen", &format!("`{text}` is not an address; use for example `127.0.0.1:9464`"));
        std::net::SocketAddr::from(([127, 0, 0, 1], 9464))
    });
    Admin { listen }
}

/// Returns the instance of a route; if the name is invalid, adds an error and returns a placeholder.
fn route_instance(
    name: Option<&str>,
    at: &str,
    instances: &BTreeMap<String, Arc<Instance>>,
    context: &mut Context<'_>,
) -> Arc<Instance> {
    let known = || instances.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let found = match name {
        Some(name) => {
            let found = instances.get(name);
            if found.is_none() {
                let message = format!("there is no instance `{name}`; the instances are: {}", known());
                context.error(&join(at, "instance"), &message);
            }
            found
        }
        None if instances.len() > 1 => {
            context.error(at, &format!("`instance` is missing; select one of: {}", known()));
            None
        }
        None => instances.values().next(),
    };
    found.cloned().unwrap_or_else(|| Arc::new(instance::placeholder()))
}

/// Checks that no topic is used twice, since the bridge would read its own output, and that no sinks share a consumer
/// group.
fn check_topics(config: &Config, context: &mut Context<'_>) {
    let mut uses: BTreeMap<&str, (String, String)> = BTreeMap::new();
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    let checkpoints = config.topics.checkpoints();
    let ownership = config.topics.ownership();
    let redrives = config.topics.redrives();
    let internal = |name| ("topics.prefix".to_owned(), format!("the bridge's own {name} topic"));
    uses.insert(&checkpoints, internal("checkpoints"));
    uses.insert(&ownership, internal("ownership"));
    uses.insert(&redrives, internal("redrives"));
    let mut inputs: BTreeMap<&str, String> = BTreeMap::new();
    let mut reserve = |topic, key: String, usage: String, context: &mut Context<'_>| {
        if let Some((_, existing)) = uses.get(topic) {
            context.error(&key, &format!("the topic `{topic}` is already {existing}; use a different topic"));
        } else {
            uses.insert(topic, (key, usage));
        }
    };
    for sink in &config.sinks {
        let at = join("sinks", &sink.name);
        let mut reserve = |topic, key: &str, usage: &str, context: &mut Context<'_>| {
            reserve(topic, join(&at, key), format!("the {usage} of the sink `{}`", sink.name), context);
        };
        reserve(&sink.ledger, "ledger", "ledger", context);
        reserve(&sink.dead_letters, "dead_letters", "dead-letter topic", context);
        if let Some(results) = &sink.results {
            reserve(results, "results", "results topic", context);
        }
        if let Some(repartition_topic) = &sink.repartition_topic {
            reserve(repartition_topic, "repartition_topic", "internal topic", context);
        }
        if let Some(grouping) = &sink.grouping {
            reserve(&grouping.input_topic, "repartition_topic", "second internal topic", context);
            reserve(&grouping.state_topic, "repartition_topic", "state topic of its groups", context);
        }
        inputs.entry(&sink.topic).or_insert_with(|| join(&at, "topic"));
        for (group, _) in sink.consumer_groups() {
            if let Some(existing) = groups.insert(group, sink.name.clone()) {
                let message = format!(
                    "the sink `{existing}` has the same consumer group (a route with `repartition` also has \
                     `<group>.repartition`, and one with `grouping` also `<group>.grouping`); use a different group"
                );
                context.error(&join(&at, "group"), &message);
            }
        }
    }
    for source in &config.sources {
        let at = join("sources", &source.name);
        let usage = |topic| format!("the {topic} of the source `{}`", source.name);
        reserve(&source.topic, join(&at, "topic"), usage("change topic"), context);
        reserve(&source.rows, join(&at, "rows"), usage("rows topic"), context);
    }
    for (topic, key) in inputs {
        reserve(topic, key, "the input of a sink".into(), context);
    }
}
