//! The ledger: a compacted topic that records per key what was done, what is about to be written, and what was
//! rejected. Partition *p* of the ledger belongs to partition *p* of the route's input, so both have the same owner.
//!
//! [`wire`] has the format of its records, [`header`] says which route, instance and topic a partition belongs to,
//! [`load`] takes a partition over (token, content, and where to start reading the input), [`partition`] reads a
//! partition without taking it over, and [`admin`] has the commands.

pub mod admin;
mod collect;
pub mod find;
pub mod header;
pub mod load;
pub mod partition;
pub mod wire;

pub use find::{find_records, read_identity};
pub use header::{Header, Identity};
pub use load::{LoadError, Loader, OnMissingLedger, StartAt};
pub use partition::{LedgerContent, LedgerKeys, LedgerPartition, ReadError};
