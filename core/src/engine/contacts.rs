//! Stub.

/// Row.
#[derive(Debug, Copy, Clone)]
pub struct Contact;
impl Contact {
    /// An unused row.
    pub const EMPTY: Self = Self;
}
