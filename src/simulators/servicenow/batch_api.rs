//! The Batch API: several requests in one (`POST /api/now[/v1]/batch`), one after the other in one transaction, each
//! with an answer of its own; nothing is undone where one fails.
//!
//! Known: bodies in base64 both ways, ids come back as text and in no promised order, the quota of 30 s ends the call
//! and names what was not served, a body of more than 5 MB is refused. Not known, and so drawn here: how the item shows
//! that was running when the quota struck (left out, answered 500, or named as not served where it was not committed).
//! Assumed: an answer of more than 10 MB ends the call as the quota does. An item's URL names the Table API; the other
//! interfaces answer as for an unknown path.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Account;
use super::fault_injection::Strike;
use super::faults::Faults;
use super::history::Via;
use super::instance::{Instance, lock};
use super::reply::{LOGIN, Reply, gateway};
use super::router::{count_against_rules, latency, table_request};
use super::transaction::{commit, delayed_commit, pause, struck_status};

/// Largest body of an item, bytes.
const MAX_ITEM: usize = 5 << 20;

/// Largest answer, bytes.
const MAX_OUT: usize = 10 << 20;

/// A call.
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

/// Reads a call; nothing is executed yet.
pub(super) fn read(parts: &Parts, body: &Bytes, account: Arc<Account>, faults: &Faults) -> Result<BatchRequest, Reply> {
    if account.user.roles.is_empty() || faults.batch_refused {
        return Err(Reply::error(403, "User Not Authorized", Some("Failed API level ACL Validation")));
    }
    if parts.method != axum::http::Method::POST {
        return Err(Reply::error(405, "Method not supported", None));
    }
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| Reply::error(400, "Exception while reading request", Some(&error.to_string())))?;
    Ok(BatchRequest { id: body.batch_request_id, items: body.rest_requests, account })
}

/// What was served, and the ids of what was not.
#[derive(Default)]
struct Served {
    done: Vec<Value>,
    left: Vec<Value>,
    size: usize,
}

/// One call: be struck perhaps, serve item by item, answer.
pub(super) async fn transact(
    instance: &Arc<Instance>,
    batch: BatchRequest,
    faults: &Arc<Faults>,
    before: u64,
) -> Reply {
    let _running = instance.run();
    let strike = lock(&instance.strikes).draw(faults, true, false);
    match strike {
        Some(Strike::Accepted) => return Reply::bare(202),
        Some(Strike::Html) => return Reply::html(200, LOGIN),
        Some(Strike::Ghost { ms, cut, refused }) => {
            let (by, faults) = (Arc::clone(instance), Arc::clone(faults));
            let strike = async move {
                serve(&by, &batch, &faults, Via::Ghost).await;
                true
            };
            delayed_commit(instance, ms, refused, strike);
            pause(before).await;
            return if cut { Reply::cut() } else { gateway(504) };
        }
        Some(Strike::Cut { commits: false }) => {
            pause(before).await;
            return Reply::cut();
        }
        Some(Strike::Status { status, commits: false }) => {
            pause(before).await;
            return struck_status(status);
        }
        _ => {}
    }
    let mut served = serve(instance, &batch, faults, Via::Rest).await;
    lock(&instance.strikes).shuffle(&mut served.done);
    let reply = json!({
        "batch_request_id": as_text(&batch.id),
        "serviced_requests": served.done,
        "unserviced_requests": served.left,
    });
    let mut reply = Reply::json(200, reply.to_string().into_bytes());
    match strike {
        Some(Strike::Cut { .. }) => return Reply::cut(),
        Some(Strike::Status { status, .. }) => return struck_status(status),
        Some(Strike::Null) => reply.body = b"null".to_vec(),
        Some(Strike::CutJson) => reply.body.truncate(reply.body.len() / 2),
        _ => {}
    }
    reply
}

/// Serves the items in their order until all are done or the quota strikes.
async fn serve(instance: &Arc<Instance>, batch: &BatchRequest, faults: &Arc<Faults>, via: Via) -> Served {
    let quota = u128::from(instance.options.switches.batch_quota_ms);
    let began = Instant::now();
    let doomed = lock(&instance.strikes).ends_batch(faults, batch.items.len());
    let mut served = Served::default();
    for (at, item) in batch.items.iter().enumerate() {
        let (before, after) = latency(instance, faults);
        let late = began.elapsed().as_millis() + u128::from(before + after) > quota;
        if instance.stop.is_cancelled() || doomed == Some(at) || late || served.size > MAX_OUT {
            pause(before).await;
            kill(instance, batch, at, faults, via, &mut served);
            break;
        }
        pause(before).await;
        let reply = run(instance, batch, item, faults, via);
        pause(after).await;
        answer(item, reply, began, &mut served);
    }
    served
}

/// The quota strikes at this item; those behind it never run.
fn kill(
    instance: &Arc<Instance>,
    batch: &BatchRequest,
    at: usize,
    faults: &Arc<Faults>,
    via: Via,
    served: &mut Served,
) {
    instance.count("batches_ended_early");
    let fate = lock(&instance.strikes).fate();
    let Some(item) = batch.items.get(at) else { return };
    if fate.commits {
        run(instance, batch, item, faults, via);
    }
    if fate.answered {
        answer(item, struck_status(500), Instant::now(), served);
    }
    let from = if fate.is_named() { at } else { at + 1 };
    served.left.extend(batch.items.iter().skip(from).map(|item| as_text(&item.id)));
}

/// Executes one item.
fn run(instance: &Arc<Instance>, batch: &BatchRequest, item: &Item, faults: &Arc<Faults>, via: Via) -> Reply {
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
    if instance.options.switches.batch_items_count
        && let (_, Some(denied)) = count_against_rules(instance, &request.account, request.method, request.table_name)
    {
        return denied;
    }
    let struck = request.is_write() && lock(&instance.strikes).strikes_item(faults);
    // Half of them before the commit.
    if struck && lock(&instance.strikes).fate().commits {
        return struck_status(500);
    }
    let reply = commit(instance, &request, faults, via);
    if struck { struck_status(500) } else { reply }
}

fn answer(item: &Item, reply: Reply, began: Instant, served: &mut Served) {
    served.size += reply.body.len();
    let mut headers = Vec::new();
    if !item.exclude_response_headers {
        let kind = (!reply.content_type.is_empty()).then(|| ("content-type", reply.content_type.to_owned()));
        let all = kind.into_iter().chain(reply.headers);
        headers.extend(all.map(|(name, value)| json!({"name": name, "value": value})));
    }
    let status = axum::http::StatusCode::from_u16(reply.status).unwrap_or_default();
    served.done.push(json!({
        "id": as_text(&item.id),
        "body": BASE64.encode(&reply.body),
        "status_code": reply.status,
        "status_text": status.canonical_reason().unwrap_or(""),
        "headers": headers,
        "execution_time": u64::try_from(began.elapsed().as_millis()).unwrap_or(0),
    }));
}

/// Ids come back as text, whatever they were.
fn as_text(id: &Value) -> Value {
    match id {
        Value::String(_) => id.clone(),
        Value::Null => "".into(),
        other => other.to_string().into(),
    }
}
