//! Decoders of native bodies.
