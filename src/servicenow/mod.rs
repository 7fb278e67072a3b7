//! The ServiceNow client: one request is one attempt, and every response is classified once, here.
//!
//! Guarantees:
//! - Nothing is retried, redirected or guessed without the caller's knowledge.
//! - A failure is *certain* only where no byte of the request can have been sent, or where the instance itself rejected
//!   the request.
//! - Look-ups return only rows that were checked to carry the requested value.
//! - A journal search that could not have seen any entry is reported as inconclusive.
//!
//! The client does not retry, limit its own rate or decide what a failure means for a ticket; the engine does.
//!
//! [`Client`] performs the engine's requests ([`Request`]) and plain reads ([`Client::get`]). [`query::Query`] builds
//! encoded queries. [`crate::quota::RequestLimiter`] decides when the next request may be sent, and on which slot.

mod auth;
pub mod batch;
#[cfg(test)]
mod batch_tests;
mod classify;
pub mod client;
pub mod connection;
pub mod events;
#[cfg(test)]
mod events_tests;
mod headers;
pub mod import_set;
#[cfg(test)]
mod import_set_tests;
pub mod journal;
mod lookup;
mod oauth;
pub mod query;
pub mod request;
mod row;
mod row_versions;
mod slot;
pub mod tables;
mod text;
mod tls;

#[cfg(test)]
mod tests;

pub use batch::BatchResult;
pub use client::{Client, Credentials, RequestResult};
pub use connection::{Auth, Connection, Error};
pub use events::Events;
pub use import_set::ImportSet;
pub use query::{Query, QueryError};
pub use request::{Note, Request};
pub use row_versions::{RowVersions, RowVersionsReceiver};
pub use tables::RowPage;
