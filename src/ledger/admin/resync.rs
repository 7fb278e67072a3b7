//! Resyncs the values of open tickets after the mapping has changed, without waiting for the next event of each alert.
//!
//! The ledger contains field hashes, not values. So the command finds the newest applied event of each open ticket in
//! the input and maps it with the present configuration. If the result differs from the values last written, it writes
//! the event to the input again, for its values only: no note, no state. The bridge treats it like any event, with its
//! rate limits and priority, and preserves user edits. The bridge skips it if anything of the key was applied since the
//! command read the ledger (the engine compares the entry's position), so it overwrites nothing newer, and a second run
//! does no harm. The entry's time tells which event is the newest. One case is not detected: an event that changed
//! nothing and has exactly the time of the one before it does not move the entry.
//!
//! A resync cannot find an event that retention has deleted, and cannot empty a column for which the mapping no longer
//! has a value.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Error, RouteLedger, blocking};
use crate::codec;
use crate::engine::RecordContent;
use crate::engine::event::LedgerState;
use crate::engine::field_hash::field_hash;
use crate::engine::fold::REMEMBERED_IDS;
use crate::kafka::ProduceRequest;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, StopAt, TableRead};
use crate::mapping::key_matches;
use crate::mapping::{RecordMapping, map_record};
use crate::model::{Column, Entry, Intent, Key, Position, Record, RecordOrigin};

/// An open ticket whose values differ from those of the mapping.
#[derive(Debug, Clone)]
pub struct StaleTicket {
    /// The alert's key.
    pub key: Key,
    /// Number of the ticket.
    pub number: String,
    /// The columns that differ.
    pub columns: Vec<Column>,
    /// Writes the event to the input again.
    request: ProduceRequest,
}

/// Counts of open tickets.
#[derive(Debug, Clone, Default)]
pub struct ResyncCounts {
    /// Open tickets of matching keys.
    pub open: usize,
    /// Those of parked keys; their redrive will write the new values.
    pub parked: usize,
    /// Those with an ambiguous write.
    pub ambiguous: usize,
    /// Those without an event in the topic.
    pub without_event: usize,
    /// Stale tickets by column.
    pub stale_by_column: BTreeMap<Column, usize>,
}

/// The newest applied event of a key.
struct Newest {
    /// Its position. For a repetition by an earlier resync: the position of the original event.
    at: Position,
    index: u32,
    record: Arc<Record>,
    fields: Vec<(Column, String)>,
}

/// Finds the stale tickets of a partition, of keys that match the pattern, and adds to `counts`. Keeps the newest event
/// of each open ticket in memory. Calls `progress` every 1,000 records with the number of records read.
///
/// # Errors
/// The cluster does not respond, or the ledger cannot be read.
pub async fn find_stale(
    ledger: &RouteLedger,
    mapping: &RecordMapping,
    partition: i32,
    pattern: Option<&str>,
    counts: &mut ResyncCounts,
    mut progress: impl FnMut(u64) + Send + 'static,
) -> Result<Vec<StaleTicket>, Error> {
    let loaded = ledger.read_partition(partition, |_| ()).await?.state;
    let open = open_entries(ledger, &loaded, pattern, counts);
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let read = TableRead {
        topic: ledger.input.as_str().into(),
        partition,
        isolation: Isolation::Committed,
        stop_at: StopAt::End,
        group: ledger.group.clone(),
        idle_timeout: ledger.timeout,
    };
    let (options, mapping) = (ledger.options.clone(), mapping.clone());
    let (open, mut newest) = blocking("mapping the input", move || {
        let (mut newest, mut first, mut count) = (HashMap::new(), HashMap::new(), 0);
        table::read_records(&options, &read, &mut |record| {
            count += 1;
            if count % 1_000 == 0 {
                progress(count);
            }
            keep_newest(&mapping, record, &open, &mut first, &mut newest);
        })?;
        Ok((open, newest))
    })
    .await?;
    let topic: Arc<str> = ledger.input.as_str().into();
    let mut all = Vec::new();
    for (key, entry) in open {
        let Some(event) = newest.remove(&key) else {
            counts.without_event += 1;
            continue;
        };
        let columns = stale_columns(&event.fields, &entry);
        if columns.is_empty() {
            continue;
        }
        for column in &columns {
            *counts.stale_by_column.entry(column.clone()).or_default() += 1;
        }
        let (record, entry_at) = (&event.record, entry.position);
        let request = ProduceRequest {
            topic: Arc::clone(&topic),
            partition: Some(partition),
            key: record.key.clone(),
            value: record.value.clone(),
            headers: codec::resync_headers(record, entry_at, event.index, record.timestamp),
            tag: 0,
        };
        all.push(StaleTicket { key, number: entry.number, columns, request });
    }
    Ok(all)
}

