//! The values of open tickets brought up to a changed mapping, without waiting for the next event of each alert.
//!
//! The ledger remembers digests, not values; so the newest event of each open ticket's alert is looked for in the input,
//! mapped as the configuration says now, and where that differs from what was last written the event is put into the
//! input once more, for its values only: no note, no state. The bridge takes it like any event, at its pace and priority,
//! keeping what a person has put into a column. It leaves it out where anything of the key was applied since the ledger
//! was read here (the engine compares the entry's position), so that nothing newer is overtaken, and a second run does
//! no harm. Which event is the newest, the entry's time tells. Only an event that changed nothing and has the very same
//! time as the one before it moves no entry, and is not seen by that comparison.
//!
//! What it can't do: find an event that retention has taken, or empty a column that the mapping has no value for any more.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Error, Site, blocking};
use crate::codec;
use crate::engine::Content;
use crate::engine::event::Loaded;
use crate::engine::field_hash::field_hash;
use crate::engine::fold::REMEMBERED_IDS;
use crate::kafka::ProduceRequest;
use crate::kafka::options::Isolation;
use crate::kafka::table::{self, TableRead, Until};
use crate::mapping::matches;
use crate::mapping::{RecordMapping, map_record};
use crate::model::{Column, Entry, Intent, Key, Position, Record, RecordOrigin};

/// A ticket whose values are not those of the mapping.
#[derive(Debug, Clone)]
pub struct Stale {
    /// Its alert.
    pub key: Key,
    /// Its number.
    pub number: String,
    /// In which columns.
    pub columns: Vec<Column>,
    /// What brings it up to date.
    request: ProduceRequest,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Open tickets that were looked at.
    pub open: usize,
    /// Of them: parked, so that their redrive will write the new values.
    pub parked: usize,
    /// Of them: with a write that is not settled yet.
    pub under_way: usize,
    /// Of them: whose events are not in the topic any more.
    pub eventless: usize,
    /// How many are stale, by column.
    pub columns: BTreeMap<Column, usize>,
}

/// The newest event that was applied of a key.
struct Newest {
    /// Where it stands; of the repetition of an earlier resync, where the event stood.
    at: Position,
    index: u32,
    record: Arc<Record>,
    fields: Vec<(Column, String)>,
}

/// The stale tickets of a partition, of keys that fit the pattern; what was found is added to `found`. Holds the newest
/// event of each open ticket in memory meanwhile. `progress` is told how many records were read.
///
/// # Errors
/// The cluster does not answer, or the ledger can't be read.
pub async fn stale(
    site: &Site,
    mapping: &RecordMapping,
    partition: i32,
    pattern: Option<&str>,
    found: &mut Found,
    mut progress: impl FnMut(u64) + Send + 'static,
) -> Result<Vec<Stale>, Error> {
    let loaded = site.survey(partition, |_| ()).await?.loaded;
    let open = open(site, &loaded, pattern, found);
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let what = TableRead {
        topic: site.input.as_str().into(),
        partition,
        isolation: Isolation::Committed,
        until: Until::End,
        group: site.group.clone(),
        patience: site.timeout,
    };
    let (options, mapping) = (site.options.clone(), mapping.clone());
    let (open, mut newest) = blocking("mapping the input", move || {
        let (mut newest, mut first, mut count) = (HashMap::new(), HashMap::new(), 0);
        table::read_records(&options, &what, &mut |record| {
            count += 1;
            if count % 1_000 == 0 {
                progress(count);
            }
            keep_newest(&mapping, record, &open, &mut first, &mut newest);
        })?;
        Ok((open, newest))
    })
    .await?;
    let topic: Arc<str> = site.input.as_str().into();
    let mut all = Vec::new();
    for (key, entry) in open {
        let Some(event) = newest.remove(&key) else {
            found.eventless += 1;
            continue;
        };
        let columns = differing(&event.fields, &entry);
        if columns.is_empty() {
            continue;
        }
        for column in &columns {
            *found.columns.entry(column.clone()).or_default() += 1;
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
        all.push(Stale { key, number: entry.number, columns, request });
    }
    Ok(all)
}

/// Puts their events into the input, so many a second. `tell` hears how many are in. What was put in before an error
/// stands; the command may be given again.
///
/// # Errors
/// Kafka does not take a record.
pub async fn put(site: &Site, stale: Vec<Stale>, rate: u32, tell: &mut (dyn FnMut(usize) + Send)) -> Result<(), Error> {
    let began = Instant::now();
    let (mut done, together) = (0, usize::try_from(rate).unwrap_or(usize::MAX).clamp(1, super::TOGETHER));
    let mut requests = stale.into_iter().map(|one| one.request).peekable();
    while requests.peek().is_some() {
        let batch: Vec<ProduceRequest> = requests.by_ref().take(together).collect();
        done += batch.len();
        site.send(batch).await?;
        tell(done);
        let due = f64::from(u32::try_from(done).unwrap_or(u32::MAX)) / f64::from(rate.max(1));
        tokio::time::sleep_until(began + Duration::from_secs_f64(due)).await;
    }
    Ok(())
}

/// Keys with an open ticket of which nothing else is under way.
fn open(site: &Site, loaded: &Loaded, pattern: Option<&str>, found: &mut Found) -> HashMap<Key, Entry> {
    let fits = |key: &Key| pattern.is_none_or(|pattern| matches(pattern, key));
    let mut open = HashMap::new();
    for (key, entry) in loaded.entries.iter().filter(|(key, _)| fits(key)) {
        if !site.states.phase(&entry.seen.state).is_open() {
            continue;
        }
        found.open += 1;
        if loaded.parks.contains_key(&key) {
            found.parked += 1;
        } else if loaded.claims.contains_key(&key) {
            found.under_way += 1;
        } else {
            open.insert(key, entry);
        }
    }
    open
}

/// Where the last events of a key stood first, by their ids.
type First = VecDeque<(u64, Position)>;

/// The engine leaves out an event that has come before, however late it is repeated: it is as old as it was then.
fn first_of(known: &mut First, id: u64, position: Position) -> Position {
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
    first: &mut HashMap<Key, First>,
    newest: &mut HashMap<Key, Newest>,
) {
    let received = map_record(mapping, record);
    let Content::Intents(intents) = received.content else { return };
    for intent in intents {
        let Some(entry) = open.get(&intent.key) else { continue };
        let Intent { key, position, occurred_at, fields, action, event_id, .. } = intent;
        let at = match (received.origin, event_id) {
            // What comes of an earlier resync is as old as the event that it repeats.
            (RecordOrigin::Resync(at), _) => at,
            (RecordOrigin::Source, Some(id)) => first_of(first.entry(key.clone()).or_default(), id, position),
            _ => position,
        };
        let is_newest = newest.get(&key).is_none_or(|known| known.at < at);
        // The entry tells the time of the newest event that was applied. What is later came to nothing, as where it found no
        // ticket; what is earlier is superseded, whenever it came.
        let was_applied = position <= entry.position && occurred_at == entry.occurred_at;
        if action.affects_state() && was_applied && is_newest {
            let record = Arc::clone(&received.raw);
            newest.insert(key, Newest { at, index: position.index, record, fields });
        }
    }
}

/// Columns in which the values are not what was last written.
fn differing(fields: &[(Column, String)], entry: &Entry) -> Vec<Column> {
    let written = |column: &Column| entry.field(column).map(|value| value.sent);
    fields.iter().filter(|(column, value)| written(column) != Some(field_hash(value))).map(|(c, _)| c.clone()).collect()
}
