//! Decodes a record, checks its key and maps its events to intents for the engine. A record that can't be decoded or
//! mapped becomes a dead letter with one reason, and the following records are processed. A repartitioned record yields
//! only the events that belong to its partition; a record written by a resync yields only the values of one event.

use std::sync::Arc;

use crate::codec::{self, RedriveHeaders, ResyncHeaders};
use crate::engine::event::{MappedRecord, RecordContent};
use crate::mapping::SinkMapping;
use crate::model::{Action, AlertEvent, EventOrdering, Position, Record, RecordOrigin};
use crate::systems::Decoder;

/// How a route decodes and maps its records.
#[derive(Debug, Clone)]
pub struct RecordMapping {
    pub decoder: Decoder,
    /// The user guarantees that all records of an alert share a partition.
    pub keyed_by_alert: bool,
    /// The user's topic, if the sink reads the internal topic of a repartition or grouping stage; otherwise `None`.
    pub repartitioned_from: Option<Arc<str>>,
    /// What decides which of two events of an alert is newer.
    pub ordering: EventOrdering,
    /// Number of partitions of the topic that the sink reads, when the route was started.
    pub partitions: usize,
    pub mapping: Arc<SinkMapping>,
}

/// Decodes and maps a record.
pub fn map_record(route: &RecordMapping, mut record: Record) -> MappedRecord {
    let offset = record.offset;
    let (origin, content) = match codec::parse_redrive_headers(&record) {
        Ok(None) => match codec::parse_resync_headers(&record) {
            Ok(None) => (RecordOrigin::Source, map_input(route, &mut record)),
            Ok(Some(headers)) => (RecordOrigin::Resync(headers.entry), map_resync(route, &mut record, headers)),
            Err(reason) => (RecordOrigin::Source, RecordContent::Invalid { code: "undecodable", reason }),
        },
        Ok(Some(RedriveHeaders::Release { key, id, newest })) => {
            (RecordOrigin::Release(id, newest), RecordContent::Release(key.as_str().into()))
        }
        Ok(Some(RedriveHeaders::Event { id, index, key, timestamp })) => {
            record.timestamp = timestamp.or(record.timestamp);
            let included = index.filter(|_| route.repartitioned_from.is_some());
            let content = match (decode_and_map(route, &record, included.as_slice()), key) {
                (RecordContent::Invalid { code, reason }, Some(key)) => {
                    RecordContent::InvalidRedriven { key: key.as_str().into(), code, reason }
                }
                (content, _) if codec::is_resync(&record) => values_only(select_event(index, content)),
                (content, _) => select_event(index, content),
            };
            (RecordOrigin::Redrive(id), content)
        }
        Err(reason) => (RecordOrigin::Source, RecordContent::Invalid { code: "undecodable", reason }),
    };
    MappedRecord { offset, raw: Arc::new(record), origin, content }
}

/// Maps a record that was not written by a redrive or resync.
fn map_input(route: &RecordMapping, record: &mut Record) -> RecordContent {
    if route.repartitioned_from.is_none() {
        return decode_and_map(route, record, &[]);
    }
    let headers = codec::original_timestamp(record).and_then(|at| Ok((at, codec::included_events(record)?)));
    match headers {
        Ok((timestamp, included)) => {
            record.timestamp = timestamp.or(record.timestamp);
            decode_and_map(route, record, included.as_deref().unwrap_or_default())
        }
        Err(reason) => RecordContent::Invalid { code: "undecodable", reason },
    }
}

/// Maps a record written by a resync: the values of an event that was applied before. An event that can no longer be
/// mapped is skipped: the ticket is unchanged until the next event of its key.
fn map_resync(route: &RecordMapping, record: &mut Record, headers: ResyncHeaders) -> RecordContent {
    record.timestamp = headers.timestamp.or(record.timestamp);
    match decode_and_map(route, record, &[headers.index]) {
        RecordContent::Invalid { code, reason } => {
            tracing::warn!(topic = %record.topic, partition = record.partition, offset = record.offset, code, reason,
                "resync event can't be mapped, skipped");
            RecordContent::Skipped
        }
        content => values_only(content),
    }
}

/// Reduces events to the values of their columns.
fn values_only(content: RecordContent) -> RecordContent {
    let RecordContent::Intents(mut intents) = content else { return content };
    intents.retain(|intent| intent.action.affects_state());
    for intent in &mut intents {
        intent.action = Action::Update;
        intent.closing = Vec::new();
        intent.note = None;
        intent.event_id = None;
    }
    if intents.is_empty() { RecordContent::Skipped } else { RecordContent::Intents(intents) }
}

/// Selects the event of a redriven record that its dead letter was written for.
fn select_event(index: Option<u32>, content: RecordContent) -> RecordContent {
    match (index, content) {
        (Some(index), RecordContent::Intents(mut intents)) => {
            intents.retain(|intent| intent.position.index == index);
            if intents.is_empty() { RecordContent::Skipped } else { RecordContent::Intents(intents) }
        }
        (_, content) => content,
    }
}

