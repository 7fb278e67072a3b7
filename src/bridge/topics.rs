//! The topics of a configuration: creates and checks them, and lists the ACLs that the bridge needs.

use anyhow::{Context, Result, bail};

use crate::config::Config;
use crate::kafka::topics::{Finding, Purpose, Strictness, TopicSpec, Topics};

/// Topics that a configuration uses. The number of partitions of an input topic decides that of its ledger.
pub struct Layout {
    /// Input topics of sink routes.
    pub inputs: Vec<TopicSpec>,
    /// Topics that the bridge creates for itself.
    pub own: Vec<TopicSpec>,
}

/// Returns the strictness of topic checks that the configuration sets.
pub fn strictness(config: &Config, embedded: bool) -> Strictness {
    Strictness { unsafe_topics: config.topics.unsafe_topics, embedded }
}

/// Returns the layout. `inputs` are the partitions of the topics that the sinks read, in the order of the sinks.
pub fn layout(config: &Config, inputs: &[i32]) -> Layout {
    let replication = config.topics.replication;
    let spec =
        |name: &str, purpose, partitions| TopicSpec::new(name, purpose).partitions(partitions).replication(replication);
    let mut layout = Layout { inputs: Vec::new(), own: Vec::new() };
    for (sink, &partitions) in config.sinks.iter().zip(inputs) {
        if let Some(repartition_topic) = &sink.repartition_topic {
            // The user's topic may have any number of partitions; the number of the internal topic counts.
            layout.inputs.push(TopicSpec::new(&sink.topic, Purpose::Input).replication(replication));
            layout.own.push(spec(repartition_topic, Purpose::Repartitioned, partitions));
            if let Some(grouping) = &sink.grouping {
                layout.own.push(spec(&grouping.input_topic, Purpose::Repartitioned, partitions));
                layout.own.push(spec(&grouping.state_topic, Purpose::Table, partitions));
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

/// Returns the number of partitions of the topic that each sink reads; `default` for missing topics. A missing internal
/// topic gets as many partitions as the user's topic.
///
/// # Errors
/// The cluster does not respond, or a topic is missing and `default` is `None`.
pub async fn input_partitions(config: &Config, topics: &Topics, default: Option<i32>) -> Result<Vec<i32>> {
    let mut counts = Vec::new();
    for sink in &config.sinks {
        let found = topics
            .partitions(&sink.topic)
            .await
            .with_context(|| format!("can't read the metadata of topic {}", sink.topic))?;
        let internal = match &sink.repartition_topic {
            Some(topic) => {
                topics.partitions(topic).await.with_context(|| format!("can't read the metadata of topic {topic}"))?
            }
            None => None,
        };
        match (found.map(|partitions| internal.unwrap_or(partitions)), default) {
            (Some(partitions), _) => counts.push(partitions),
            (None, Some(partitions)) => counts.push(partitions),
            (None, None) => bail!(
                "route {}: its input topic {} does not exist; create it, for example with `nowbridge topics create`",
                sink.name,
                sink.topic
            ),
        }
    }
    Ok(counts)
}

/// Creates missing topics of the bridge, then checks all topics. Input topics must already exist.
///
/// # Errors
/// The cluster rejects a request, or a topic is unusable; the error lists all problems.
pub async fn ensure(config: &Config, topics: &Topics, strictness: Strictness) -> Result<Vec<i32>> {
    let inputs = input_partitions(config, topics, None).await?;
    let layout = layout(config, &inputs);
    let created = topics.create_missing(&layout.own, strictness).await.context("can't create the bridge's topics")?;
    for topic in created {
        tracing::info!(topic, "topic created");
    }
    let all: Vec<TopicSpec> = layout.inputs.into_iter().chain(layout.own).collect();
    let findings = topics.check(&all, strictness).await.context("can't check the topics")?;
    let line = |f: &Finding| format!("{}: {}; {}", f.topic, f.problem, f.remedy);
    for finding in findings.iter().filter(|f| !f.fatal) {
        tracing::warn!("{}", line(finding));
    }
    let fatal: Vec<String> = findings.iter().filter(|f| f.fatal).map(|f| format!("\n  {}", line(f))).collect();
    if fatal.is_empty() {
        return Ok(inputs);
    }
    bail!("unusable topics:{}", fatal.concat())
}

/// Returns the required ACLs, with the operation names of `kafka-acls`.
pub fn acls(config: &Config) -> Vec<String> {
    let mut lines = vec!["IdempotentWrite, Describe on the cluster".to_owned()];
    for sink in &config.sinks {
        lines.push(format!("Read, Describe on topic {}", sink.topic));
        lines.push(format!("Read, Write, Describe, DescribeConfigs on topic {}", sink.ledger));
        lines.push(format!("Write, Describe on topic {}", sink.dead_letters));
        lines.extend(sink.results.iter().map(|name| format!("Write, Describe on topic {name}")));
        lines.push(format!("Read on group {}", sink.group));
        if let Some(repartition_topic) = &sink.repartition_topic {
            let prefix = &config.topics.prefix;
            lines.push(format!("Read, Write, Describe, DescribeConfigs on topic {repartition_topic}"));
            lines.push(format!("Read on group {}", sink.repartition_group()));
            lines.push(format!("Write, Describe on transactional ids {prefix}.repartition.{}.*", sink.name));
            if let Some(grouping) = &sink.grouping {
                for topic in [&grouping.input_topic, &grouping.state_topic] {
                    lines.push(format!("Read, Write, Describe, DescribeConfigs on topic {topic}"));
                }
                lines.push(format!("Read on group {}", sink.grouping_group()));
                lines.push(format!("Write, Describe on transactional ids {prefix}.grouping.{}.*", sink.name));
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
    lines.push("Create on the topics above, unless they already exist".to_owned());
    lines
}
