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
    // Serde would take a bare list for the envelope's fields in order.
    let object = body.trim_ascii_start().first() == Some(&b'{');
    match serde_json::from_slice::<Envelope<T>>(body) {
        _ if !object => Err(refusal(kind, head, body)),
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
        if body.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
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

    fn outcome(kind: Kind, status: u16, body: &str) -> String {
        let head = Head { status, retry_after: (status == 429).then_some(5_000), ..Head::default() };
        match result::<serde::de::IgnoredAny>(kind, &head, body.as_bytes()) {
            Ok(_) => "ok".into(),
            Err(failure) => format!("{:?} {}", failure.class, failure.code),
        }
    }

    /// Every answer that is known to come: status, body, what it means for a write and for a read of a list.
    #[test]
    fn the_table_of_answers() {
        let ended = "Ambiguous { ended: true }";
        let open = "Ambiguous { ended: false }";
        let table: &[(u16, &str, String, &str)] = &[
            (200, r#"{"result":{}}"#, "ok".into(), "ok"),
            (201, r#"{"result":{}}"#, "ok".into(), "ok"),
            (202, "", format!("{ended} http_202"), "Transient http_202"),
            (202, HTML, format!("{open} not_api"), "Unavailable not_api"),
            (200, "", format!("{open} broken_answer"), "Transient broken_answer"),
            (200, "null", format!("{open} broken_answer"), "Transient broken_answer"),
            (200, r#"{"result":null}"#, format!("{open} broken_answer"), "Transient broken_answer"),
            (200, r#"[{"sys_id":"1"}]"#, format!("{open} broken_answer"), "Transient broken_answer"),
            (200, r#"{"result":[{"sys_id":"1"},{"sys"#, format!("{open} broken_answer"), "Transient broken_answer"),
            (200, SPLICED, format!("{open} spliced_error"), "Transient spliced_error"),
            (200, SPLICED_BROKEN, format!("{open} spliced_error"), "Transient spliced_error"),
            (200, CANCELLED, format!("{open} spliced_error"), "Transient spliced_error"),
            (200, HIBERNATING, format!("{open} hibernating"), "Unavailable hibernating"),
            (200, HTML, format!("{open} not_api"), "Unavailable not_api"),
            (302, "", format!("{open} redirected"), "Unavailable redirected"),
            (400, MISSING, "Rejected http_400".into(), "Rejected http_400"),
            (400, HTML, "Rejected http_400".into(), "Rejected http_400"),
            (400, UNIQUE, "Conflict unique_key".into(), "Conflict unique_key"),
            (401, MISSING, "Unauthorised unauthorised".into(), "Unauthorised unauthorised"),
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
            // A front end's code, even with a JSON body: whose words they are is not known.
            (503, CANCELLED, format!("{open} http_503"), "Unavailable http_503"),
            (504, "", format!("{open} http_504"), "Unavailable http_504"),
        ];
        for (status, body, write, read) in table {
            assert_eq!(&outcome(Kind::Update, *status, body), write, "a write answered {status} {body}");
            assert_eq!(&outcome(Kind::List, *status, body), read, "a read answered {status} {body}");
        }
        assert_eq!(outcome(Kind::Create, 404, MISSING), "Rejected http_404", "a table, not a row, is missing");
        assert_eq!(outcome(Kind::Row, 404, MISSING), "Gone http_404");
    }

    #[test]
    fn the_instances_words_reach_people_bounded() {
        let head = Head { status: 403, ..Head::default() };
        let told = refusal(Kind::Update, &head, DATA_POLICY.as_bytes()).message;
        assert_eq!(told, "Operation Failed: Data Policy Exception: The following fields are mandatory: Close notes");
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "wörd ".repeat(500));
        let told = refusal(Kind::Update, &head, long.as_bytes()).message;
        assert!(told.chars().count() <= SHOWN && told.ends_with('…'), "{told}");
        let page = Head { status: 200, ..Head::default() };
        assert_eq!(refusal(Kind::List, &page, HTML.as_bytes()).message, r#"HTTP 200 with a page titled "Sign in""#);
    }

    #[test]
    fn retry_after_of_any_form_and_length() {
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
