//! Batches: several requests in one HTTP request, by the instance's Batch API.
//!
//! The instance executes the items one after the other in one transaction, which it ends after 30 s. Each item with a
//! response is classified like a request of its own. The others:
//! - An item listed as unserviced was not executed.
//! - An item that is neither serviced nor listed was being executed when the transaction ended; it is ambiguous.
//! - If all of them are listed, the first may have been the one being executed, unless the item before it got a server
//!   error.
//!
//! A call without a response, or with one that cannot be read, leaves every write in it ambiguous. If the instance
//! rejects the call, it executed nothing, and the rejection says nothing about the items: send them unbatched.
//!
//! Events ([`super::events`]) are batched in the same way, by an API of their own; searches for events are not.
//!
//! The order in which a real instance executes the items is not certain. This module assumes the order in which they
//! were sent, which ServiceNow's documentation shows but does not guarantee.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Answer, Failure, FailureClass};

use super::classify::{self, RequestKind, ResponseHead, ambiguous, failure};
use super::client::{HttpResponse, RequestError};
use super::{Client, Request, RequestResult, events, journal, lookup, request};
use crate::quota::concurrency::LoadSignal;

/// The path of the Batch API.
const PATH: &str = "/api/now/v1/batch";

/// The limiter's name for batches: the instance's rate-limit rules count them separately from requests to tables.
pub const TABLE: &str = "batch";

/// The result of a batch.
#[derive(Debug)]
pub struct BatchResult {
    /// One per request, in the same order.
    pub results: Vec<RequestResult>,
    /// The HTTP request itself failed; the results of all requests sent contain that one failure.
    pub call_failed: bool,
    /// Why the next requests should be sent unbatched. Either the instance rejected the call, so that nothing was
    /// executed and all results are `NotSent`; or it accepted only some of the events, and all are ambiguous.
    pub unbatch_reason: Option<Failure>,
}

/// A request as an item of the Batch API.
#[derive(Serialize)]
struct Item<'a> {
    id: String,
    method: &'static str,
    url: &'a str,
    headers: [Header<&'static str>; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    exclude_response_headers: bool,
}

#[derive(Serialize, Deserialize)]
struct Header<T> {
    name: T,
    value: T,
}

const HEADERS: [Header<&str>; 2] =
    [Header { name: "Content-Type", value: "application/json" }, Header { name: "Accept", value: "application/json" }];

/// The response to a batch.
#[derive(Deserialize)]
struct BatchResponse {
    serviced_requests: Vec<ServicedRequest>,
    #[serde(default)]
    unserviced_requests: Vec<Value>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct ServicedRequest {
    id: Value,
    status_code: u16,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    headers: Vec<Header<String>>,
}

impl Client {
    /// The table name under which the limiter counts batches.
    pub fn batch_rate_limit_scope(&self) -> &'static str {
        if self.connection().events.is_some() { events::TABLE } else { TABLE }
    }

    /// Whether a request can be part of a batch.
    pub fn is_batchable(&self, request: &Request) -> bool {
        match self.connection().events {
            Some(_) => matches!(request, Request::SendEvent { .. }),
            None => request.is_single_http_request(),
        }
    }

