//! Batches: several requests in one call of the instance's Batch API, each with its own answer.
//!
//! One token and one slot pay for a call. The engine knows nothing about batches: the driver grants it a permit for
//! each request that fits in, and compares the lease of each with the clock immediately before the call is sent. To
//! fill a batch, the driver waits briefly for further requests, unless one is critical. Reads of work notes need
//! several pages of a journal and cannot be part of a batch, nor can reads of events; they follow the batch on the same
//! slot. If the instance rejects a batch as a whole (too large, or the API is not allowed), none of its requests ran.
//! The driver then sends requests unbatched for a while, so that a request that cannot be batched gets its own answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::attempt::{self, SendCheck};
use super::driver::{Driver, perform};
use super::ownership::LoadGenerations;
use crate::engine::dispatcher::NextRequest;
use crate::engine::event::{Effect, Event, RequestId};
use crate::kafka::PollerHandle;
use crate::model::{Answer, HttpMethod, HttpMethodSet, QuotaStatus};
use crate::quota::{PermitRequest, RequestClass, RequestLimiter};
use crate::runtime::clock;
use crate::runtime::failpoint::{self, Failpoint};
use crate::servicenow::{Client, Request, RequestResult};

/// Configuration of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Maximum number of requests in one batch.
    pub size: usize,
    /// How long a request waits for further ones.
    pub linger: Duration,
}

/// How long requests are sent unbatched after a batch was rejected as a whole, milliseconds.
const UNBATCHED_FOR: u64 = 60_000;

/// A batch with so many bytes of values is full: in base64 it must stay below the smallest limit that an instance can
/// have (`glide.rest.max_content_length`, 1 MB).
const FULL_BYTES: usize = 600_000;

/// The state of batching.
#[derive(Debug)]
pub struct BatchState {
    settings: BatchSettings,
    /// The time until which requests are sent unbatched, on the mono clock. Set by the task whose batch was rejected.
    unbatched_until: Arc<AtomicU64>,
    /// Since when requests wait for further ones, on the mono clock.
    waiting_since: Option<u64>,
}

impl BatchState {
    /// Creates the state; no request waits.
    pub fn new(settings: BatchSettings) -> Self {
        Self { settings, unbatched_until: Arc::default(), waiting_since: None }
    }

    /// Returns how many more milliseconds the waiting requests wait for further ones; `None` if they are sent now.
    fn linger(&mut self, waiting_for_permit: usize, critical: bool, now: u64) -> Option<u64> {
        let since = *self.waiting_since.get_or_insert(now);
        let until = since.saturating_add(u64::try_from(self.settings.linger.as_millis()).unwrap_or(u64::MAX));
        let waits = waiting_for_permit < self.settings.size && !critical && now < until;
        waits.then(|| until - now)
    }
}

/// A request of a batch.
struct BatchItem {
    id: RequestId,
    check: SendCheck,
    request: Request,
}

/// Returns the permit request for a batch.
fn batch_permit_request(client: &Client, class: RequestClass) -> PermitRequest<'static> {
    PermitRequest { table: client.batch_rate_limit_scope(), method: HttpMethod::Post, class }
}

impl Driver {
    /// Returns the most requests in one batch; `None` if requests are sent unbatched at present.
    pub(super) fn batch_size(&self) -> Option<usize> {
        let batching = self.batching.as_ref()?;
        let unbatched_until = batching.unbatched_until.load(Ordering::Acquire);
        (clock::mono() >= unbatched_until).then_some(batching.settings.size)
    }

    /// Returns the permit request for the next request, or for the batch that contains it.
    pub(super) fn permit_request(&self, next_request: NextRequest, class: RequestClass) -> PermitRequest<'_> {
        match self.batch_size() {
            None => {
                let (table, method) = self.route.client.rate_limit_scope(next_request.method);
                PermitRequest { table, method, class }
            }
            Some(_) => batch_permit_request(&self.route.client, class),
        }
    }

    /// Returns the state of the quota.
    pub(super) fn quota_status(&self) -> QuotaStatus {
        match self.batch_size() {
            None => self.limiter().status(self.route.client.rate_limit_scope(HttpMethod::Post).0),
            Some(size) => QuotaStatus {
                batch_size: Some(size),
                ..self.limiter().status(self.route.client.batch_rate_limit_scope())
            },
        }
    }

    /// Returns the milliseconds to wait for further requests; `None` to send now.
    pub(super) fn linger(&mut self, next_request: NextRequest) -> Option<u64> {
        let waiting_for_permit = self.dispatcher.waiting_for_permit();
        self.batching.as_mut()?.linger(waiting_for_permit, next_request.critical, clock::mono())
    }

    /// Grants the engine permits until the batch is full or no further request waits, and sends the batch on this slot.
    pub(super) fn send_batch(&mut self, size: usize, slot: usize, class: RequestClass, effects: &mut Vec<Effect>) {
        if let Some(batching) = &mut self.batching {
            batching.waiting_since = None;
        }
        let mut items: Vec<BatchItem> = Vec::new();
        let mut bytes = 0;
        // A permit may result in no request if a claim has waited for too long, so their number is limited.
        for _ in 0..2 * size {
            let full = items.len() >= size || bytes >= FULL_BYTES;
            if full || self.dispatcher.next_request(clock::now(), HttpMethodSet::NONE).is_none() {
                break;
            }
            self.dispatcher.apply(Event::PermitGranted { without: HttpMethodSet::NONE }, clock::now(), effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::SendRequest { id, partition, epoch, lease_until, body } => {
                        let check = SendCheck {
                            partition,
                            epoch,
                            load_generation: self.load_generations.current(partition),
                            lease_until,
                        };
                        let request =
                            attempt::to_client_request(body, &self.route.client, &self.route.correlation_display);
                        bytes += size_of(&request);
                        items.push(BatchItem { id, check, request });
                    }
                    other => perform(self, other),
                }
            }
        }
        let call = BatchCall {
            slot: Some(slot),
            class,
            client: self.route.client.clone(),
            limiter: Arc::clone(&self.route.limiter),
            answers: self.events.clone(),
            unanswered: items.iter().map(|item| item.id).collect(),
        };
        if items.is_empty() {
            return;
        }
        let Some(batching) = &self.batching else { return };
        let unbatched_until = Arc::clone(&batching.unbatched_until);
        let name = Arc::clone(&self.route.name);
        let (poller, load_generations) = (self.poller.clone(), self.load_generations.clone());
        tokio::spawn(async move {
            if let Some(error) = call.send(slot, items, &poller, &load_generations).await {
                tracing::warn!(route = %name, error, "instance rejected a batch, sending requests unbatched for 60 s");
                unbatched_until.store(clock::mono() + UNBATCHED_FOR, Ordering::Release);
            }
        });
    }
}

