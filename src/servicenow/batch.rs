//! Several requests in one HTTP request, by the instance's Batch API.
//!
//! The instance serves the items one after the other in one transaction, which it ends after 30 s. Each item that it
//! answered is judged like an answer of its own. Of the others: one that is named as not served never ran; one that is
//! neither answered nor named was running when the call was ended, and is in doubt; and where all are named, the first
//! of them may have been the one that was running, unless the item before it was answered with a failure of the
//! server. A call that got no answer, or none that can be read, leaves every write in it in doubt. A call that the
//! instance refused as a whole ran nothing, and says nothing of its items: they have to be sent singly.
//!
//! Events ([`super::events`]) go together in the same way, by an interface of their own; looks at them don't.
//!
//! What is not known of real instances is in which order items run; this takes it to be the order in which they were
//! sent, which their documentation shows and does not promise.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Answer, Class, Failure};

use super::classify::{self, Head, Kind, doubt, failure};
use super::client::{Heard, RequestError};
use super::{Client, Reply, Request, events, journal, lookup, request};
use crate::quota::concurrency::LoadSignal;

/// Where calls go, within the instance.
const PATH: &str = "/api/now/v1/batch";

/// Name by which the pace knows calls: the rate-limit rules of an instance count them apart from requests to tables.
pub const TABLE: &str = "batch";

/// What came of a call.
#[derive(Debug)]
pub struct Replies {
    /// For each request, in their order.
    pub each: Vec<Reply>,
    /// They tell of one and the same failure, that of the call.
    pub as_one: bool,
    /// The instance did not take the call as a whole, for this reason, and the next requests are better sent singly: it
    /// refused it, so that nothing ran and all are `NotSent`; or it took some events of it, and all are in doubt.
    pub refused: Option<Failure>,
}

/// An item as it is sent.
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

/// The answer to a call.
#[derive(Deserialize)]
struct Answered {
    serviced_requests: Vec<Served>,
    #[serde(default)]
    unserviced_requests: Vec<Value>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Served {
    id: Value,
    status_code: u16,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    headers: Vec<Header<String>>,
}

impl Client {
    /// By which name the pace knows requests that carry several.
    pub fn called_as(&self) -> &'static str {
        if self.connection().events.is_some() { events::TABLE } else { TABLE }
    }

    /// Whether a request can be sent together with others.
    pub fn goes_together(&self, request: &Request) -> bool {
        match self.connection().events {
            Some(_) => matches!(request, Request::Event { .. }),
            None => request.is_one_exchange(),
        }
    }

