//! The response of a request before it becomes HTTP: status, body, and which of the instance's usual headers it has.

use axum::body::Body;
use axum::http::header::{HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};

/// The response of a request.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    pub headers: Vec<(&'static str, String)>,
    /// A response of the load balancer, without the application's headers.
    pub bare: bool,
    /// No response: the connection is reset.
    pub reset_connection: bool,
}

const JSON: &str = "application/json;charset=UTF-8";
const HTML: &str = "text/html;charset=UTF-8";

impl Reply {
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self { status, content_type: JSON, body, ..Self::default() }
    }

    /// The JSON body of an error.
    pub fn error(status: u16, message: &str, detail: Option<&str>) -> Self {
        let body = serde_json::json!({"error": {"message": message, "detail": detail}, "status": "failure"});
        Self::json(status, body.to_string().into_bytes())
    }

    pub fn html(status: u16, body: &str) -> Self {
        Self { status, content_type: HTML, body: body.as_bytes().to_vec(), bare: true, ..Self::default() }
    }

    /// A status without body and without the application's headers.
    pub fn bare(status: u16) -> Self {
        Self { status, bare: true, ..Self::default() }
    }

    pub fn connection_reset() -> Self {
        Self { status: 500, bare: true, reset_connection: true, ..Self::default() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn not_authenticated() -> Self {
        Self::error(401, "User Not Authenticated", Some("Required to provide Auth information"))
            .with("www-authenticate", "BASIC realm=\"Service-now\"")
    }

    /// Converts it to HTTP. `date` is set only if the instance's clock has an offset; otherwise the HTTP server sets
    /// it.
    pub fn into_response(self, transaction: &str, date: Option<String>) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        let mut fixed = |name: &'static str, value: &'static str| {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        };
        fixed("server", "ServiceNow");
        fixed("strict-transport-security", "max-age=63072000; includeSubDomains");
        if !self.content_type.is_empty() {
            fixed("content-type", self.content_type);
        }
        if !self.bare {
            fixed("x-is-logged-in", if self.status == 401 { "false" } else { "true" });
            fixed("cache-control", "no-cache,no-store,must-revalidate,max-age=-1");
            fixed("pragma", "no-store,no-cache");
            fixed("expires", "0");
            fixed("x-content-type-options", "nosniff");
            if let Ok(value) = HeaderValue::from_str(transaction) {
                headers.insert("x-transaction-id", value);
            }
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        if let Some(value) = date.and_then(|date| HeaderValue::from_str(&date).ok()) {
            headers.insert("date", value);
        }
        response
    }
}

/// The page of a hibernating instance; its status is 200.
pub(super) const HIBERNATING: &str = "<!DOCTYPE html><html><head><title>Instance Hibernating page</title></head>\
    <body><h1>Hibernating Instance</h1><p>Your instance is hibernating. Sign in to the developer site to wake it.</p>\
    </body></html>";

/// The page of an instance under maintenance.
pub(super) const MAINTENANCE: &str = "<!DOCTYPE html><html><head><title>Maintenance</title></head>\
    <body><h1>The service is temporarily unavailable</h1><p>Maintenance is in progress.</p></body></html>";

/// The login page.
pub(super) const LOGIN: &str = "<!DOCTYPE html><html><head><title>Log in | ServiceNow</title></head>\
    <body><form action=\"/login.do\"><input name=\"user_name\"></form></body></html>";

/// The load balancer's page for 502 to 504.
pub(super) fn gateway(status: u16) -> Reply {
    let text = match status {
        502 => "502 Bad Gateway",
        503 => "503 Service Unavailable",
        _ => "504 Gateway Time-out",
    };
    Reply::html(status, &format!("<html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>"))
}
