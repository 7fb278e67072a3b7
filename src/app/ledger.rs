//! `nowbridge ledger get`: what the ledger remembers of a key, read without taking anything over.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::clients;
use crate::config::{Config, Sink};
use crate::kafka::topics::Topics;
use crate::ledger::{self, Place};

/// Prints the records of a key as JSON.
///
/// # Errors
/// The route or the ledger is not there, or the cluster does not answer.
pub async fn get(config: Config, route: Option<String>, key: String) -> Result<()> {
    let sink = choose(&config, route.as_deref())?;
    let options = clients::kafka(&config.kafka);
    let timeout = Duration::from_secs(15);
    let state = Topics::new(&options, timeout).partitions(&sink.ledger).await?;
    let partitions = state.with_context(|| format!("the ledger {} does not exist yet", sink.ledger))?;
    let mut found = Vec::new();
    for partition in 0..partitions {
        let place = Place {
            options: options.clone(),
            topic: sink.ledger.as_str().into(),
            group: sink.group.clone(),
            partition,
            timeout,
        };
        let records = ledger::find(place, &key).await?;
        found.extend(records.into_iter().map(|record| json!({ "partition": partition, "record": record })));
    }
    if found.is_empty() {
        bail!(
            "the ledger {} knows nothing of key {key:?}: never seen, or forgotten after the reopen window",
            sink.ledger
        );
    }
    println!("{}", serde_json::to_string_pretty(&found)?);
    Ok(())
}

pub(super) fn choose<'a>(config: &'a Config, route: Option<&str>) -> Result<&'a Sink> {
    let names: Vec<&str> = config.sinks.iter().map(|s| s.name.as_str()).collect();
    match route {
        Some(name) => config
            .sinks
            .iter()
            .find(|s| s.name == name)
            .with_context(|| format!("there is no sink route {name:?}; there are: {}", names.join(", "))),
        None if config.sinks.len() == 1 => Ok(&config.sinks[0]),
        None => bail!("say which route with --route: {}", names.join(", ")),
    }
}
