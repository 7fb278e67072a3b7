//! Classifies every response once: protocol rules 11 to 13.
//!
//! A write is *certainly not applied* where the connection could not be established, or where the response is a 4xx. It
//! is ambiguous with its transaction *ended* where the application itself responded with an error of its own (its JSON
//! error body) or with a 202 without a record. Every other failure leaves a write ambiguous with its transaction
//! possibly still running: a lost connection, a timeout, a front end's 502 to 504, a redirect, an HTML page, malformed
//! or spliced JSON. For a read, the same failures are `Transient` or `Unavailable`: a read changes nothing.
//!
//! The class depends on the status and the shape of the body. The instance's texts are localized and change with its
//! release; they determine the code for users, and the class only for a unique key (that text comes from the database).

use serde::Deserialize;

use crate::model::{Failure, FailureClass};

use super::text::{SHOWN, bounded};

/// The kind of a request, as far as classification depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// POST of a row.
    Create,
    /// PATCH of a row.
    Update,
    /// GET of one row.
    Read,
    /// GET of a list.
    List,
}

impl RequestKind {
    pub fn writes(self) -> bool {
        matches!(self, RequestKind::Create | RequestKind::Update)
    }
}

/// The parts of a response's status line and headers that classification needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    /// The instance's clock (`Date`), Unix seconds.
    pub date: Option<i64>,
    /// `Retry-After` as milliseconds from the response.
    pub retry_after: Option<u64>,
    /// `X-Total-Count`.
    pub total: Option<u64>,
}

/// `{"result":…}`, an error, or both (where a transaction quota ended a streaming read).
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

/// Parses the `result` of a 2xx response.
///
/// # Errors
/// The response has no usable result.
pub fn parse_result<'a, T: Deserialize<'a>>(
    kind: RequestKind,
    head: &ResponseHead,
    body: &'a [u8],
) -> Result<T, Failure> {
    if !matches!(head.status, 200 | 201 | 202 | 203 | 206) {
        return Err(error_response(kind, head, body));
    }
    // Serde would accept a bare list as the envelope's fields in order.
    let object = body.trim_ascii_start().first() == Some(&b'{');
    match serde_json::from_slice::<Envelope<T>>(body) {
        _ if !object => Err(error_response(kind, head, body)),
        Ok(Envelope { result: Some(result), error: None }) => Ok(result),
        Ok(Envelope { error: Some(error), .. }) => {
            let reason =
                format!("the response contains both a result and an error: {}", ApiError::from_json(&error).text());
            Err(ambiguous(kind, false, FailureClass::Transient, "spliced_error", &reason))
        }
        _ => Err(error_response(kind, head, body)),
    }
}

/// Classifies a response without a usable result.
pub fn error_response(kind: RequestKind, head: &ResponseHead, body: &[u8]) -> Failure {
    let api_error = ApiError::parse(body);
    let message = || api_error.as_ref().map_or_else(|| describe_body(body), ApiError::text);
    let status = head.status;
    match status {
        202 if !is_html(body) => {
            ambiguous(kind, true, FailureClass::Transient, "http_202", "202 Accepted without a record")
        }
        200..=299 => unusable_success(kind, status, body),
        300..=399 => ambiguous(
            kind,
            false,
            FailureClass::Unavailable,
            "redirected",
            &format!("HTTP {status}: the instance redirects the request; check its URL (is it a login page?)"),
        ),
        401 => failure(FailureClass::Unauthorized, "unauthorized", &message()),
        403 => classify_forbidden(api_error.as_ref(), &message()),
        404 if api_error.is_none() => failure(
            FailureClass::Unavailable,
            "not_api",
            &format!("HTTP 404, but not from the API; check the instance's URL: {}", message()),
        ),
        404 if matches!(kind, RequestKind::Create | RequestKind::List) => {
            failure(FailureClass::Rejected, "http_404", &message())
        }
        404 => failure(FailureClass::Gone, "http_404", &message()),
        407 => failure(FailureClass::Unavailable, "proxy_auth", "the proxy requires credentials"),
        408 => ambiguous(kind, false, FailureClass::Transient, "http_408", &message()),
        409 => failure(FailureClass::Conflict, "http_409", &message()),
        429 => failure(FailureClass::Throttled { retry_after: head.retry_after }, "http_429", &message()),
        400..=499 if api_error.as_ref().is_some_and(ApiError::is_unique_key_violation) => {
            failure(FailureClass::Conflict, "unique_key", &message())
        }
        400..=499 => failure(FailureClass::Rejected, &format!("http_{status}"), &message()),
        502..=504 => ambiguous(kind, false, FailureClass::Unavailable, &format!("http_{status}"), &message()),
        _ => ambiguous(kind, api_error.is_some(), FailureClass::Transient, &format!("http_{status}"), &message()),
    }
}

