//! Several requests in one call: what comes of several permits leaves together, and each is answered by itself.
//!
//! One token and one slot pay for a call. The engine knows nothing of calls: it is given a permit for each request that
//! fits in, and the lease of each is compared with the clock immediately before the call leaves. To fill a call it
//! waits a little for further requests, but for a critical one. Looks for work notes page through a journal and can't
//! be part of a call, nor can looks at events; they follow it on the same slot. Where the instance refuses a call as a
//! whole (it is too large, the interface is not allowed), nothing of it ran; requests are then sent singly for a while,
//! so that one which can't be sent with others gets an answer of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::attempt::{self, Right};
use super::driver::{Driver, perform};
use super::ownership::Tenures;
use crate::engine::dispatcher::Wanted;
use crate::engine::event::{Effect, Event, RequestId};
use crate::kafka::PollerHandle;
use crate::model::{Answer, HttpMethod, HttpMethods, QuotaStatus};
use crate::quota::{Pace, PermitRequest, RequestClass};
use crate::runtime::clock;
use crate::runtime::failpoint::{self, Point};
use crate::servicenow::{Client, Reply, Request};

/// How calls are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Most requests in one call.
    pub size: usize,
    /// How long a request waits for others to leave with.
    pub linger: Duration,
}

/// How long requests are sent singly after a call was refused as a whole, milliseconds.
const SINGLY: u64 = 60_000;

/// A call that has so many bytes of values takes in no further request: in base64 it must stay below the smallest
/// limit that an instance can have (`glide.rest.max_content_length`, 1 MB).
const FULL: usize = 600_000;

/// The state of batching.
#[derive(Debug)]
pub struct Batching {
    together: BatchSettings,
    /// Until when requests are sent singly; told by the task that met the refusal.
    singly_until: Arc<AtomicU64>,
    /// Since when requests wait for others.
    waiting_since: Option<u64>,
}

impl Batching {
    /// Nothing waits yet.
    pub fn new(together: BatchSettings) -> Self {
        Self { together, singly_until: Arc::default(), waiting_since: None }
    }

    /// Milliseconds that `wanting` requests wait still for others, if any.
    fn linger(&mut self, wanting: usize, critical: bool, now: u64) -> Option<u64> {
        let since = *self.waiting_since.get_or_insert(now);
        let until = since.saturating_add(u64::try_from(self.together.linger.as_millis()).unwrap_or(u64::MAX));
        let waits = wanting < self.together.size && !critical && now < until;
        waits.then(|| until - now)
    }
}

/// A request of a call.
struct BatchItem {
    id: RequestId,
    right: Right,
    request: Request,
}

/// What the pace is asked for a call.
fn ask(client: &Client, class: RequestClass) -> PermitRequest<'static> {
    PermitRequest { table: client.called_as(), method: HttpMethod::Post, class }
}

impl Driver {
    /// The most requests that leave as one call now; `None`: each leaves alone.
    pub(super) fn together(&self) -> Option<usize> {
        let batching = self.batching.as_ref()?;
        let singly_until = batching.singly_until.load(Ordering::Acquire);
        (clock::mono() >= singly_until).then_some(batching.together.size)
    }

    /// What the pace is asked for the next request, alone or with others.
    pub(super) fn ask(&self, wanted: Wanted, class: RequestClass) -> PermitRequest<'_> {
        match self.together() {
            None => {
                let (table, method) = self.route.client.counted_as(wanted.method);
                PermitRequest { table, method, class }
            }
            Some(_) => ask(&self.route.client, class),
        }
    }

    /// How the quota is spent.
    pub(super) fn plan(&self) -> QuotaStatus {
        match self.together() {
            None => self.pace().plan(self.route.client.counted_as(HttpMethod::Post).0),
            Some(size) => QuotaStatus { per_call: Some(size), ..self.pace().plan(self.route.client.called_as()) },
        }
    }

    /// Milliseconds to wait for further requests, if that is worth while.
    pub(super) fn linger(&mut self, wanted: Wanted) -> Option<u64> {
        let wanting = self.dispatcher.wanting();
        self.batching.as_mut()?.linger(wanting, wanted.critical, clock::mono())
    }

    /// Gives the engine permits until a call is full or nothing more is wanted, and sends it on this slot.
    pub(super) fn spend_together(&mut self, size: usize, slot: usize, class: RequestClass, effects: &mut Vec<Effect>) {
        if let Some(batching) = &mut self.batching {
            batching.waiting_since = None;
        }
        let mut parts: Vec<BatchItem> = Vec::new();
        let mut bytes = 0;
        // A permit may come to nothing, where a claim has waited for too long; so it is not given without end.
        for _ in 0..2 * size {
            let full = parts.len() >= size || bytes >= FULL;
            if full || self.dispatcher.wanted(clock::now(), HttpMethods::NONE).is_none() {
                break;
            }
            self.dispatcher.apply(Event::Permit { without: HttpMethods::NONE }, clock::now(), effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Request { id, partition, epoch, lease_until, body } => {
                        let right = Right { partition, epoch, tenure: self.tenures.of(partition), lease_until };
                        let request = attempt::request(body, &self.route.client, &self.route.correlation_display);
                        bytes += size_of(&request);
                        parts.push(BatchItem { id, right, request });
                    }
                    other => perform(self, other),
                }
            }
        }
        let call = Call {
            slot: Some(slot),
            class,
            client: self.route.client.clone(),
            pace: Arc::clone(&self.route.pace),
            answers: self.events.clone(),
            unanswered: parts.iter().map(|part| part.id).collect(),
        };
        if parts.is_empty() {
            return;
        }
        let Some(batching) = &self.batching else { return };
        let singly_until = Arc::clone(&batching.singly_until);
        let name = Arc::clone(&self.route.name);
        let (poller, tenures) = (self.poller.clone(), self.tenures.clone());
        tokio::spawn(async move {
            if let Some(why) = call.send(slot, parts, &poller, &tenures).await {
                let told = "the instance did not take a batch as a whole; sends requests singly for a minute";
                tracing::warn!(route = %name, why, "{told}");
                singly_until.store(clock::mono() + SINGLY, Ordering::Release);
            }
        });
    }
}

