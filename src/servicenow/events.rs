//! Writes as events of the instance's Event Management: each is one record of `em/jsonv2`, many in one request.
//!
//! The instance takes the records at once into `em_event`, and makes alerts of them some seconds later, by their message
//! key. It answers with a count alone: where that is the number sent, all are there; where it is less, nobody says which
//! are missing, and each is in doubt with its transaction ended, but none or one of one is certain. An event names in its
//! `additional_info` the attempt that sent it and the ticket that it belongs to: an id of our own, made by the event that
//! opens an alert. A doubt is settled by a look at the events of the message key, never at the alert: alerts come late,
//! and don't keep what made them. `em_event` is emptied after some days; an event that is gone counts as never sent,
//! and sending it again leaves its alert as it is, a note excepted.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::model::answer::Journal;
use crate::model::{Answer, Class, Column, Failure, Row};

use super::answer::{self, Fields};
use super::classify::{self, Kind, doubt, failure};
use super::client::{Heard, RequestError};
use super::text::is_sys_id;
use super::{Client, Note, Query, Request, journal, lookup};

/// Where events go, within the instance.
pub(super) const PATH: &str = "/api/global/em/jsonv2";

/// The table that takes them, by whose name the pace knows the requests.
pub const TABLE: &str = "em_event";

/// Begins the names of columns that are part of `additional_info`.
pub const INFO: &str = "additional_info.";

/// What an event says of itself in `additional_info`, where rules may not write it (`config::resolve::event`): the
/// attempt's marker, the ticket, and the notes it carries.
const ATTEMPT: &str = "nowbridge_attempt";
const TICKET: &str = "nowbridge_ticket";
const NOTE: &str = "note";

/// Most events of a key that a look sees: the newest.
const LIMIT: usize = 50;

/// Who sends events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Their `source`: what made them.
    pub source: String,
    /// Their `event_class`: which of these it was; empty: none is sent.
    pub class: String,
}

/// One event as it is sent.
pub(super) fn record(events: &Events, sent: &Request) -> Result<Vec<u8>, Failure> {
    let bad = |why: &str| failure(Class::Rejected, "request", why);
    let Request::Event { correlation, fields, notes, .. } = sent else {
        return Err(bad("only an event can be sent as an event"));
    };
    let (Some(attempt), Some(ticket)) = (attempt(notes), ticket(sent)) else {
        return Err(bad("an event without the marker of its attempt could not be found again"));
    };
    let mut record = Map::new();
    let mut info = Map::new();
    info.insert(ATTEMPT.into(), attempt.into());
    info.insert(TICKET.into(), ticket.into());
    record.insert("source".into(), events.source.as_str().into());
    if !events.class.is_empty() {
        record.insert("event_class".into(), events.class.as_str().into());
    }
    record.insert("message_key".into(), correlation.as_str().into());
    for (column, value) in fields {
        match column.strip_prefix(INFO) {
            Some(name) => info.insert(name.into(), value.as_str().into()),
            None => record.insert(column.to_string(), value.as_str().into()),
        };
    }
    let severity = record.get("severity").and_then(Value::as_str).unwrap_or_default();
    if !matches!(severity, "0" | "1" | "2" | "3" | "4" | "5") {
        let why =
            format!("the severity {severity:?} is none of 1 (critical) to 5 (info) or 0 (clear); look at `fields`");
        return Err(failure(Class::Rejected, "event_severity", &why));
    }
    let told: Vec<Note> = notes.iter().filter(|note| !note.text.is_empty()).cloned().collect();
    if !told.is_empty() {
        info.insert(NOTE.into(), journal::render(&told).into());
    }
    record.insert("additional_info".into(), Value::Object(info).to_string().into());
    serde_json::to_vec(&record).map_err(|error| bad(&error.to_string()))
}

/// The marker of the attempt: that of the note without text.
fn attempt(notes: &[Note]) -> Option<&str> {
    notes.iter().find(|note| note.text.is_empty()).map(|note| note.marker.as_str())
}

/// The ticket of an event: one that opens an alert names a new one, which its attempt makes.
fn ticket(sent: &Request) -> Option<String> {
    let Request::Event { correlation, ticket, notes, .. } = sent else { return None };
    ticket.clone().or_else(|| {
        let digest = Sha256::digest(format!("{correlation}\n{}", attempt(notes)?).as_bytes());
        hex::encode(digest).get(..32).map(str::to_owned)
    })
}

