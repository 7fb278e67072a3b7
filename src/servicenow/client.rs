//! The client: performs requests on numbered slots, one HTTP request at a time per slot.

use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderValue, SET_COOKIE};
use reqwest::{Method, Url};

use crate::model::{Answer, Failure, FailureClass};

use super::auth::Authenticator;
use super::classify::{self, RequestKind, ResponseHead, failure};
use super::request::{self, Urls};
use super::row::{self, RawRow};
use super::slot::{HttpSettings, Slot};
use super::text::is_name;
use super::{Auth, Connection, Error, Request, events, headers, journal, lookup};
use crate::quota::LoadFeedback;
use crate::quota::concurrency::LoadSignal;

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestResult {
    pub answer: Answer,
    /// Milliseconds of the client's clock, read when the response or the failure was available. The request had
    /// certainly been sent by then, so a timeout counted from here never ends too early.
    pub issued_at: u64,
    /// The instance's clock (`Date`), Unix seconds; `None` without a response.
    pub instance_date: Option<i64>,
}

/// A client of one instance. Cheap to clone; clones share slots, sessions and credentials.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// Credentials shared by several clients, with their state: a password that the instance rejected for one client counts
/// as rejected for all of them.
#[derive(Clone)]
pub struct Credentials(Arc<Authenticator>);

struct Inner {
    connection: Connection,
    clock: fn() -> u64,
    urls: Urls,
    http_settings: HttpSettings,
    authenticator: Arc<Authenticator>,
    slots: Vec<Slot>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("connection", &self.inner.connection).finish_non_exhaustive()
    }
}

/// An HTTP response of any status.
pub(super) struct HttpResponse {
    pub head: ResponseHead,
    pub body: Vec<u8>,
}

/// Why there is no HTTP response to evaluate.
pub(super) enum RequestError {
    /// The final check failed; nothing was sent. Contains the reason.
    NotSent(String),
    /// The request failed. With the instance's clock (Unix seconds), where it responded.
    Failed(Failure, Option<i64>),
}

impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        RequestError::Failed(failure, None)
    }
}

/// The final check before the request is sent; an error is the reason not to send it.
type MaySend<'a> = &'a mut (dyn FnMut() -> Result<(), String> + Send);

/// The final check before the request is sent, which returns the body, if there is one.
pub(super) type BodySource<'a> = &'a mut (dyn FnMut() -> Result<Option<Vec<u8>>, String> + Send);

impl Client {
    /// Creates a client. `clock` returns milliseconds of a monotonic clock that includes suspend. Sends nothing.
    ///
    /// # Errors
    /// A setting is invalid; the error names it.
    pub fn new(connection: Connection, clock: fn() -> u64) -> Result<Client, Error> {
        Self::build(connection, clock, None)
    }

