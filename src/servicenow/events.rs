//! Writes as events of the instance's Event Management: each is one record of `em/jsonv2`, several per request.
//!
//! The instance stores the records in `em_event` at once and creates alerts from them some seconds later, by message
//! key. It responds with a count only. If the count is the number sent, all events are stored. If it is lower, the
//! response does not say which are missing, and each is ambiguous with its transaction ended; only a count of zero is
//! certain. An event contains in its `additional_info` the attempt that sent it and the ticket that it belongs to: an
//! id of the bridge's own, generated for the event that opens an alert. An ambiguous event is verified by a search in
//! the events of the message key, never in alerts: alerts are created late and do not keep the data of their events.
//! The instance deletes events from `em_event` after some days. A deleted event counts as never sent; sending it again
//! leaves its alert unchanged, apart from a note.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::model::answer::Journal;
use crate::model::{Answer, Column, Failure, FailureClass, Row};

use super::classify::{self, RequestKind, ambiguous, failure};
use super::client::{HttpResponse, RequestError};
use super::row::{self, RawRow};
use super::text::is_sys_id;
use super::{Client, Note, Query, Request, journal, lookup};

/// The path of the event API.
pub(super) const PATH: &str = "/api/global/em/jsonv2";

/// The table of events, which is also the limiter's name for the requests.
pub const TABLE: &str = "em_event";

/// Prefix of the names of columns that are part of `additional_info`.
pub const INFO_PREFIX: &str = "additional_info.";

/// The bridge's own fields in `additional_info`, which rules must not write (`config::resolve::event`): the attempt's
/// marker, the ticket and the notes.
const ATTEMPT_FIELD: &str = "nowbridge_attempt";
const TICKET_FIELD: &str = "nowbridge_ticket";
const NOTE_FIELD: &str = "note";

/// Maximum number of events that a search reads: the newest.
const MAX_EVENTS: usize = 50;

/// Settings for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The events' `source`: the system that generated them.
    pub source: String,
    /// The events' `event_class`: the instance of that system; not sent if empty.
    pub class: String,
}

/// Encodes one event.
pub(super) fn encode_record(events: &Events, sent: &Request) -> Result<Vec<u8>, Failure> {
    let invalid = |reason: &str| failure(FailureClass::Rejected, "request", reason);
    let Request::SendEvent { correlation, fields, notes, .. } = sent else {
        return Err(invalid("the request is not an event"));
    };
    let (Some(attempt), Some(ticket)) = (attempt_marker(notes), ticket_id(sent)) else {
        return Err(invalid("the event has no marker of its attempt, so it could not be found again"));
    };
    let mut record = Map::new();
    let mut info = Map::new();
    info.insert(ATTEMPT_FIELD.into(), attempt.into());
    info.insert(TICKET_FIELD.into(), ticket.into());
    record.insert("source".into(), events.source.as_str().into());
    if !events.class.is_empty() {
        record.insert("event_class".into(), events.class.as_str().into());
    }
    record.insert("message_key".into(), correlation.as_str().into());
    for (column, value) in fields {
        match column.strip_prefix(INFO_PREFIX) {
            Some(name) => info.insert(name.into(), value.as_str().into()),
            None => record.insert(column.to_string(), value.as_str().into()),
        };
    }
    let severity = record.get("severity").and_then(Value::as_str).unwrap_or_default();
    if !matches!(severity, "0" | "1" | "2" | "3" | "4" | "5") {
        let reason =
            format!("the severity {severity:?} is not 1 (critical) to 5 (info) or 0 (clear); correct `fields`");
        return Err(failure(FailureClass::Rejected, "event_severity", &reason));
    }
    let work_notes: Vec<Note> = notes.iter().filter(|note| !note.text.is_empty()).cloned().collect();
    if !work_notes.is_empty() {
        info.insert(NOTE_FIELD.into(), journal::render_entry(&work_notes).into());
    }
    record.insert("additional_info".into(), Value::Object(info).to_string().into());
    serde_json::to_vec(&record).map_err(|error| invalid(&error.to_string()))
}

/// The marker of the attempt, which is the marker of the note without text.
fn attempt_marker(notes: &[Note]) -> Option<&str> {
    notes.iter().find(|note| note.text.is_empty()).map(|note| note.marker.as_str())
}

/// The ticket of an event. An event that opens an alert gets a new id, derived from its attempt.
fn ticket_id(sent: &Request) -> Option<String> {
    let Request::SendEvent { correlation, ticket, notes, .. } = sent else { return None };
    ticket.clone().or_else(|| {
        let digest = Sha256::digest(format!("{correlation}\n{}", attempt_marker(notes)?).as_bytes());
        hex::encode(digest).get(..32).map(str::to_owned)
    })
}