/// What the answer to a request of events means; an `Err` is of the request as a whole.
pub(super) fn judge(
    client: &Client,
    requests: &[Request],
    sent: &[usize],
    heard: &Heard,
    answers: &mut [Option<Answer>],
) -> Result<(), Failure> {
    let told = classify::result::<Map<String, Value>>(Kind::Create, &heard.head, &heard.body)?;
    let says = told.values().find_map(Value::as_str).unwrap_or_default();
    let count = says.split_whitespace().next().and_then(|word| word.parse::<usize>().ok());
    match count {
        Some(count) if count == sent.len() => {
            for &at in sent {
                let row = written(client, &requests[at], heard.head.date.unwrap_or_default());
                answers[at] = row.map(|row| Answer::Applied { row: Box::new(row), warnings: Vec::new() });
            }
            Ok(())
        }
        Some(0) => {
            let why = "the instance took none of the events, and does not say why; its columns or its rights may";
            sent.iter().for_each(|&at| {
                answers[at] = Some(Answer::Failed(failure(Class::Rejected, "event_not_taken", why)));
            });
            Ok(())
        }
        _ => {
            let why = format!("{} events were sent, and the instance says {says:?}", sent.len());
            Err(doubt(Kind::Create, true, Class::Transient, "events_missing", &why))
        }
    }
}

/// The ticket as an event leaves it.
fn written(client: &Client, sent: &Request, date: i64) -> Option<Row> {
    let Request::Event { correlation, fields, .. } = sent else { return None };
    let severity = fields.iter().find(|(column, _)| **column == *client.connection().state_column);
    let stands = Stands {
        at: date,
        severity: severity.map(|(_, value)| value.clone()).unwrap_or_default(),
        info: String::new(),
    };
    Some(row(client, correlation, &ticket(sent)?, &stands, date))
}

/// An event that stands.
struct Stands {
    at: i64,
    severity: String,
    info: String,
}

/// Looks at the events of a message key. Of a ticket: one row as its newest event leaves it, and which of the markers
/// its events carry. Else all tickets of the key.
pub(super) async fn look(
    client: &Client,
    slot: usize,
    request: &Request,
    may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
) -> Result<(Answer, Option<i64>), RequestError> {
    let Request::Events { correlation, ticket, markers } = request else {
        return Err(failure(Class::Rejected, "request", "no look for events").into());
    };
    let query = Query::new().eq("message_key", correlation).order_by_desc("sys_created_on").encoded();
    let query = query.map_err(|error| failure(Class::Rejected, "query_refused", &error.to_string()))?;
    let columns: [Column; 1] = ["additional_info".into()];
    let url = client.urls().list(columns.iter().map(|c| &**c), &query, LIMIT);
    let heard = client.read(slot, Kind::List, url, may_send).await?;
    let date = heard.head.date;
    let events = events(client, correlation, &heard).map_err(|failure| RequestError::Failed(failure, date))?;
    let answer = match ticket {
        None => Answer::Rows { rows: tickets(client, correlation, &events), journal: None },
        Some(ticket) => of_ticket(client, correlation, ticket, markers, &events),
    };
    Ok((answer, date))
}

/// The events that carry the key, newest first.
fn events(client: &Client, correlation: &str, heard: &Heard) -> Result<Vec<Stands>, Failure> {
    let found = classify::result::<Vec<Fields>>(Kind::List, &heard.head, &heard.body)?;
    let found = lookup::ours("message_key", correlation, found)?;
    let hidden = || {
        let why = "events came without additional_info, severity or sys_created_on: let the bridge's user read them";
        failure(Class::Transient, "events_unreadable", why)
    };
    let stands = |fields: Fields| {
        let at = fields.get("sys_created_on").and_then(answer::date_time).ok_or_else(hidden)?;
        let severity = fields.get(&client.connection().state_column).ok_or_else(hidden)?.to_owned();
        let info = fields.get("additional_info").ok_or_else(hidden)?.to_owned();
        Ok(Stands { at, severity, info })
    };
    let mut events = found.into_iter().map(stands).collect::<Result<Vec<_>, _>>()?;
    events.sort_by_key(|event| std::cmp::Reverse(event.at));
    Ok(events)
}