    /// Performs several requests on a slot as one HTTP request. Each must be a single HTTP request
    /// ([`Request::is_single_http_request`]). `may_send` is called for each immediately before the batch is sent, after
    /// any token was fetched. A request for which it fails is omitted and answered `NotSent`.
    pub async fn perform_batch(
        &self,
        slot: usize,
        requests: &[Request],
        mut may_send: impl FnMut(usize) -> Result<(), String> + Send,
    ) -> BatchResult {
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(requests.len());
        let mut items: Vec<(usize, Vec<u8>)> = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            let item = match &self.connection().events {
                Some(events) => events::encode_record(events, request),
                None => self.item(at, request),
            };
            match item {
                Ok(item) => items.push((at, item)),
                Err(failure) => {
                    answers.resize_with(at + 1, || None);
                    answers[at] = Some(Answer::Failed(failure));
                }
            }
        }
        answers.resize_with(requests.len(), || None);
        let (path, prefix): (&str, &[u8]) = match self.connection().events {
            Some(_) => (events::PATH, b"{\"records\":["),
            None => (PATH, b"{\"batch_request_id\":\"1\",\"rest_requests\":["),
        };
        let mut sent = Vec::new();
        let mut body_source = || {
            sent.clear();
            let mut body = prefix.to_vec();
            for (at, item) in &items {
                match may_send(*at) {
                    Ok(()) => {
                        if !sent.is_empty() {
                            body.push(b',');
                        }
                        body.extend_from_slice(item);
                        sent.push(*at);
                    }
                    Err(reason) => answers[*at] = Some(Answer::NotSent { reason }),
                }
            }
            body.extend_from_slice(b"]}");
            if sent.is_empty() { Err("no request of the batch may be sent".to_owned()) } else { Ok(Some(body)) }
        };
        let outcome = match request::parse_url(&self.urls().path_url(path, &[])) {
            Ok(url) => self.send(slot, RequestKind::Create, Method::POST, url, &mut body_source).await,
            Err(failure) => Err(failure.into()),
        };
        self.divide_latency(slot, sent.len());
        self.batch_result(requests, &sent, answers, outcome)
    }

    /// Encodes one request as an item; its id is its index.
    fn item(&self, at: usize, request: &Request) -> Result<Vec<u8>, Failure> {
        let (method, url, body) = match request {
            Request::SendEvent { .. } | Request::FindEvents { .. } => {
                return Err(failure(FailureClass::Transient, "request", "an event can't be part of a batch"));
            }
            Request::Create { .. } | Request::Update { .. } => {
                let write = request.encode_write(self.connection(), self.urls())?;
                let method = if write.kind == RequestKind::Create { "POST" } else { "PATCH" };
                (method, write.url.to_string(), Some(BASE64.encode(&write.body)))
            }
            Request::Read { sys_id, columns, .. } => ("GET", journal::url(self, sys_id, columns)?, None),
            Request::ReadMany { sys_ids, columns } => ("GET", lookup::many_url(self, sys_ids, columns)?, None),
            Request::Find { correlation, columns } => ("GET", lookup::url(self, correlation, columns)?, None),
        };
        if !request.is_single_http_request() {
            return Err(failure(FailureClass::Transient, "request", "a search for markers can't be part of a batch"));
        }
        let url = self.urls().strip_root(&url);
        // An item's headers contain `Retry-After` if the item is throttled.
        let item = Item { id: at.to_string(), method, url, headers: HEADERS, body, exclude_response_headers: false };
        serde_json::to_vec(&item).map_err(|error| failure(FailureClass::Rejected, "request", &error.to_string()))
    }

    /// Divides the call's latency by its items: the limiter expects the latency of one request.
    fn divide_latency(&self, slot: usize, items: usize) {
        let Some(slot) = self.slot(slot) else { return };
        slot.update_feedback(|feedback| {
            if let Some(LoadSignal::Response { latency, .. }) = &mut feedback.signal {
                *latency /= u64::try_from(items).unwrap_or(1).max(1);
            }
        });
    }

    /// Determines the answer to each request.
    fn batch_result(
        &self,
        requests: &[Request],
        sent: &[usize],
        mut answers: Vec<Option<Answer>>,
        outcome: Result<HttpResponse, RequestError>,
    ) -> BatchResult {
        let mut call_failed = false;
        let mut unbatch_reason = None;
        let date = match &outcome {
            Ok(response) => response.head.date,
            Err(RequestError::Failed(_, date)) => *date,
            Err(RequestError::NotSent(_)) => None,
        };
        let classified = outcome.and_then(|response| {
            let classified = match self.connection().events {
                Some(_) => events::classify(self, requests, sent, &response, &mut answers),
                None => parse(&response)
                    .map(|batch| self.classify_items(requests, sent, &response.head, batch, &mut answers)),
            };
            classified.map_err(RequestError::from)
        });
        match classified {
            Ok(()) => {}
            Err(RequestError::NotSent(reason)) => {
                fill_unanswered(&mut answers, |_| Answer::NotSent { reason: reason.clone() });
            }
            Err(RequestError::Failed(failure, _)) => {
                let failure = self.redacted(failure);
                if matches!(failure.class, FailureClass::Rejected | FailureClass::Gone | FailureClass::Conflict) {
                    let reason = format!("the instance rejected the batch: {}", failure.message);
                    fill_unanswered(&mut answers, |_| Answer::NotSent { reason: reason.clone() });
                    unbatch_reason = Some(failure);
                } else {
                    fill_unanswered(&mut answers, |at| Answer::Failed(call_failure_of(&requests[at], failure.clone())));
                    call_failed = true;
                    // Sent unbatched, each event gets a response of its own, and one that the instance rejects is
                    // found.
                    unbatch_reason = (failure.code == "events_missing").then_some(failure);
                }
            }
        }
        let issued_at = self.now();
        let result = |answer: Option<Answer>| {
            let answer =
                answer.unwrap_or_else(|| Answer::NotSent { reason: "the request was not part of the batch".into() });
            RequestResult { answer, issued_at, instance_date: date }
        };
        BatchResult { results: answers.into_iter().map(result).collect(), call_failed, unbatch_reason }
    }

    /// Classifies the items of a batch that has a response.
    fn classify_items(
        &self,
        requests: &[Request],
        sent: &[usize],
        head: &ResponseHead,
        batch: BatchResponse,
        answers: &mut [Option<Answer>],
    ) {
        let mut serviced: HashMap<String, Vec<ServicedRequest>> = HashMap::new();
        for item in batch.serviced_requests {
            serviced.entry(id_text(&item.id)).or_default().push(item);
        }
        let unserviced: HashSet<String> = batch.unserviced_requests.iter().map(id_text).collect();
        let interrupted = interrupted_item(sent, &serviced, &unserviced);
        for &at in sent {
            let kind = kind(&requests[at]);
            let ambiguous_item =
                |reason: &str| Err(ambiguous(kind, true, FailureClass::Transient, "batch_ended", reason));
            let outcome = match serviced.remove(&at.to_string()).as_deref() {
                Some([item]) => self.item_answer(&requests[at], head, item),
                Some(_) => ambiguous_item("the instance returned more than one response for this request"),
                None if unserviced.contains(&at.to_string()) && interrupted != Some(at) => Ok(Answer::NotSent {
                    reason: "the instance's transaction quota ended the batch before this request".into(),
                }),
                None => ambiguous_item("the instance's transaction quota ended the batch during this request"),
            };
            answers[at] = Some(outcome.unwrap_or_else(|failure| Answer::Failed(self.redacted(failure))));
        }
    }

    /// Classifies one item's response like a response of its own.
    fn item_answer(&self, request: &Request, head: &ResponseHead, item: &ServicedRequest) -> Result<Answer, Failure> {
        // A body that is not base64 is used as is, and so is not a valid result.
        let body = item.body.as_deref().unwrap_or_default();
        let body = BASE64.decode(body.trim()).unwrap_or_else(|_| body.as_bytes().to_vec());
        let header = |name: &str| item.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        let retry_after = header("retry-after").and_then(|h| classify::retry_after(&h.value, head.date));
        let head = ResponseHead { status: item.status_code, date: head.date, retry_after, total: None };
        let response = HttpResponse { head, body };
        match request {
            Request::SendEvent { .. } | Request::FindEvents { .. } => {
                Err(failure(FailureClass::Transient, "request", "an event can't be part of a batch"))
            }
            Request::Create { .. } | Request::Update { .. } => self.write_answer(kind(request), request, &response),
            Request::Read { sys_id, columns, .. } => journal::parse_row(self, sys_id, columns, &response)
                .map(|row| Answer::Rows { rows: vec![row], journal: None }),
            Request::ReadMany { sys_ids, columns } => lookup::parse_many(self, sys_ids, columns, &response),
            Request::Find { correlation, columns } => lookup::parse_response(self, correlation, columns, &response),
        }
    }
}

