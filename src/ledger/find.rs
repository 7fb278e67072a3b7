//! What stands in a ledger partition about one key, for people, and what the ledger belongs to: read only, nothing is
//! taken over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::header::Identity;
use super::survey::LedgerPartition;
use super::wire::{self, WireKey};
use crate::engine::event::LedgerKey;
use crate::kafka::topics::Topics;
use crate::kafka::{self, KafkaOptions, table};

/// The records about `key` that stand in a partition, as `{name, offset, value}`, in the order of their offsets.
///
/// # Errors
/// The cluster does not answer.
pub async fn find(place: LedgerPartition, key: &str) -> Result<Vec<serde_json::Value>, kafka::Error> {
    let (topic, key): (_, Arc<str>) = (Arc::clone(&place.topic), key.into());
    let read = tokio::task::spawn_blocking(move || {
        let mut standing: BTreeMap<Vec<u8>, (i64, serde_json::Value)> = BTreeMap::new();
        table::read(&place.options, &place.reading(), &mut |record| {
            let Some(name) = record.key.filter(|k| is_about(k, &key)) else { return };
            match record.value {
                None => {
                    standing.remove(name);
                }
                Some(value) => {
                    let value = serde_json::from_slice(value).unwrap_or(serde_json::Value::Null);
                    standing.insert(name.to_vec(), (record.offset, value));
                }
            }
        })?;
        Ok(standing)
    });
    let standing = read.await.map_err(|_| kafka::Error::Unexpected(format!("reading {topic} was cut short")))??;
    let mut found: Vec<(i64, serde_json::Value)> = standing
        .into_iter()
        .map(|(name, (offset, value))| {
            let name = String::from_utf8_lossy(&name).into_owned();
            (offset, serde_json::json!({ "name": name, "offset": offset, "value": value }))
        })
        .collect();
    found.sort_by_key(|(offset, _)| *offset);
    Ok(found.into_iter().map(|(_, value)| value).collect())
}

/// What the ledger belongs to, by the header of its first partition; `None` where that has none yet, or there is no
/// ledger.
///
/// # Errors
/// The cluster does not answer.
pub async fn identity(
    options: &KafkaOptions,
    topic: &str,
    group: &str,
    timeout: Duration,
) -> Result<Option<Identity>, kafka::Error> {
    if Topics::new(options, timeout).partitions(topic).await?.is_none() {
        return Ok(None);
    }
    let place = LedgerPartition {
        options: options.clone(),
        topic: topic.into(),
        group: group.to_owned(),
        partition: 0,
        timeout,
    };
    let read = tokio::task::spawn_blocking(move || place.header());
    let found = read.await.map_err(|_| kafka::Error::Unexpected(format!("reading {topic} was cut short")))??;
    Ok(found.map(|header| header.identity))
}

fn is_about(name: &[u8], key: &str) -> bool {
    match wire::decode_key(name) {
        Ok(WireKey::Tokened(LedgerKey::Entry(k) | LedgerKey::Claim(k) | LedgerKey::Park(k), _)) => &*k == key,
        _ => false,
    }
}
