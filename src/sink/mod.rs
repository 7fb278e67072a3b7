//! Kafka to ServiceNow.