/// Classifies the response to a request of events.
///
/// # Errors
/// The request as a whole failed.
pub(super) fn classify(
    client: &Client,
    requests: &[Request],
    sent: &[usize],
    response: &HttpResponse,
    answers: &mut [Option<Answer>],
) -> Result<(), Failure> {
    let result = classify::parse_result::<Map<String, Value>>(RequestKind::Create, &response.head, &response.body)?;
    let summary = result.values().find_map(Value::as_str).unwrap_or_default();
    let count = summary.split_whitespace().next().and_then(|word| word.parse::<usize>().ok());
    match count {
        Some(count) if count == sent.len() => {
            for &at in sent {
                let row = expected_row(client, &requests[at], response.head.date.unwrap_or_default());
                answers[at] = row.map(|row| Answer::Applied { row: Box::new(row), warnings: Vec::new() });
            }
            Ok(())
        }
        Some(0) => {
            let reason = "the instance accepted none of the events and gives no reason; check their columns and the \
                          user's roles";
            sent.iter().for_each(|&at| {
                answers[at] = Some(Answer::Failed(failure(FailureClass::Rejected, "event_not_inserted", reason)));
            });
            Ok(())
        }
        _ => {
            let reason = format!("{} events were sent; the instance responded {summary:?}", sent.len());
            Err(ambiguous(RequestKind::Create, true, FailureClass::Transient, "events_missing", &reason))
        }
    }
}

/// The ticket as it is after an event.
fn expected_row(client: &Client, sent: &Request, date: i64) -> Option<Row> {
    let Request::SendEvent { correlation, fields, .. } = sent else { return None };
    let severity = fields.iter().find(|(column, _)| **column == *client.connection().state_column);
    let event = StoredEvent {
        created_on: date,
        severity: severity.map(|(_, value)| value.clone()).unwrap_or_default(),
        additional_info: String::new(),
    };
    Some(ticket_row(client, correlation, &ticket_id(sent)?, &event, date))
}

/// An event as stored by the instance.
struct StoredEvent {
    /// Unix seconds.
    created_on: i64,
    severity: String,
    additional_info: String,
}

/// Searches the events of a message key. With a ticket: one row as of its newest event, and which of the markers its
/// events contain. Without: all tickets of the message key.
pub(super) async fn find(
    client: &Client,
    slot: usize,
    request: &Request,
    may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
) -> Result<(Answer, Option<i64>), RequestError> {
    let Request::FindEvents { correlation, ticket, markers } = request else {
        return Err(failure(FailureClass::Rejected, "request", "the request is not a search for events").into());
    };
    let query = Query::new().eq("message_key", correlation).order_by_desc("sys_created_on").encoded();
    let query = query.map_err(|error| failure(FailureClass::Rejected, "query_rejected", &error.to_string()))?;
    let columns: [Column; 1] = ["additional_info".into()];
    let url = client.urls().list_url(columns.iter().map(|c| &**c), &query, MAX_EVENTS);
    let response = client.read(slot, RequestKind::List, url, may_send).await?;
    let date = response.head.date;
    let events = events(client, correlation, &response).map_err(|failure| RequestError::Failed(failure, date))?;
    let answer = match ticket {
        None => Answer::Rows { rows: tickets(client, correlation, &events), journal: None },
        Some(ticket) => ticket_answer(client, correlation, ticket, markers, &events),
    };
    Ok((answer, date))
}

/// The events with this message key, newest first.
fn events(client: &Client, correlation: &str, response: &HttpResponse) -> Result<Vec<StoredEvent>, Failure> {
    let found = classify::parse_result::<Vec<RawRow>>(RequestKind::List, &response.head, &response.body)?;
    let found = lookup::matching_rows("message_key", correlation, found)?;
    let hidden = || {
        let reason = "events were returned without additional_info, severity or sys_created_on; let the bridge's user \
                      read them";
        failure(FailureClass::Transient, "events_unreadable", reason)
    };
    let event = |fields: RawRow| {
        let created_on = fields.get("sys_created_on").and_then(row::date_time).ok_or_else(hidden)?;
        let severity = fields.get(&client.connection().state_column).ok_or_else(hidden)?.to_owned();
        let additional_info = fields.get("additional_info").ok_or_else(hidden)?.to_owned();
        Ok(StoredEvent { created_on, severity, additional_info })
    };
    let mut events = found.into_iter().map(event).collect::<Result<Vec<_>, _>>()?;
    events.sort_by_key(|event| std::cmp::Reverse(event.created_on));
    Ok(events)
}

