//! A ServiceNow instance in memory, for trying a mapping on it and for tests.
//!
//! It answers the Table API, the Batch API over it, the Import Set API, Event Management's
//! inbound events, Basic and OAuth client credentials as a real instance does where that is known, the
//! surprising parts included: unknown query terms are dropped, journals read back blank, choices that do not exist are
//! ignored, long text is cut without a word. It shares no code with the ServiceNow client of this project, so that one
//! misunderstanding is not made twice. It keeps nothing on disk and is no replacement for a test against a real instance.
//!
//! # Control endpoints
//!
//! Under `/simulator/`. They are no part of ServiceNow's interfaces and need no authentication, so keep the listening
//! address on loopback or in a closed network. All bodies are JSON; errors are `{"simulator_error": text}`. The page at
//! `/` shows the incidents and uses nothing else.
//!
//! - `GET /simulator/state`: counts of requests by method, table and status (0: the connection was cut), rows by table,
//!   strikes by fault, refused writes, writes to closed rows, ghosts pending, lockouts, query terms that were dropped.
//! - `GET /simulator/faults`, `POST /simulator/faults` (fields of [`Faults`]; those left out stay as they are; a
//!   `seed` restarts the draws), `DELETE /simulator/faults` (none; the counts stay).
//! - `POST /simulator/people`: `{"sys_id" | "number" | "correlation_id", "table", "user", "set": {}, "work_notes",
//!   "comments", "delete", "create", "by_label"}` acts as a person, by the same rules as any write, without
//!   authentication. `correlation_id` takes the newest row that has it; `create` inserts a row. 409 with the instance's
//!   words if it refuses, 404 if there is no such row.
//! - `GET /simulator/rows?table=&offset=&limit=`: all raw values of a table's rows in order of creation, each with its
//!   journal in order; `sys_id=` or `correlation_id=` for some only.
//! - `GET /simulator/log?after=&limit=`: writes in commit order after a sequence number, refused ones included;
//!   `GET /simulator/history?sys_id=`: those of one row.
//! - `POST /simulator/accounts`: `{"unlock": "name", "revoke_tokens": true, "end_sessions": true}`.

mod auth;
mod batch_api;
#[cfg(test)]
mod batch_tests;
mod choices;
mod columns;
mod control;
mod em_api;
mod fault_injection;
mod faults;
mod history;
mod import_api;
mod instance;
mod options;
mod page;
mod pressure;
mod query;
mod render;
mod reply;
mod router;
mod rules;
mod schema;
mod select;
mod serve;
mod storage;
mod table_api;
#[cfg(test)]
mod tests;
mod time;
mod transaction;
mod world;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinHandle;

use instance::Instance;

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
        let failed = |source| Error::Listen { address: options.listen, source };
        let listener = tokio::net::TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let url = options.instance_url.clone().unwrap_or_else(|| format!("http://{address}"));
        let url = url.trim_end_matches('/').to_owned();
        let instance = Arc::new(Instance::new(options, url).map_err(Error::Options)?);
        let serving = tokio::spawn(serve::run(instance.clone(), listener));
        Ok(Running { address, instance, serving })
    }
}

/// A started instance. It runs until [`Running::shutdown`] or until this is dropped.
pub struct Running {
    address: SocketAddr,
    instance: Arc<Instance>,
    serving: JoinHandle<()>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address to reach it at, `http://host:port`; also of its page.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What `GET /simulator/state` answers: all counts.
    pub fn state(&self) -> Value {
        self.instance.state()
    }

    /// What `GET /simulator/rows` answers: `{total, rows}` with raw values and journals, in order of creation.
    /// `null` if there is no such table.
    pub fn rows(&self, table: &str, offset: usize, limit: usize) -> Value {
        control::rows(&self.instance, table, &control::Pick::default(), offset, limit).unwrap_or(Value::Null)
    }

    /// What `GET /simulator/log` answers: `{length, entries}`, writes in commit order after `seq`.
    pub fn log(&self, after: u64, limit: usize) -> Value {
        control::log(&self.instance, after, limit)
    }

    /// What `GET /simulator/history` answers: `{entries}`, the writes of one row in commit order.
    pub fn history(&self, sys_id: &str) -> Value {
        control::history(&self.instance, sys_id)
    }

    /// What `POST /simulator/faults` does: changes the named faults and leaves the others; the faults now in force.
    ///
    /// # Errors
    /// A text that says which field is wrong.
    pub fn set_faults(&self, changes: &Value) -> Result<Value, String> {
        self.instance.change_faults(changes)
    }

    /// What `POST /simulator/people` does: acts as a person on a row; the row afterwards.
    ///
    /// # Errors
    /// A text: no such row, or the instance's refusal.
    pub fn person(&self, act: &Value) -> Result<Value, String> {
        control::person(&self.instance, act)
    }

    /// Stops listening and cuts the open connections; pending ghosts never commit.
    pub async fn shutdown(mut self) {
        self.instance.stop.cancel();
        // It ends by itself once the connections noticed.
        let _ = (&mut self.serving).await;
    }

    /// Waits until the instance stops by itself, which it never does unless its runtime ends.
    pub async fn wait(mut self) {
        let _ = (&mut self.serving).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.instance.stop.cancel();
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}
