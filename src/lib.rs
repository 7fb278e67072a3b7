//! nowbridge connects an Apache Kafka cluster with ServiceNow instances: it writes alert events from topics as tickets,
//! one ticket per alert, and publishes changes in ServiceNow as events on topics.

pub mod bridge;
pub mod check;
pub mod cli;
pub mod codec;
pub mod config;
pub mod console;
pub mod dead_letters;
pub mod engine;
pub mod error_catalog;
pub mod kafka;
pub mod ledger;
pub mod mapping;
pub mod model;
pub mod quota;
pub mod repartition;
pub mod runtime;
pub mod servicenow;
pub mod simulators;
pub mod sink;
pub mod source;
pub mod systems;
