//! A record's way into the engine: key check, decode, map. Whatever is wrong with it becomes a dead letter with one
//! clear reason; nothing is lost, and the rest goes on. Of a re-keyed record only those events are taken that are meant
//! in its partition.

use std::sync::Arc;

use super::Route;
use crate::codec::{self, Redriven};
use crate::engine::event::{Content, Received};
use crate::model::{AlertEvent, Origin, Position, Record};

/// Decodes and maps a record.
pub fn prepare(route: &Route, mut record: Record) -> Received {
    let offset = record.offset;
    let (origin, content) = match codec::redriven(&record) {
        Ok(None) => (Origin::Source, arrived(route, &mut record)),
        Ok(Some(Redriven::Release { key, id, upto })) => {
            (Origin::Release(id, upto), Content::Release(key.as_str().into()))
        }
        Ok(Some(Redriven::Event { id, index, key, timestamp })) => {
            record.timestamp = timestamp.or(record.timestamp);
            let meant = index.filter(|_| route.rekeyed_from.is_some());
            let content = match (content(route, &record, meant.as_slice()), key) {
                (Content::Refused { code, reason }, Some(key)) => {
                    Content::RefusedAgain { key: key.as_str().into(), code, reason }
                }
                (content, _) => only(index, content),
            };
            (Origin::Redrive(id), content)
        }
        Err(reason) => (Origin::Source, Content::Refused { code: "undecodable", reason }),
    };
    Received { offset, raw: Arc::new(record), origin, content }
}

/// A record that no redrive has put there.
fn arrived(route: &Route, record: &mut Record) -> Content {
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
fn content(route: &Route, record: &Record, meant: &[u32]) -> Content {
    if record.value.is_none() {
        return Content::Skipped;
    }
    let events = match route.decoder.decode(record) {
        Ok(events) => events,
        Err(error) => return Content::Refused { code: error.code, reason: error.to_string() },
    };
    let copartitioned = route.copartitioned || route.rekeyed_from.is_some();
    if let Err(error) = route.decoder.check_key(record, &events, route.partitions, copartitioned) {
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
fn away(route: &Route, record: &Record, event: &AlertEvent) -> Option<Content> {
    let input = route.rekeyed_from.as_ref()?;
    let home = codec::home(&event.key, i32::try_from(route.partitions).unwrap_or(i32::MAX));
    (home != record.partition).then(|| Content::Refused {
        code: "key_mismatch",
        reason: format!(
            "the alert `{}` belongs into partition {home} of {}, and this record is in {}: it could not be read when it \
             was re-keyed, and now it can, or somebody else has put it there; publish it to {input} again",
            event.key, record.topic, record.partition
        ),
    })
}
