//! Credentials: the header of every request, and who may use it.
//!
//! A wrong password locks its account after about five tries, so a password that the instance has not yet accepted is
//! used by one request at a time; when that is refused, those that waited are told so without being sent. A refused
//! request is never sent again here.
//!
//! A token is fetched by one request for all (asking again within its life returns the same token, so there is
//! nothing to gain by asking early): it is used until just before its end. A refused token is thrown away; a 401 with
//! the token fetched after that is `Unauthorised`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::model::{Class, Failure};

use super::classify::{self, Head, Kind, failure};
use super::{Auth, Error};

/// A token is not used in its last moments, or it would end while a request waits for a thread of the instance.
const MARGIN: u64 = 2_000;

/// Life of a token whose answer does not say.
const UNSAID_LIFE: u64 = 60;

/// Times that a token about to end is waited out before it is used as it is.
const WAITS: u32 = 3;

/// The credentials in use.
struct Held {
    auth: Auth,
    /// Counts changes of the header, from 1; a slot empties its jar when it sees a new one.
    generation: u64,
    header: Option<HeaderValue>,
    /// The token, for scrubbing messages.
    token: Option<SecretString>,
    /// The header is good before this instant.
    good_until: u64,
    /// A token was refused, and none has been accepted since.
    suspect: bool,
}

/// Leave to send one request.
pub struct Pass {
    pub header: HeaderValue,
    pub generation: u64,
    /// Held while the credentials are unproven: no other request uses them meanwhile.
    _alone: Option<OwnedMutexGuard<()>>,
}

/// The credentials of a connection, shared by its slots.
pub struct Authority {
    held: RwLock<Arc<Held>>,
    alone: Arc<Mutex<()>>,
    /// Generation that the instance has accepted; 0: none.
    proven: AtomicU64,
    /// The last refusal and how many there were: those that waited for a request's answer share it.
    refusals: AtomicU64,
    refused: RwLock<Option<Failure>>,
    token_url: String,
    patience: Duration,
}

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

impl Authority {
    /// `base` has no trailing slash. `patience` bounds the wait for another request's proof of the credentials.
    pub fn new(auth: Auth, base: &str, patience: Duration) -> Result<Self, Error> {
        let held = Held::new(auth, 1)?;
        Ok(Self {
            held: RwLock::new(Arc::new(held)),
            alone: Arc::new(Mutex::new(())),
            proven: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            refused: RwLock::new(None),
            token_url: format!("{base}/oauth_token.do"),
            patience,
        })
    }

