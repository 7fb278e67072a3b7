//! Alert events to intents.
