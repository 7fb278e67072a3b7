//! Reading JSON with errors that name the place.
