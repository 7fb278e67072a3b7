//! Migrates a ledger to a route's new name: copies its records to the ledger topic of the new name, and the group's
//! offsets.
//!
//! Offsets of the new topic start at 0, and a token is an offset. So all records are written under token 0, which no
//! owner can get, and the attempts are renumbered, so that none is taken for one of a later owner. Ambiguous writes
//! cannot be migrated; the command fails if there are any. The old topic is not changed.

use super::{Error, RouteLedger, blocking, require_no_ambiguous_writes};
use crate::engine::event::LedgerWrite;
use crate::kafka::topics::Topics;
use crate::kafka::{groups, table};
use crate::ledger::header::RENAME_COMMAND;
use crate::ledger::{Header, LedgerContent, wire};
use crate::model::{AttemptId, Entry, Mark, Park, Token};

/// The token of copied records.
const COPIED: Token = Token(0);

/// The ledger and the group of the route's old name.
#[derive(Debug, Clone)]
pub struct OldNames {
    /// Ledger topic.
    pub ledger: String,
    /// Consumer group.
    pub group: String,
}

/// Copies the ledger and the group's offsets. If the ledger topic stays the same, only rewrites its headers. Calls
/// `report` for each partition with the number of migrated keys. Everything is read and checked before the first write.
///
/// # Errors
/// The old ledger differs in more than the route's name, the new ledger is not empty, or the cluster does not respond.
pub async fn rename(
    ledger: &RouteLedger,
    old: &OldNames,
    report: &mut (dyn FnMut(i32, usize) + Send),
) -> Result<(), Error> {
    let from = RouteLedger { topic: old.ledger.as_str().into(), group: old.group.clone(), ..ledger.clone() };
    let found = Topics::new(&ledger.options, ledger.timeout).partitions(&from.topic).await?;
    let partitions = found.ok_or_else(|| Error::NoLedger(old.ledger.clone()))?;
    if partitions != ledger.partitions {
        let (from, to) = (old.ledger.clone(), ledger.topic.to_string());
        return Err(Error::PartitionCount { from, old: partitions, to, new: ledger.partitions });
    }
    let same = from.topic == ledger.topic;
    for partition in 0..partitions {
        check(&from, partition).await?;
        if !same && ledger.is_in_use(partition).await? {
            return Err(Error::NotEmpty(ledger.topic.to_string()));
        }
    }
    for partition in 0..partitions {
        let content = from.read_partition(partition, |_| ()).await?;
        let incomplete = content.header.as_ref().is_some_and(|header| header.may_lack_keys(&ledger.identity));
        let topic_generation = content.header.as_ref().map_or(0, |header| header.identity.topic_generation);
        let header = Header { identity: ledger.identity_with(topic_generation), incomplete };
        let keys = if same { content.state.entries.len() } else { copy(ledger, partition, content).await? };
        // The header goes last, so that an interrupted copy is not taken for a complete one.
        ledger.write_header(partition, &header).await?;
        report(partition, keys);
    }
    if from.group == ledger.group {
        return Ok(());
    }
    let (options, input, timeout) = (ledger.options.clone(), ledger.input.clone(), ledger.timeout);
    let (old_group, new_group) = (from.group, ledger.group.clone());
    blocking("copying the group's offsets", move || {
        let progress = table::group_progress(&options, &input, partitions, &old_group, timeout)?;
        let offsets: Vec<(i32, i64)> =
            (0..).zip(progress).filter_map(|(partition, progress)| Some((partition, progress.committed?))).collect();
        Ok(groups::set_offsets(&options, &new_group, &input, &offsets)?)
    })
    .await
}

/// Checks that a partition of the old ledger belongs to this route except for the name, and has no ambiguous writes.
async fn check(from: &RouteLedger, partition: i32) -> Result<(), Error> {
    let content = from.read_partition(partition, |_| ()).await?;
    from.matching_header(partition, &content, Some(RENAME_COMMAND))?;
    require_no_ambiguous_writes(&content)
}

/// Copies the state of a partition to the new ledger. Returns the number of keys.
async fn copy(ledger: &RouteLedger, partition: i32, content: LedgerContent) -> Result<usize, Error> {
    let entries = content.state.entries.iter().zip(0..).map(|((key, entry), number)| {
        let attempt = AttemptId { token: COPIED, number };
        wire::encode(&LedgerWrite::Entry(key, Box::new(Entry { token: COPIED, attempt, ..entry })))
    });
    let parks = content
        .state
        .parks
        .iter()
        .map(|(key, park)| wire::encode(&LedgerWrite::Park(key.clone(), Park { token: COPIED, ..park.clone() })));
    ledger.write(&ledger.topic, partition, entries.chain(parks)).await?;
    if let Some(watermark) = content.watermark {
        let mark = wire::encode(&LedgerWrite::Mark(COPIED, Mark::at(watermark)));
        ledger.write(&ledger.topic, partition, [mark]).await?;
    }
    Ok(content.state.entries.len())
}

impl RouteLedger {
    /// Whether a member has ever owned this partition, or an earlier copy of it was completed.
    async fn is_in_use(&self, partition: i32) -> Result<bool, Error> {
        let content = self.read_partition(partition, |_| ()).await?;
        let owned = content.state.seen_tokens.iter().any(|token| *token != COPIED);
        Ok(content.header.is_some() || owned)
    }
}
