//! What check checks.
