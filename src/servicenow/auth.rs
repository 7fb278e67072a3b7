//! Credentials: the header of every request, and who may use it.
//!
//! A wrong password locks its account after about five tries, so a password that the instance has not yet accepted is
//! used by one request at a time; when that is refused, those that waited are told so without being sent. A refused
//! request is never sent again here. A refused password is tried again after a pause, by all clients that share it at
//! most four times in a row; then it takes a new one, or a person's word. Not guarded against: requests that were out
//! together when a password that worked stopped working, other processes, and starts of this one.
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
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::model::{Class, Failure};

use super::classify::{self, failure};
use super::{Auth, Connection, Error, oauth};

/// A token is not used in its last moments, or it would end while a request waits for a thread of the instance.
const MARGIN: u64 = 2_000;

/// Times that a token about to end is waited out before it is used as it is.
const WAITS: u32 = 3;

/// Refusals in a row after which a password is not tried any more: five lock the account (the default of ServiceNow's
/// `SNC User Lockout Check` rules).
const MOST_WRONG: u32 = 4;

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
    alone: Option<OwnedMutexGuard<()>>,
}

/// A password's refusals in a row.
#[derive(Debug, Clone, Copy, Default)]
struct Wrong {
    count: u32,
    /// It is not tried before this instant.
    not_before: u64,
}

/// The credentials of an instance, shared by all that send requests to it.
pub struct Authority {
    held: RwLock<Arc<Held>>,
    alone: Arc<Mutex<()>>,
    /// Generation that the instance has accepted; 0: none.
    proven: AtomicU64,
    /// The last refusal and how many there were: those that waited for a request's answer share it.
    refusals: AtomicU64,
    refused: RwLock<Option<Failure>>,
    wrong: std::sync::Mutex<Wrong>,
    token_url: String,
    patience: Duration,
    /// After a refusal a password is not tried for so many milliseconds.
    pause: u64,
}

impl Authority {
    /// `base` has no trailing slash.
    pub fn new(connection: &Connection, base: &str) -> Result<Self, Error> {
        let held = Held::new(connection.auth.clone(), 1)?;
        Ok(Self {
            held: RwLock::new(Arc::new(held)),
            alone: Arc::new(Mutex::new(())),
            proven: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            refused: RwLock::new(None),
            wrong: std::sync::Mutex::default(),
            token_url: format!("{base}/oauth_token.do"),
            // Bounds the wait for another request's proof of the credentials.
            patience: connection.deadline,
            pause: u64::try_from(connection.login_pause.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Takes new credentials. Those that are in use already change nothing: each route brings them.
    pub fn replace(&self, auth: Auth) -> Result<(), Error> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.auth.is_same_as(&auth) {
            return Ok(());
        }
        *held = Arc::new(Held::new(auth, held.generation + 1)?);
        *self.wrong() = Wrong::default();
        Ok(())
    }

    /// Counts changes of the credentials.
    pub fn generation(&self) -> u64 {
        self.held().generation
    }

    /// A person wants the credentials tried now, whatever became of them before: once.
    pub fn try_again(&self) {
        let mut wrong = self.wrong();
        *wrong = Wrong { count: wrong.count.min(MOST_WRONG - 1), not_before: 0 };
    }

    fn wrong(&self) -> std::sync::MutexGuard<'_, Wrong> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a password is not tried now, where it was refused before.
    fn spared(&self, now: u64) -> Option<Failure> {
        let Wrong { count, not_before } = *self.wrong();
        if count < MOST_WRONG && now >= not_before {
            return None;
        }
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let why = if count < MOST_WRONG {
            format!("{}; tried again later", refused.message)
        } else {
            format!(
                "{}; that was refusal {count} in a row, and as the fifth may lock the account, it is not tried any more: \
                 set the password right, or, where it is right, `nowbridge resume`",
                refused.message
            )
        };
        Some(failure(Class::Unauthorised, "unauthorised", &why))
    }

    /// Leave to send, once the credentials are there and nobody else is trying them out.
    pub async fn admit(&self, http: &reqwest::Client, clock: fn() -> u64) -> Result<Pass, Failure> {
        let held = self.held();
        if let Some(header) = held.usable(clock())
            && (held.bearer() || self.proven.load(Ordering::Acquire) == held.generation)
        {
            return Ok(Pass { header, generation: held.generation, alone: None });
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
            if !proven && let Some(spared) = self.spared(clock()) {
                return Err(spared);
            }
            return Ok(Pass { header, generation: held.generation, alone: (!proven).then_some(alone) });
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
            *self.wrong() = Wrong::default();
            self.change(generation, |held| held.suspect = false);
        }
    }

    /// The instance answered 401 to a request that left with this pass: the failure that this means.
    pub fn refused(&self, pass: &Pass, failure: Failure, now: u64) -> Failure {
        let generation = pass.generation;
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
        let unproves = self.proven.compare_exchange(generation, 0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        // What left together with the request that learned it was no try of its own.
        if unproves || pass.alone.is_some() {
            let mut wrong = self.wrong();
            *wrong = Wrong { count: wrong.count + 1, not_before: now.saturating_add(self.pause) };
        }
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
            let (token, seconds) = oauth::fetch(http, url, client_id, client_secret).await?;
            let left = seconds.saturating_mul(1000);
            if left <= MARGIN && wait < WAITS {
                tokio::time::sleep(Duration::from_millis(left + 200)).await;
                continue;
            }
            let header = oauth::bearer(&token)?;
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
            return Ok(Pass { header, generation, alone: None });
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
