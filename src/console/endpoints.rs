//! The endpoints of the admin server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::{Console, view};
use crate::runtime::clock;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");

/// Content security policy: no foreign resources and no inline scripts, so that a key or a reason never becomes a
/// script.
const CSP: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The header that a resume request must have.
pub const RESUME_HEADER: &str = "x-nowbridge-resume";

/// Largest accepted request body, bytes. No route uses a body.
const MAX_BODY: usize = 1024;

type Shared = State<Arc<Console>>;

pub fn router(console: Console) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/page.js", get(script))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/routes/{route}/resume", post(resume))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(add_security_headers))
        .with_state(Arc::new(console))
}

/// Adds the security headers to every response.
async fn add_security_headers(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    response
}

async fn page() -> Response {
    respond(StatusCode::OK, "text/html; charset=utf-8", PAGE)
}

async fn script() -> Response {
    respond(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)
}

async fn livez(State(console): Shared) -> Response {
    reasons_or_ok(&view::stuck(&console, clock::mono()), "alive")
}

#[derive(Deserialize)]
struct ReadyzParams {
    format: Option<String>,
}

async fn readyz(State(console): Shared, Query(params): Query<ReadyzParams>) -> Response {
    let reasons = view::reasons(&console);
    if params.format.as_deref() != Some("json") {
        let lines: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        return reasons_or_ok(&lines, "ready");
    }
    let body = view::readiness(&reasons).to_string();
    respond(status_code(reasons.is_empty()), "application/json", body)
}

async fn metrics(State(console): Shared) -> Response {
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", console.metrics.render())
}

async fn status(State(console): Shared) -> Response {
    respond(StatusCode::OK, "application/json", view::status(&console, clock::now()).to_string())
}

/// Resumes a stopped sink route. Two checks protect against pages of other origins: a form of such a page cannot set
/// the header; a page whose DNS name points to this machine can, but then the request's `Host` is that name.
async fn resume(State(console): Shared, Path(route): Path<String>, headers: HeaderMap) -> Response {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !headers.contains_key(RESUME_HEADER) {
        return respond(
            StatusCode::FORBIDDEN,
            TEXT,
            format!("send the header {RESUME_HEADER}, as `nowbridge resume` does\n"),
        );
    }
    if !headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(is_ip_or_localhost) {
        return respond(
            StatusCode::FORBIDDEN,
            TEXT,
            "use an IP address or localhost as the host, as `nowbridge resume` does\n",
        );
    }
    match console.sinks.iter().find(|(name, _)| *name == route) {
        Some((_, handle)) => {
            handle.request_resume();
            respond(StatusCode::OK, TEXT, "resume requested\n")
        }
        None => respond(StatusCode::NOT_FOUND, TEXT, "there is no sink route of this name\n"),
    }
}

/// Whether a `Host` is an IP address or `localhost`, with or without a port.
fn is_ip_or_localhost(host: &str) -> bool {
    let (bare, _) = host.rsplit_once(':').unwrap_or((host, ""));
    [host, bare].iter().any(|host| *host == "localhost" || host.parse::<IpAddr>().is_ok())
        || host.parse::<SocketAddr>().is_ok()
}

async fn not_found() -> Response {
    let text = "not found; available are /, /livez, /readyz, /metrics and /status\n";
    respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text)
}

/// Returns 503 with one reason per line, or 200 with `ok_text` if there is none.
fn reasons_or_ok(reasons: &[String], ok_text: &str) -> Response {
    let text = if reasons.is_empty() { format!("{ok_text}\n") } else { reasons.join("\n") + "\n" };
    respond(status_code(reasons.is_empty()), "text/plain; charset=utf-8", text)
}

fn status_code(is_ok: bool) -> StatusCode {
    if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn respond(status_code: StatusCode, content_type: &'static str, body: impl IntoResponse) -> Response {
    let headers: [(HeaderName, &str); 1] = [(CONTENT_TYPE, content_type)];
    (status_code, headers, body).into_response()
}
