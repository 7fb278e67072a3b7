//! Deletes a key from the ledger: because it contains personal data, or so that the bridge forgets its ticket.
//!
//! The ledger records of the key get tombstones, and so does the last published state of its tickets' rows in the
//! topics of source routes. Published changes stay until the retention of their topic ends, and the ticket stays in
//! ServiceNow; the command lists both. A later event of the key is treated as that of a new alert.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Error, RouteLedger};
use crate::kafka::topics::Topics;
use crate::ledger;

/// The ledger records of a key, and its tickets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRecords {
    /// Partition and record key of each ledger record.
    pub ledger_records: BTreeSet<(i32, String)>,
    /// sys_ids of its tickets, earlier ones included.
    pub tickets: BTreeSet<String>,
    /// Number of its last ticket.
    pub number: Option<String>,
    /// Raw state of its last ticket.
    pub state: Option<String>,
}

/// Finds the ledger records of a key.
///
/// # Errors
/// The cluster does not respond.
pub async fn find_key_records(ledger: &RouteLedger, key: &str) -> Result<KeyRecords, Error> {
    let mut records = KeyRecords::default();
    for partition in 0..ledger.partitions {
        for record in ledger::find_records(ledger.partition(partition), key).await? {
            let text = |path: &str| record.pointer(path).and_then(serde_json::Value::as_str).map(str::to_owned);
            let Some(name) = text("/name") else { continue };
            if name.starts_with("entry:") {
                records.tickets.extend(text("/value/d/id"));
                let earlier = record.pointer("/value/d/e").and_then(serde_json::Value::as_array);
                records.tickets.extend(earlier.into_iter().flatten().filter_map(|id| id.as_str()).map(str::to_owned));
                records.number = text("/value/d/no");
                records.state = text("/value/d/s/st");
            }
            records.ledger_records.insert((partition, name));
        }
    }
    Ok(records)
}

/// Deletes the records of a key, and its tickets from the given `rows` topics of source routes. Returns how many ledger
/// records were deleted.
///
/// # Errors
/// The cluster rejects a record. The command can be repeated.
pub async fn delete(ledger: &RouteLedger, records: &KeyRecords, rows: &[String]) -> Result<usize, Error> {
    for topic in rows {
        let partitions = Topics::new(&ledger.options, ledger.timeout).partitions(topic).await?;
        // The source route creates the topic, with one partition; without the topic there is nothing to delete.
        if partitions.is_none() {
            continue;
        }
        let topic: Arc<str> = topic.as_str().into();
        let tombstones = records.tickets.iter().map(|id| (id.clone().into_bytes(), None));
        ledger.write(&topic, 0, tombstones).await?;
    }
    for (partition, name) in &records.ledger_records {
        ledger.write(&ledger.topic, *partition, [(name.clone().into_bytes(), None)]).await?;
    }
    Ok(records.ledger_records.len())
}
