//! The way of a request through the instance: front end, account, limits, faults, execution, answer.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::auth::{Account, denied};
use super::batch_api::{self, BatchRequest};
use super::em_api;
use super::faults::Faults;
use super::import_api;
use super::instance::{Instance, lock};
use super::pressure::{Session, cookies, session_cookie, throttled};
use super::reply::{HIBERNATING, MAINTENANCE, Reply};
use super::table_api::{Door, MAX_BODY, TableRequest, decode_form};
use super::transaction::transact;

/// Longest accepted path and query; the real front end has about 8 KB for request line and headers.
const MAX_URI: usize = 8_192;

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// A known method, or none.
fn method(name: &str) -> Option<&'static str> {
    ["GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"].into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

/// Answers everything that is ServiceNow's.
pub(super) async fn answer(instance: &Arc<Instance>, parts: &Parts, body: Result<Bytes, Reply>) -> Reply {
    let faults = instance.faults();
    if faults.hibernating {
        instance.count("answered_hibernating");
        return Reply::html(200, HIBERNATING);
    }
    if faults.maintenance_503 {
        instance.count("answered_maintenance");
        return Reply::html(503, MAINTENANCE);
    }
    if parts.uri.path_and_query().is_some_and(|uri| uri.as_str().len() > MAX_URI) {
        instance.count("answered_uri_too_long");
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
        instance.count(if reply.status == 200 { "tokens_issued" } else { "tokens_denied" });
        return reply;
    }
    api(instance, parts, body, &faults).await
}

fn token(instance: &Instance, parts: &Parts, body: &[u8], faults: &Faults) -> Reply {
    if parts.method != axum::http::Method::POST || faults.unauthorised {
        return denied();
    }
    let form = decode_form(&String::from_utf8_lossy(body));
    lock(&instance.auth).token(header(&parts.headers, "content-type"), &form, &instance.options.switches)
}

/// The caller's account and session. A session's cookie counts even where the header is wrong or expired.
fn identify(
    instance: &Instance,
    headers: &HeaderMap,
    faults: &Faults,
) -> Option<(Arc<Account>, Option<Arc<Session>>, bool)> {
    if faults.unauthorised {
        return None;
    }
    let switches = &instance.options.switches;
    let session = session_cookie(header(headers, "cookie"))
        .filter(|_| switches.sessions)
        .and_then(|cookie| lock(&instance.sessions).find(cookie));
    if let Some(session) = session {
        return Some((session.account.clone(), Some(session), false));
    }
    let account = lock(&instance.auth).authorise(header(headers, "authorization"), switches)?;
    if !switches.sessions {
        return Some((account, None, false));
    }
    let session = lock(&instance.sessions).open(account.clone());
    Some((account, Some(session), true))
}