fn kind(request: &Request) -> RequestKind {
    match request {
        Request::Create { .. } | Request::SendEvent { .. } => RequestKind::Create,
        Request::Update { .. } => RequestKind::Update,
        Request::Read { .. } => RequestKind::Read,
        Request::ReadMany { .. } | Request::Find { .. } | Request::FindEvents { .. } => RequestKind::List,
    }
}

/// The failure of one request of a call that failed: a read changes nothing, so it is never ambiguous.
fn call_failure_of(request: &Request, failure: Failure) -> Failure {
    match failure.class {
        FailureClass::Ambiguous { .. } if !request.writes() => Failure { class: FailureClass::Transient, ..failure },
        _ => failure,
    }
}

fn parse(response: &HttpResponse) -> Result<BatchResponse, Failure> {
    let HttpResponse { head, body } = response;
    if head.status != 200 || body.trim_ascii_start().first() != Some(&b'{') {
        return Err(classify::error_response(RequestKind::Create, head, body));
    }
    match serde_json::from_slice::<BatchResponse>(body) {
        Ok(BatchResponse { error: Some(_), .. }) => {
            let reason = "the response to the batch contains an error";
            Err(ambiguous(RequestKind::Create, false, FailureClass::Transient, "spliced_error", reason))
        }
        Ok(batch) => Ok(batch),
        Err(_) => Err(classify::error_response(RequestKind::Create, head, body)),
    }
}

/// The item that is listed as unserviced although it may have been executing when the transaction ended.
fn interrupted_item(
    sent: &[usize],
    serviced: &HashMap<String, Vec<ServicedRequest>>,
    unserviced: &HashSet<String>,
) -> Option<usize> {
    let is_unserviced = |at: &usize| unserviced.contains(&at.to_string()) && !serviced.contains_key(&at.to_string());
    let first = sent.iter().position(is_unserviced)?;
    // An item that is neither serviced nor listed was the one; and so was one with a server error.
    if sent.iter().any(|at| !is_unserviced(at) && !serviced.contains_key(&at.to_string())) {
        return None;
    }
    let previous = first.checked_sub(1).and_then(|previous| serviced.get(&sent[previous].to_string()));
    let aborted = previous.is_some_and(|answers| answers.iter().any(|item| item.status_code >= 500));
    if aborted { None } else { sent.get(first).copied() }
}

fn fill_unanswered(answers: &mut [Option<Answer>], answer: impl Fn(usize) -> Answer) {
    for (at, slot) in answers.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
        *slot = Some(answer(at));
    }
}

/// Ids are returned as text; a number is accepted as well.
fn id_text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}
