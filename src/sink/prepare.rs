//! A record's way into the engine: key check, decode, map. Whatever is wrong with it becomes a dead letter with one
//! clear reason; nothing is lost, and the rest goes on.

use std::sync::Arc;

use super::Route;
use crate::codec::{self, Redriven};
use crate::engine::event::{Content, Received};
use crate::model::{Origin, Position, Record};

/// Decodes and maps a record.
pub fn prepare(route: &Route, mut record: Record) -> Received {
    let offset = record.offset;
    let (origin, content) = match codec::redriven(&record) {
        Ok(None) => (Origin::Source, content(route, &record)),
        Ok(Some(Redriven::Release { key, id, upto })) => {
            (Origin::Release(id, upto), Content::Release(key.as_str().into()))
        }
        Ok(Some(Redriven::Event { id, index, key, timestamp })) => {
            record.timestamp = timestamp.or(record.timestamp);
            let content = match (content(route, &record), key) {
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

fn content(route: &Route, record: &Record) -> Content {
    if record.value.is_none() {
        return Content::Skipped;
    }
    let events = match route.decoder.decode(record) {
        Ok(events) => events,
        Err(error) => return Content::Refused { code: error.code, reason: error.to_string() },
    };
    if let Err(error) = route.decoder.check_key(record, &events, route.partitions, route.copartitioned) {
        return Content::Refused { code: error.code, reason: error.to_string() };
    }
    let mut intents = Vec::with_capacity(events.len());
    for (index, event) in (0..).zip(events.into_iter().map(Arc::new)) {
        match route.mapping.map(&event, Position::new(record.partition, record.offset, index)) {
            Ok(intent) => intents.extend(intent),
            Err(error) => return Content::Refused { code: error.code, reason: error.to_string() },
        }
    }
    if intents.is_empty() { Content::Skipped } else { Content::Intents(intents) }
}