/// Decodes and maps the events of a record whose indexes are in `included`; all if it is empty.
fn decode_and_map(route: &RecordMapping, record: &Record, included: &[u32]) -> RecordContent {
    if record.value.is_none() {
        return RecordContent::Skipped;
    }
    // Events of groups are canonical, whatever the format of the topic.
    let decoder = if codec::is_group_event(record) { &Decoder::Canonical } else { &route.decoder };
    let events = match decoder.decode(record) {
        Ok(events) => events,
        Err(error) => return RecordContent::Invalid { code: error.code, reason: error.to_string() },
    };
    let keyed_by_alert = route.keyed_by_alert || route.repartitioned_from.is_some();
    if let Err(error) = decoder.check_key(record, &events, route.partitions, keyed_by_alert) {
        return RecordContent::Invalid { code: error.code, reason: error.to_string() };
    }
    let mut intents = Vec::with_capacity(events.len());
    for (index, event) in (0..).zip(events) {
        if !included.is_empty() && !included.contains(&index) {
            continue;
        }
        if let Some(invalid) = misplaced_event(route, record, &event) {
            return invalid;
        }
        let position = Position::new(record.partition, record.offset, index);
        let order = route.ordering.order(original_place(record, position), event.occurred_at);
        match route.mapping.map(&Arc::new(event), position, order) {
            Ok(intent) => intents.extend(intent),
            Err(error) => return RecordContent::Invalid { code: error.code, reason: error.to_string() },
        }
    }
    if intents.is_empty() { RecordContent::Skipped } else { RecordContent::Intents(intents) }
}

/// The place in the log that counts for an event. A redriven event has the one that it had before, a resynced one that
/// of the entry for which it was read.
fn original_place(record: &Record, position: Position) -> Position {
    if let Ok(Some(resynced)) = codec::parse_resync_headers(record) {
        return resynced.entry;
    }
    let original = codec::original_position(record).and_then(codec::parse_position);
    let original = original.filter(|original| original.partition == record.partition);
    original.map_or(position, |original| Position { index: position.index, ..original })
}

/// Returns the rejection of a repartitioned record whose alert belongs to another partition: an alert in two partitions
/// could get two tickets.
fn misplaced_event(route: &RecordMapping, record: &Record, event: &AlertEvent) -> Option<RecordContent> {
    let input = route.repartitioned_from.as_ref()?;
    let partition_for = codec::partition_for(&event.key, i32::try_from(route.partitions).unwrap_or(i32::MAX));
    (partition_for != record.partition).then(|| RecordContent::Invalid {
        code: "key_mismatch",
        reason: format!(
            "the alert `{}` belongs to partition {partition_for} of {}, but the record is in {}: either it could not \
             be decoded when it was repartitioned, or it was not written by the bridge; publish it to {input} again",
            event.key, record.topic, record.partition
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Rules;
    use crate::model::RedriveId;

    const VALUE: &str = r#"{"source":"x","key":"k","action":"open","title":"down","event_id":"e1","note":"look"}"#;

    fn mapping() -> RecordMapping {
        let mapping = SinkMapping::compile(Rules::default()).unwrap_or_else(|errors| panic!("{errors:?}"));
        let (decoder, mapping) = (Decoder::Canonical, Arc::new(mapping));
        RecordMapping {
            decoder,
            keyed_by_alert: false,
            repartitioned_from: None,
            ordering: EventOrdering::Log,
            partitions: 4,
            mapping,
        }
    }

    fn record(value: &str) -> Record {
        Record {
            topic: "alerts".into(),
            partition: 2,
            offset: 9,
            key: Some(b"k".to_vec()),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp: Some(1_800_000_000_000),
        }
    }

    fn intents(received: MappedRecord) -> Vec<crate::model::Intent> {
        match received.content {
            RecordContent::Intents(intents) => intents,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_resync_writes_only_the_values_of_its_event() {
        let original = intents(map_record(&mapping(), record(VALUE))).remove(0);
        assert!(original.action == Action::Open && original.note.is_some() && original.event_id.is_some());
        let entry = Position::new(2, 5, 0);
        let headers = codec::resync_headers(&record(VALUE), entry, 0, Some(1_700_000_000_000));
        let received = map_record(&mapping(), Record { headers: headers.clone(), ..record(VALUE) });
        assert_eq!(received.origin, RecordOrigin::Resync(entry));
        let values = intents(received).remove(0);
        assert_eq!((values.action, &values.fields), (Action::Update, &original.fields));
        assert_eq!((values.note, values.event_id), (None, None));
        assert_eq!(values.occurred_at, 1_700_000_000_000, "the time of the event");
        // A redrive of its dead letter.
        let letter = Record { headers, ..record(VALUE) };
        let headers = codec::redrive_headers(&letter, RedriveId(1), Position::new(2, 9, 0));
        let redriven = map_record(&mapping(), Record { headers, ..record(VALUE) });
        assert_eq!(redriven.origin, RecordOrigin::Redrive(RedriveId(1)));
        assert!(intents(redriven).iter().all(|intent| intent.action == Action::Update && intent.note.is_none()));
    }

    #[test]
    fn a_resync_record_that_cannot_be_decoded_is_not_a_dead_letter() {
        let headers = codec::resync_headers(&record("{"), Position::new(2, 5, 0), 0, None);
        let received = map_record(&mapping(), Record { headers, ..record("{") });
        assert!(matches!(received.content, RecordContent::Skipped), "{:?}", received.content);
    }
}
