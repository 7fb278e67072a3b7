//! A concurrency slot: one HTTP client, one connection, one cookie jar, so one session on the instance.
//!
//! The jar keeps the session (and with it the node) between requests; it is emptied where the session is suspect:
//! after a 401, a 202, a 5xx, a lost answer (the session may still be busy with the request) or new credentials (a
//! valid session cookie would hide that the old ones were revoked).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::cookie::{CookieStore, Jar};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use secrecy::ExposeSecret;

use super::{Connection, Error, tls};
use crate::quota::LoadFeedback;

/// The instance closes idle connections after 20 s, and a request that meets a closing connection is a needless doubt.
const IDLE: Duration = Duration::from_secs(15);

/// What every HTTP client of a connection is built from.
pub struct Parts {
    /// One for all slots: reading the machine's authorities takes milliseconds and memory, and a session that one
    /// slot has agreed upon is resumed by the others.
    tls: rustls::ClientConfig,
    proxy: Option<reqwest::Proxy>,
    user_agent: HeaderValue,
    deadline: Duration,
    connect_timeout: Duration,
}

impl Parts {
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let tls = tls::config(connection)?;
        let proxy = match &connection.proxy {
            None => None,
            Some(address) => Some(reqwest::Proxy::all(address.expose_secret()).map_err(|_| Error::Proxy)?),
        };
        let user_agent =
            HeaderValue::from_str(&connection.user_agent).map_err(|_| Error::Credential { what: "user agent" })?;
        Ok(Self {
            tls,
            proxy,
            user_agent,
            deadline: connection.deadline,
            connect_timeout: connection.connect_timeout.min(connection.deadline),
        })
    }

    /// A client that sends each request once, follows nothing, and uses no proxy but the configured one.
    ///
    /// Hyper sends a request again only where it never began to write it (a pooled connection was found closed).
    pub fn client(&self) -> Result<reqwest::ClientBuilder, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(self.user_agent.clone())
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .tls_backend_preconfigured(self.tls.clone())
            .gzip(true)
            .no_proxy()
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .connect_timeout(self.connect_timeout)
            .timeout(self.deadline);
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(proxy.clone());
        }
        Ok(builder)
    }
}

/// One slot. Its HTTP client is made when it is first used: each has a pool of one connection.
#[derive(Default)]
pub struct Slot {
    http: OnceLock<reqwest::Client>,
    /// Outside of the HTTP client, which would parse each URL anew for it. None while there are no cookies.
    jar: Mutex<Option<Jar>>,
    generation: AtomicU64,
    /// What the requests since it was last asked told of the instance's quota.
    feedback: Mutex<LoadFeedback>,
}

impl Slot {
    /// The slot's HTTP client.
    pub fn http(&self, parts: &Parts) -> Result<&reqwest::Client, Error> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let made = parts.client()?.build().map_err(Error::Build)?;
        Ok(self.http.get_or_init(|| made))
    }

    /// Empties the jar where the credentials changed since the last request.
    pub fn align(&self, generation: u64) {
        if self.generation.swap(generation, Ordering::AcqRel) != generation {
            self.forget_session();
        }
    }

    /// The cookies of the session, for a request to this URL.
    pub fn cookies(&self, url: &reqwest::Url) -> Option<HeaderValue> {
        self.jar().as_ref()?.cookies(url)
    }

    /// Keeps the cookies of an answer.
    pub fn set_cookies<'a>(&self, cookies: impl Iterator<Item = &'a HeaderValue>, url: &reqwest::Url) {
        let mut cookies = cookies.peekable();
        if cookies.peek().is_some() {
            self.jar().get_or_insert_default().set_cookies(&mut cookies, url);
        }
    }

    /// Empties the jar: the next request opens a session of its own.
    pub fn forget_session(&self) {
        *self.jar() = None;
    }

    /// Notes what a request told of the instance's quota.
    pub fn press(&self, note: impl FnOnce(&mut LoadFeedback)) {
        note(&mut self.feedback.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What the requests since the last call told.
    pub fn take_feedback(&self) -> LoadFeedback {
        std::mem::take(&mut self.feedback.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn jar(&self) -> MutexGuard<'_, Option<Jar>> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
