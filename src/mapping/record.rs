//! A record's way into the engine: key check, decode, map. Whatever is wrong with it becomes a dead letter with one
//! clear reason; nothing is lost, and the rest goes on. Of a re-keyed record only those events are taken that are meant
//! in its partition; of one that a resync has put there, only the values of one event.

use std::sync::Arc;

use crate::codec::{self, Redriven, Resynced};
use crate::engine::event::{Content, Received};
use crate::mapping::SinkMapping;
use crate::model::{Action, AlertEvent, Position, Record, RecordOrigin};
use crate::systems::Decoder;

/// How a route reads its records.
#[derive(Debug, Clone)]
pub struct RecordMapping {
    /// Makes alert events of bytes.
    pub decoder: Decoder,
    /// The user vouches that records of a key share a partition.
    pub copartitioned: bool,
    /// The user's topic, where the topic that is read is the internal one to which it is re-keyed.
    pub rekeyed_from: Option<Arc<str>>,
    /// Partitions of the topic that is read, when the route was started.
    pub partitions: usize,
    /// Maps alert events.
    pub mapping: Arc<SinkMapping>,
}

/// Decodes and maps a record.
pub fn map_record(route: &RecordMapping, mut record: Record) -> Received {
    let offset = record.offset;
    let (origin, content) = match codec::redriven(&record) {
        Ok(None) => match codec::resynced(&record) {
            Ok(None) => (RecordOrigin::Source, arrived(route, &mut record)),
            Ok(Some(resynced)) => (RecordOrigin::Resync(resynced.entry), again(route, &mut record, resynced)),
            Err(reason) => (RecordOrigin::Source, Content::Refused { code: "undecodable", reason }),
        },
        Ok(Some(Redriven::Release { key, id, upto })) => {
            (RecordOrigin::Release(id, upto), Content::Release(key.as_str().into()))
        }
        Ok(Some(Redriven::Event { id, index, key, timestamp })) => {
            record.timestamp = timestamp.or(record.timestamp);
            let meant = index.filter(|_| route.rekeyed_from.is_some());
            let content = match (content(route, &record, meant.as_slice()), key) {
                (Content::Refused { code, reason }, Some(key)) => {
                    Content::RefusedAgain { key: key.as_str().into(), code, reason }
                }
                (content, _) if codec::is_resynced(&record) => values(only(index, content)),
                (content, _) => only(index, content),
            };
            (RecordOrigin::Redrive(id), content)
        }
        Err(reason) => (RecordOrigin::Source, Content::Refused { code: "undecodable", reason }),
    };
    Received { offset, raw: Arc::new(record), origin, content }
}

/// A record that no redrive has put there.
fn arrived(route: &RecordMapping, record: &mut Record) -> Content {
    if route.rekeyed_from.is_none() {
        return content(route, record, &[]);
    }
    let read = codec::original_timestamp(record).and_then(|at| Ok((at, codec::events_meant(record)?)));
    match read {
        Ok((timestamp, meant)) => {
            record.timestamp = timestamp.or(record.timestamp);
            content(route, record, meant.as_deref().unwrap_or_default())
        }
        Err(reason) => Content::Refused { code: "undecodable", reason },
    }
}

/// The values of an event that was applied before. One that can't be mapped any more is left out: the ticket stays as it
/// is, and the key's next event will tell.
fn again(route: &RecordMapping, record: &mut Record, resynced: Resynced) -> Content {
    record.timestamp = resynced.timestamp.or(record.timestamp);
    match content(route, record, &[resynced.index]) {
        Content::Refused { code, reason } => {
            tracing::warn!(topic = %record.topic, partition = record.partition, offset = record.offset, code, reason,
                "an event of a resync can't be mapped, and is left out");
            Content::Skipped
        }
        content => values(content),
    }
}

/// Of an event nothing but the values of its columns.
fn values(content: Content) -> Content {
    let Content::Intents(mut intents) = content else { return content };
    intents.retain(|intent| intent.action.affects_state());
    for intent in &mut intents {
        intent.action = Action::Update;
        intent.closing = Vec::new();
        intent.note = None;
        intent.event_id = None;
    }
    if intents.is_empty() { Content::Skipped } else { Content::Intents(intents) }
}

