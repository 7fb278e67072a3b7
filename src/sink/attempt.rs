//! One request: translated for the client, sent if the lease still holds, and answered exactly once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::ownership::LoadGenerations;
use crate::engine::event::{Event, InstanceRequest, RequestId};
use crate::kafka::PollerHandle;
use crate::mapping::correlation;
use crate::model::{Answer, Epoch, Failure, HttpMethod, answer::FailureClass};
use crate::quota::{PermitRequest, RequestClass, RequestLimiter};
use crate::runtime::clock;
use crate::runtime::failpoint::{self, Failpoint};
use crate::servicenow::{Client, Note, Request};

/// A request to send.
pub struct Attempt {
    /// Id of the request, for its answer.
    pub id: RequestId,
    /// Checked immediately before sending.
    pub check: SendCheck,
    /// The request.
    pub body: InstanceRequest,
    /// Concurrency slot; released with the answer.
    pub slot: usize,
    /// Class of the permit.
    pub class: RequestClass,
}

/// The condition for sending, checked immediately before the bytes are sent.
#[derive(Debug, Clone, Copy)]
pub struct SendCheck {
    /// The partition whose lease must hold.
    pub partition: i32,
    /// Epoch of the partition.
    pub epoch: Epoch,
    /// Load generation of the partition.
    pub load_generation: u64,
    /// End of the lease on the mono clock; `u64::MAX` for requests that change nothing, which are always sent.
    pub lease_until: u64,
}

/// Sends the request in its own task. The answer arrives as an event, even if the task panics.
pub fn spawn(
    attempt: Attempt,
    client: &Client,
    limiter: &Arc<RequestLimiter>,
    (poller, load_generations): (&PollerHandle, &LoadGenerations),
    correlation_display: &str,
    answers: &mpsc::UnboundedSender<Event>,
) {
    let Attempt { id, check, body, slot, class } = attempt;
    let method = body.method();
    let request = to_client_request(body, client, correlation_display);
    let (client, poller, load_generations) = (client.clone(), poller.clone(), load_generations.clone());
    let mut guard = AnswerGuard {
        id,
        slot,
        permit: (method, class),
        client: client.clone(),
        limiter: Arc::clone(limiter),
        answers: answers.clone(),
        answered: false,
    };
    tokio::spawn(async move {
        if request.writes() {
            failpoint::hit(Failpoint::Send);
            failpoint::hit_after(Failpoint::InFlight, Duration::from_millis(5));
        }
        let may_send = || may_send(&poller, &load_generations, check);
        let reply = client.perform_if(slot, request, may_send).await;
        guard.answer(Event::RequestCompleted {
            request: id,
            issued_at: reply.issued_at,
            instance_date: reply.instance_date,
            answer: reply.answer,
            already_counted: false,
        });
    });
}

/// The check immediately before sending (protocol rule 5d).
pub(super) fn may_send(
    poller: &PollerHandle,
    load_generations: &LoadGenerations,
    check: SendCheck,
) -> Result<(), String> {
    let SendCheck { partition, epoch, load_generation, lease_until } = check;
    if lease_until == u64::MAX {
        return Ok(());
    }
    if clock::mono() >= lease_until {
        return Err("the lease ended before the request was sent".into());
    }
    if poller.epoch_of(partition) != Some(epoch) {
        return Err("the partition was revoked before the request was sent".into());
    }
    if load_generations.current(partition) != load_generation {
        return Err("the partition was loaded again before the request was sent".into());
    }
    Ok(())
}

/// Returns the answer for a task that ended without one: the request may have been sent, so it is ambiguous.
pub(super) fn abandoned() -> Answer {
    Answer::Failed(Failure {
        class: FailureClass::Ambiguous { transaction_ended: false },
        code: "abandoned".into(),
        message: "the attempt ended without an answer".into(),
    })
}

/// Sends the answer of a request, also if its task ends without one.
struct AnswerGuard {
    id: RequestId,
    slot: usize,
    /// Method and class of the permit.
    permit: (HttpMethod, RequestClass),
    client: Client,
    limiter: Arc<RequestLimiter>,
    answers: mpsc::UnboundedSender<Event>,
    answered: bool,
}

impl AnswerGuard {
    fn answer(&mut self, event: Event) {
        self.answered = true;
        let (method, class) = self.permit;
        let (table, method) = self.client.rate_limit_scope(method);
        let request = PermitRequest { table, method, class };
        self.limiter.record(request, &self.client.take_feedback(self.slot), clock::mono());
        self.limiter.release(self.slot);
        // The receiver is closed only if the process is about to exit.
        let _ = self.answers.send(event);
    }
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Event::RequestCompleted {
                request: self.id,
                issued_at: clock::mono(),
                instance_date: None,
                answer: abandoned(),
                already_counted: false,
            });
        }
    }
}

/// Translates a request of the engine for the client.
pub(super) fn to_client_request(body: InstanceRequest, client: &Client, correlation_display: &str) -> Request {
    let notes = |notes: Vec<crate::engine::event::MarkedNote>| {
        notes.into_iter().map(|n| Note { text: n.text, marker: n.marker }).collect()
    };
    if client.connection().events.is_some() {
        return match body {
            InstanceRequest::Create { key, fields, notes: list, .. } => {
                Request::SendEvent { correlation: correlation(&key), ticket: None, fields, notes: notes(list) }
            }
            InstanceRequest::Update { key, sys_id, fields, notes: list, .. } => {
                Request::SendEvent { correlation: correlation(&key), ticket: Some(sys_id), fields, notes: notes(list) }
            }
            InstanceRequest::Read { key, sys_id, markers, .. } => {
                Request::FindEvents { correlation: correlation(&key), ticket: Some(sys_id), markers }
            }
            // An event route never looks at rows before it writes.
            InstanceRequest::ReadMany { tickets, columns } => {
                Request::ReadMany { sys_ids: tickets.into_iter().map(|(_, sys_id)| sys_id).collect(), columns }
            }
            InstanceRequest::Find { key, .. } => {
                Request::FindEvents { correlation: correlation(&key), ticket: None, markers: Vec::new() }
            }
        };
    }
    match body {
        InstanceRequest::Create { key, fields, notes: list, .. } => Request::Create {
            correlation: correlation(&key),
            correlation_display: correlation_display.to_owned(),
            fields,
            notes: notes(list),
        },
        InstanceRequest::Update { sys_id, fields, notes: list, .. } => {
            Request::Update { sys_id, fields, notes: notes(list) }
        }
        InstanceRequest::Read { sys_id, columns, markers, .. } => Request::Read { sys_id, columns, markers },
        InstanceRequest::ReadMany { tickets, columns } => {
            Request::ReadMany { sys_ids: tickets.into_iter().map(|(_, sys_id)| sys_id).collect(), columns }
        }
        InstanceRequest::Find { key, columns } => Request::Find { correlation: correlation(&key), columns },
    }
}
