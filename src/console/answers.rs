//! The addresses of the console and what they answer.

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

/// Nothing from elsewhere, and no script inside the page: a key or a reason can never become one.
const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Who asks for a change says so by this header.
pub const ASKED: &str = "x-nowbridge-resume";

/// No address takes a body; this bounds what a stranger can make us read.
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
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(guard))
        .with_state(Arc::new(console))
}

/// Headers that every answer carries.
async fn guard(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

async fn page() -> Response {
    answer(StatusCode::OK, "text/html; charset=utf-8", PAGE)
}

async fn script() -> Response {
    answer(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)
}

async fn livez(State(console): Shared) -> Response {
    told(&view::stuck(&console, clock::mono()), "alive")
}

#[derive(Deserialize)]
struct Form {
    format: Option<String>,
}

async fn readyz(State(console): Shared, Query(form): Query<Form>) -> Response {
    let reasons = view::reasons(&console);
    if form.format.as_deref() != Some("json") {
        let lines: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        return told(&lines, "ready");
    }
    let body = view::readiness(&reasons).to_string();
    answer(code(reasons.is_empty()), "application/json", body)
}

async fn metrics(State(console): Shared) -> Response {
    answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", console.metrics.render())
}

async fn status(State(console): Shared) -> Response {
    answer(StatusCode::OK, "application/json", view::status(&console, clock::now()).to_string())
}

/// Lets a sink route go on that stands still. A page elsewhere can make a browser post a form here, but not with this
/// header; and one whose name was made to point at this machine can, but then the request says that name.
async fn resume(State(console): Shared, Path(route): Path<String>, headers: HeaderMap) -> Response {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !headers.contains_key(ASKED) {
        return answer(StatusCode::FORBIDDEN, TEXT, format!("send the header {ASKED}, as `nowbridge resume` does\n"));
    }
    if !headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(is_no_name) {
        return answer(StatusCode::FORBIDDEN, TEXT, "ask by address, as `nowbridge resume` does, or by localhost\n");
    }
    match console.routes.iter().find(|(name, _)| *name == route) {
        Some((_, handle)) => {
            handle.resume();
            answer(StatusCode::OK, TEXT, "goes on\n")
        }
        None => answer(StatusCode::NOT_FOUND, TEXT, "there is no such sink route\n"),
    }
}

/// Whether a `Host` is an address, or this machine's own name for itself.
fn is_no_name(host: &str) -> bool {
    let (bare, _) = host.rsplit_once(':').unwrap_or((host, ""));
    [host, bare].iter().any(|host| *host == "localhost" || host.parse::<IpAddr>().is_ok())
        || host.parse::<SocketAddr>().is_ok()
}

async fn unknown() -> Response {
    let there_is = "nothing here; there is /, /livez, /readyz, /metrics and /status\n";
    answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", there_is)
}

/// One reason a line, or that all is well.
fn told(reasons: &[String], well: &str) -> Response {
    let text = if reasons.is_empty() { format!("{well}\n") } else { reasons.join("\n") + "\n" };
    answer(code(reasons.is_empty()), "text/plain; charset=utf-8", text)
}

fn code(well: bool) -> StatusCode {
    if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn answer(code: StatusCode, kind: &'static str, body: impl IntoResponse) -> Response {
    let kind: [(HeaderName, &str); 1] = [(CONTENT_TYPE, kind)];
    (code, kind, body).into_response()
}