/// Of a redriven record the event that its dead letter was about.
fn only(index: Option<u32>, content: Content) -> Content {
    match (index, content) {
        (Some(index), Content::Intents(mut intents)) => {
            intents.retain(|intent| intent.position.index == index);
            if intents.is_empty() { Content::Skipped } else { Content::Intents(intents) }
        }
        (_, content) => content,
    }
}

/// What the record's events are, or those of them that are `meant` (none named: all).
fn content(route: &RecordMapping, record: &Record, meant: &[u32]) -> Content {
    if record.value.is_none() {
        return Content::Skipped;
    }
    // What a digest has made is in our own words, whatever the topic's are.
    let decoder = if codec::is_digest(record) { &Decoder::Canonical } else { &route.decoder };
    let events = match decoder.decode(record) {
        Ok(events) => events,
        Err(error) => return Content::Refused { code: error.code, reason: error.to_string() },
    };
    let copartitioned = route.copartitioned || route.rekeyed_from.is_some();
    if let Err(error) = decoder.check_key(record, &events, route.partitions, copartitioned) {
        return Content::Refused { code: error.code, reason: error.to_string() };
    }
    let mut intents = Vec::with_capacity(events.len());
    for (index, event) in (0..).zip(events) {
        if !meant.is_empty() && !meant.contains(&index) {
            continue;
        }
        if let Some(refused) = away(route, record, &event) {
            return refused;
        }
        match route.mapping.map(&Arc::new(event), Position::new(record.partition, record.offset, index)) {
            Ok(intent) => intents.extend(intent),
            Err(error) => return Content::Refused { code: error.code, reason: error.to_string() },
        }
    }
    if intents.is_empty() { Content::Skipped } else { Content::Intents(intents) }
}

/// An alert of a re-keyed record whose partition is another one: in two partitions it could get two tickets.
fn away(route: &RecordMapping, record: &Record, event: &AlertEvent) -> Option<Content> {
    let input = route.rekeyed_from.as_ref()?;
    let partition_for = codec::partition_for(&event.key, i32::try_from(route.partitions).unwrap_or(i32::MAX));
    (partition_for != record.partition).then(|| Content::Refused {
        code: "key_mismatch",
        reason: format!(
            "the alert `{}` belongs into partition {partition_for} of {}, and this record is in {}: it could not be read when it \
             was re-keyed, and now it can, or somebody else has put it there; publish it to {input} again",
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
        let mapping = SinkMapping::compile(Rules::default()).unwrap_or_else(|problems| panic!("{problems:?}"));
        let (decoder, mapping) = (Decoder::Canonical, Arc::new(mapping));
        RecordMapping { decoder, copartitioned: false, rekeyed_from: None, partitions: 4, mapping }
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

    fn intents(received: Received) -> Vec<crate::model::Intent> {
        match received.content {
            Content::Intents(intents) => intents,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_resync_brings_the_values_of_its_event_and_nothing_else() {
        let original = intents(map_record(&mapping(), record(VALUE))).remove(0);
        assert!(original.action == Action::Open && original.note.is_some() && original.event_id.is_some());
        let entry = Position::new(2, 5, 0);
        let headers = codec::resync_headers(&record(VALUE), entry, 0, Some(1_700_000_000_000));
        let received = map_record(&mapping(), Record { headers: headers.clone(), ..record(VALUE) });
        assert_eq!(received.origin, RecordOrigin::Resync(entry));
        let again = intents(received).remove(0);
        assert_eq!((again.action, &again.fields), (Action::Update, &original.fields));
        assert_eq!((again.note, again.event_id), (None, None));
        assert_eq!(again.occurred_at, 1_700_000_000_000, "the event's own time");
        // Its dead letter, put back.
        let letter = Record { headers, ..record(VALUE) };
        let headers = codec::redrive_headers(&letter, RedriveId(1), Position::new(2, 9, 0));
        let back = map_record(&mapping(), Record { headers, ..record(VALUE) });
        assert_eq!(back.origin, RecordOrigin::Redrive(RedriveId(1)));
        assert!(intents(back).iter().all(|intent| intent.action == Action::Update && intent.note.is_none()));
    }

    #[test]
    fn a_resync_that_cannot_be_read_any_more_is_no_dead_letter() {
        let headers = codec::resync_headers(&record("{"), Position::new(2, 5, 0), 0, None);
        let received = map_record(&mapping(), Record { headers, ..record("{") });
        assert!(matches!(received.content, Content::Skipped), "{:?}", received.content);
    }
}
