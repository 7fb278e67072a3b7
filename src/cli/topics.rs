//! `nowbridge topics create`: creates the topics of a configuration, or prints them with the required ACLs.

use anyhow::{Context, Result};

use crate::bridge::topics::{acls, input_partitions, layout, strictness};
use crate::bridge::{KAFKA_TIMEOUT, clients};
use crate::config::Config;
use crate::kafka::topics::{Strictness, TopicSpec, Topics};

/// Creates missing topics, or prints all topics.
///
/// # Errors
/// The cluster does not respond, or rejects a request.
pub async fn create(config: Config, print: bool, partitions: i32) -> Result<()> {
    let options = clients::kafka(&config.kafka);
    let topics = Topics::new(&options, KAFKA_TIMEOUT);
    let strictness = strictness(&config, false);
    let inputs = if print {
        // Also works without a cluster; unknown numbers of partitions are printed as they would be created.
        input_partitions(&config, &topics, Some(partitions)).await.unwrap_or(vec![partitions; config.sinks.len()])
    } else {
        input_partitions(&config, &topics, Some(partitions)).await?
    };
    let mut layout = layout(&config, &inputs);
    for (input, count) in layout.inputs.iter_mut().zip(&inputs) {
        input.partitions.get_or_insert(*count);
    }
    let all: Vec<TopicSpec> = layout.inputs.into_iter().chain(layout.own).collect();
    if print {
        print_topics(&config, &all, strictness);
        return Ok(());
    }
    let created = topics.create_missing(&all, strictness).await.context("can't create the topics")?;
    for name in &created {
        println!("created {name}");
    }
    println!("{} topics created, {} already exist", created.len(), all.len() - created.len());
    Ok(())
}

fn print_topics(config: &Config, specs: &[TopicSpec], strictness: Strictness) {
    println!("topics");
    for spec in specs {
        let settings: Vec<String> =
            Topics::creation_settings(spec, strictness).iter().map(|(name, value)| format!("{name}={value}")).collect();
        println!(
            "  {}  partitions={} replication={} {}",
            spec.name,
            spec.partitions.unwrap_or(1),
            spec.replication.unwrap_or(1),
            settings.join(" ")
        );
    }
    println!("\nACLs that the bridge's Kafka user needs");
    for line in acls(config) {
        println!("  {line}");
    }
}
