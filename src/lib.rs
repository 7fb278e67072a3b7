//! nowbridge joins an Apache Kafka cluster and a ServiceNow instance: alert events on topics become tickets, each
//! alert one, and what people change in ServiceNow comes back as events on topics.

pub mod app;
mod causes;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod console;
mod crash_point;
pub mod decode;
pub mod digest;
pub mod doctor;
pub mod engine;
pub mod kafka;
pub mod ledger;
pub mod mapping;
pub mod metrics;
pub mod model;
pub mod redrive;
pub mod rekey;
pub mod servicenow;
pub mod simulator;
pub mod sink;
pub mod source;
pub mod supervise;
pub mod taxonomy;
pub mod telemetry;
pub mod upkeep;