/// Bytes of what a request writes.
fn size_of(request: &Request) -> usize {
    match request {
        Request::Create { fields, notes, .. }
        | Request::Update { fields, notes, .. }
        | Request::Event { fields, notes, .. } => {
            let fields: usize = fields.iter().map(|(column, value)| column.len() + value.len()).sum();
            fields + notes.iter().map(|note| note.text.len() + note.marker.len()).sum::<usize>()
        }
        _ => 0,
    }
}

/// A call under way: answers each of its requests once, also where the task dies, and gives its slot back at the end.
struct Call {
    slot: Option<usize>,
    class: RequestClass,
    client: Client,
    pace: Arc<Pace>,
    answers: mpsc::UnboundedSender<Event>,
    unanswered: Vec<RequestId>,
}

impl Call {
    /// Sends the requests; says why where the instance refused the call as a whole.
    async fn send(
        mut self,
        slot: usize,
        parts: Vec<BatchItem>,
        poller: &PollerHandle,
        tenures: &Tenures,
    ) -> Option<String> {
        let (together, alone): (Vec<BatchItem>, Vec<BatchItem>) =
            parts.into_iter().partition(|part| self.client.goes_together(&part.request));
        if together.iter().any(|part| part.request.writes()) {
            failpoint::pass(Point::Send);
            failpoint::pass_soon(Point::InFlight, Duration::from_millis(5));
        }
        let mut refused = None;
        if !together.is_empty() {
            let (ids, rights): (Vec<RequestId>, Vec<Right>) = together.iter().map(|p| (p.id, p.right)).unzip();
            let requests: Vec<Request> = together.into_iter().map(|part| part.request).collect();
            let may_send = |at: usize| attempt::may_send(poller, tenures, rights[at]);
            let replies = self.client.perform_together(slot, &requests, may_send).await;
            if alone.is_empty() {
                self.release();
            }
            let mut told = false;
            for (id, reply) in ids.into_iter().zip(replies.each) {
                let fails = matches!(reply.answer, Answer::Failed(_));
                self.answer(id, reply, told);
                told |= fails && replies.as_one;
            }
            refused = replies.refused.map(|failure| failure.message);
        }
        for part in alone {
            let may_send = || attempt::may_send(poller, tenures, part.right);
            let reply = self.client.perform_if(slot, part.request, may_send).await;
            self.answer(part.id, reply, false);
        }
        refused
    }

    /// Gives the slot back, before the last answers: who hears them finds it free.
    fn release(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.pace.record(ask(&self.client, self.class), &self.client.take_feedback(slot), clock::mono());
            self.pace.release(slot);
        }
    }

    fn answer(&mut self, request: RequestId, reply: Reply, told: bool) {
        self.unanswered.retain(|id| *id != request);
        let Reply { answer, issued_at, instance_date } = reply;
        // The loop ends before its tasks only when the process does.
        let _ = self.answers.send(Event::Answered { request, issued_at, instance_date, answer, told });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.release();
        for id in std::mem::take(&mut self.unanswered) {
            let reply = Reply { answer: attempt::abandoned(), issued_at: clock::mono(), instance_date: None };
            self.answer(id, reply, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_waits_for_others_until_it_is_full_or_urgent_or_has_waited_long_enough() {
        let mut batching = Batching::new(BatchSettings { size: 3, linger: Duration::from_millis(100) });
        assert_eq!(batching.linger(1, false, 1_000), Some(100));
        assert_eq!(batching.linger(2, false, 1_060), Some(40), "the first of them waits no longer for the second");
        assert_eq!(batching.linger(3, false, 1_060), None);
        assert_eq!(batching.linger(1, true, 1_060), None);
        assert_eq!(batching.linger(1, false, 1_100), None);
    }
}
