//! OAuth 2.0 client credentials: one request for a token to the instance's own token endpoint, and what its answer means.
//!
//! Asking again within a token's life returns the same token, so there is nothing to gain by asking early; when to ask is
//! decided in `auth`.

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::classify::{self, Head, Kind, failure};
use crate::model::{Class, Failure};

/// Life of a token whose answer does not say, seconds.
const UNSAID_LIFE: u64 = 60;

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct TokenRefusal {
    #[serde(default)]
    error: Option<serde_json::Value>,
    #[serde(default)]
    error_description: Option<String>,
}

/// One request for a token: the token and the seconds it has left.
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
    // A token request writes nothing: its failures are those of a read.
    let answer = http.post(url).form(&form).send().await.map_err(|error| classify::transport(Kind::List, &error))?;
    let head = super::headers::head(&answer);
    let body = super::client::body(answer, 1 << 20).await.map_err(|error| error.failure(Kind::List, 1 << 20))?;
    if head.status == 200 {
        return token(&body).ok_or_else(|| match classify::refusal(Kind::List, &head, &body) {
            page if page.class == Class::Unavailable => page,
            _ => failure(Class::Unavailable, "oauth", "the token endpoint answered without a bearer token"),
        });
    }
    Err(token_refusal(&head, &body))
}

fn token(body: &[u8]) -> Option<(SecretString, u64)> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return None;
    }
    let seconds = match answer.expires_in {
        None => UNSAID_LIFE,
        Some(serde_json::Value::String(text)) => text.trim().parse().ok()?,
        Some(other) => other.as_u64()?,
    };
    Some((SecretString::from(answer.access_token), seconds))
}

/// A 401 or 400 of the token endpoint stands for every cause: wrong secret, grant disabled, locked user.
fn token_refusal(head: &Head, body: &[u8]) -> Failure {
    let refusal: Option<TokenRefusal> = serde_json::from_slice(body).ok();
    match (head.status, refusal) {
        (400 | 401 | 403, Some(TokenRefusal { error, error_description })) => {
            let error = error.as_ref().and_then(|e| e.as_str()).unwrap_or("no reason").to_owned();
            let why = format!("no token: {} ({error})", error_description.as_deref().unwrap_or("refused"));
            failure(Class::Unauthorised, "oauth", &why)
        }
        (400 | 401, None) => failure(Class::Unauthorised, "oauth", "no token: the endpoint refused"),
        _ => {
            let mut other = classify::refusal(Kind::List, head, body);
            // Whatever it is, it says nothing about the row that was to be written.
            if matches!(other.class, Class::Rejected | Class::Gone | Class::Conflict) {
                other.class = Class::Unavailable;
            }
            other
        }
    }
}

/// The header of a token.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, Failure> {
    let unusable = || failure(Class::Unavailable, "oauth", "the token endpoint's token cannot be sent in a header");
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| unusable())?;
    header.set_sensitive(true);
    Ok(header)
}
