//! The ledger: what was done, is about to be done and was refused, per key, in a compacted topic. Partition *p* of
//! the ledger belongs to partition *p* of the route's input, so whoever owns the one owns the other.
//!
//! [`wire`] is the form of its records, [`header`] says which route, instance and topic a partition belongs to, and
//! [`load`] takes a partition over: a token, everything in it, and where to start reading the input.

pub mod admin;
mod collect;
pub mod find;
pub mod header;
pub mod load;
pub mod survey;
pub mod wire;

pub use find::{find, identity};
pub use header::{Header, Identity};
pub use load::{LoadError, Loader, OnLost, StartAt};
pub use survey::{LedgerPartition, Remains, Survey, SurveyError};
