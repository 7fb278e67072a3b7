//! The client: performs requests on numbered slots.

use std::sync::Arc;

use secrecy::SecretString;

use crate::model::{Answer, Class, Failure};

use super::{Auth, Connection, Error, Request};

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

/// A client of one instance. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Arc<Connection>);

impl Client {
    /// Makes a client. `clock` gives milliseconds on a clock that never steps and counts suspend. Sends nothing.
    pub fn new(connection: Connection, clock: fn() -> u64) -> Result<Client, Error> {
        let _ = clock;
        Ok(Client(Arc::new(connection)))
    }

    /// The settings it was made with.
    pub fn connection(&self) -> &Connection {
        &self.0
    }

    /// Performs one request on a slot (`0..slots`); the caller never uses a slot twice at once.
    pub async fn perform(&self, slot: usize, request: Request) -> Reply {
        self.perform_if(slot, request, || Ok(())).await
    }

    /// As [`Client::perform`], with a last check immediately before a write is handed to the connection, after any
    /// token was fetched. Where it says why not, nothing is sent and the answer is `NotSent` with that reason.
    pub async fn perform_if(
        &self,
        slot: usize,
        request: Request,
        may_send: impl FnOnce() -> Result<(), String>,
    ) -> Reply {
        let _ = (slot, request, may_send());
        Reply {
            answer: Answer::Failed(Failure { class: Class::Transient, code: "unbuilt".into(), message: String::new() }),
            issued_at: 0,
            instance_date: None,
        }
    }

    /// Takes new credentials: cookie jars are dropped, and the next request uses them.
    pub fn replace_credentials(&self, auth: Auth) -> Result<(), Error> {
        let _ = auth;
        let _: Option<SecretString> = None;
        Ok(())
    }
}
