//! What reports hold.
