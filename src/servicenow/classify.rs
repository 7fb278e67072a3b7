//! What an answer means, decided once: protocol rules 8 to 10.
//!
//! A write is *certainly not applied* where the connection could not be made, or where a 4xx said so. It is in doubt
//! with its transaction *ended* where the application itself answered with an error of its own (its JSON error body)
//! or a 202 without a row. Everything else leaves a write in doubt with its transaction perhaps alive: a lost
//! connection, a deadline, a front end's 502 to 504, a redirect, a page, broken or spliced JSON. The same answers to
//! a read are `Transient` or `Unavailable`: nothing can have been changed.
//!
//! The class is taken from the status and the shape of the body. Texts of the instance are localised and change with
//! its release; they choose codes for people, and the class only for a unique key (that text is the database's).

use serde::Deserialize;

use crate::model::{Class, Failure};

use super::text::{SHOWN, bounded};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// POST of a row.
    Create,
    /// PATCH of a row.
    Update,
    /// GET of one row.
    Row,
    /// GET of a list.
    List,
}

impl Kind {
    pub fn writes(self) -> bool {
        matches!(self, Kind::Create | Kind::Update)
    }
}

/// What the classification needs of an answer's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// `Date`, Unix seconds.
    pub date: Option<i64>,
    /// `Retry-After`, milliseconds from the answer.
    pub retry_after: Option<u64>,
    /// `X-Total-Count`.
    pub total: Option<u64>,
}

/// `{"result":…}`, or an error, or (where a quota killed a streaming read) both.
#[derive(Deserialize)]
pub struct Envelope<T> {
    #[serde(default = "none")]
    pub result: Option<T>,
    #[serde(default)]
    pub error: Option<serde_json::Value>,
}

fn none<T>() -> Option<T> {
    None
}

/// The result of a 2xx answer, or why there is none.
pub fn result<'a, T: Deserialize<'a>>(kind: Kind, head: &Head, body: &'a [u8]) -> Result<T, Failure> {
    if !matches!(head.status, 200 | 201 | 202 | 203 | 206) {
        return Err(refusal(kind, head, body));
    }
    match serde_json::from_slice::<Envelope<T>>(body) {
        Ok(Envelope { result: Some(result), error: None }) => Ok(result),
        Ok(Envelope { error: Some(error), .. }) => {
            let told = Told::of(&error).text();
            Err(doubt(kind, false, Class::Transient, "spliced_error", &format!("an error inside a success: {told}")))
        }
        _ => Err(refusal(kind, head, body)),
    }
}

/// Why an answer without a usable result is none.
pub fn refusal(kind: Kind, head: &Head, body: &[u8]) -> Failure {
    let told = Told::parse(body);
    let said = || told.as_ref().map_or_else(|| page(body), Told::text);
    let status = head.status;
    match status {
        202 if !begins_like_a_page(body) => doubt(
            kind,
            true,
            Class::Transient,
            "http_202",
            "the instance took the request and did not answer with a row",
        ),
        200..=299 => unusable(kind, status, body),
        300..=399 => doubt(
            kind,
            false,
            Class::Unavailable,
            "redirected",
            &format!(
                "HTTP {status}: the instance redirects instead of answering; is the address right, is it a login page?"
            ),
        ),
        401 => failure(Class::Unauthorised, "unauthorised", &said()),
        403 => forbidden(told.as_ref(), &said()),
        404 if told.is_none() => failure(
            Class::Unavailable,
            "not_api",
            &format!("HTTP 404, and not from the API: is the address right? {}", said()),
        ),
        404 if kind == Kind::Create || kind == Kind::List => failure(Class::Rejected, "http_404", &said()),
        404 => failure(Class::Gone, "http_404", &said()),
        407 => failure(Class::Unavailable, "proxy_auth", "the proxy wants credentials"),
        408 => doubt(kind, false, Class::Transient, "http_408", &said()),
        409 => failure(Class::Conflict, "http_409", &said()),
        429 => failure(Class::Throttled { retry_after: head.retry_after }, "http_429", &said()),
        400..=499 if told.as_ref().is_some_and(Told::unique_key) => failure(Class::Conflict, "unique_key", &said()),
        400..=499 => failure(Class::Rejected, &format!("http_{status}"), &said()),
        502..=504 => doubt(kind, false, Class::Unavailable, &format!("http_{status}"), &said()),
        _ => doubt(kind, told.is_some(), Class::Transient, &format!("http_{status}"), &said()),
    }
}

/// A 2xx whose body is no result.
fn unusable(kind: Kind, status: u16, body: &[u8]) -> Failure {
    if begins_like_a_page(body) {
        // A hibernating instance certainly did nothing, but only its words say so, on a page that anything between
        // may have sent: for a write that is no proof (rule 10).
        let code = if contains(body, b"ibernating") { "hibernating" } else { "not_api" };
        return doubt(kind, false, Class::Unavailable, code, &format!("HTTP {status} with {}", page(body)));
    }
    let code = if contains(body, b"\"error\"") { "spliced_error" } else { "broken_answer" };
    let size = body.len();
    doubt(kind, false, Class::Transient, code, &format!("HTTP {status}, but its {size} bytes are not a whole result"))
}

