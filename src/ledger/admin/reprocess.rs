//! Reprocesses past events: resets the group's offsets to an earlier place in the input, and the positions of the
//! ledger's entries, so that the bridge applies the events again. The ledger keeps the tickets, so none is created
//! twice.
//!
//! By default it includes only alerts whose tickets are open, and those without an entry; resolved and closed tickets
//! stay as they are. Everything in an event is applied again: values, state, and also its note, because nothing tells
//! which notes are unwanted. Positions count again under a new topic generation. It is part of note markers, so
//! verification of a new note does not find the old one.
//!
//! If the command is interrupted, the bridge continues where it was: the offsets are reset last.

use std::collections::BTreeMap;
use std::time::Duration;

use super::headers::RebuildFrom;
use super::{Error, RouteLedger, blocking, require_no_ambiguous_writes};
use crate::engine::event::LedgerWrite;
use crate::kafka::{groups, table};
use crate::ledger::{Header, LedgerContent, StartAt, wire};
use crate::model::{AttemptId, Entry, EventOrder, Mark, Phase, Position, Token};

/// Prefix of the keys of marks.
const MARK: &[u8] = b"mark:";

/// Which events to apply again.
#[derive(Debug, Clone, Copy)]
pub struct ReprocessScope {
    /// Where reading starts.
    pub from: StartAt,
    /// Include alerts whose tickets are resolved or closed.
    pub include_closed: bool,
    /// Entries of the alerts may have expired, so the bridge must look every unknown key up.
    pub incomplete: bool,
}

/// What is applied again in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReprocessedPartition {
    /// Number of the partition.
    pub partition: i32,
    /// First offset that is read again.
    pub from: i64,
    /// The offset up to which the partition had been read.
    pub until: i64,
    /// Number of included keys that have an entry.
    pub keys: usize,
    /// Number of keys that are skipped because their tickets are resolved or closed.
    pub skipped_keys: usize,
}

/// Returns what [`reprocess`] would apply again, without partitions of which it would read nothing. Changes nothing.
///
/// # Errors
/// The ledger does not match the route, has parked keys or ambiguous writes, or the cluster does not respond.
pub async fn preview_reprocess(
    ledger: &RouteLedger,
    scope: ReprocessScope,
) -> Result<Vec<ReprocessedPartition>, Error> {
    Ok(plan(ledger, scope).await?.into_iter().map(|(range, _)| range).collect())
}

/// Resets the ledger and the group's offsets. First waits until no earlier write can be committed any more: `span`
/// after the newest ledger record. Everything is read and checked before the first write.
///
/// # Errors
/// As [`preview_reprocess`]. Records written so far are kept; the command can be repeated.
pub async fn reprocess(
    ledger: &RouteLedger,
    scope: ReprocessScope,
    span: Duration,
) -> Result<Vec<ReprocessedPartition>, Error> {
    let mut marks = BTreeMap::new();
    for partition in 0..ledger.partitions {
        let mut keys = ledger.read_keys(partition, span).await?.keys;
        keys.retain(|key| key.starts_with(MARK));
        marks.insert(partition, keys);
    }
    let planned = plan(ledger, scope).await?;
    let now = u32::try_from(crate::runtime::clock::unix() / 1_000).unwrap_or(u32::MAX);
    for (range, content) in &planned {
        let partition = range.partition;
        let incomplete =
            scope.incomplete || content.header.as_ref().is_some_and(|header| header.may_lack_keys(&ledger.identity));
        let header = Header { identity: ledger.identity_with(now), incomplete };
        ledger.write_header(partition, &header).await?;
        let token = ledger.write_owner_record(partition).await?;
        let entries = entries(ledger, *range, content, scope.include_closed, token);
        ledger.write(&ledger.topic, partition, entries).await?;
        // The highest mark counts, so the old ones must go.
        let marks = marks.remove(&partition).into_iter().flatten();
        ledger.write(&ledger.topic, partition, marks.map(|key| (key, None))).await?;
        let mark = Mark { watermark: range.from, previous_owners: content.state.previous_owners.clone() };
        ledger.write_mark(partition, token, mark).await?;
    }
    let starts: Vec<(i32, i64)> = planned.iter().map(|(range, _)| (range.partition, range.from)).collect();
    let (options, group, input) = (ledger.options.clone(), ledger.group.clone(), ledger.input.clone());
    blocking("setting the group's offsets", move || Ok(groups::set_offsets(&options, &group, &input, &starts)?))
        .await?;
    Ok(planned.into_iter().map(|(range, _)| range).collect())
}

async fn plan(
    ledger: &RouteLedger,
    scope: ReprocessScope,
) -> Result<Vec<(ReprocessedPartition, LedgerContent)>, Error> {
    let starts = ledger.start_offsets(RebuildFrom::At(scope.from)).await?;
    let (options, input, group, timeout) =
        (ledger.options.clone(), ledger.input.clone(), ledger.group.clone(), ledger.timeout);
    let partitions = ledger.partitions;
    let progress = move || Ok(table::group_progress(&options, &input, partitions, &group, timeout)?);
    let progress = blocking("reading the group's offsets", progress).await?;
    let mut planned = Vec::new();
    for ((partition, from), progress) in starts.into_iter().zip(progress) {
        let content = ledger.read_partition(partition, |_| ()).await?;
        let Some(until) = progress.committed.max(content.watermark).filter(|until| from < *until) else { continue };
        ledger.matching_header(partition, &content, None)?;
        require_no_ambiguous_writes(&content)?;
        if let Some(key) = content.state.parks.keys().next() {
            return Err(Error::ParkedKeys { count: content.state.parks.len(), key: key.to_string() });
        }
        let all = content.state.entries.len();
        let keys =
            content.state.entries.iter().filter(|(_, entry)| is_included(ledger, entry, scope.include_closed)).count();
        planned.push((ReprocessedPartition { partition, from, until, keys, skipped_keys: all - keys }, content));
    }
    Ok(planned)
}

fn is_included(ledger: &RouteLedger, entry: &Entry, include_closed: bool) -> bool {
    include_closed || !matches!(entry.phase(&ledger.states), Phase::Resolved | Phase::Closed)
}

/// Returns the records of the included entries, as if no event at or after the start had been applied.
fn entries(
    ledger: &RouteLedger,
    range: ReprocessedPartition,
    content: &LedgerContent,
    include_closed: bool,
    token: Token,
) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
    let before = Position::new(range.partition, range.from - 1, u32::MAX);
    let included = content.state.entries.iter().filter(move |(_, entry)| is_included(ledger, entry, include_closed));
    included.zip(0..).map(move |((key, entry), number)| {
        let position = entry.position.min(before);
        let attempt = AttemptId { token, number };
        let entry = Entry {
            token,
            attempt,
            position,
            order: EventOrder::UNKNOWN,
            event_ids: Vec::new(),
            partial_note: None,
            ..entry
        };
        wire::encode(&LedgerWrite::Entry(key, Box::new(entry)))
    })
}