/// Returns the size of the values that a request writes, in bytes.
fn size_of(request: &Request) -> usize {
    match request {
        Request::Create { fields, notes, .. }
        | Request::Update { fields, notes, .. }
        | Request::SendEvent { fields, notes, .. } => {
            let fields: usize = fields.iter().map(|(column, value)| column.len() + value.len()).sum();
            fields + notes.iter().map(|note| note.text.len() + note.marker.len()).sum::<usize>()
        }
        _ => 0,
    }
}

/// A batch in flight. Answers each of its requests once, even if the task panics, and releases its slot at the end.
struct BatchCall {
    slot: Option<usize>,
    class: RequestClass,
    client: Client,
    limiter: Arc<RequestLimiter>,
    answers: mpsc::UnboundedSender<Event>,
    unanswered: Vec<RequestId>,
}

impl BatchCall {
    /// Sends the requests. Returns the error if the instance rejected the batch as a whole.
    async fn send(
        mut self,
        slot: usize,
        items: Vec<BatchItem>,
        poller: &PollerHandle,
        load_generations: &LoadGenerations,
    ) -> Option<String> {
        let (batched, unbatched): (Vec<BatchItem>, Vec<BatchItem>) =
            items.into_iter().partition(|item| self.client.is_batchable(&item.request));
        if batched.iter().any(|item| item.request.writes()) {
            failpoint::hit(Failpoint::Send);
            failpoint::hit_after(Failpoint::InFlight, Duration::from_millis(5));
        }
        let mut rejection = None;
        if !batched.is_empty() {
            let (ids, checks): (Vec<RequestId>, Vec<SendCheck>) =
                batched.iter().map(|item| (item.id, item.check)).unzip();
            let requests: Vec<Request> = batched.into_iter().map(|item| item.request).collect();
            let may_send = |at: usize| attempt::may_send(poller, load_generations, checks[at]);
            let replies = self.client.perform_batch(slot, &requests, may_send).await;
            if unbatched.is_empty() {
                self.release();
            }
            let mut already_counted = false;
            for (id, reply) in ids.into_iter().zip(replies.results) {
                let fails = matches!(reply.answer, Answer::Failed(_));
                self.answer(id, reply, already_counted);
                already_counted |= fails && replies.call_failed;
            }
            rejection = replies.unbatch_reason.map(|failure| failure.message);
        }
        for item in unbatched {
            let may_send = || attempt::may_send(poller, load_generations, item.check);
            let reply = self.client.perform_if(slot, item.request, may_send).await;
            self.answer(item.id, reply, false);
        }
        rejection
    }

    /// Releases the slot before the last answers are sent, so that it is free when they arrive.
    fn release(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.limiter.record(
                batch_permit_request(&self.client, self.class),
                &self.client.take_feedback(slot),
                clock::mono(),
            );
            self.limiter.release(slot);
        }
    }

    fn answer(&mut self, request: RequestId, reply: RequestResult, already_counted: bool) {
        self.unanswered.retain(|id| *id != request);
        let RequestResult { answer, issued_at, instance_date } = reply;
        // The receiver is closed only if the process is about to exit.
        let _ =
            self.answers.send(Event::RequestCompleted { request, issued_at, instance_date, answer, already_counted });
    }
}

impl Drop for BatchCall {
    fn drop(&mut self) {
        self.release();
        for id in std::mem::take(&mut self.unanswered) {
            let reply = RequestResult { answer: attempt::abandoned(), issued_at: clock::mono(), instance_date: None };
            self.answer(id, reply, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_until_it_is_full_or_critical_or_its_linger_has_passed() {
        let mut batching = BatchState::new(BatchSettings { size: 3, linger: Duration::from_millis(100) });
        assert_eq!(batching.linger(1, false, 1_000), Some(100));
        assert_eq!(batching.linger(2, false, 1_060), Some(40), "the linger counts from the first request");
        assert_eq!(batching.linger(3, false, 1_060), None);
        assert_eq!(batching.linger(1, true, 1_060), None);
        assert_eq!(batching.linger(1, false, 1_100), None);
    }
}
