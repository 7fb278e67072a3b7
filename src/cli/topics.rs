//! `nowbridge topics create`: creates the topics of a configuration, or prints them with the ACLs that they need.

use anyhow::{Context, Result};

use crate::bridge::topics::{input_partitions, layout, rights, strictness};
use crate::bridge::{KAFKA_TIMEOUT, clients};
use crate::config::Config;
use crate::kafka::topics::{Strictness, TopicSpec, Topics};

/// The command.
///
/// # Errors
/// The cluster does not answer or refuses.
pub async fn create(config: Config, print: bool, partitions: i32) -> Result<()> {
    let options = clients::kafka(&config.kafka);
    let topics = Topics::new(&options, KAFKA_TIMEOUT);
    let strictness = strictness(&config, false);
    let inputs = if print {
        // Shown without a cluster too: what is not known is shown as it would be made.
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
        show(&config, &all, strictness);
        return Ok(());
    }
    let made = topics.create_missing(&all, strictness).await.context("can't make the topics")?;
    for name in &made {
        println!("made {name}");
    }
    println!("{} topics made, {} were there", made.len(), all.len() - made.len());
    Ok(())
}

fn show(config: &Config, specs: &[TopicSpec], strictness: Strictness) {
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
    println!("\nrights that the bridge's Kafka user needs");
    for line in rights(config) {
        println!("  {line}");
    }
}