    /// Takes new credentials.
    pub fn replace(&self, auth: Auth) -> Result<(), Error> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(Held::new(auth, held.generation + 1)?);
        Ok(())
    }

    /// Leave to send, once the credentials are there and nobody else is trying them out.
    pub async fn admit(&self, http: &reqwest::Client, clock: fn() -> u64) -> Result<Pass, Failure> {
        let held = self.held();
        if let Some(header) = held.usable(clock())
            && (held.bearer() || self.proven.load(Ordering::Acquire) == held.generation)
        {
            return Ok(Pass { header, generation: held.generation, _alone: None });
        }
        let (before, generation) = (self.refusals.load(Ordering::Acquire), held.generation);
        let Ok(alone) = tokio::time::timeout(self.patience, Arc::clone(&self.alone).lock_owned()).await else {
            let why = "another request is still trying the credentials; nothing was sent";
            return Err(failure(Class::Transient, "credentials_untried", why));
        };
        let held = self.held();
        if self.refusals.load(Ordering::Acquire) != before
            && held.generation == generation
            && let Some(refused) = self.refused.read().unwrap_or_else(PoisonError::into_inner).clone()
        {
            return Err(refused);
        }
        if let Some(header) = held.usable(clock()) {
            let proven = held.bearer() || self.proven.load(Ordering::Acquire) == held.generation;
            return Ok(Pass { header, generation: held.generation, _alone: (!proven).then_some(alone) });
        }
        match self.renew(http, clock, &held).await {
            Ok(pass) => Ok(pass),
            Err(failure) => {
                self.note_refusal(&failure);
                Err(failure)
            }
        }
    }

    /// The instance accepted these credentials.
    pub fn accepted(&self, generation: u64) {
        if self.proven.load(Ordering::Acquire) != generation {
            self.proven.store(generation, Ordering::Release);
            self.change(generation, |held| held.suspect = false);
        }
    }

    /// The instance answered 401 to these credentials: the failure that this means.
    pub fn refused(&self, generation: u64, failure: Failure) -> Failure {
        let held = self.held();
        if held.generation != generation {
            let message = format!("{}; the credentials have changed meanwhile", failure.message);
            return classify::failure(Class::Transient, "credentials_changed", &message);
        }
        if held.bearer() {
            let suspect = held.suspect;
            self.change(generation, |held| {
                held.header = None;
                held.suspect = true;
            });
            if !suspect {
                let message = format!("{}; a new token will be fetched", failure.message);
                return classify::failure(Class::Transient, "token_refused", &message);
            }
        }
        // One refusal proves nothing right any more: the next request goes alone again.
        let _ = self.proven.compare_exchange(generation, 0, Ordering::AcqRel, Ordering::Acquire);
        self.note_refusal(&failure);
        failure
    }

    /// Takes our secrets out of a text that others wrote.
    pub fn scrub(&self, text: &mut String) {
        let held = self.held();
        let secret = match &held.auth {
            Auth::Basic { password, .. } => password,
            Auth::ClientCredentials { client_secret, .. } => client_secret,
        };
        for secret in [Some(secret), held.token.as_ref()].into_iter().flatten().map(ExposeSecret::expose_secret) {
            if secret.len() >= 4 && text.contains(secret) {
                *text = text.replace(secret, "***");
            }
        }
    }

    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, generation: u64, change: impl FnOnce(&mut Held)) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.generation == generation {
            let mut next = held.copy();
            change(&mut next);
            *held = Arc::new(next);
        }
    }

    fn note_refusal(&self, failure: &Failure) {
        *self.refused.write().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
        self.refusals.fetch_add(1, Ordering::AcqRel);
    }

    /// Fetches a token, and waits out one that is about to end. Called by one at a time.
    async fn renew(&self, http: &reqwest::Client, clock: fn() -> u64, held: &Held) -> Result<Pass, Failure> {
        let Auth::ClientCredentials { client_id, client_secret, token_url } = &held.auth else {
            return Err(failure(Class::Transient, "credentials_changed", "the credentials were replaced; try again"));
        };
        let url = token_url.as_deref().unwrap_or(&self.token_url);
        for wait in 0..=WAITS {
            let asked_at = clock();
            let (token, seconds) = fetch(http, url, client_id, client_secret).await?;
            let left = seconds.saturating_mul(1000);
            if left <= MARGIN && wait < WAITS {
                tokio::time::sleep(Duration::from_millis(left + 200)).await;
                continue;
            }
            let header = bearer(&token)?;
            let mut now_held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            if now_held.generation != held.generation {
                break;
            }
            let generation = held.generation + 1;
            *now_held = Arc::new(Held {
                auth: held.auth.clone(),
                generation,
                header: Some(header.clone()),
                token: Some(token),
                good_until: asked_at.saturating_add(left.saturating_sub(MARGIN)),
                suspect: held.suspect,
            });
            return Ok(Pass { header, generation, _alone: None });
        }
        Err(failure(Class::Transient, "credentials_changed", "the credentials were replaced; try again"))
    }
}

impl Held {
    fn new(auth: Auth, generation: u64) -> Result<Self, Error> {
        let header = match &auth {
            Auth::Basic { user, password } => Some(basic(user, password)?),
            Auth::ClientCredentials { .. } => None,
        };
        Ok(Self { auth, generation, header, token: None, good_until: u64::MAX, suspect: false })
    }

    fn copy(&self) -> Self {
        Self {
            auth: self.auth.clone(),
            generation: self.generation,
            header: self.header.clone(),
            token: self.token.clone(),
            good_until: self.good_until,
            suspect: self.suspect,
        }
    }

    fn usable(&self, now: u64) -> Option<HeaderValue> {
        if now < self.good_until { self.header.clone() } else { None }
    }

    fn bearer(&self) -> bool {
        matches!(self.auth, Auth::ClientCredentials { .. })
    }
}

fn basic(user: &str, password: &SecretString) -> Result<HeaderValue, Error> {
    // RFC 7617: the colon ends the user name, so it can't hold one.
    if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
        return Err(Error::Credential { what: "user name" });
    }
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    let mut header =
        HeaderValue::from_str(&format!("Basic {pair}")).map_err(|_| Error::Credential { what: "password" })?;
    header.set_sensitive(true);
    Ok(header)
}

fn bearer(token: &SecretString) -> Result<HeaderValue, Failure> {
    let unusable = || failure(Class::Unavailable, "oauth", "the token endpoint's token cannot be sent in a header");
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| unusable())?;
    header.set_sensitive(true);
    Ok(header)
}

/// One request for a token: the token and the seconds it has left.
async fn fetch(
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
