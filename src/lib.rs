//! nowbridge connects an Apache Kafka cluster and a ServiceNow instance: alert events on topics become tickets, one
//! ticket per alert, and changes that people make in ServiceNow come back as events on topics.

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