/// 403 is four different things; only the detail tells them apart, and all are certain.
fn forbidden(told: Option<&Told>, said: &str) -> Failure {
    let (message, detail) = told.map_or(("", ""), |told| (told.message.as_str(), told.detail.as_str()));
    if told.is_some_and(Told::unique_key) {
        return failure(Class::Conflict, "unique_key", said);
    }
    let code = if message.starts_with("User Not Authorized") || detail.contains("API level ACL") {
        "api_acl"
    } else if detail.starts_with("Data Policy Exception") {
        "data_policy"
    } else if detail.starts_with("ACL Exception") {
        "acl"
    } else if detail.contains("aborted by Business Rule") {
        "business_rule"
    } else {
        "http_403"
    };
    failure(Class::Rejected, code, said)
}

/// A request that got no answer. Only reqwest's `is_connect` proves that nothing left: its other errors can come
/// after bytes did.
pub fn transport(kind: Kind, error: &reqwest::Error) -> Failure {
    let why = causes(error);
    if error.is_connect() {
        failure(Class::Unavailable, "connect", &format!("the connection could not be made: {why}"))
    } else if error.is_builder() {
        failure(Class::Rejected, "request", &format!("the request could not be built: {why}"))
    } else if error.is_timeout() {
        doubt(kind, false, Class::Transient, "timeout", "no answer before the deadline")
    } else if error.is_decode() {
        doubt(kind, false, Class::Transient, "broken_answer", &format!("the answer could not be read: {why}"))
    } else {
        doubt(kind, false, Class::Transient, "connection_lost", &format!("the connection was lost: {why}"))
    }
}

/// An answer that is longer than we read.
pub fn too_long(kind: Kind, limit: usize) -> Failure {
    doubt(kind, false, Class::Transient, "answer_too_long", &format!("the answer is longer than {limit} bytes"))
}

/// A write in doubt, or a read that failed with `class`.
pub fn doubt(kind: Kind, ended: bool, class: Class, code: &str, message: &str) -> Failure {
    failure(if kind.writes() { Class::Ambiguous { ended } } else { class }, code, message)
}

/// A failure with its message bounded.
pub fn failure(class: Class, code: &str, message: &str) -> Failure {
    Failure { class, code: code.into(), message: bounded(message, SHOWN) }
}

/// The application's own error.
#[derive(Debug, Default)]
struct Told {
    message: String,
    detail: String,
}

impl Told {
    /// The error envelope `{"error":{"message","detail"},"status":"failure"}`.
    fn parse(body: &[u8]) -> Option<Told> {
        let envelope: Envelope<serde::de::IgnoredAny> = serde_json::from_slice(body).ok()?;
        let error = envelope.error?;
        (error.is_object() || error.is_string()).then(|| Told::of(&error))
    }

    fn of(error: &serde_json::Value) -> Told {
        let text = |name: &str| error.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        match error.as_str() {
            Some(message) => Told { message: message.to_owned(), detail: String::new() },
            None => Told { message: text("message"), detail: text("detail") },
        }
    }

    fn text(&self) -> String {
        match (self.message.is_empty(), self.detail.is_empty()) {
            (false, false) => format!("{}: {}", self.message, self.detail),
            (false, true) => self.message.clone(),
            (true, false) => self.detail.clone(),
            (true, true) => "the instance gave no reason".into(),
        }
    }

    fn unique_key(&self) -> bool {
        [&self.message, &self.detail]
            .iter()
            .any(|t| t.contains("Unique Key violation") || t.contains("Duplicate entry"))
    }
}

fn begins_like_a_page(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

/// A page in a few words: its title, never its content.
fn page(body: &[u8]) -> String {
    if body.trim_ascii().is_empty() {
        return "an empty body".into();
    }
    if !begins_like_a_page(body) {
        return format!("{} bytes that are no answer of the API", body.len());
    }
    let text = String::from_utf8_lossy(body.get(..4096).unwrap_or(body));
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|start| {
        let end = lower.get(start..)?.find("</title>")?;
        text.get(start + 7..start + end)
    });
    match title {
        Some(title) if !title.trim().is_empty() => format!("a page titled {:?}", bounded(title, 80)),
        _ => "a page".into(),
    }
}

fn contains(body: &[u8], needle: &[u8]) -> bool {
    body.windows(needle.len()).any(|window| window == needle)
}

/// The error and its causes, without the URL (it holds the query).
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        source = cause.source();
    }
    if text.is_empty() { "no reason was given".into() } else { text }
}

/// `Retry-After`: seconds, or an HTTP date counted from the answer's own `Date` (our clock and the instance's may
/// differ). Milliseconds, of any length.
pub fn retry_after(value: &str, date: Option<i64>) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse::<u64>().map_or(u64::MAX, |seconds| seconds.saturating_mul(1000)));
    }
    let until = http_date(value)?;
    Some(u64::try_from(until.saturating_sub(date?)).unwrap_or(0).saturating_mul(1000))
}

/// An HTTP date as Unix seconds.
pub fn http_date(value: &str) -> Option<i64> {
    static PARSER: jiff::fmt::rfc2822::DateTimeParser = jiff::fmt::rfc2822::DateTimeParser::new();
    PARSER.parse_timestamp(value.trim()).ok().map(|at| at.as_second())
}
