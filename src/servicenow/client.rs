//! The client: performs requests on numbered slots, one HTTP exchange at a time per slot.

use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderValue, SET_COOKIE};
use reqwest::{Method, Url};

use crate::model::{Answer, Class, Failure};

use super::answer::{self, Fields};
use super::auth::Authority;
use super::classify::{self, Head, Kind, failure};
use super::request::{self, Urls};
use super::slot::{Parts, Slot};
use super::text::is_name;
use super::{Auth, Connection, Error, Request, events, headers, journal, lookup};
use crate::quota::LoadFeedback;
use crate::quota::concurrency::LoadSignal;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The answer, classified.
    pub answer: Answer,
    /// The clock, read when the answer or the failure was there: by then the request had certainly been issued, so a
    /// span counted from here never ends too early.
    pub issued_at: u64,
    /// The instance's clock (`Date`), Unix seconds, where it answered.
    pub instance_date: Option<i64>,
}

/// A client of one instance. Cheap to clone; clones share slots, sessions and credentials.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// Credentials that several clients share, and what became of them: a password that one of them learns to be wrong is
/// tried for all of them.
#[derive(Clone)]
pub struct Credentials(Arc<Authority>);

struct Inner {
    connection: Connection,
    clock: fn() -> u64,
    urls: Urls,
    parts: Parts,
    authority: Arc<Authority>,
    slots: Vec<Slot>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("connection", &self.inner.connection).finish_non_exhaustive()
    }
}

/// An answer of any status.
pub(super) struct Heard {
    pub head: Head,
    pub body: Vec<u8>,
}

/// Why an exchange gave no answer to look into.
pub(super) enum RequestError {
    /// The last check said no.
    NotSent(String),
    /// It failed; the instance's clock, where it answered.
    Failed(Failure, Option<i64>),
}

impl From<Failure> for RequestError {
    fn from(failure: Failure) -> Self {
        RequestError::Failed(failure, None)
    }
}

/// The last check before bytes leave.
type MaySend<'a> = &'a mut (dyn FnMut() -> Result<(), String> + Send);

/// The last check before bytes leave, which gives the body to send, if there is one.
pub(super) type Compose<'a> = &'a mut (dyn FnMut() -> Result<Option<Vec<u8>>, String> + Send);

impl Client {
    /// Makes a client. `clock` gives milliseconds on a clock that never steps and counts suspend. Sends nothing.
    ///
    /// # Errors
    /// Where a setting cannot be used; each names the setting.
    pub fn new(connection: Connection, clock: fn() -> u64) -> Result<Client, Error> {
        Self::make(connection, clock, None)
    }

