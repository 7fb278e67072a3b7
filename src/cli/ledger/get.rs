//! `nowbridge ledger get`: the ledger records of one key. Read only: the bridge may be running.

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::super::args::RouteArgs;
use super::super::route_change::Target;
use crate::bridge::{KAFKA_TIMEOUT, clients, stores};
use crate::ledger::{self, LedgerPartition};

/// Prints the records of a key as JSON.
///
/// # Errors
/// The route or the ledger does not exist, the ledger has no record of the key, or the cluster does not respond.
pub async fn get(route: &RouteArgs, key: &str) -> Result<()> {
    let target = Target::load(route)?;
    let sink = target.sink()?;
    let options = clients::kafka(&target.config.kafka);
    let partitions = stores::partitions(&target.config, &sink.ledger).await?;
    let partitions = partitions.with_context(|| format!("the ledger {} does not exist yet", sink.ledger))?;
    let mut found = Vec::new();
    for partition in 0..partitions {
        let ledger_partition = LedgerPartition {
            options: options.clone(),
            topic: sink.ledger.as_str().into(),
            group: sink.group.clone(),
            partition,
            timeout: KAFKA_TIMEOUT,
        };
        let records = ledger::find_records(ledger_partition, key).await?;
        found.extend(records.into_iter().map(|record| json!({ "partition": partition, "record": record })));
    }
    if found.is_empty() {
        bail!(
            "the ledger {} has no record of key {key:?}: the bridge never received it, or its entry expired after the \
             reopen window",
            sink.ledger
        );
    }
    println!("{}", serde_json::to_string_pretty(&found)?);
    Ok(())
}
