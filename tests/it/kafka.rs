//! The Kafka clients with a real broker: the behavior on which the delivery guarantees depend.

mod embedded;
mod ledger;
mod member;
mod poller;
mod producer;
mod security;
mod tables;