    /// Another client of the same instance and user.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn sharing(connection: Connection, clock: fn() -> u64, credentials: &Credentials) -> Result<Client, Error> {
        Self::make(connection, clock, Some(credentials))
    }

    /// The credentials, to be shared with other clients of the same instance and user.
    pub fn credentials(&self) -> Credentials {
        Credentials(Arc::clone(&self.inner.authority))
    }

    fn make(connection: Connection, clock: fn() -> u64, with: Option<&Credentials>) -> Result<Client, Error> {
        for (what, name) in [
            ("table", &connection.table),
            ("state column", &connection.state_column),
            ("journal column", &connection.journal_column),
            ("correlation column", &connection.correlation_column),
            ("correlation display column", &connection.correlation_display_column),
        ] {
            if !is_name(name) {
                return Err(Error::Name { what, name: name.clone() });
            }
        }
        if let Some(import) = &connection.import
            && !is_name(&import.staging)
        {
            return Err(Error::Name { what: "staging table", name: import.staging.clone() });
        }
        if connection.deadline.is_zero() {
            return Err(Error::Range { what: "the request deadline", least: "1 ms" });
        }
        if connection.slots == 0 {
            return Err(Error::Range { what: "the number of concurrent requests", least: "1" });
        }
        let urls = Urls::new(&connection)?;
        let parts = Parts::new(&connection)?;
        let authority = match with {
            Some(credentials) => Arc::clone(&credentials.0),
            None => Arc::new(Authority::new(&connection, &urls.root)?),
        };
        let slots: Vec<Slot> = (0..connection.slots).map(|_| Slot::default()).collect();
        if let Some(first) = slots.first() {
            first.http(&parts)?;
        }
        Ok(Client { inner: Arc::new(Inner { connection, clock, urls, parts, authority, slots }) })
    }

    /// The settings it was made with. Credentials may have been replaced since.
    pub fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// Performs one request on a slot (`0..slots`); the caller never uses a slot twice at once. Writes are one HTTP
    /// request; a look-up or a read is one, with markers a few more.
    pub async fn perform(&self, slot: usize, request: Request) -> Reply {
        self.perform_if(slot, request, || Ok(())).await
    }

    /// As [`Client::perform`], with a last check immediately before the request is handed to the connection, after
    /// any token was fetched. Where it says why not, nothing is sent and the answer is `NotSent` with that reason.
    pub async fn perform_if(
        &self,
        slot: usize,
        request: Request,
        mut may_send: impl FnMut() -> Result<(), String> + Send,
    ) -> Reply {
        let outcome = match &request {
            Request::Event { .. } => self.send_event(slot, request, &mut may_send).await,
            Request::Events { .. } => events::look(self, slot, &request, &mut may_send).await,
            Request::Create { .. } | Request::Update { .. } => self.write(slot, &request, &mut may_send).await,
            Request::Read { sys_id, columns, markers } => {
                journal::read(self, slot, sys_id, columns, markers, &mut may_send).await
            }
            Request::Find { correlation, columns } => {
                lookup::find(self, slot, correlation, columns, &mut may_send).await
            }
        };
        let issued_at = (self.inner.clock)();
        let (answer, instance_date) = match outcome {
            Ok((answer, date)) => (answer, date),
            Err(RequestError::NotSent(reason)) => (Answer::NotSent { reason }, None),
            Err(RequestError::Failed(failure, date)) => (Answer::Failed(self.scrubbed(failure)), date),
        };
        Reply { answer, issued_at, instance_date }
    }

    /// What the requests on this slot since the last call told of the instance's quota and crowd, for the pace.
    pub fn take_feedback(&self, slot: usize) -> LoadFeedback {
        self.inner.slots.get(slot).map(Slot::take_feedback).unwrap_or_default()
    }

    /// Takes new credentials: the next requests use them, in new sessions.
    ///
    /// # Errors
    /// Where they cannot be sent; the old ones stay.
    pub fn replace_credentials(&self, auth: Auth) -> Result<(), Error> {
        self.inner.authority.replace(auth)
    }

    /// Counts changes of the credentials, whoever made them.
    pub fn credentials_generation(&self) -> u64 {
        self.inner.authority.generation()
    }

    /// Lets refused credentials be tried once more, now: a person asks for it.
    pub fn try_again(&self) {
        self.inner.authority.try_again();
    }

    async fn write(
        &self,
        slot: usize,
        request: &Request,
        may_send: MaySend<'_>,
    ) -> Result<(Answer, Option<i64>), RequestError> {
        let connection = &self.inner.connection;
        if let Some(import) = &connection.import {
            return self.stage(slot, import, request, may_send).await;
        }
        let wire = request.wire(connection, &self.inner.urls)?;
        let method = if wire.kind == Kind::Create { Method::POST } else { Method::PATCH };
        let mut body = Some(wire.body);
        let compose = &mut || may_send().map(|()| body.take());
        let heard = self.exchange(slot, wire.kind, method, wire.url, compose).await?;
        let date = heard.head.date;
        let answer = self.written(wire.kind, request, &heard);
        answer.map(|answer| (answer, date)).map_err(|failure| RequestError::Failed(failure, date))
    }

    /// What the answer to a write means.
    pub(super) fn written(&self, kind: Kind, request: &Request, heard: &Heard) -> Result<Answer, Failure> {
        let connection = &self.inner.connection;
        let fields = classify::result::<Fields>(kind, &heard.head, &heard.body)?;
        let row = answer::row(kind, connection, fields, &[])?;
        let warnings = answer::check(kind, connection, request, &row)?;
        Ok(Answer::Applied { row: Box::new(row), warnings })
    }

    /// GETs a URL made by [`Urls`]; any status is an answer, but 401 is a failure already.
    pub(super) async fn read(
        &self,
        slot: usize,
        kind: Kind,
        url: String,
        may_send: MaySend<'_>,
    ) -> Result<Heard, RequestError> {
        let compose = &mut || may_send().map(|()| None);
        self.exchange(slot, kind, Method::GET, request::parse(&url)?, compose).await
    }

    pub(super) fn urls(&self) -> &Urls {
        &self.inner.urls
    }

    /// A failure without our secrets in its message, should the instance have repeated one.
    pub(super) fn scrubbed(&self, mut failure: Failure) -> Failure {
        self.inner.authority.scrub(&mut failure.message);
        failure
    }

    /// The slot of a number, if there is one.
    pub(super) fn slot(&self, slot: usize) -> Option<&Slot> {
        self.inner.slots.get(slot)
    }

    /// The clock it was made with.
    pub(super) fn now(&self) -> u64 {
        (self.inner.clock)()
    }

    /// One request, one answer.
    pub(super) async fn exchange(
        &self,
        slot: usize,
        kind: Kind,
        method: Method,
        url: Url,
        compose: Compose<'_>,
    ) -> Result<Heard, RequestError> {
        let inner = &*self.inner;
        let Some(slot) = inner.slots.get(slot) else {
            let why = format!("slot {slot} of {}: nothing was sent", inner.slots.len());
            return Err(failure(Class::Transient, "no_slot", &why).into());
        };
        let http = slot.http(&inner.parts).map_err(|error| {
            failure(Class::Transient, "http_client", &format!("{error}: {:?}", std::error::Error::source(&error)))
        })?;
        let pass = inner.authority.admit(http, inner.clock).await?;
        slot.align(pass.generation);
        let mut request = reqwest::Request::new(method, url.clone());
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, pass.header.clone());
        if let Some(cookies) = slot.cookies(&url) {
            headers.insert(COOKIE, cookies);
        }
        if let Some(body) = compose().map_err(RequestError::NotSent)? {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.into());
        }
        let sent = (inner.clock)();
        let answer = match http.execute(request).await {
            Ok(answer) => answer,
            Err(error) => {
                slot.forget_session();
                slot.press(|feedback| {
                    feedback.requests += u32::from(!error.is_connect());
                    feedback.sign = error.is_timeout().then_some(LoadSignal::Refused);
                });
                return Err(classify::transport(kind, &error).into());
            }
        };
        slot.set_cookies(answer.headers().get_all(SET_COOKIE).iter(), &url);
        let head = headers::head(&answer);
        let latency = (inner.clock)().saturating_sub(sent);
        slot.press(|feedback| headers::press(feedback, &head, answer.headers(), latency));
        let date = head.date;
        let limit = inner.connection.max_answer;
        let body = match self::body(answer, limit).await {
            Ok(body) => body,
            Err(error) => {
                slot.forget_session();
                return Err(RequestError::Failed(error.failure(kind, limit), date));
            }
        };
        match head.status {
            401 => {
                slot.forget_session();
                let refusal = inner.authority.refused(&pass, classify::refusal(kind, &head, &body), (inner.clock)());
                return Err(RequestError::Failed(refusal, date));
            }
            202 | 500.. => slot.forget_session(),
            // Only the application can have checked the credentials, and it answers in JSON.
            _ if body.trim_ascii_start().first() == Some(&b'{') => inner.authority.accepted(pass.generation),
            _ => {}
        }
        Ok(Heard { head, body })
    }
}

/// Why a body could not be read.
pub(super) enum BodyError {
    TooLong,
    Lost(reqwest::Error),
}

impl BodyError {
    pub fn failure(&self, kind: Kind, limit: usize) -> Failure {
        match self {
            BodyError::TooLong => classify::too_long(kind, limit),
            BodyError::Lost(error) => classify::transport(kind, error),
        }
    }
}

/// The body, of at most `limit` bytes after decompression.
pub(super) async fn body(mut answer: reqwest::Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(BodyError::Lost)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