fn ticket_row(client: &Client, correlation: &str, ticket: &str, newest: &StoredEvent, created_on: i64) -> Row {
    Row {
        sys_id: ticket.to_owned(),
        number: correlation.to_owned(),
        state: newest.severity.clone(),
        updated_by: client.connection().bridge_user.clone(),
        updated_on: newest.created_on,
        created_on,
        ..Row::default()
    }
}

/// The tickets of a message key, oldest first.
fn tickets(client: &Client, correlation: &str, events: &[StoredEvent]) -> Vec<Row> {
    let mut tickets: BTreeMap<String, Row> = BTreeMap::new();
    for event in events {
        let Some(ticket) = parse_ticket_id(&event.additional_info) else { continue };
        let known = tickets.entry(ticket);
        let first = known.or_insert_with_key(|ticket| ticket_row(client, correlation, ticket, event, event.created_on));
        first.created_on = first.created_on.min(event.created_on);
    }
    let mut rows: Vec<Row> = tickets.into_values().collect();
    rows.sort_by(|a, b| (a.created_on, &a.sys_id).cmp(&(b.created_on, &b.sys_id)));
    rows
}

fn ticket_answer(
    client: &Client,
    correlation: &str,
    ticket: &str,
    markers: &[String],
    events: &[StoredEvent],
) -> Answer {
    let is_own = |event: &&StoredEvent| parse_ticket_id(&event.additional_info).as_deref() == Some(ticket);
    let own: Vec<&StoredEvent> = events.iter().filter(is_own).collect();
    let carries = |event: &&StoredEvent| markers.iter().any(|marker| event.additional_info.contains(marker.as_str()));
    let is_found = |marker: &&String| own.iter().any(|event| event.additional_info.contains(marker.as_str()));
    let found = markers.iter().filter(is_found).cloned().collect();
    // Of two events of the same second, the one with the marker is the later: nothing was sent after it.
    let newest = own.iter().copied().find(carries).or(own.first().copied());
    let oldest = own.last().map_or(0, |event| event.created_on);
    let rows = newest.map(|event| ticket_row(client, correlation, ticket, event, oldest)).into_iter().collect();
    Answer::Rows { rows, journal: Some(Journal::Read(found)) }
}

/// Parses the ticket's id in `additional_info`; searches the text where the instance has truncated the JSON.
fn parse_ticket_id(info: &str) -> Option<String> {
    let id = match serde_json::from_str::<Map<String, Value>>(info) {
        Ok(info) => info.get(TICKET_FIELD).and_then(Value::as_str).map(str::to_owned),
        Err(_) => info.split_once(TICKET_FIELD).and_then(|(_, rest)| {
            let start = rest.find(|c: char| c.is_ascii_alphanumeric())?;
            rest.get(start..start + 32).map(str::to_owned)
        }),
    };
    id.filter(|id| is_sys_id(id))
}

impl Client {
    /// Sends one event.
    pub(super) async fn send_event(
        &self,
        slot: usize,
        request: Request,
        may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
    ) -> Result<(Answer, Option<i64>), RequestError> {
        let mut batch = self.perform_batch(slot, &[request], |_| may_send()).await;
        match (batch.unbatch_reason, batch.results.pop()) {
            (Some(failure), result) => {
                Err(RequestError::Failed(failure, result.and_then(|result| result.instance_date)))
            }
            (None, Some(result)) => Ok((result.answer, result.instance_date)),
            (None, None) => Err(failure(FailureClass::Transient, "request", "nothing was sent").into()),
        }
    }

    /// Sends a request without events: it checks the user's rights and stores nothing.
    ///
    /// # Errors
    /// The failure that the instance responded with.
    pub async fn probe_event_api(&self) -> Result<(), Failure> {
        let mut body = Some(b"{\"records\":[]}".to_vec());
        let url = super::request::parse_url(&self.urls().path_url(PATH, &[]))?;
        let response = self.send(0, RequestKind::List, Method::POST, url, &mut || Ok(body.take())).await;
        let response = response.map_err(|error| match error {
            RequestError::Failed(failure, _) => self.redacted(failure),
            RequestError::NotSent(reason) => failure(FailureClass::Transient, "not_sent", &reason),
        })?;
        classify::parse_result::<serde::de::IgnoredAny>(RequestKind::List, &response.head, &response.body).map(|_| ())
    }
}
