//! Placeholder until the templates land.
