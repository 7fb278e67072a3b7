//! The Batch API: several requests in one (`POST /api/now[/v1]/batch`), executed one after the other in one
//! transaction, each with its own response. A failing request does not roll back the others.
//!
//! Known: bodies are base64 in both directions; ids are returned as text and in no guaranteed order; the transaction
//! quota of 30 s ends the call, and the response lists the unserviced requests; a body of more than 5 MB is rejected.
//! Not known, therefore random here: how the response shows the item that was running when the quota ended the call
//! (left out, status 500, or listed as unserviced if it was not committed). Assumed: a response of more than 10 MB ends
//! the call like the quota does. An item's URL must be one of the Table API; for others the item returns the error of
//! an unknown path.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Account;
use super::fault_injection::InjectedFault;
use super::faults::Faults;
use super::instance::{Instance, lock};
use super::reply::{LOGIN, Reply, gateway};
use super::router::{count_against_rules, latency, table_request};
use super::transaction::{commit, delayed_commit, fault_response, pause};
use super::write_log::Via;

/// Largest body of an item, bytes.
const MAX_ITEM: usize = 5 << 20;

/// Largest response, bytes.
const MAX_RESPONSE: usize = 10 << 20;

/// A call of the Batch API.
pub(super) struct BatchRequest {
    id: Value,
    items: Vec<Item>,
    pub account: Arc<Account>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    batch_request_id: Value,
    rest_requests: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    id: Value,
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Header>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    exclude_response_headers: bool,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

/// Whether a path is the Batch API's.
pub(super) fn is_batch(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/api/now/batch" | "/api/now/v1/batch")
}

/// Parses a call and checks the caller's rights; executes nothing.
pub(super) fn read(parts: &Parts, body: &Bytes, account: Arc<Account>, faults: &Faults) -> Result<BatchRequest, Reply> {
    if account.user.roles.is_empty() || faults.batch_forbidden {
        return Err(Reply::error(403, "User Not Authorized", Some("Failed API level ACL Validation")));
    }
    if parts.method != axum::http::Method::POST {
        return Err(Reply::error(405, "Method not supported", None));
    }
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| Reply::error(400, "Exception while reading request", Some(&error.to_string())))?;
    Ok(BatchRequest { id: body.batch_request_id, items: body.rest_requests, account })
}

/// The result of a call.
#[derive(Default)]
struct BatchResult {
    /// Responses of the executed items.
    serviced: Vec<Value>,
    /// Ids of the other items.
    unserviced: Vec<Value>,
    /// Sum of the response bodies, bytes.
    response_size: usize,
}

/// Runs a call: injects a fault if one is drawn, executes the items and returns the response.
pub(super) async fn transact(
    instance: &Arc<Instance>,
    batch: BatchRequest,
    faults: &Arc<Faults>,
    before: u64,
) -> Reply {
    let _in_flight = instance.in_flight_guard();
    let fault = lock(&instance.fault_injector).draw(faults, true, false);
    match fault {
        Some(InjectedFault::Accepted) => return Reply::bare(202),
        Some(InjectedFault::LoginPage) => return Reply::html(200, LOGIN),
        Some(InjectedFault::Ghost { ms, reset_connection, discarded }) => {
            let (later, faults) = (Arc::clone(instance), Arc::clone(faults));
            let write = async move {
                run_items(&later, &batch, &faults, Via::GhostWrite).await;
                true
            };
            delayed_commit(instance, ms, discarded, write);
            pause(before).await;
            return if reset_connection { Reply::connection_reset() } else { gateway(504) };
        }
        Some(InjectedFault::ConnectionReset { commits: false }) => {
            pause(before).await;
            return Reply::connection_reset();
        }
        Some(InjectedFault::Status { status, commits: false }) => {
            pause(before).await;
            return fault_response(status);
        }
        _ => {}
    }
    let mut result = run_items(instance, &batch, faults, Via::Rest).await;
    lock(&instance.fault_injector).shuffle(&mut result.serviced);
    let reply = json!({
        "batch_request_id": as_text(&batch.id),
        "serviced_requests": result.serviced,
        "unserviced_requests": result.unserviced,
    });
    let mut reply = Reply::json(200, reply.to_string().into_bytes());
    match fault {
        Some(InjectedFault::ConnectionReset { .. }) => return Reply::connection_reset(),
        Some(InjectedFault::Status { status, .. }) => return fault_response(status),
        Some(InjectedFault::NullBody) => reply.body = b"null".to_vec(),
        Some(InjectedFault::TruncatedJson) => reply.body.truncate(reply.body.len() / 2),
        _ => {}
    }
    reply
}

