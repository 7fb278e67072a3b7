//! ServiceNow to Kafka.
