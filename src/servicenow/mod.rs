//! The ServiceNow client: one request is one attempt, and every answer is classified once, here.
//!
//! It guarantees that nothing is repeated, redirected or guessed behind the caller's back; that a failure is called
//! *certain* only where no byte of the request can have left or the instance itself refused it; that look-ups return
//! only rows which were checked to carry what was asked for; and that a journal look which could not have seen
//! anything says so. It does not retry, pace itself or decide what a failure means for a ticket: that is the
//! engine's.
//!
//! [`Client`] performs the engine's requests ([`Request`]) and plain reads ([`Client::get`]); [`query::Query`] builds
//! encoded queries; [`crate::quota::Pace`] says when the next request may leave, and on which slot.

mod answer;
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
mod slot;
pub mod tables;
mod text;
mod tls;

#[cfg(test)]
mod tests;

pub use batch::Replies;
pub use client::{Client, Credentials, Reply};
pub use connection::{Auth, Connection, Error};
pub use events::Events;
pub use import_set::ImportSet;
pub use query::{Query, QueryError};
pub use request::{Note, Request};
pub use tables::RowPage;