    /// Creates another client of the same instance and user, which shares these credentials.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_shared_credentials(
        connection: Connection,
        clock: fn() -> u64,
        credentials: &Credentials,
    ) -> Result<Client, Error> {
        Self::build(connection, clock, Some(credentials))
    }

    /// The credentials, for [`Client::with_shared_credentials`].
    pub fn credentials(&self) -> Credentials {
        Credentials(Arc::clone(&self.inner.authenticator))
    }

    fn build(connection: Connection, clock: fn() -> u64, shared: Option<&Credentials>) -> Result<Client, Error> {
        for (kind, name) in [
            ("table", &connection.table),
            ("state column", &connection.state_column),
            ("journal column", &connection.journal_column),
            ("correlation column", &connection.correlation_column),
            ("correlation display column", &connection.correlation_display_column),
        ] {
            if !is_name(name) {
                return Err(Error::Name { kind, name: name.clone() });
            }
        }
        if let Some(import) = &connection.import_set
            && !is_name(&import.staging)
        {
            return Err(Error::Name { kind: "staging table", name: import.staging.clone() });
        }
        if connection.deadline.is_zero() {
            return Err(Error::Range { setting: "the request deadline", minimum: "1 ms" });
        }
        if connection.slots == 0 {
            return Err(Error::Range { setting: "the number of concurrent requests", minimum: "1" });
        }
        let urls = Urls::new(&connection)?;
        let http_settings = HttpSettings::new(&connection)?;
        let authenticator = match shared {
            Some(credentials) => Arc::clone(&credentials.0),
            None => Arc::new(Authenticator::new(&connection, &urls.root)?),
        };
        let slots: Vec<Slot> = (0..connection.slots).map(|_| Slot::default()).collect();
        if let Some(first) = slots.first() {
            first.http(&http_settings)?;
        }
        Ok(Client { inner: Arc::new(Inner { connection, clock, urls, http_settings, authenticator, slots }) })
    }

    /// The settings that the client was created with. Credentials may have been replaced since.
    pub fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// Performs one request on a slot (`0..slots`). The caller must not use a slot for two requests at once. A write is
    /// one HTTP request; so is a look-up or a read, except that a search for markers takes a few more.
    pub async fn perform(&self, slot: usize, request: Request) -> RequestResult {
        self.perform_if(slot, request, || Ok(())).await
    }

    /// As [`Client::perform`], with a final check immediately before the request is sent, after any token was fetched.
    /// If the check fails, nothing is sent and the answer is `NotSent` with its reason.
    pub async fn perform_if(
        &self,
        slot: usize,
        request: Request,
        mut may_send: impl FnMut() -> Result<(), String> + Send,
    ) -> RequestResult {
        let outcome = match &request {
            Request::SendEvent { .. } => self.send_event(slot, request, &mut may_send).await,
            Request::FindEvents { .. } => events::find(self, slot, &request, &mut may_send).await,
            Request::Create { .. } | Request::Update { .. } => self.write(slot, &request, &mut may_send).await,
            Request::Read { sys_id, columns, markers } => {
                journal::read(self, slot, sys_id, columns, markers, &mut may_send).await
            }
            Request::ReadMany { sys_ids, columns } => {
                lookup::read_many(self, slot, sys_ids, columns, &mut may_send).await
            }
            Request::Find { correlation, columns } => {
                lookup::find(self, slot, correlation, columns, &mut may_send).await
            }
        };
        let issued_at = (self.inner.clock)();
        let (answer, instance_date) = match outcome {
            Ok((answer, date)) => (answer, date),
            Err(RequestError::NotSent(reason)) => (Answer::NotSent { reason }, None),
            Err(RequestError::Failed(failure, date)) => (Answer::Failed(self.redacted(failure)), date),
        };
        RequestResult { answer, issued_at, instance_date }
    }

    /// Returns and clears what the responses on this slot since the last call said about the instance's quota and load.
    pub fn take_feedback(&self, slot: usize) -> LoadFeedback {
        self.inner.slots.get(slot).map(Slot::take_feedback).unwrap_or_default()
    }

    /// Replaces the credentials: the next requests use the new ones, in new sessions.
    ///
    /// # Errors
    /// The new credentials cannot be sent in a header; the old ones stay in use.
    pub fn replace_credentials(&self, auth: Auth) -> Result<(), Error> {
        self.inner.authenticator.replace(auth)
    }

    /// Increases with every change of the credentials, by whichever client.
    pub fn credentials_generation(&self) -> u64 {
        self.inner.authenticator.generation()
    }

    /// Allows one retry of rejected credentials now: a user requested it.
    pub fn retry_credentials(&self) {
        self.inner.authenticator.retry_credentials();
    }

    async fn write(
        &self,
        slot: usize,
        request: &Request,
        may_send: MaySend<'_>,
    ) -> Result<(Answer, Option<i64>), RequestError> {
        let connection = &self.inner.connection;
        if let Some(import) = &connection.import_set {
            return self.stage(slot, import, request, may_send).await;
        }
        let write = request.encode_write(connection, &self.inner.urls)?;
        let method = if write.kind == RequestKind::Create { Method::POST } else { Method::PATCH };
        let mut body = Some(write.body);
        let body_source = &mut || may_send().map(|()| body.take());
        let response = self.send(slot, write.kind, method, write.url, body_source).await?;
        let date = response.head.date;
        let answer = self.write_answer(write.kind, request, &response);
        answer.map(|answer| (answer, date)).map_err(|failure| RequestError::Failed(failure, date))
    }

    /// Classifies the response to a write.
    pub(super) fn write_answer(
        &self,
        kind: RequestKind,
        request: &Request,
        response: &HttpResponse,
    ) -> Result<Answer, Failure> {
        let connection = &self.inner.connection;
        let fields = classify::parse_result::<RawRow>(kind, &response.head, &response.body)?;
        let row = row::parse(kind, connection, fields, &[])?;
        row::compare(kind, connection, request, row)
    }

    /// GETs a URL built by [`Urls`]. Any status but 401 is returned as a response; 401 is a failure.
    pub(super) async fn read(
        &self,
        slot: usize,
        kind: RequestKind,
        url: String,
        may_send: MaySend<'_>,
    ) -> Result<HttpResponse, RequestError> {
        let body_source = &mut || may_send().map(|()| None);
        self.send(slot, kind, Method::GET, request::parse_url(&url)?, body_source).await
    }

    pub(super) fn urls(&self) -> &Urls {
        &self.inner.urls
    }

    /// Removes the client's secrets from a failure's message, in case the instance echoed one.
    pub(super) fn redacted(&self, mut failure: Failure) -> Failure {
        self.inner.authenticator.redact(&mut failure.message);
        failure
    }

    /// The slot with this number; `None` if there is none.
    pub(super) fn slot(&self, slot: usize) -> Option<&Slot> {
        self.inner.slots.get(slot)
    }

    /// The client's clock, milliseconds.
    pub(super) fn now(&self) -> u64 {
        (self.inner.clock)()
    }

    /// Sends one HTTP request and reads its response.
    pub(super) async fn send(
        &self,
        slot: usize,
        kind: RequestKind,
        method: Method,
        url: Url,
        body_source: BodySource<'_>,
    ) -> Result<HttpResponse, RequestError> {
        let inner = &*self.inner;
        let Some(slot) = inner.slots.get(slot) else {
            let reason = format!("no slot {slot}: the client has {} slots; nothing was sent", inner.slots.len());
            return Err(failure(FailureClass::Transient, "no_slot", &reason).into());
        };
        let http = slot.http(&inner.http_settings).map_err(|error| {
            failure(
                FailureClass::Transient,
                "http_client",
                &format!("{error}: {:?}", std::error::Error::source(&error)),
            )
        })?;
        let authorization = inner.authenticator.authorize(http, inner.clock).await?;
        slot.align_session(authorization.generation);
        let mut request = reqwest::Request::new(method, url.clone());
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, authorization.header.clone());
        if let Some(cookies) = slot.cookies(&url) {
            headers.insert(COOKIE, cookies);
        }
        if let Some(body) = body_source().map_err(RequestError::NotSent)? {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.into());
        }
        let sent_at = (inner.clock)();
        let response = match http.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                slot.forget_session();
                slot.update_feedback(|feedback| {
                    feedback.requests += u32::from(!error.is_connect());
                    feedback.signal = error.is_timeout().then_some(LoadSignal::Overloaded);
                });
                return Err(classify::transport_error(kind, &error).into());
            }
        };
        slot.set_cookies(response.headers().get_all(SET_COOKIE).iter(), &url);
        let head = headers::response_head(&response);
        let latency = (inner.clock)().saturating_sub(sent_at);
        slot.update_feedback(|feedback| headers::record_load(feedback, &head, response.headers(), latency));
        let date = head.date;
        let limit = inner.connection.max_response_bytes;
        let body = match self::body(response, limit).await {
            Ok(body) => body,
            Err(error) => {
                slot.forget_session();
                return Err(RequestError::Failed(error.failure(kind, limit), date));
            }
        };
        match head.status {
            401 => {
                slot.forget_session();
                let failure = classify::error_response(kind, &head, &body);
                let failure = inner.authenticator.on_unauthorized(&authorization, failure, (inner.clock)());
                return Err(RequestError::Failed(failure, date));
            }
            202 | 500.. => slot.forget_session(),
            // Only the application, which responds in JSON, can have checked the credentials.
            _ if body.trim_ascii_start().first() == Some(&b'{') => {
                inner.authenticator.accepted(authorization.generation);
            }
            _ => {}
        }
        Ok(HttpResponse { head, body })
    }
}

/// Why a body could not be read.
pub(super) enum BodyError {
    TooLarge,
    Transport(reqwest::Error),
}

impl BodyError {
    /// The failure to report for it; `limit` is the maximum size in bytes.
    pub fn failure(&self, kind: RequestKind, limit: usize) -> Failure {
        match self {
            BodyError::TooLarge => classify::response_too_large(kind, limit),
            BodyError::Transport(error) => classify::transport_error(kind, error),
        }
    }
}

/// Reads a response's body of at most `limit` bytes after decompression.
pub(super) async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Transport)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
