//! The router of the instance's own interfaces: load balancer, authentication, limits, then execution.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::auth::{Account, access_denied};
use super::batch_api::{self, BatchRequest};
use super::em_api;
use super::faults::Faults;
use super::import_api;
use super::instance::{Instance, lock};
use super::limits::{Session, cookies, session_cookie, throttle_response};
use super::reply::{HIBERNATING, MAINTENANCE, Reply};
use super::table_api::{Api, MAX_BODY, TableRequest, decode_form};
use super::transaction::transact;

/// Longest accepted path and query, bytes. A real instance accepts about 8 KB of request line and headers.
const MAX_URI: usize = 8_192;

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Returns the HTTP method in upper case, or `None` if it is unknown.
fn method(name: &str) -> Option<&'static str> {
    ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"].into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

/// Handles a request to one of ServiceNow's interfaces.
pub(super) async fn handle(instance: &Arc<Instance>, parts: &Parts, body: Result<Bytes, Reply>) -> Reply {
    let faults = instance.faults();
    if faults.hibernating {
        instance.count("hibernating_responses");
        return Reply::html(200, HIBERNATING);
    }
    if faults.maintenance_503 {
        instance.count("maintenance_responses");
        return Reply::html(503, MAINTENANCE);
    }
    if parts.uri.path_and_query().is_some_and(|uri| uri.as_str().len() > MAX_URI) {
        instance.count("uri_too_long");
        return Reply::html(
            400,
            "<html><body><h1>400 Bad Request</h1><p>Request header is too large</p></body></html>",
        );
    }
    let body = match body {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    if parts.uri.path() == "/oauth_token.do" {
        let reply = token(instance, parts, &body, &faults);
        instance.count(if reply.status == 200 { "tokens_issued" } else { "tokens_rejected" });
        return reply;
    }
    api(instance, parts, body, &faults).await
}

fn token(instance: &Instance, parts: &Parts, body: &[u8], faults: &Faults) -> Reply {
    if parts.method != axum::http::Method::POST || faults.unauthorized {
        return access_denied();
    }
    let form = decode_form(&String::from_utf8_lossy(body));
    lock(&instance.auth).token(header(&parts.headers, "content-type"), &form, &instance.options.settings)
}

/// An authenticated caller.
struct Caller {
    account: Arc<Account>,
    session: Option<Arc<Session>>,
    /// The session began with this request.
    is_new_session: bool,
}

/// Authenticates the caller. A valid session cookie suffices, even if the `Authorization` header is wrong or expired.
fn authenticate(instance: &Instance, headers: &HeaderMap, faults: &Faults) -> Option<Caller> {
    if faults.unauthorized {
        return None;
    }
    let settings = &instance.options.settings;
    let session = session_cookie(header(headers, "cookie"))
        .filter(|_| settings.sessions)
        .and_then(|cookie| lock(&instance.sessions).find(cookie));
    if let Some(session) = session {
        return Some(Caller { account: session.account.clone(), session: Some(session), is_new_session: false });
    }
    let account = lock(&instance.auth).authorize(header(headers, "authorization"), settings)?;
    if !settings.sessions {
        return Some(Caller { account, session: None, is_new_session: false });
    }
    let session = lock(&instance.sessions).open_session(account.clone());
    Some(Caller { account, session: Some(session), is_new_session: true })
}

async fn api(instance: &Arc<Instance>, parts: &Parts, body: Bytes, faults: &Arc<Faults>) -> Reply {
    let wire_method = method(parts.method.as_str()).unwrap_or("OTHER");
    let Some(Caller { account, session, is_new_session }) = authenticate(instance, &parts.headers, faults) else {
        instance.count_request(wire_method, "", 401);
        return Reply::not_authenticated();
    };
    let call = if batch_api::is_batch(parts.uri.path()) {
        check_media_types(&parts.headers, wire_method)
            .and_then(|()| batch_api::read(parts, &body, account, faults))
            .map(Call::Batch)
    } else {
        table_request(instance, parts, body, account).map(|request| Call::Table(Box::new(request)))
    };
    let call = match call {
        Ok(call) => call,
        Err(reply) => {
            instance.count_request(wire_method, "", reply.status);
            return reply;
        }
    };
    let (method, table) = call.method_and_table();
    let mut reply = with_limits(instance, call, session.as_ref(), faults).await;
    if reply.reset_connection {
        instance.count_request(method, table, 0);
    } else {
        instance.count_request(method, table, reply.status);
    }
    if let Some(session) = session.filter(|_| is_new_session && !reply.bare) {
        reply.headers.extend(cookies(&session).map(|cookie| ("set-cookie", cookie)));
    }
    reply
}

/// A call of one of the interfaces.
enum Call {
    Table(Box<TableRequest>),
    Batch(BatchRequest),
}

impl Call {
    /// Method and table, as rate-limit rules and request counts name them.
    fn method_and_table(&self) -> (&'static str, &'static str) {
        match self {
            Call::Table(request) => (request.method, request.table_name),
            Call::Batch(_) => ("POST", "batch"),
        }
    }

    fn is_write(&self) -> bool {
        match self {
            Call::Table(request) => request.is_write(),
            Call::Batch(_) => true,
        }
    }

    fn account(&self) -> &Account {
        match self {
            Call::Table(request) => &request.account,
            Call::Batch(batch) => &batch.account,
        }
    }
}

pub(super) fn table_request(
    instance: &Instance,
    parts: &Parts,
    body: Bytes,
    account: Arc<Account>,
) -> Result<TableRequest, Reply> {
    let path = parts.uri.path();
    let unknown = || Reply::error(400, "Requested URI does not represent any resource", Some(path));
    let events = path.trim_end_matches('/') == em_api::PATH;
    let rest = if events { Some("table/em_event") } else { path.strip_prefix("/api/now/") }.ok_or_else(unknown)?;
    let (version, rest) = match rest.split_once('/') {
        Some((version @ ("v1" | "v2"), rest)) => (format!("{version}/"), rest),
        _ => (String::new(), rest),
    };
    let import = rest.strip_prefix("import/");
    let mut segments =
        import.or_else(|| rest.strip_prefix("table/")).ok_or_else(unknown)?.trim_end_matches('/').split('/');
    let import = import.is_some();
    let name = segments.next().filter(|name| !name.is_empty()).ok_or_else(unknown)?;
    let sys_id = segments.next().map(str::to_owned);
    if segments.next().is_some() {
        return Err(unknown());
    }
    if account.user.roles.is_empty() {
        return Err(Reply::error(403, "User Not Authorized", Some("Failed API level ACL Validation")));
    }
    let wire = header(&parts.headers, "x-http-method-override");
    let wire = if wire.is_empty() { parts.method.as_str() } else { wire };
    let method = method(wire).ok_or_else(|| Reply::error(405, "Method not supported", None))?;
    check_media_types(&parts.headers, method)?;
    let (table, table_name) = {
        let database = lock(&instance.database);
        let table = database.schema.table(name).filter(|_| !import || import_api::target_of(name).is_some());
        table.map(|table| (table, database.schema.tables[table].name)).ok_or_else(|| {
            let detail = format!("Table {name} does not exist");
            let detail = instance.options.settings.invalid_table_detail.then_some(detail.as_str());
            Reply::error(400, &format!("Invalid table {name}"), detail)
        })?
    };
    Ok(TableRequest {
        method,
        version,
        table,
        table_name,
        sys_id,
        path: path.to_owned(),
        params: decode_form(parts.uri.query().unwrap_or("")),
        body: body.to_vec(),
        account,
        no_response_body: header(&parts.headers, "x-no-response-body") == "true",
        api: match (events, import) {
            (true, _) => Api::Events,
            (_, true) => Api::Import,
            _ => Api::Table,
        },
    })
}

fn check_media_types(headers: &HeaderMap, method: &str) -> Result<(), Reply> {
    let accept = header(headers, "accept");
    if !(accept.is_empty() || accept.contains("json") || accept.contains("*/*") || accept.contains("application/*")) {
        return Err(Reply::error(406, "Not acceptable", Some("Only application/json is produced")));
    }
    let content = header(headers, "content-type");
    if matches!(method, "POST" | "PUT" | "PATCH") && !(content.is_empty() || content.contains("json")) {
        return Err(Reply::error(415, "Unsupported media type", Some(content)));
    }
    Ok(())
}

/// Counts a request against the rate-limit rules. Returns the rule's headers, and the 429 response if the request
/// exceeds the limit.
pub(super) fn count_against_rules(
    instance: &Instance,
    account: &Account,
    method: &str,
    table: &str,
) -> (Vec<(&'static str, String)>, Option<Reply>) {
    let rules = &instance.options.rate_limits;
    if rules.is_empty() {
        return (Vec::new(), None);
    }
    let Some(status) = lock(&instance.rate_limit_counters).count(rules, account, method, table) else {
        return (Vec::new(), None);
    };
    let headers = vec![
        ("x-ratelimit-limit", status.limit.to_string()),
        ("x-ratelimit-reset", status.reset.to_string()),
        ("x-ratelimit-rule", status.rule),
    ];
    let Some(seconds) = status.retry_after else { return (headers, None) };
    instance.count("rate_limited");
    let per = if status.window_seconds == 3_600 { "hour".into() } else { format!("{} seconds", status.window_seconds) };
    let detail = format!("Rate limit of {} requests per {per} for Table API exceeded", status.limit);
    let mut reply = Reply::error(429, "Rate limit exceeded", Some(&detail)).with("retry-after", seconds.to_string());
    reply.headers.extend(headers.clone());
    (headers, Some(reply))
}

/// Draws the latency of a request: milliseconds before its commit and after it.
pub(super) fn latency(instance: &Instance, faults: &Faults) -> (u64, u64) {
    let options = instance.options.latency;
    let mut fault_injector = lock(&instance.fault_injector);
    let jitter = fault_injector.jitter(options.jitter_ms);
    let total = options.base_ms + jitter + faults.latency_ms + fault_injector.slow(faults);
    fault_injector.split_latency(total)
}

/// Applies throttle windows, rate-limit rules, the session's queue and the thread limit, then executes the call.
async fn with_limits(
    instance: &Arc<Instance>,
    call: Call,
    session: Option<&Arc<Session>>,
    faults: &Arc<Faults>,
) -> Reply {
    if let Some(reply) = throttle_response(instance, call.is_write(), faults) {
        return reply;
    }
    let (method, table) = call.method_and_table();
    let (rate_headers, denied) = count_against_rules(instance, call.account(), method, table);
    if let Some(denied) = denied {
        return denied;
    }
    let arrived = std::time::Instant::now();
    let session_permit = match session {
        None => None,
        Some(session) => match session.acquire(instance.options.settings.session_queue_size).await {
            Some(permit) => Some(permit),
            None => {
                instance.count("session_queue_full");
                return Reply::bare(202);
            }
        },
    };
    let session_wait = arrived.elapsed().as_millis();
    let Ok(thread_permit) = instance.integration_threads.acquire().await else {
        instance.count("semaphore_queue_full");
        return Reply::bare(429);
    };
    let thread_wait = arrived.elapsed().as_millis() - session_wait;
    let timing = format!("sem_wait;dur={thread_wait}, sesh_wait;dur={session_wait}");
    let with_headers = |mut reply: Reply| {
        reply.headers.extend(rate_headers);
        reply.with("server-timing", timing)
    };
    let (before, after) = latency(instance, faults);
    let has_thread_limit = instance.integration_threads.is_limited();
    let reply = if before + after == 0 && !has_thread_limit {
        execute(instance, call, faults, before, after).await
    } else {
        // A separate task, because the instance continues if the caller disconnects.
        let (instance, faults) = (instance.clone(), faults.clone());
        let task = tokio::spawn(async move {
            let _permits = (session_permit, thread_permit);
            execute(&instance, call, &faults, before, after).await
        });
        return with_headers(task.await.unwrap_or_else(|_| Reply::connection_reset()));
    };
    drop((session_permit, thread_permit));
    with_headers(reply)
}

async fn execute(instance: &Arc<Instance>, call: Call, faults: &Arc<Faults>, before: u64, after: u64) -> Reply {
    match call {
        Call::Table(request) => transact(instance, *request, faults, before, after).await,
        Call::Batch(batch) => batch_api::transact(instance, batch, faults, before).await,
    }
}

/// Reads the request body.
///
/// # Errors
/// The response for a body that is too large.
pub(super) async fn read_body(headers: &HeaderMap, body: axum::body::Body) -> Result<Bytes, Reply> {
    let announced: usize = header(headers, "content-length").parse().unwrap_or(0);
    let too_large = |size: usize| {
        let detail =
            format!("Rejected large REST payload with content-length = {size} bytes. Max allowed: {MAX_BODY} bytes.");
        Reply::error(400, "Exception while reading request", Some(&detail))
    };
    if announced > MAX_BODY {
        return Err(too_large(announced));
    }
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| too_large(MAX_BODY + 1))
}
