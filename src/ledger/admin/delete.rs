//! A key forgotten: people's data in it, or a ticket that the bridge is to know nothing of any more.
//!
//! The ledger's records of the key are replaced by tombstones, and so is what source routes remember of its tickets'
//! rows. What was published stays until its topic's retention ends, and the ticket stays in ServiceNow: where, is
//! told. A later event of the key is one of an alert that was never seen.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Error, Site};
use crate::kafka::topics::Topics;
use crate::ledger;

/// Where a key stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Ledger records, by partition.
    pub records: BTreeSet<(i32, String)>,
    /// Its tickets' sys_ids, earlier ones too.
    pub tickets: BTreeSet<String>,
    /// Its last ticket's number.
    pub number: Option<String>,
    /// Raw state of its last ticket.
    pub state: Option<String>,
}

/// What stands in the ledger of a key.
///
/// # Errors
/// The cluster does not answer.
pub async fn traces(site: &Site, key: &str) -> Result<Traces, Error> {
    let mut traces = Traces::default();
    for partition in 0..site.partitions {
        for record in ledger::find(site.place(partition), key).await? {
            let text = |path: &str| record.pointer(path).and_then(serde_json::Value::as_str).map(str::to_owned);
            let Some(name) = text("/name") else { continue };
            if name.starts_with("entry:") {
                traces.tickets.extend(text("/value/d/id"));
                let earlier = record.pointer("/value/d/e").and_then(serde_json::Value::as_array);
                traces.tickets.extend(earlier.into_iter().flatten().filter_map(|id| id.as_str()).map(str::to_owned));
                traces.number = text("/value/d/no");
                traces.state = text("/value/d/s/st");
            }
            traces.records.insert((partition, name));
        }
    }
    Ok(traces)
}

/// Removes them, and what these topics of source routes remember of the tickets' rows. Answers how many records were
/// removed of the ledger.
///
/// # Errors
/// The cluster does not take a record; the command may be given again.
pub async fn forget(site: &Site, traces: &Traces, rows: &[String]) -> Result<usize, Error> {
    for topic in rows {
        let partitions = Topics::new(&site.options, site.timeout).partitions(topic).await?;
        // One partition, which its source route makes; without it nothing is remembered.
        if partitions.is_none() {
            continue;
        }
        let topic: Arc<str> = topic.as_str().into();
        let tombstones = traces.tickets.iter().map(|id| (id.clone().into_bytes(), None));
        site.write(&topic, 0, tombstones).await?;
    }
    for (partition, name) in &traces.records {
        site.write(&site.ledger, *partition, [(name.clone().into_bytes(), None)]).await?;
    }
    Ok(traces.records.len())
}
