//! The thread that commits offsets.
