//! OAuth 2.0 client credentials: requests a token from the instance's token endpoint and classifies the response.
//!
//! The instance returns the same token until it expires, so there is nothing to gain by requesting one early. `auth`
//! decides when to request one.

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::classify::{self, RequestKind, ResponseHead, failure};
use crate::model::{Failure, FailureClass};

/// Assumed lifetime of a token whose response gives none, seconds.
const DEFAULT_LIFETIME: u64 = 60;

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct TokenError {
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(default)]
    error_description: Option<String>,
}

/// Requests a token; returns it with its remaining lifetime in seconds.
pub(super) async fn fetch(
    http: &reqwest::Client,
    url: &str,
    client_id: &str,
    client_secret: &SecretString,
) -> Result<(SecretString, u64), Failure> {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_secret", client_secret.expose_secret()),
    ];
    // A token request writes nothing, so its failures are classified as those of a read.
    let response = http
        .post(url)
        .form(&form)
        .send()
        .await
        .map_err(|error| classify::transport_error(RequestKind::List, &error))?;
    let head = super::headers::response_head(&response);
    let body =
        super::client::body(response, 1 << 20).await.map_err(|error| error.failure(RequestKind::List, 1 << 20))?;
    if head.status == 200 {
        return parse_token(&body).ok_or_else(|| match classify::error_response(RequestKind::List, &head, &body) {
            page if page.class == FailureClass::Unavailable => page,
            _ => failure(FailureClass::Unavailable, "oauth", "the token endpoint responded without a bearer token"),
        });
    }
    Err(classify_token_error(&head, &body))
}

fn parse_token(body: &[u8]) -> Option<(SecretString, u64)> {
    let response: TokenResponse = serde_json::from_slice(body).ok()?;
    if response.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return None;
    }
    let seconds = match response.expires_in {
        None => DEFAULT_LIFETIME,
        Some(serde_json::Value::String(text)) => text.trim().parse().ok()?,
        Some(other) => other.as_u64()?,
    };
    Some((SecretString::from(response.access_token), seconds))
}

/// The token endpoint responds with 401 or 400 for every cause: wrong secret, grant disabled, user locked.
fn classify_token_error(head: &ResponseHead, body: &[u8]) -> Failure {
    let token_error: Option<TokenError> = serde_json::from_slice(body).ok();
    match (head.status, token_error) {
        (400 | 401 | 403, Some(TokenError { error, error_description })) => {
            let error = error.as_ref().and_then(|e| e.as_str()).unwrap_or("no reason").to_owned();
            let reason = format!("no token: {} ({error})", error_description.as_deref().unwrap_or("rejected"));
            failure(FailureClass::Unauthorized, "oauth", &reason)
        }
        (400 | 401, None) => failure(FailureClass::Unauthorized, "oauth", "the token endpoint rejected the request"),
        _ => {
            let mut failure = classify::error_response(RequestKind::List, head, body);
            // No failure of the token request says anything about the row to be written.
            if matches!(failure.class, FailureClass::Rejected | FailureClass::Gone | FailureClass::Conflict) {
                failure.class = FailureClass::Unavailable;
            }
            failure
        }
    }
}

/// The `Authorization` header for a token.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, Failure> {
    let unusable =
        || failure(FailureClass::Unavailable, "oauth", "the token contains characters that can't be sent in a header");
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| unusable())?;
    header.set_sensitive(true);
    Ok(header)
}
