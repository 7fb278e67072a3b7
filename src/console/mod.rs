//! Health, metrics and pages.
