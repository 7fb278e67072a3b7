//! One request: the engine's words turned into the client's, sent if the lease still stands, answered once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::ownership::Tenures;
use crate::engine::event::{Event, RequestBody, RequestId};
use crate::kafka::PollerHandle;
use crate::mapping::correlation;
use crate::model::{Answer, Epoch, Failure, HttpMethod, answer::Class};
use crate::quota::{Pace, PermitRequest, RequestClass};
use crate::runtime::clock;
use crate::runtime::failpoint::{self, Point};
use crate::servicenow::{Client, Note, Request};

/// What one attempt needs.
pub struct Attempt {
    /// Answer with this id.
    pub id: RequestId,
    /// What it may be sent by.
    pub right: Right,
    /// What to send.
    pub body: RequestBody,
    /// Concurrency slot, given back when it is answered.
    pub slot: usize,
    /// Whose quota pays.
    pub class: RequestClass,
}

/// The right to send: it must hold immediately before the bytes leave.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// Partition whose lease counts.
    pub partition: i32,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its tenure.
    pub tenure: u64,
    /// The lease's end; `u64::MAX` for requests that change nothing, which are always sent.
    pub lease_until: u64,
}

/// Sends it on a task of its own. The answer comes as an event, also where the task dies.
pub fn spawn(
    attempt: Attempt,
    client: &Client,
    pace: &Arc<Pace>,
    (poller, tenures): (&PollerHandle, &Tenures),
    correlation_display: &str,
    answers: &mpsc::UnboundedSender<Event>,
) {
    let Attempt { id, right, body, slot, class } = attempt;
    let method = body.method();
    let request = request(body, client, correlation_display);
    let (client, poller, tenures) = (client.clone(), poller.clone(), tenures.clone());
    let mut guard = Guard {
        id,
        slot,
        paid: (method, class),
        client: client.clone(),
        pace: Arc::clone(pace),
        answers: answers.clone(),
        answered: false,
    };
    tokio::spawn(async move {
        if request.writes() {
            failpoint::pass(Point::Send);
            failpoint::pass_soon(Point::InFlight, Duration::from_millis(5));
        }
        let may_send = || may_send(&poller, &tenures, right);
        let reply = client.perform_if(slot, request, may_send).await;
        guard.answer(Event::Answered {
            request: id,
            issued_at: reply.issued_at,
            instance_date: reply.instance_date,
            answer: reply.answer,
            told: false,
        });
    });
}

/// The one check immediately before sending (protocol rule 4).
pub(super) fn may_send(poller: &PollerHandle, tenures: &Tenures, right: Right) -> Result<(), String> {
    let Right { partition, epoch, tenure, lease_until } = right;
    if lease_until == u64::MAX {
        return Ok(());
    }
    if clock::mono() >= lease_until {
        return Err("the lease ended before the request was sent".into());
    }
    if poller.epoch_of(partition) != Some(epoch) {
        return Err("the partition was taken back before the request was sent".into());
    }
    if tenures.of(partition) != tenure {
        return Err("the partition was taken over anew before the request was sent".into());
    }
    Ok(())
}

/// The answer of a task that ended without one: the request may have been sent, so it is in doubt.
pub(super) fn abandoned() -> Answer {
    Answer::Failed(Failure {
        class: Class::Ambiguous { ended: false },
        code: "abandoned".into(),
        message: "the attempt ended without an answer".into(),
    })
}

/// Answers for a task that ended without an answer.
struct Guard {
    id: RequestId,
    slot: usize,
    /// What the permit was for.
    paid: (HttpMethod, RequestClass),
    client: Client,
    pace: Arc<Pace>,
    answers: mpsc::UnboundedSender<Event>,
    answered: bool,
}

impl Guard {
    fn answer(&mut self, event: Event) {
        self.answered = true;
        let (method, class) = self.paid;
        let (table, method) = self.client.counted_as(method);
        let ask = PermitRequest { table, method, class };
        self.pace.record(ask, &self.client.take_feedback(self.slot), clock::mono());
        self.pace.release(self.slot);
        // The loop ends before its tasks only when the process does.
        let _ = self.answers.send(event);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Event::Answered {
                request: self.id,
                issued_at: clock::mono(),
                instance_date: None,
                answer: abandoned(),
                told: false,
            });
        }
    }
}

pub(super) fn request(body: RequestBody, client: &Client, correlation_display: &str) -> Request {
    let notes = |notes: Vec<crate::engine::event::MarkedNote>| {
        notes.into_iter().map(|n| Note { text: n.text, marker: n.marker }).collect()
    };
    if client.connection().events.is_some() {
        return match body {
            RequestBody::Create { key, fields, notes: list, .. } => {
                Request::Event { correlation: correlation(&key), ticket: None, fields, notes: notes(list) }
            }
            RequestBody::Update { key, sys_id, fields, notes: list, .. } => {
                Request::Event { correlation: correlation(&key), ticket: Some(sys_id), fields, notes: notes(list) }
            }
            RequestBody::Read { key, sys_id, markers, .. } => {
                Request::Events { correlation: correlation(&key), ticket: Some(sys_id), markers }
            }
            RequestBody::Find { key, .. } => {
                Request::Events { correlation: correlation(&key), ticket: None, markers: Vec::new() }
            }
        };
    }
    match body {
        RequestBody::Create { key, fields, notes: list, .. } => Request::Create {
            correlation: correlation(&key),
            correlation_display: correlation_display.to_owned(),
            fields,
            notes: notes(list),
        },
        RequestBody::Update { sys_id, fields, notes: list, .. } => {
            Request::Update { sys_id, fields, notes: notes(list) }
        }
        RequestBody::Read { sys_id, columns, markers, .. } => Request::Read { sys_id, columns, markers },
        RequestBody::Find { key, columns } => Request::Find { correlation: correlation(&key), columns },
    }
}
