//! A simulated ServiceNow instance in memory, for trying out a mapping and for tests.
//!
//! It implements the Table API, the Batch API, the Import Set API, Event Management's inbound events, and Basic and
//! OAuth authentication (client credentials, password) like a real instance, as far as its behavior is known. That
//! includes the surprising parts: unknown query terms are dropped, journal columns read back blank, values that are no
//! choice are ignored, long text is cut silently. It shares no code with the ServiceNow client of this project, so that
//! the two do not share a misunderstanding. It stores nothing on disk and does not replace a test against a real
//! instance.
//!
//! # Control endpoints
//!
//! All under `/simulator/`. They are not part of ServiceNow's interfaces and need no authentication: keep the listening
//! address on loopback or in a closed network. All bodies are JSON; errors are `{"simulator_error": text}`. The page at
//! `/` shows the incidents and uses only these endpoints.
//!
//! - `GET /simulator/state`: counts of requests by method, table and status (0: the connection was reset), rows by
//!   table, injected faults, rejected writes, writes to closed rows, pending ghost writes, lockouts, dropped query
//!   terms.
//! - `GET /simulator/faults`: the active faults. `POST /simulator/faults` changes the given fields of [`Faults`] and
//!   keeps the others; a `seed` restarts the draws. `DELETE /simulator/faults` restores the defaults and keeps the
//!   counts.
//! - `POST /simulator/user_edits`: edits a row as a user, without authentication and by the same rules as any write:
//!   `{"sys_id" | "number" | "correlation_id", "table", "user", "set": {}, "work_notes", "comments", "delete",
//!   "create", "input_display_value"}`. `correlation_id` selects the newest row that has it; `create` inserts a row.
//!   The response is the row; 409 with the instance's error message if the instance rejects the edit; 404 if there is
//!   no such row.
//! - `GET /simulator/rows?table=&offset=&limit=`: the raw values of a table's rows in order of creation, each with its
//!   journal in order. `sys_id=` or `correlation_id=` selects rows.
//! - `GET /simulator/log?after=&limit=`: the writes after a sequence number in commit order, rejected ones included.
//!   `GET /simulator/history?sys_id=`: the writes of one row.
//! - `POST /simulator/accounts`: `{"unlock": "name", "revoke_tokens": true, "end_sessions": true}`.

mod auth;
mod batch_api;
#[cfg(test)]
mod batch_tests;
mod choices;
mod columns;
mod control;
mod database;
mod em_api;
mod fault_injection;
mod faults;
mod import_api;
mod instance;
mod limits;
mod options;
mod page;
mod query;
mod render;
mod reply;
mod router;
mod row_selection;
mod rules;
mod schema;
mod serve;
mod table_api;
mod table_storage;
#[cfg(test)]
mod tests;
mod time;
mod transaction;
mod write;
mod write_log;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinHandle;

use instance::Instance;

pub use faults::{BusinessRule, CloseCodes, Faults, GhostResponse, Throttle};
pub use options::{ApiInt, ExtraColumn, Latency, OauthClient, Options, RateLimit, Settings, User};

/// Why an instance could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the simulator can't listen on {address}; choose another address or port 0")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    /// The options name something that does not exist, or that exists already.
    #[error("the simulator's options are invalid: {0}")]
    Options(String),
}

/// Starts simulated instances.
#[derive(Debug)]
pub struct Simulator;

impl Simulator {
    /// Starts an instance on the current tokio runtime. It accepts connections when this returns.
    ///
    /// # Errors
    /// The address is not available, or the options name an account, table or time zone that does not exist.
    pub async fn start(options: Options) -> Result<RunningSimulator, Error> {
        let failed = |source| Error::Listen { address: options.listen, source };
        let listener = tokio::net::TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let url = options.instance_url.clone().unwrap_or_else(|| format!("http://{address}"));
        let url = url.trim_end_matches('/').to_owned();
        let instance = Arc::new(Instance::new(options, url).map_err(Error::Options)?);
        let serving = tokio::spawn(serve::run(instance.clone(), listener));
        Ok(RunningSimulator { address, instance, serving })
    }
}

/// A running instance. It stops with [`RunningSimulator::shutdown`], or when this is dropped.
pub struct RunningSimulator {
    address: SocketAddr,
    instance: Arc<Instance>,
    serving: JoinHandle<()>,
}

impl RunningSimulator {
    /// Returns the listening address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of the instance and of its page, `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns all counts, like `GET /simulator/state`.
    pub fn state(&self) -> Value {
        self.instance.state()
    }

    /// Returns a table's rows, like `GET /simulator/rows`: `{total, rows}` with raw values and journals, in order of
    /// creation. `null` if there is no such table.
    pub fn rows(&self, table: &str, offset: usize, limit: usize) -> Value {
        control::rows(&self.instance, table, &control::RowFilter::default(), offset, limit).unwrap_or(Value::Null)
    }

    /// Returns the writes after a sequence number in commit order, like `GET /simulator/log`: `{length, entries}`.
    pub fn log(&self, after: u64, limit: usize) -> Value {
        control::log(&self.instance, after, limit)
    }

    /// Returns the writes of one row in commit order, like `GET /simulator/history`: `{entries}`.
    pub fn history(&self, sys_id: &str) -> Value {
        control::history(&self.instance, sys_id)
    }

    /// Changes the given faults and keeps the others, like `POST /simulator/faults`. Returns the active faults.
    ///
    /// # Errors
    /// A message that names the invalid field.
    pub fn set_faults(&self, changes: &Value) -> Result<Value, String> {
        self.instance.change_faults(changes)
    }

    /// Edits a row as a user, like `POST /simulator/user_edits`. Returns the row after the edit.
    ///
    /// # Errors
    /// There is no such row, or the instance rejects the edit.
    pub fn edit_as_user(&self, edit: &Value) -> Result<Value, String> {
        control::edit_as_user(&self.instance, edit)
    }

    /// Stops listening and closes the open connections. Pending ghost writes never commit.
    pub async fn shutdown(mut self) {
        self.instance.stop.cancel();
        // The task ends once all connections are closed.
        let _ = (&mut self.serving).await;
    }

    /// Waits until the instance stops, which happens only when its runtime ends.
    pub async fn wait(mut self) {
        let _ = (&mut self.serving).await;
    }
}

impl Drop for RunningSimulator {
    fn drop(&mut self) {
        self.instance.stop.cancel();
    }
}

impl std::fmt::Debug for RunningSimulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningSimulator").field("address", &self.address).finish_non_exhaustive()
    }
}