/// Writes the events of stale tickets to the input, at most `rate` per second. Calls `progress` with the number of
/// events written. Events written before an error are kept; the command can be repeated.
///
/// # Errors
/// Kafka rejects a record.
pub async fn write_events(
    ledger: &RouteLedger,
    stale: Vec<StaleTicket>,
    rate: u32,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<(), Error> {
    let start = Instant::now();
    let (mut written, batch_size) = (0, usize::try_from(rate).unwrap_or(usize::MAX).clamp(1, super::MAX_IN_FLIGHT));
    let mut requests = stale.into_iter().map(|ticket| ticket.request).peekable();
    while requests.peek().is_some() {
        let batch: Vec<ProduceRequest> = requests.by_ref().take(batch_size).collect();
        written += batch.len();
        ledger.send(batch).await?;
        progress(written);
        let due = f64::from(u32::try_from(written).unwrap_or(u32::MAX)) / f64::from(rate.max(1));
        tokio::time::sleep_until(start + Duration::from_secs_f64(due)).await;
    }
    Ok(())
}

/// Returns the entries of keys with an open ticket that are neither parked nor ambiguous.
fn open_entries(
    ledger: &RouteLedger,
    loaded: &LedgerState,
    pattern: Option<&str>,
    counts: &mut ResyncCounts,
) -> HashMap<Key, Entry> {
    let selected = |key: &Key| pattern.is_none_or(|pattern| key_matches(pattern, key));
    let mut open = HashMap::new();
    for (key, entry) in loaded.entries.iter().filter(|(key, _)| selected(key)) {
        if !entry.phase(&ledger.states).is_open() {
            continue;
        }
        counts.open += 1;
        if loaded.parks.contains_key(&key) {
            counts.parked += 1;
        } else if loaded.claims.contains_key(&key) {
            counts.ambiguous += 1;
        } else {
            open.insert(key, entry);
        }
    }
    open
}

/// The first position of each of the last events of a key, by event id.
type FirstPositions = VecDeque<(u64, Position)>;

/// Returns the first position of an event. The engine skips an event that it has seen before, however late the
/// repetition comes, so a repetition is as old as the original.
fn first_position(known: &mut FirstPositions, id: u64, position: Position) -> Position {
    if let Some((_, first)) = known.iter().find(|(known, _)| *known == id) {
        return *first;
    }
    known.push_back((id, position));
    known.drain(..known.len().saturating_sub(REMEMBERED_IDS));
    position
}

fn keep_newest(
    mapping: &RecordMapping,
    record: Record,
    open: &HashMap<Key, Entry>,
    first: &mut HashMap<Key, FirstPositions>,
    newest: &mut HashMap<Key, Newest>,
) {
    let received = map_record(mapping, record);
    let RecordContent::Intents(intents) = received.content else { return };
    for intent in intents {
        let Some(entry) = open.get(&intent.key) else { continue };
        let Intent { key, position, order, fields, action, event_id, .. } = intent;
        let at = match (received.origin, event_id) {
            // An event written by an earlier resync is as old as the original.
            (RecordOrigin::Resync(at), _) => at,
            (RecordOrigin::Source, Some(id)) => first_position(first.entry(key.clone()).or_default(), id, position),
            _ => position,
        };
        let is_newest = newest.get(&key).is_none_or(|known| known.at < at);
        // The entry contains the newest applied event. With an order by time, a later event was skipped, for example
        // because it found no ticket; an earlier one was superseded, whenever it arrived.
        let was_applied = position <= entry.position && order.may_be_newest(entry.order);
        if action.affects_state() && was_applied && is_newest {
            let record = Arc::clone(&received.raw);
            newest.insert(key, Newest { at, index: position.index, record, fields });
        }
    }
}

/// Returns the columns whose values differ from those last written.
fn stale_columns(fields: &[(Column, String)], entry: &Entry) -> Vec<Column> {
    let written = |column: &Column| entry.field(column).map(|value| value.sent);
    fields.iter().filter(|(column, value)| written(column) != Some(field_hash(value))).map(|(c, _)| c.clone()).collect()
}
