//! The topics of a configuration: which ones it needs, created where they are missing, and the ACLs that the bridge
//! needs on them.

use anyhow::{Context, Result, bail};

use crate::config::Config;
use crate::kafka::topics::{Finding, Purpose, Strictness, TopicSpec, Topics};

/// Topics that a configuration uses. The number of partitions of an input topic decides that of its ledger.
pub struct Layout {
    /// Input topics of sink routes.
    pub inputs: Vec<TopicSpec>,
    /// What the bridge makes for itself.
    pub own: Vec<TopicSpec>,
}

/// Strictness that the configuration asks for.
pub fn strictness(config: &Config, embedded: bool) -> Strictness {
    Strictness { unsafe_topics: config.topics.unsafe_topics, embedded }
}

/// The layout, given the partitions of each sink's input topic, in the order of the sinks.
pub fn layout(config: &Config, inputs: &[i32]) -> Layout {
    let replication = config.topics.replication;
    let spec =
        |name: &str, purpose, partitions| TopicSpec::new(name, purpose).partitions(partitions).replication(replication);
    let mut layout = Layout { inputs: Vec::new(), own: Vec::new() };
    for (sink, &partitions) in config.sinks.iter().zip(inputs) {
        if let Some(rekeyed) = &sink.rekeyed {
            // The user's topic may have any number of partitions; those of the internal one count.
            layout.inputs.push(TopicSpec::new(&sink.topic, Purpose::Input).replication(replication));
            layout.own.push(spec(rekeyed, Purpose::Rekeyed, partitions));
            if let Some(digest) = &sink.digest {
                layout.own.push(spec(&digest.grouped, Purpose::Rekeyed, partitions));
                layout.own.push(spec(&digest.table, Purpose::Table, partitions));
            }
        } else {
            layout.inputs.push(spec(&sink.topic, Purpose::Input, partitions));
        }
        layout.own.push(spec(&sink.ledger, Purpose::Ledger, partitions));
        layout.own.push(spec(&sink.dead_letters, Purpose::DeadLetters, partitions));
        layout.own.extend(sink.results.iter().map(|name| spec(name, Purpose::Stream, partitions)));
    }
    if !config.sinks.is_empty() {
        layout.own.push(spec(&config.topics.redrives(), Purpose::Table, 1));
    }
    if !config.sources.is_empty() {
        let routes = i32::try_from(config.sources.len()).unwrap_or(i32::MAX);
        layout.own.push(spec(&config.topics.checkpoints(), Purpose::Table, 1));
        layout.own.push(spec(&config.topics.ownership(), Purpose::Stream, routes));
    }
    for source in &config.sources {
        layout.own.push(spec(&source.topic, Purpose::Stream, 1));
        layout.own.push(spec(&source.rows, Purpose::Table, 1));
    }
    layout
}

/// Partitions of the topic that each sink reads; topics that are missing count as `otherwise`. An internal topic that is
/// not there yet will have as many as the topic that is re-keyed.
///
/// # Errors
/// The cluster does not answer, or a topic is missing and `otherwise` is `None`.
pub async fn input_partitions(config: &Config, topics: &Topics, otherwise: Option<i32>) -> Result<Vec<i32>> {
    let mut counts = Vec::new();
    for sink in &config.sinks {
        let found = topics.partitions(&sink.topic).await.with_context(|| format!("can't look at {}", sink.topic))?;
        let internal = match &sink.rekeyed {
            Some(topic) => topics.partitions(topic).await.with_context(|| format!("can't look at {topic}"))?,
            None => None,
        };
        match (found.map(|partitions| internal.unwrap_or(partitions)), otherwise) {
            (Some(partitions), _) => counts.push(partitions),
            (None, Some(partitions)) => counts.push(partitions),
            (None, None) => bail!(
                "route {}: its input topic {} does not exist; make it, or let `nowbridge topics create` make it",
                sink.name,
                sink.topic
            ),
        }
    }
    Ok(counts)
}

