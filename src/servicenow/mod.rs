//! The ServiceNow client.
