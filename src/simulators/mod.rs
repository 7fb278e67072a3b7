//! Simulators: in-memory servers that behave like the real systems. They share no code with the clients of these
//! systems, so that a client's mistake is not repeated in its simulator.

pub mod servicenow;
