//! From the raw configuration to the resolved one: defaults, human units, names, and everything that must fit
//! together. Every problem is noted with its key and the work goes on, so that all come out together.

mod context;
mod event;
mod instance;
mod kafka;
mod rules;
mod sink;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::raw::Raw;
use super::resolved::{Admin, Config, Instance, Topics};
use super::shape::join;
pub(super) use context::Context;

/// Resolves `raw`; what it returns is valid only if the context has no problem.
pub(super) fn resolve(raw: Raw, path: &Path, context: &mut Context<'_>) -> Config {
    let mut instances = BTreeMap::new();
    for (name, one) in raw.instances.unwrap_or_default() {
        let at = join("instances", &name);
        context.name(&at, &name);
        instances.insert(name.clone(), Arc::new(instance::resolve(name, one, &at, context)));
    }
    if instances.is_empty() && context.has("instances") {
        context.error("instances", "name at least one ServiceNow instance");
    }
    let kafka = kafka::resolve(raw.kafka.unwrap_or_default(), context);
    let topics = topics(raw.topics.unwrap_or_default(), context);
    let mut sinks = Vec::new();
    for (name, one) in raw.sinks.unwrap_or_default() {
        let at = join("sinks", &name);
        context.name(&at, &name);
        let instance = route_instance(one.instance.as_deref(), &at, &instances, context);
        sinks.push(sink::resolve(name, one, &at, instance, &kafka, &topics, context));
    }
    let mut sources = Vec::new();
    for (name, one) in raw.sources.unwrap_or_default() {
        let at = join("sources", &name);
        context.name(&at, &name);
        let instance = route_instance(one.instance.as_deref(), &at, &instances, context);
        sources.push(source::resolve(name, one, &at, instance, &topics, context));
    }
    if sinks.is_empty() && sources.is_empty() {
        context
            .error("", "there is no route; add one under `sinks` (Kafka to ServiceNow) or `sources` (the other way)");
    }
    let admin = admin(raw.admin.and_then(|a| a.listen), context);
    let config = Config { path: path.to_owned(), instances, kafka, topics, sinks, sources, admin };
    check_topics(&config, context);
    config
}

fn topics(raw: super::raw::RawTopics, context: &mut Context<'_>) -> Topics {
    let prefix = raw.prefix.unwrap_or_else(|| "nowbridge".into());
    context.topic_name("topics.prefix", &prefix);
    let unsafe_topics = raw.unsafe_topics.unwrap_or(false);
    let replication = raw.replication.unwrap_or(if unsafe_topics { 1 } else { 3 });
    if replication < 3 && !unsafe_topics {
        let message = "below 3, an acknowledged record can be lost with one broker, and the guarantees with it; use 3 \
                       or more, or set `unsafe_topics: true` for a demo or a test";
        context.error("topics.replication", message);
    }
    Topics { prefix, replication: i32::try_from(replication).unwrap_or(3), unsafe_topics }
}

fn admin(listen: Option<String>, context: &mut Context<'_>) -> Admin {
    let text = listen.unwrap_or_else(|| "127.0.0.1:9464".into());
    let listen = text.parse().unwrap_or_else(|_| {
        context.error("admin.listen", &format!("`{text}` is no address; write for example `127.0.0.1:9464`"));
        std::net::SocketAddr::from(([127, 0, 0, 1], 9464))
    });
    Admin { listen }
}

/// The instance of a route. A stand-in where it is wrong, which is reported.
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
                let message = format!("there is no instance `{name}`; under `instances` there are: {}", known());
                context.error(&join(at, "instance"), &message);
            }
            found
        }
        None if instances.len() > 1 => {
            context.error(at, &format!("`instance` is missing; say which one: {}", known()));
            None
        }
        None => instances.values().next(),
    };
    found.cloned().unwrap_or_else(|| Arc::new(instance::stand_in()))
}

/// No topic may have two uses: the bridge would read what it writes.
fn check_topics(config: &Config, context: &mut Context<'_>) {
    let mut uses: BTreeMap<&str, (String, String)> = BTreeMap::new();
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    let checkpoints = config.topics.checkpoints();
    let ownership = config.topics.ownership();
    let redrives = config.topics.redrives();
    let own = |name| ("topics.prefix".to_owned(), format!("the bridge's own {name} topic"));
    uses.insert(&checkpoints, own("checkpoints"));
    uses.insert(&ownership, own("ownership"));
    uses.insert(&redrives, own("redrives"));
    let mut inputs: BTreeMap<&str, String> = BTreeMap::new();
    let mut claim = |topic, key: String, what: String, context: &mut Context<'_>| {
        if let Some((_, other)) = uses.get(topic) {
            context.error(&key, &format!("the topic `{topic}` is already {other}; give each use a topic of its own"));
        } else {
            uses.insert(topic, (key, what));
        }
    };
    for sink in &config.sinks {
        let at = join("sinks", &sink.name);
        let mut of = |topic, key: &str, what: &str, context: &mut Context<'_>| {
            claim(topic, join(&at, key), format!("the {what} of the sink `{}`", sink.name), context);
        };
        of(&sink.ledger, "ledger", "ledger", context);
        of(&sink.dead_letters, "dead_letters", "dead-letter topic", context);
        if let Some(results) = &sink.results {
            of(results, "results", "results topic", context);
        }
        if let Some(rekeyed) = &sink.rekeyed {
            of(rekeyed, "rekeyed", "internal topic", context);
        }
        if let Some(digest) = &sink.digest {
            of(&digest.grouped, "rekeyed", "second internal topic", context);
            of(&digest.table, "rekeyed", "table of groups", context);
        }
        inputs.entry(&sink.topic).or_insert_with(|| join(&at, "topic"));
        for (group, _) in sink.groups() {
            if let Some(other) = groups.insert(group, sink.name.clone()) {
                let message = format!(
                    "the sink `{other}` has the same consumer group (a route with `rekey` has a second one, \
                     `<group>.rekey`, and one with `digest` a third); give each sink a group of its own"
                );
                context.error(&join(&at, "group"), &message);
            }
        }
    }
    for source in &config.sources {
        let at = join("sources", &source.name);
        let what = |what| format!("the {what} of the source `{}`", source.name);
        claim(&source.topic, join(&at, "topic"), what("change topic"), context);
        claim(&source.rows, join(&at, "rows"), what("rows topic"), context);
    }
    for (topic, key) in inputs {
        claim(topic, key, "the input of a sink".into(), context);
    }
}