/// Classifies a 2xx response whose body is not a result.
fn unusable_success(kind: RequestKind, status: u16, body: &[u8]) -> Failure {
    if is_html(body) {
        let page = describe_body(body);
        // A hibernating instance certainly did nothing, but only the text of a page says so, and any system in between
        // may have sent that page: for a write that is no proof (protocol rule 13).
        let hibernating = contains(body, b"ibernating");
        let code = if hibernating { "hibernating" } else { "not_api" };
        let note = if hibernating { "instance hibernating: " } else { "" };
        let reason = format!("{note}HTTP {status} with {page}");
        return ambiguous(kind, false, FailureClass::Unavailable, code, &reason);
    }
    let code = if contains(body, b"\"error\"") { "spliced_error" } else { "broken_response" };
    let reason = format!("HTTP {status}, but the {} bytes of the body are not a complete result", body.len());
    ambiguous(kind, false, FailureClass::Transient, code, &reason)
}

/// Classifies a 403, which has four different causes; only the detail tells them apart. All of them are certain.
fn classify_forbidden(api_error: Option<&ApiError>, text: &str) -> Failure {
    let (message, detail) = api_error.map_or(("", ""), |error| (error.message.as_str(), error.detail.as_str()));
    if api_error.is_some_and(ApiError::is_unique_key_violation) {
        return failure(FailureClass::Conflict, "unique_key", text);
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
    failure(FailureClass::Rejected, code, text)
}

/// Classifies a request without a response. Only reqwest's `is_connect` proves that nothing was sent; its other errors
/// can occur after bytes were sent.
pub fn transport_error(kind: RequestKind, error: &reqwest::Error) -> Failure {
    let reason = error_sources(error);
    if error.is_connect() {
        failure(FailureClass::Unavailable, "connect", &format!("can't connect: {reason}"))
    } else if error.is_builder() {
        failure(FailureClass::Rejected, "request", &format!("can't build the request: {reason}"))
    } else if error.is_timeout() {
        ambiguous(kind, false, FailureClass::Transient, "timeout", "no response before the deadline")
    } else if error.is_decode() {
        let reason = format!("can't read the response: {reason}");
        ambiguous(kind, false, FailureClass::Transient, "broken_response", &reason)
    } else {
        ambiguous(kind, false, FailureClass::Transient, "connection_lost", &format!("connection lost: {reason}"))
    }
}

/// Classifies a response that exceeds the maximum size.
pub fn response_too_large(kind: RequestKind, limit: usize) -> Failure {
    let reason = format!("the response exceeds {limit} bytes");
    ambiguous(kind, false, FailureClass::Transient, "response_too_long", &reason)
}

/// The failure of a write that is ambiguous, or of a read that failed with `class`.
pub fn ambiguous(
    kind: RequestKind,
    transaction_ended: bool,
    class: FailureClass,
    code: &str,
    message: &str,
) -> Failure {
    failure(if kind.writes() { FailureClass::Ambiguous { transaction_ended } } else { class }, code, message)
}

/// A failure; its message is shortened.
pub fn failure(class: FailureClass, code: &str, message: &str) -> Failure {
    Failure { class, code: code.into(), message: bounded(message, SHOWN) }
}

/// An error of the application.
#[derive(Debug, Default)]
struct ApiError {
    message: String,
    detail: String,
}

impl ApiError {
    /// Parses the error envelope `{"error":{"message","detail"},"status":"failure"}`.
    fn parse(body: &[u8]) -> Option<ApiError> {
        if body.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let envelope: Envelope<serde::de::IgnoredAny> = serde_json::from_slice(body).ok()?;
        let error = envelope.error?;
        (error.is_object() || error.is_string()).then(|| ApiError::from_json(&error))
    }

    fn from_json(error: &serde_json::Value) -> ApiError {
        let text = |name: &str| error.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        match error.as_str() {
            Some(message) => ApiError { message: message.to_owned(), detail: String::new() },
            None => ApiError { message: text("message"), detail: text("detail") },
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

    fn is_unique_key_violation(&self) -> bool {
        [&self.message, &self.detail]
            .iter()
            .any(|t| t.contains("Unique Key violation") || t.contains("Duplicate entry"))
    }
}

fn is_html(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'<')
}

/// Describes a body in a few words: the title of a page, never its content.
fn describe_body(body: &[u8]) -> String {
    if body.trim_ascii().is_empty() {
        return "an empty body".into();
    }
    if !is_html(body) {
        return format!("{} bytes that are not a response of the API", body.len());
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

/// The error's causes, without the URL (it contains the query).
fn error_sources(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.ends_with(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        source = cause.source();
    }
    if text.is_empty() { "unknown cause".into() } else { text }
}

/// Parses `Retry-After`: seconds, or an HTTP date, which is compared with the response's own `Date` (the instance's
/// clock may differ from the bridge's). Returns milliseconds, without an upper limit.
pub fn retry_after(value: &str, date: Option<i64>) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse::<u64>().map_or(u64::MAX, |seconds| seconds.saturating_mul(1000)));
    }
    let until = http_date(value)?;
    Some(u64::try_from(until.saturating_sub(date?)).unwrap_or(0).saturating_mul(1000))
}

/// Parses an HTTP date; returns Unix seconds.
pub fn http_date(value: &str) -> Option<i64> {
    static PARSER: jiff::fmt::rfc2822::DateTimeParser = jiff::fmt::rfc2822::DateTimeParser::new();
    PARSER.parse_timestamp(value.trim()).ok().map(jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTML: &str = "<html><head><title>Sign in</title></head></html>";
    const HIBERNATING: &str = "\n<!DOCTYPE html><html><title>Instance Hibernating page</title></html>";
    const DATA_POLICY: &str = r#"{"error":{"message":"Operation Failed","detail":"Data Policy Exception: \n\tThe following fields are mandatory: Close notes"},"status":"failure"}"#;
    const API_ACL: &str =
        r#"{"error":{"message":"User Not Authorized","detail":"Failed API level ACL Validation"},"status":"failure"}"#;
    const ACL: &str = r#"{"error":{"message":"Operation Failed","detail":"ACL Exception Insert Failed due to security constraints"},"status":"failure"}"#;
    const RULE: &str = r#"{"error":{"message":"Operation Failed","detail":"Operation against file 'incident' was aborted by Business Rule 'x^1'."},"status":"failure"}"#;
    const UNIQUE: &str = r#"{"error":{"message":"Operation Failed","detail":"Unique Key violation detected by database (Duplicate entry 'X' for key 'Y')"},"status":"failure"}"#;
    const MISSING: &str = r#"{"error":{"message":"No Record found","detail":"Record doesn't exist or ACL restricts the record retrieval"},"status":"failure"}"#;
    const CANCELLED: &str = r#"{"error":{"message":"Transaction cancelled: maximum execution time exceeded","detail":null},"status":"failure"}"#;
    const SPLICED: &str =
        r#"{"result":[{"sys_id":"1"}],"error":{"message":"Transaction cancelled","detail":"x"},"status":"failure"}"#;
    const SPLICED_BROKEN: &str = r#"{"result":[{"sys_id":"1"},"error":{"message":"Transaction cancelled"}}"#;

    fn outcome(kind: RequestKind, status: u16, body: &str) -> String {
        let head = ResponseHead { status, retry_after: (status == 429).then_some(5_000), ..ResponseHead::default() };
        match parse_result::<serde::de::IgnoredAny>(kind, &head, body.as_bytes()) {
            Ok(_) => "ok".into(),
            Err(failure) => format!("{:?} {}", failure.class, failure.code),
        }
    }

    /// Known responses: status, body, and the failure of a write and of a read of a list.
    #[test]
    fn known_responses_are_classified() {
        let ended = "Ambiguous { transaction_ended: true }";
        let open = "Ambiguous { transaction_ended: false }";
        let table: &[(u16, &str, String, &str)] = &[
            (200, r#"{"result":{}}"#, "ok".into(), "ok"),
            (201, r#"{"result":{}}"#, "ok".into(), "ok"),
            (202, "", format!("{ended} http_202"), "Transient http_202"),
            (202, HTML, format!("{open} not_api"), "Unavailable not_api"),
            (200, "", format!("{open} broken_response"), "Transient broken_response"),
            (200, "null", format!("{open} broken_response"), "Transient broken_response"),
            (200, r#"{"result":null}"#, format!("{open} broken_response"), "Transient broken_response"),
            (200, r#"[{"sys_id":"1"}]"#, format!("{open} broken_response"), "Transient broken_response"),
            (200, r#"{"result":[{"sys_id":"1"},{"sys"#, format!("{open} broken_response"), "Transient broken_response"),
            (200, SPLICED, format!("{open} spliced_error"), "Transient spliced_error"),
            (200, SPLICED_BROKEN, format!("{open} spliced_error"), "Transient spliced_error"),
            (200, CANCELLED, format!("{open} spliced_error"), "Transient spliced_error"),
            (200, HIBERNATING, format!("{open} hibernating"), "Unavailable hibernating"),
            (200, HTML, format!("{open} not_api"), "Unavailable not_api"),
            (302, "", format!("{open} redirected"), "Unavailable redirected"),
            (400, MISSING, "Rejected http_400".into(), "Rejected http_400"),
            (400, HTML, "Rejected http_400".into(), "Rejected http_400"),
            (400, UNIQUE, "Conflict unique_key".into(), "Conflict unique_key"),
            (401, MISSING, "Unauthorized unauthorized".into(), "Unauthorized unauthorized"),
            (403, DATA_POLICY, "Rejected data_policy".into(), "Rejected data_policy"),
            (403, API_ACL, "Rejected api_acl".into(), "Rejected api_acl"),
            (403, ACL, "Rejected acl".into(), "Rejected acl"),
            (403, RULE, "Rejected business_rule".into(), "Rejected business_rule"),
            (403, UNIQUE, "Conflict unique_key".into(), "Conflict unique_key"),
            (403, HTML, "Rejected http_403".into(), "Rejected http_403"),
            (404, MISSING, "Gone http_404".into(), "Rejected http_404"),
            (404, HTML, "Unavailable not_api".into(), "Unavailable not_api"),
            (405, "", "Rejected http_405".into(), "Rejected http_405"),
            (406, "", "Rejected http_406".into(), "Rejected http_406"),
            (407, "", "Unavailable proxy_auth".into(), "Unavailable proxy_auth"),
            (408, "", format!("{open} http_408"), "Transient http_408"),
            (409, "", "Conflict http_409".into(), "Conflict http_409"),
            (413, "", "Rejected http_413".into(), "Rejected http_413"),
            (414, "", "Rejected http_414".into(), "Rejected http_414"),
            (415, "", "Rejected http_415".into(), "Rejected http_415"),
            (
                429,
                "",
                "Throttled { retry_after: Some(5000) } http_429".into(),
                "Throttled { retry_after: Some(5000) } http_429",
            ),
            (500, CANCELLED, format!("{ended} http_500"), "Transient http_500"),
            (500, HTML, format!("{open} http_500"), "Transient http_500"),
            (500, "", format!("{open} http_500"), "Transient http_500"),
            (502, HTML, format!("{open} http_502"), "Unavailable http_502"),
            (503, "", format!("{open} http_503"), "Unavailable http_503"),
            // A front end's status, even with a JSON body: the sender of the body is unknown.
            (503, CANCELLED, format!("{open} http_503"), "Unavailable http_503"),
            (504, "", format!("{open} http_504"), "Unavailable http_504"),
        ];
        for (status, body, write, read) in table {
            assert_eq!(&outcome(RequestKind::Update, *status, body), write, "write: {status} {body}");
            assert_eq!(&outcome(RequestKind::List, *status, body), read, "read: {status} {body}");
        }
        assert_eq!(outcome(RequestKind::Create, 404, MISSING), "Rejected http_404", "the table is missing, not a row");
        assert_eq!(outcome(RequestKind::Read, 404, MISSING), "Gone http_404");
    }

    #[test]
    fn messages_of_the_instance_are_shortened() {
        let head = ResponseHead { status: 403, ..ResponseHead::default() };
        let message = error_response(RequestKind::Update, &head, DATA_POLICY.as_bytes()).message;
        assert_eq!(message, "Operation Failed: Data Policy Exception: The following fields are mandatory: Close notes");
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "wörd ".repeat(500));
        let message = error_response(RequestKind::Update, &head, long.as_bytes()).message;
        assert!(message.chars().count() <= SHOWN && message.ends_with('…'), "{message}");
        let page = ResponseHead { status: 200, ..ResponseHead::default() };
        assert_eq!(
            error_response(RequestKind::List, &page, HTML.as_bytes()).message,
            r#"HTTP 200 with a page titled "Sign in""#
        );
    }

    #[test]
    fn retry_after_is_parsed_in_both_forms() {
        assert_eq!(retry_after("3600", None), Some(3_600_000));
        assert_eq!(retry_after("99999999999999999999999", None), Some(u64::MAX));
        let date = http_date("Mon, 23 Nov 2026 10:00:00 GMT");
        assert_eq!(date, Some(1_795_428_000));
        assert_eq!(retry_after("Mon, 23 Nov 2026 12:00:00 GMT", date), Some(7_200_000));
        assert_eq!(retry_after("Mon, 23 Nov 2026 09:00:00 GMT", date), Some(0));
        assert_eq!(retry_after("Mon, 23 Nov 2026 12:00:00 GMT", None), None);
        assert_eq!(retry_after("soon", date), None);
    }
}