/// Executes the items in their order until all are done or the quota ends the call.
async fn run_items(instance: &Arc<Instance>, batch: &BatchRequest, faults: &Arc<Faults>, via: Via) -> BatchResult {
    let quota = u128::from(instance.options.settings.batch_quota_ms);
    let started = Instant::now();
    let cutoff = lock(&instance.fault_injector).batch_cutoff(faults, batch.items.len());
    let mut result = BatchResult::default();
    for (at, item) in batch.items.iter().enumerate() {
        let (before, after) = latency(instance, faults);
        let over_quota = started.elapsed().as_millis() + u128::from(before + after) > quota;
        if instance.stop.is_cancelled() || cutoff == Some(at) || over_quota || result.response_size > MAX_RESPONSE {
            pause(before).await;
            interrupt(instance, batch, at, faults, via, &mut result);
            break;
        }
        pause(before).await;
        let reply = run_item(instance, batch, item, faults, via);
        pause(after).await;
        record_response(item, reply, started, &mut result);
    }
    result
}

/// Ends the call at item `at`; the items after it never run.
fn interrupt(
    instance: &Arc<Instance>,
    batch: &BatchRequest,
    at: usize,
    faults: &Arc<Faults>,
    via: Via,
    result: &mut BatchResult,
) {
    instance.count("batches_ended_early");
    let interruption = lock(&instance.fault_injector).interruption();
    let Some(item) = batch.items.get(at) else { return };
    if interruption.commits {
        run_item(instance, batch, item, faults, via);
    }
    if interruption.answered_500 {
        record_response(item, fault_response(500), Instant::now(), result);
    }
    let from = if interruption.is_listed_unserviced() { at } else { at + 1 };
    result.unserviced.extend(batch.items.iter().skip(from).map(|item| as_text(&item.id)));
}

/// Executes one item.
fn run_item(instance: &Arc<Instance>, batch: &BatchRequest, item: &Item, faults: &Arc<Faults>, via: Via) -> Reply {
    instance.count("batch_items");
    let body = match BASE64.decode(item.body.as_deref().unwrap_or("").trim()) {
        Ok(body) if body.len() <= MAX_ITEM => body,
        Ok(body) => {
            let detail = format!("The request is too large: {} bytes. Max allowed: {MAX_ITEM} bytes.", body.len());
            return Reply::error(400, "Exception while reading request", Some(&detail));
        }
        Err(_) => return Reply::error(400, "Exception while reading request", Some("The body is not base64.")),
    };
    let mut request = axum::http::Request::builder().method(item.method.as_str()).uri(&item.url);
    for header in &item.headers {
        request = request.header(&header.name, &header.value);
    }
    let Ok(request) = request.body(()) else {
        return Reply::error(400, "Requested URI does not represent any resource", Some(&item.url));
    };
    let (parts, ()) = request.into_parts();
    let request = match table_request(instance, &parts, body.into(), Arc::clone(&batch.account)) {
        Ok(request) => request,
        Err(reply) => return reply,
    };
    if instance.options.settings.rate_limit_batch_items
        && let (_, Some(denied)) = count_against_rules(instance, &request.account, request.method, request.table_name)
    {
        return denied;
    }
    let fails = request.is_write() && lock(&instance.fault_injector).batch_item_fails(faults);
    // Half of the failing items fail before the commit.
    if fails && lock(&instance.fault_injector).interruption().commits {
        return fault_response(500);
    }
    let reply = commit(instance, &request, faults, via);
    if fails { fault_response(500) } else { reply }
}

fn record_response(item: &Item, reply: Reply, started: Instant, result: &mut BatchResult) {
    result.response_size += reply.body.len();
    let mut headers = Vec::new();
    if !item.exclude_response_headers {
        let kind = (!reply.content_type.is_empty()).then(|| ("content-type", reply.content_type.to_owned()));
        let all = kind.into_iter().chain(reply.headers);
        headers.extend(all.map(|(name, value)| json!({"name": name, "value": value})));
    }
    let status = axum::http::StatusCode::from_u16(reply.status).unwrap_or_default();
    result.serviced.push(json!({
        "id": as_text(&item.id),
        "body": BASE64.encode(&reply.body),
        "status_code": reply.status,
        "status_text": status.canonical_reason().unwrap_or(""),
        "headers": headers,
        "execution_time": u64::try_from(started.elapsed().as_millis()).unwrap_or(0),
    }));
}

/// An id as text, whatever its type in the request.
fn as_text(id: &Value) -> Value {
    match id {
        Value::String(_) => id.clone(),
        Value::Null => "".into(),
        other => other.to_string().into(),
    }
}
