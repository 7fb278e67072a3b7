//! A ServiceNow instance in memory.
