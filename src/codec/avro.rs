//! Avro binary by the schemas of `schemas/`, which are embedded. Without a registry's framing: the plain datum.
