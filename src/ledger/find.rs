//! Read-only look-ups in a ledger, for commands and checks: the records of one key, and what the ledger belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::header::Identity;
use super::partition::LedgerPartition;
use super::wire::{self, WireKey};
use crate::engine::event::LedgerKey;
use crate::kafka::topics::Topics;
use crate::kafka::{self, KafkaOptions, table};

/// Returns the records of `key` in a partition, as `{name, offset, value}`, in the order of their offsets.
///
/// # Errors
/// The cluster does not answer.
pub async fn find_records(partition: LedgerPartition, key: &str) -> Result<Vec<serde_json::Value>, kafka::Error> {
    let (topic, key): (_, Arc<str>) = (Arc::clone(&partition.topic), key.into());
    let read = tokio::task::spawn_blocking(move || {
        let mut latest: BTreeMap<Vec<u8>, (i64, serde_json::Value)> = BTreeMap::new();
        table::read(&partition.options, &partition.table_read(), &mut |record| {
            let Some(name) = record.key.filter(|k| belongs_to(k, &key)) else { return };
            match record.value {
                None => {
                    latest.remove(name);
                }
                Some(value) => {
                    let value = serde_json::from_slice(value).unwrap_or(serde_json::Value::Null);
                    latest.insert(name.to_vec(), (record.offset, value));
                }
            }
        })?;
        Ok(latest)
    });
    let latest = read.await.map_err(|_| kafka::Error::Unexpected(format!("reading {topic} was interrupted")))??;
    let mut found: Vec<(i64, serde_json::Value)> = latest
        .into_iter()
        .map(|(name, (offset, value))| {
            let name = String::from_utf8_lossy(&name).into_owned();
            (offset, serde_json::json!({ "name": name, "offset": offset, "value": value }))
        })
        .collect();
    found.sort_by_key(|(offset, _)| *offset);
    Ok(found.into_iter().map(|(_, value)| value).collect())
}

/// Returns what the ledger belongs to, from the header of partition 0; `None` if there is no header or no ledger.
///
/// # Errors
/// The cluster does not answer.
pub async fn read_identity(
    options: &KafkaOptions,
    topic: &str,
    group: &str,
    timeout: Duration,
) -> Result<Option<Identity>, kafka::Error> {
    if Topics::new(options, timeout).partitions(topic).await?.is_none() {
        return Ok(None);
    }
    let partition = LedgerPartition {
        options: options.clone(),
        topic: topic.into(),
        group: group.to_owned(),
        partition: 0,
        timeout,
    };
    let read = tokio::task::spawn_blocking(move || partition.read_header());
    let found = read.await.map_err(|_| kafka::Error::Unexpected(format!("reading {topic} was interrupted")))??;
    Ok(found.map(|header| header.identity))
}

fn belongs_to(name: &[u8], key: &str) -> bool {
    match wire::decode_key(name) {
        Ok(WireKey::WithToken(LedgerKey::Entry(k) | LedgerKey::Claim(k) | LedgerKey::Park(k), _)) => &*k == key,
        _ => false,
    }
}
