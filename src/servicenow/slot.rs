//! A concurrency slot: one HTTP client, one connection and one cookie jar, so one session on the instance.
//!
//! The jar keeps the session (and with it the node) between requests. It is emptied where the session is suspect: after
//! a 401, a 202, a 5xx, a lost response (the session may still be busy with the request) or new credentials (a valid
//! session cookie would hide that the old ones were revoked).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::cookie::{CookieStore, Jar};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use secrecy::ExposeSecret;

use super::{Connection, Error, tls};
use crate::quota::LoadFeedback;

/// The instance closes idle connections after 20 s; a request on a connection that is closing would be ambiguous.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The settings that all HTTP clients of a connection share.
pub struct HttpSettings {
    /// One for all slots: reading the machine's certificate authorities takes milliseconds and memory, and slots resume
    /// each other's TLS sessions.
    tls: rustls::ClientConfig,
    proxy: Option<reqwest::Proxy>,
    user_agent: HeaderValue,
    deadline: Duration,
    connect_timeout: Duration,
}

impl HttpSettings {
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let tls = tls::config(connection)?;
        let proxy = match &connection.proxy {
            None => None,
            Some(address) => Some(reqwest::Proxy::all(address.expose_secret()).map_err(|_| Error::Proxy)?),
        };
        let user_agent = HeaderValue::from_str(&connection.user_agent)
            .map_err(|_| Error::Credential { credential: "user agent" })?;
        Ok(Self {
            tls,
            proxy,
            user_agent,
            deadline: connection.deadline,
            connect_timeout: connection.connect_timeout.min(connection.deadline),
        })
    }

    /// An HTTP client that sends each request once, follows no redirects, and uses only the configured proxy.
    ///
    /// Hyper resends a request only where it had not started to write it (the pooled connection was already closed).
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
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .connect_timeout(self.connect_timeout)
            .timeout(self.deadline);
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(proxy.clone());
        }
        Ok(builder)
    }
}

/// One slot. Its HTTP client has a pool of one connection and is built on first use.
#[derive(Default)]
pub struct Slot {
    http: OnceLock<reqwest::Client>,
    /// Kept outside the HTTP client, which would parse each URL again for it. `None` while there are no cookies.
    jar: Mutex<Option<Jar>>,
    generation: AtomicU64,
    /// Feedback of the requests since the last [`Slot::take_feedback`].
    feedback: Mutex<LoadFeedback>,
}

impl Slot {
    /// The slot's HTTP client.
    pub fn http(&self, settings: &HttpSettings) -> Result<&reqwest::Client, Error> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let client = settings.client()?.build().map_err(Error::Build)?;
        Ok(self.http.get_or_init(|| client))
    }

    /// Empties the jar if the credentials changed since the last request.
    pub fn align_session(&self, generation: u64) {
        if self.generation.swap(generation, Ordering::AcqRel) != generation {
            self.forget_session();
        }
    }

    /// The session's cookies for a request to this URL.
    pub fn cookies(&self, url: &reqwest::Url) -> Option<HeaderValue> {
        self.jar().as_ref()?.cookies(url)
    }

    /// Stores the cookies of a response.
    pub fn set_cookies<'a>(&self, cookies: impl Iterator<Item = &'a HeaderValue>, url: &reqwest::Url) {
        let mut cookies = cookies.peekable();
        if cookies.peek().is_some() {
            self.jar().get_or_insert_default().set_cookies(&mut cookies, url);
        }
    }

    /// Empties the jar: the next request starts a new session.
    pub fn forget_session(&self) {
        *self.jar() = None;
    }

    /// Updates the feedback.
    pub fn update_feedback(&self, update: impl FnOnce(&mut LoadFeedback)) {
        update(&mut self.feedback.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns and clears the feedback.
    pub fn take_feedback(&self) -> LoadFeedback {
        std::mem::take(&mut self.feedback.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn jar(&self) -> MutexGuard<'_, Option<Jar>> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
