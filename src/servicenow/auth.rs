//! Authentication: the `Authorization` header of every request, and protection against account lockout.
//!
//! A wrong password locks its account after about five attempts. So a password that the instance has not yet accepted
//! is used by one request at a time; if that request is rejected, the requests that waited for it fail with the same
//! failure and are not sent. A rejected request is never resent here. A rejected password is tried again after a pause,
//! at most four times in a row by all clients that share it; after that it takes a new password or a user's request
//! (`nowbridge resume`). Not covered: requests that were in flight together when a valid password stopped working,
//! other processes, and restarts of this one.
//!
//! One request fetches a token for all (the instance returns the same token until it expires, so there is nothing to
//! gain by requesting one early). It is used until shortly before it expires. A rejected token is discarded; a 401 with
//! the token fetched after that is `Unauthorized`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::model::{Failure, FailureClass};

use super::classify::{self, failure};
use super::{Auth, Connection, Error, oauth};

/// A token is not used in its last milliseconds: it could expire while a request waits for a thread of the instance.
const EXPIRY_MARGIN: u64 = 2_000;

/// How often to wait for the expiry of a token that is about to expire before it is used anyway.
const EXPIRY_WAITS: u32 = 3;

/// Consecutive rejections after which a password is no longer tried: five lock the account (the default of ServiceNow's
/// `SNC User Lockout Check` rules).
const MAX_REJECTIONS: u32 = 4;

/// The credentials in use.
struct ActiveCredentials {
    auth: Auth,
    /// Increases with every change of the header, from 1. A slot empties its cookie jar when it changes.
    generation: u64,
    /// `None` while there is no token.
    header: Option<HeaderValue>,
    /// The token, to redact it in messages.
    token: Option<SecretString>,
    /// Milliseconds; the header is not used from then on.
    expires_at: u64,
    /// A token was rejected, and none has been accepted since.
    suspect: bool,
}

/// Permission to send one request, with its header.
pub struct Authorization {
    pub header: HeaderValue,
    pub generation: u64,
    /// Held while the credentials are unverified, so that no other request uses them at the same time.
    exclusive: Option<OwnedMutexGuard<()>>,
}

/// The consecutive rejections of a password.
#[derive(Debug, Clone, Copy, Default)]
struct ConsecutiveRejections {
    count: u32,
    /// Milliseconds; the password is not tried before.
    not_before: u64,
}

/// The authentication of an instance, shared by all clients that send requests to it.
pub struct Authenticator {
    active: RwLock<Arc<ActiveCredentials>>,
    exclusive: Arc<Mutex<()>>,
    /// The generation that the instance has accepted; 0: none.
    verified: AtomicU64,
    /// Counts the rejections; requests that waited for another request's response share its rejection.
    rejections: AtomicU64,
    last_rejection: RwLock<Option<Failure>>,
    consecutive_rejections: std::sync::Mutex<ConsecutiveRejections>,
    token_url: String,
    /// How long a request waits for another one to verify the credentials.
    wait_limit: Duration,
    /// Milliseconds for which a password is not tried after a rejection.
    retry_delay: u64,
}

