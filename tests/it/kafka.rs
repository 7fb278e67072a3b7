//! The Kafka clients against a real broker: what the delivery rests on, seen rather than believed.

mod embedded;
mod ledger;
mod member;
mod poller;
mod producer;
mod security;
mod tables;
