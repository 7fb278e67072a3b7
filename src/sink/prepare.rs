//! A record's way into the engine: key check, decode, map. Whatever is wrong with it becomes a dead letter with one
//! clear reason; nothing is lost, and the rest goes on.

use std::sync::Arc;

use super::Route;
use crate::engine::event::{Content, Received};
use crate::model::{Position, Record};

/// Decodes and maps a record.
pub fn prepare(route: &Route, record: Record) -> Received {
    let offset = record.offset;
    let content = content(route, &record);
    Received { offset, raw: Arc::new(record), content }
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