impl Authenticator {
    /// `base` is the instance's URL without a trailing slash.
    pub fn new(connection: &Connection, base: &str) -> Result<Self, Error> {
        let active = ActiveCredentials::new(connection.auth.clone(), 1)?;
        Ok(Self {
            active: RwLock::new(Arc::new(active)),
            exclusive: Arc::new(Mutex::new(())),
            verified: AtomicU64::new(0),
            rejections: AtomicU64::new(0),
            last_rejection: RwLock::new(None),
            consecutive_rejections: std::sync::Mutex::default(),
            token_url: format!("{base}/oauth_token.do"),
            wait_limit: connection.deadline,
            retry_delay: u64::try_from(connection.auth_retry_delay.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Replaces the credentials. Credentials identical to the current ones change nothing: each route passes them.
    pub fn replace(&self, auth: Auth) -> Result<(), Error> {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        if active.auth.is_same_as(&auth) {
            return Ok(());
        }
        *active = Arc::new(ActiveCredentials::new(auth, active.generation + 1)?);
        *self.consecutive_rejections() = ConsecutiveRejections::default();
        Ok(())
    }

    /// Increases with every change of the credentials.
    pub fn generation(&self) -> u64 {
        self.active().generation
    }

    /// Allows one attempt with rejected credentials now, because a user requested it.
    pub fn retry_credentials(&self) {
        let mut rejections = self.consecutive_rejections();
        *rejections = ConsecutiveRejections { count: rejections.count.min(MAX_REJECTIONS - 1), not_before: 0 };
    }

    fn consecutive_rejections(&self) -> std::sync::MutexGuard<'_, ConsecutiveRejections> {
        self.consecutive_rejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a rejected password must not be tried now; `None` if it may be.
    fn retry_blocked(&self, now: u64) -> Option<Failure> {
        let ConsecutiveRejections { count, not_before } = *self.consecutive_rejections();
        if count < MAX_REJECTIONS && now >= not_before {
            return None;
        }
        let rejection = self.last_rejection.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let reason = if count < MAX_REJECTIONS {
            format!("{}; the bridge will retry later", rejection.message)
        } else {
            format!(
                "{}; rejected {count} times in a row, and a fifth rejection may lock the account, so the password is \
                 not tried again: set the correct password, or, if it is correct, run `nowbridge resume`",
                rejection.message
            )
        };
        Some(failure(FailureClass::Unauthorized, "unauthorized", &reason))
    }

    /// Permits one request, once there are credentials and no other request is verifying them.
    pub async fn authorize(&self, http: &reqwest::Client, clock: fn() -> u64) -> Result<Authorization, Failure> {
        let active = self.active();
        if let Some(header) = active.usable_header(clock())
            && (active.is_bearer() || self.verified.load(Ordering::Acquire) == active.generation)
        {
            return Ok(Authorization { header, generation: active.generation, exclusive: None });
        }
        let (seen_rejections, generation) = (self.rejections.load(Ordering::Acquire), active.generation);
        let lock = Arc::clone(&self.exclusive).lock_owned();
        let Ok(exclusive) = tokio::time::timeout(self.wait_limit, lock).await else {
            let reason = "another request is still verifying the credentials; nothing was sent";
            return Err(failure(FailureClass::Transient, "credentials_untried", reason));
        };
        let active = self.active();
        if self.rejections.load(Ordering::Acquire) != seen_rejections
            && active.generation == generation
            && let Some(rejection) = self.last_rejection.read().unwrap_or_else(PoisonError::into_inner).clone()
        {
            return Err(rejection);
        }
        if let Some(header) = active.usable_header(clock()) {
            let verified = active.is_bearer() || self.verified.load(Ordering::Acquire) == active.generation;
            if !verified && let Some(blocked) = self.retry_blocked(clock()) {
                return Err(blocked);
            }
            let exclusive = (!verified).then_some(exclusive);
            return Ok(Authorization { header, generation: active.generation, exclusive });
        }
        match self.fetch_token(http, clock, &active).await {
            Ok(authorization) => Ok(authorization),
            Err(failure) => {
                self.record_rejection(&failure);
                Err(failure)
            }
        }
    }

    /// Records that the instance accepted the credentials of this generation.
    pub fn accepted(&self, generation: u64) {
        if self.verified.load(Ordering::Acquire) != generation {
            self.verified.store(generation, Ordering::Release);
            *self.consecutive_rejections() = ConsecutiveRejections::default();
            self.update(generation, |active| active.suspect = false);
        }
    }

    /// Records that the instance responded with 401; returns the failure of the request.
    pub fn on_unauthorized(&self, authorization: &Authorization, failure: Failure, now: u64) -> Failure {
        let generation = authorization.generation;
        let active = self.active();
        if active.generation != generation {
            let message = format!("{}; the credentials were changed in the meantime", failure.message);
            return classify::failure(FailureClass::Transient, "credentials_changed", &message);
        }
        if active.is_bearer() {
            let suspect = active.suspect;
            self.update(generation, |active| {
                active.header = None;
                active.suspect = true;
            });
            if !suspect {
                let message = format!("{}; a new token will be fetched", failure.message);
                return classify::failure(FailureClass::Transient, "token_rejected", &message);
            }
        }
        // The credentials count as unverified again, so the next request uses them exclusively.
        let unverified = self.verified.compare_exchange(generation, 0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        // Requests that were in flight together with the first rejected one do not count as attempts.
        if unverified || authorization.exclusive.is_some() {
            let mut rejections = self.consecutive_rejections();
            let not_before = now.saturating_add(self.retry_delay);
            *rejections = ConsecutiveRejections { count: rejections.count + 1, not_before };
        }
        self.record_rejection(&failure);
        failure
    }

    /// Replaces the secrets in an external message.
    pub fn redact(&self, text: &mut String) {
        let active = self.active();
        let secret = match &active.auth {
            Auth::Basic { password, .. } => password,
            Auth::ClientCredentials { client_secret, .. } => client_secret,
        };
        for secret in [Some(secret), active.token.as_ref()].into_iter().flatten().map(ExposeSecret::expose_secret) {
            if secret.len() >= 4 && text.contains(secret) {
                *text = text.replace(secret, "***");
            }
        }
    }

    fn active(&self) -> Arc<ActiveCredentials> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn update(&self, generation: u64, update: impl FnOnce(&mut ActiveCredentials)) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        if active.generation == generation {
            let mut next = active.copy();
            update(&mut next);
            *active = Arc::new(next);
        }
    }

    fn record_rejection(&self, failure: &Failure) {
        *self.last_rejection.write().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
        self.rejections.fetch_add(1, Ordering::AcqRel);
    }
    /// Fetches a token; waits for the expiry of one that is about to expire. The caller must hold the lock that makes
    /// it the only one to do so.
    /// does so at a time.
    async fn fetch_token(
        &self,
        http: &reqwest::Client,
        clock: fn() -> u64,
        active: &ActiveCredentials,
    ) -> Result<Authorization, Failure> {
        let replaced = || {
            let reason = "the credentials were replaced in the meantime; nothing was sent";
            failure(FailureClass::Transient, "credentials_changed", reason)
        };
        let Auth::ClientCredentials { client_id, client_secret, token_url } = &active.auth else {
            return Err(replaced());
        };
        let url = token_url.as_deref().unwrap_or(&self.token_url);
        for wait in 0..=EXPIRY_WAITS {
            let requested_at = clock();
            let (token, seconds) = oauth::fetch(http, url, client_id, client_secret).await?;
            let left = seconds.saturating_mul(1000);
            if left <= EXPIRY_MARGIN && wait < EXPIRY_WAITS {
                tokio::time::sleep(Duration::from_millis(left + 200)).await;
                continue;
            }
            let header = oauth::bearer(&token)?;
            let mut current = self.active.write().unwrap_or_else(PoisonError::into_inner);
            if current.generation != active.generation {
                break;
            }
            let generation = active.generation + 1;
            *current = Arc::new(ActiveCredentials {
                auth: active.auth.clone(),
                generation,
                header: Some(header.clone()),
                token: Some(token),
                expires_at: requested_at.saturating_add(left.saturating_sub(EXPIRY_MARGIN)),
                suspect: active.suspect,
            });
            return Ok(Authorization { header, generation, exclusive: None });
        }
        Err(replaced())
    }
}

impl ActiveCredentials {
    fn new(auth: Auth, generation: u64) -> Result<Self, Error> {
        let header = match &auth {
            Auth::Basic { user, password } => Some(basic(user, password)?),
            Auth::ClientCredentials { .. } => None,
        };
        Ok(Self { auth, generation, header, token: None, expires_at: u64::MAX, suspect: false })
    }

    fn copy(&self) -> Self {
        Self {
            auth: self.auth.clone(),
            generation: self.generation,
            header: self.header.clone(),
            token: self.token.clone(),
            expires_at: self.expires_at,
            suspect: self.suspect,
        }
    }

    fn usable_header(&self, now: u64) -> Option<HeaderValue> {
        if now < self.expires_at { self.header.clone() } else { None }
    }

    fn is_bearer(&self) -> bool {
        matches!(self.auth, Auth::ClientCredentials { .. })
    }
}

fn basic(user: &str, password: &SecretString) -> Result<HeaderValue, Error> {
    // RFC 7617: the colon ends the user name, so a user name cannot contain one.
    if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
        return Err(Error::Credential { credential: "user name" });
    }
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    let mut header =
        HeaderValue::from_str(&format!("Basic {pair}")).map_err(|_| Error::Credential { credential: "password" })?;
    header.set_sensitive(true);
    Ok(header)
}