async fn api(instance: &Arc<Instance>, parts: &Parts, body: Bytes, faults: &Arc<Faults>) -> Reply {
    let wire_method = method(parts.method.as_str()).unwrap_or("OTHER");
    let Some((account, session, is_new)) = identify(instance, &parts.headers, faults) else {
        instance.count_request(wire_method, "", 401);
        return Reply::not_authenticated();
    };
    let call = if batch_api::is_batch(parts.uri.path()) {
        negotiate(&parts.headers, wire_method)
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
    let (method, table) = call.names();
    let mut reply = limited(instance, call, session.as_ref(), faults).await;
    if reply.cut {
        instance.count_request(method, table, 0);
    } else {
        instance.count_request(method, table, reply.status);
    }
    if let Some(session) = session.filter(|_| is_new && !reply.bare) {
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
    /// Method and table, as rules and counts know them.
    fn names(&self) -> (&'static str, &'static str) {
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
    negotiate(&parts.headers, method)?;
    let (table, table_name) = {
        let world = lock(&instance.world);
        let table = world.schema.table(name).filter(|_| !import || import_api::target_of(name).is_some());
        table.map(|table| (table, world.schema.tables[table].name)).ok_or_else(|| {
            let detail = format!("Table {name} does not exist");
            let detail = instance.options.switches.invalid_table_detail.then_some(detail.as_str());
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
        silent: header(&parts.headers, "x-no-response-body") == "true",
        door: match (events, import) {
            (true, _) => Door::Events,
            (_, true) => Door::Import,
            _ => Door::Table,
        },
    })
}

fn negotiate(headers: &HeaderMap, method: &str) -> Result<(), Reply> {
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

/// Counts a request against the rate-limit rules: the headers that tell of the rule, and the denial, if it is one.
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
    let Some(verdict) = lock(&instance.rates).count(rules, account, method, table) else { return (Vec::new(), None) };
    let headers = vec![
        ("x-ratelimit-limit", verdict.limit.to_string()),
        ("x-ratelimit-reset", verdict.reset.to_string()),
        ("x-ratelimit-rule", verdict.rule),
    ];
    let Some(seconds) = verdict.denied else { return (headers, None) };
    instance.count("rate_limited");
    let per = if verdict.window == 3_600 { "hour".into() } else { format!("{} seconds", verdict.window) };
    let detail = format!("Rate limit of {} requests per {per} for Table API exceeded", verdict.limit);
    let mut reply = Reply::error(429, "Rate limit exceeded", Some(&detail)).with("retry-after", seconds.to_string());
    reply.headers.extend(headers.clone());
    (headers, Some(reply))
}

/// The time that a request takes, before its commit and after it.
pub(super) fn latency(instance: &Instance, faults: &Faults) -> (u64, u64) {
    let options = instance.options.latency;
    let mut strikes = lock(&instance.strikes);
    let jitter = strikes.jitter(options.jitter_ms);
    let total = options.base_ms + jitter + faults.latency_ms + strikes.slow(faults);
    strikes.split(total)
}

/// Rate-limit rules, throttle windows, the session's turn and a thread; then the transaction.
async fn limited(instance: &Arc<Instance>, call: Call, session: Option<&Arc<Session>>, faults: &Arc<Faults>) -> Reply {
    if let Some(reply) = throttled(instance, call.is_write(), faults) {
        return reply;
    }
    let (method, table) = call.names();
    let (rate_headers, denied) = count_against_rules(instance, call.account(), method, table);
    if let Some(denied) = denied {
        return denied;
    }
    let arrived = std::time::Instant::now();
    let turn = match session {
        None => None,
        Some(session) => match session.enter(instance.options.switches.session_queue).await {
            Some(turn) => Some(turn),
            None => {
                instance.count("session_queue_full");
                return Reply::bare(202);
            }
        },
    };
    let session_wait = arrived.elapsed().as_millis();
    let Ok(thread) = instance.pool.enter().await else {
        instance.count("semaphore_queue_full");
        return Reply::bare(429);
    };
    let thread_wait = arrived.elapsed().as_millis() - session_wait;
    let timing = format!("sem_wait;dur={thread_wait}, sesh_wait;dur={session_wait}");
    let with_headers = |mut reply: Reply| {
        reply.headers.extend(rate_headers);
        reply.with("server-timing", timing)
    };
    let (delay, after) = latency(instance, faults);
    let limited = instance.pool.is_limited();
    let reply = if delay + after == 0 && !limited {
        serve(instance, call, faults, delay, after).await
    } else {
        // The instance goes on when the caller hangs up.
        let (instance, faults) = (instance.clone(), faults.clone());
        let task = tokio::spawn(async move {
            let _held = (turn, thread);
            serve(&instance, call, &faults, delay, after).await
        });
        return with_headers(task.await.unwrap_or_else(|_| Reply::cut()));
    };
    drop((turn, thread));
    with_headers(reply)
}

async fn serve(instance: &Arc<Instance>, call: Call, faults: &Arc<Faults>, before: u64, after: u64) -> Reply {
    match call {
        Call::Table(request) => transact(instance, *request, faults, before, after).await,
        Call::Batch(batch) => batch_api::transact(instance, batch, faults, before).await,
    }
}

/// Reads a body of accepted size.
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
