//! Stub.

/// Row.
#[derive(Debug, Copy, Clone)]
pub struct Change;
impl Change {
    /// An unused row.
    pub const EMPTY: Self = Self;
}