/// Makes what is missing, then tells everything that is wrong. For `run`: input topics must exist already.
///
/// # Errors
/// The cluster refuses, or a topic can't be used as it is.
pub async fn ensure(config: &Config, topics: &Topics, strictness: Strictness) -> Result<Vec<i32>> {
    let inputs = input_partitions(config, topics, None).await?;
    let layout = layout(config, &inputs);
    let made = topics.create_missing(&layout.own, strictness).await.context("can't make the bridge's topics")?;
    for topic in made {
        tracing::info!(topic, "made a topic");
    }
    let all: Vec<TopicSpec> = layout.inputs.into_iter().chain(layout.own).collect();
    let findings = topics.check(&all, strictness).await.context("can't check the topics")?;
    let line = |f: &Finding| format!("{}: {}; {}", f.topic, f.what, f.remedy);
    for finding in findings.iter().filter(|f| !f.fatal) {
        tracing::warn!("{}", line(finding));
    }
    let fatal: Vec<String> = findings.iter().filter(|f| f.fatal).map(|f| format!("\n  {}", line(f))).collect();
    if fatal.is_empty() {
        return Ok(inputs);
    }
    bail!("topics can't be used as they are:{}", fatal.concat())
}

/// The ACLs, in the words of `kafka-acls`.
pub fn rights(config: &Config) -> Vec<String> {
    let mut lines = vec!["IdempotentWrite, Describe on the cluster".to_owned()];
    for sink in &config.sinks {
        lines.push(format!("Read, Describe on topic {}", sink.topic));
        lines.push(format!("Read, Write, Describe, DescribeConfigs on topic {}", sink.ledger));
        lines.push(format!("Write, Describe on topic {}", sink.dead_letters));
        lines.extend(sink.results.iter().map(|name| format!("Write, Describe on topic {name}")));
        lines.push(format!("Read on group {}", sink.group));
        if let Some(rekeyed) = &sink.rekeyed {
            let prefix = &config.topics.prefix;
            lines.push(format!("Read, Write, Describe, DescribeConfigs on topic {rekeyed}"));
            lines.push(format!("Read on group {}", sink.rekey_group()));
            lines.push(format!("Write, Describe on transactional ids {prefix}.rekey.{}.*", sink.name));
            if let Some(digest) = &sink.digest {
                for topic in [&digest.grouped, &digest.table] {
                    lines.push(format!("Read, Write, Describe, DescribeConfigs on topic {topic}"));
                }
                lines.push(format!("Read on group {}", sink.digest_group()));
                lines.push(format!("Write, Describe on transactional ids {prefix}.digest.{}.*", sink.name));
            }
        }
    }
    if !config.sources.is_empty() {
        let prefix = &config.topics.prefix;
        lines.push(format!("Read, Write, Describe, DescribeConfigs on topic {}", config.topics.checkpoints()));
        lines.push(format!("Read, Describe on topic {}", config.topics.ownership()));
        lines.push(format!("Read on groups with prefix {prefix}"));
    }
    for source in &config.sources {
        lines.push(format!("Write, Describe on topic {}", source.topic));
        lines.push(format!("Read, Write, Describe, DescribeConfigs on topic {}", source.rows));
        lines.push(format!("Write, Describe on transactional id {}.{}", config.topics.prefix, source.name));
    }
    if !config.sinks.is_empty() {
        let prefix = &config.topics.prefix;
        lines.push(format!("for `dead-letters redrive`: Read, Write, Describe on topic {}", config.topics.redrives()));
        lines.push("for `dead-letters redrive` and `resync`: Write on the topics that sinks read".to_owned());
        lines.push("for `dead-letters redrive`: Read on the dead-letter topics".to_owned());
        lines.push(format!("for `dead-letters redrive`: Write, Describe on transactional ids {prefix}.redrive.*"));
    }
    lines.push("Create on the topics above, unless somebody else makes them".to_owned());
    lines
}
