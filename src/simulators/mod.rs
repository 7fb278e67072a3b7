//! Simulated far sides: servers that behave like the real system, kept in memory. They share no code with the clients
//! that talk to them, so that a mistake in a client is not repeated in its simulator.

pub mod servicenow;
