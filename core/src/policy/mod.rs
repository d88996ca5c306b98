//! What may be replaced.