fn row(client: &Client, correlation: &str, ticket: &str, newest: &Stands, created_on: i64) -> Row {
    Row {
        sys_id: ticket.to_owned(),
        number: correlation.to_owned(),
        state: newest.severity.clone(),
        updated_by: client.connection().bridge_user.clone(),
        updated_on: newest.at,
        created_on,
        ..Row::default()
    }
}

/// The tickets of a key, oldest first.
fn tickets(client: &Client, correlation: &str, events: &[Stands]) -> Vec<Row> {
    let mut tickets: BTreeMap<String, Row> = BTreeMap::new();
    for event in events {
        let Some(ticket) = ticket_of(&event.info) else { continue };
        let known = tickets.entry(ticket);
        let first = known.or_insert_with_key(|ticket| row(client, correlation, ticket, event, event.at));
        first.created_on = first.created_on.min(event.at);
    }
    let mut rows: Vec<Row> = tickets.into_values().collect();
    rows.sort_by(|a, b| (a.created_on, &a.sys_id).cmp(&(b.created_on, &b.sys_id)));
    rows
}

fn of_ticket(client: &Client, correlation: &str, ticket: &str, markers: &[String], events: &[Stands]) -> Answer {
    let own: Vec<&Stands> = events.iter().filter(|e| ticket_of(&e.info).as_deref() == Some(ticket)).collect();
    let carries = |event: &&Stands| markers.iter().any(|marker| event.info.contains(marker.as_str()));
    let found = markers.iter().filter(|m| own.iter().any(|e| e.info.contains(m.as_str()))).cloned().collect();
    // Of two in the same second the one in question is the later: nothing was sent behind it.
    let newest = own.iter().copied().find(carries).or(own.first().copied());
    let oldest = own.last().map_or(0, |event| event.at);
    let rows = newest.map(|event| row(client, correlation, ticket, event, oldest)).into_iter().collect();
    Answer::Rows { rows, journal: Some(Journal::Read(found)) }
}

/// The ticket that an event names; read as text where the instance has cut the JSON short.
fn ticket_of(info: &str) -> Option<String> {
    let named = match serde_json::from_str::<Map<String, Value>>(info) {
        Ok(info) => info.get(TICKET).and_then(Value::as_str).map(str::to_owned),
        Err(_) => info.split_once(TICKET).and_then(|(_, behind)| {
            let begins = behind.find(|c: char| c.is_ascii_alphanumeric())?;
            behind.get(begins..begins + 32).map(str::to_owned)
        }),
    };
    named.filter(|id| is_sys_id(id))
}

impl Client {
    /// Sends one event.
    pub(super) async fn send_event(
        &self,
        slot: usize,
        request: Request,
        may_send: &mut (dyn FnMut() -> Result<(), String> + Send),
    ) -> Result<(Answer, Option<i64>), RequestError> {
        let mut replies = self.perform_together(slot, &[request], |_| may_send()).await;
        match (replies.refused, replies.each.pop()) {
            (Some(refused), reply) => Err(RequestError::Failed(refused, reply.and_then(|reply| reply.instance_date))),
            (None, Some(reply)) => Ok((reply.answer, reply.instance_date)),
            (None, None) => Err(failure(Class::Transient, "request", "nothing was sent").into()),
        }
    }

    /// Sends no event at all: only rights can be refused, and nothing is left behind.
    ///
    /// # Errors
    /// What the instance says against it.
    pub async fn knock_for_events(&self) -> Result<(), Failure> {
        let mut body = Some(b"{\"records\":[]}".to_vec());
        let url = super::request::parse(&self.urls().path(PATH, &[]))?;
        let heard = self.exchange(0, Kind::List, Method::POST, url, &mut || Ok(body.take())).await;
        let heard = heard.map_err(|missed| match missed {
            RequestError::Failed(failure, _) => self.scrubbed(failure),
            RequestError::NotSent(why) => failure(Class::Transient, "not_sent", &why),
        })?;
        classify::result::<serde::de::IgnoredAny>(Kind::List, &heard.head, &heard.body).map(|_| ())
    }
}