    /// Performs several requests on a slot as one call; each must be one exchange ([`Request::is_one_exchange`]).
    /// `may_send` is asked for each immediately before the call leaves, after any token was fetched: where it says why
    /// not, that request is left out and answered `NotSent`.
    pub async fn perform_together(
        &self,
        slot: usize,
        requests: &[Request],
        mut may_send: impl FnMut(usize) -> Result<(), String> + Send,
    ) -> Replies {
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(requests.len());
        let mut items: Vec<(usize, Vec<u8>)> = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            let item = match &self.connection().events {
                Some(events) => events::record(events, request),
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
        let (path, begins): (&str, &[u8]) = match self.connection().events {
            Some(_) => (events::PATH, b"{\"records\":["),
            None => (PATH, b"{\"batch_request_id\":\"1\",\"rest_requests\":["),
        };
        let mut sent = Vec::new();
        let mut compose = || {
            sent.clear();
            let mut body = begins.to_vec();
            for (at, item) in &items {
                match may_send(*at) {
                    Ok(()) => {
                        if !sent.is_empty() {
                            body.push(b',');
                        }
                        body.extend_from_slice(item);
                        sent.push(*at);
                    }
                    Err(why) => answers[*at] = Some(Answer::NotSent { reason: why }),
                }
            }
            body.extend_from_slice(b"]}");
            if sent.is_empty() { Err("no request of the batch may be sent".to_owned()) } else { Ok(Some(body)) }
        };
        let outcome = match request::parse(&self.urls().path(path, &[])) {
            Ok(url) => self.exchange(slot, Kind::Create, Method::POST, url, &mut compose).await,
            Err(failure) => Err(failure.into()),
        };
        self.share_latency(slot, sent.len());
        self.replies(requests, &sent, answers, outcome)
    }

    /// One request as an item, its id its place.
    fn item(&self, at: usize, request: &Request) -> Result<Vec<u8>, Failure> {
        let (method, url, body) = match request {
            Request::Event { .. } | Request::Events { .. } => {
                return Err(failure(Class::Transient, "request", "an event can't be part of a batch"));
            }
            Request::Create { .. } | Request::Update { .. } => {
                let wire = request.wire(self.connection(), self.urls())?;
                let method = if wire.kind == Kind::Create { "POST" } else { "PATCH" };
                (method, wire.url.to_string(), Some(BASE64.encode(&wire.body)))
            }
            Request::Read { sys_id, columns, .. } => ("GET", journal::url(self, sys_id, columns)?, None),
            Request::Find { correlation, columns } => ("GET", lookup::url(self, correlation, columns)?, None),
        };
        if !request.is_one_exchange() {
            return Err(failure(Class::Transient, "request", "a look for notes can't be part of a batch"));
        }
        let url = self.urls().within(&url);
        // The headers tell how long to wait where an item is throttled.
        let item = Item { id: at.to_string(), method, url, headers: HEADERS, body, exclude_response_headers: false };
        serde_json::to_vec(&item).map_err(|error| failure(Class::Rejected, "request", &error.to_string()))
    }

    /// The pace follows how long a request takes, and a call takes as long as its items together.
    fn share_latency(&self, slot: usize, items: usize) {
        let Some(slot) = self.slot(slot) else { return };
        slot.press(|feedback| {
            if let Some(LoadSignal::Answered { latency, .. }) = &mut feedback.sign {
                *latency /= u64::try_from(items).unwrap_or(1).max(1);
            }
        });
    }

    /// An answer for each request.
    fn replies(
        &self,
        requests: &[Request],
        sent: &[usize],
        mut answers: Vec<Option<Answer>>,
        outcome: Result<Heard, RequestError>,
    ) -> Replies {
        let mut as_one = false;
        let mut refused = None;
        let date = match &outcome {
            Ok(heard) => heard.head.date,
            Err(RequestError::Failed(_, date)) => *date,
            Err(RequestError::NotSent(_)) => None,
        };
        let judged = outcome.and_then(|heard| {
            let judged = match self.connection().events {
                Some(_) => events::judge(self, requests, sent, &heard, &mut answers),
                None => parse(&heard).map(|answered| self.judge(requests, sent, &heard.head, answered, &mut answers)),
            };
            judged.map_err(RequestError::from)
        });
        match judged {
            Ok(()) => {}
            Err(RequestError::NotSent(reason)) => fill(&mut answers, |_| Answer::NotSent { reason: reason.clone() }),
            Err(RequestError::Failed(failure, _)) => {
                let failure = self.scrubbed(failure);
                if matches!(failure.class, Class::Rejected | Class::Gone | Class::Conflict) {
                    let reason = format!("the instance refused the batch as a whole: {}", failure.message);
                    fill(&mut answers, |_| Answer::NotSent { reason: reason.clone() });
                    refused = Some(failure);
                } else {
                    fill(&mut answers, |at| Answer::Failed(of_whole(&requests[at], failure.clone())));
                    as_one = true;
                    // Some of them may be what the instance can't take: each gets an answer of its own the next time.
                    refused = (failure.code == "events_missing").then_some(failure);
                }
            }
        }
        let issued_at = self.now();
        let reply = |answer: Option<Answer>| {
            let answer = answer.unwrap_or_else(|| Answer::NotSent { reason: "it was not part of the batch".into() });
            Reply { answer, issued_at, instance_date: date }
        };
        Replies { each: answers.into_iter().map(reply).collect(), as_one, refused }
    }

    /// The call was answered: what of each item?
    fn judge(
        &self,
        requests: &[Request],
        sent: &[usize],
        head: &Head,
        answered: Answered,
        answers: &mut [Option<Answer>],
    ) {
        let mut served: HashMap<String, Vec<Served>> = HashMap::new();
        for one in answered.serviced_requests {
            served.entry(text(&one.id)).or_default().push(one);
        }
        let named: HashSet<String> = answered.unserviced_requests.iter().map(text).collect();
        let running = running(sent, &served, &named);
        for &at in sent {
            let kind = kind(&requests[at]);
            let in_doubt = |why: &str| Err(doubt(kind, true, Class::Transient, "batch_ended", why));
            let outcome = match served.remove(&at.to_string()).as_deref() {
                Some([one]) => self.served(&requests[at], head, one),
                Some(_) => in_doubt("the instance answered it more than once"),
                None if named.contains(&at.to_string()) && running != Some(at) => {
                    Ok(Answer::NotSent { reason: "the instance's quota ended the batch before it".into() })
                }
                None => in_doubt("the instance's quota ended the batch at it"),
            };
            answers[at] = Some(outcome.unwrap_or_else(|failure| Answer::Failed(self.scrubbed(failure))));
        }
    }

    /// The answer to one item, judged as an answer of its own.
    fn served(&self, request: &Request, head: &Head, one: &Served) -> Result<Answer, Failure> {
        // A body that is no base64 is taken as it is, and so for no result.
        let body = one.body.as_deref().unwrap_or_default();
        let body = BASE64.decode(body.trim()).unwrap_or_else(|_| body.as_bytes().to_vec());
        let header = |name: &str| one.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        let retry_after = header("retry-after").and_then(|h| classify::retry_after(&h.value, head.date));
        let head = Head { status: one.status_code, date: head.date, retry_after, total: None };
        let heard = Heard { head, body };
        match request {
            Request::Event { .. } | Request::Events { .. } => {
                Err(failure(Class::Transient, "request", "an event can't be part of a batch"))
            }
            Request::Create { .. } | Request::Update { .. } => self.written(kind(request), request, &heard),
            Request::Read { sys_id, columns, .. } => journal::row_of(self, sys_id, columns, &heard)
                .map(|row| Answer::Rows { rows: vec![row], journal: None }),
            Request::Find { correlation, columns } => lookup::found(self, correlation, columns, &heard),
        }
    }
}

fn kind(request: &Request) -> Kind {
    match request {
        Request::Create { .. } | Request::Event { .. } => Kind::Create,
        Request::Update { .. } => Kind::Update,
        Request::Read { .. } => Kind::Row,
        Request::Find { .. } | Request::Events { .. } => Kind::List,
    }
}

/// What a failure of the call means for one request: nothing can have been changed by a read.
fn of_whole(request: &Request, failure: Failure) -> Failure {
    match failure.class {
        Class::Ambiguous { .. } if !request.writes() => Failure { class: Class::Transient, ..failure },
        _ => failure,
    }
}

fn parse(heard: &Heard) -> Result<Answered, Failure> {
    let Heard { head, body } = heard;
    if head.status != 200 || body.trim_ascii_start().first() != Some(&b'{') {
        return Err(classify::refusal(Kind::Create, head, body));
    }
    match serde_json::from_slice::<Answered>(body) {
        Ok(Answered { error: Some(_), .. }) => {
            Err(doubt(Kind::Create, false, Class::Transient, "spliced_error", "an error inside the answer to a batch"))
        }
        Ok(answered) => Ok(answered),
        Err(_) => Err(classify::refusal(Kind::Create, head, body)),
    }
}

/// The item that is named as not served and may yet have been running when the call was ended.
fn running(sent: &[usize], served: &HashMap<String, Vec<Served>>, named: &HashSet<String>) -> Option<usize> {
    let is_named = |at: &usize| named.contains(&at.to_string()) && !served.contains_key(&at.to_string());
    let first = sent.iter().position(is_named)?;
    // One that is neither answered nor named is the one; and so is one that the server broke off.
    if sent.iter().any(|at| !is_named(at) && !served.contains_key(&at.to_string())) {
        return None;
    }
    let before = first.checked_sub(1).and_then(|before| served.get(&sent[before].to_string()));
    let broken_off = before.is_some_and(|answers| answers.iter().any(|one| one.status_code >= 500));
    if broken_off { None } else { sent.get(first).copied() }
}

fn fill(answers: &mut [Option<Answer>], answer: impl Fn(usize) -> Answer) {
    for (at, slot) in answers.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
        *slot = Some(answer(at));
    }
}

/// Ids come back as text; a number is taken as well.
fn text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}
