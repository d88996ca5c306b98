//! Stub.

/// Row.
#[derive(Debug, Copy, Clone)]
pub struct Transfer;
impl Transfer {
    /// An unused row.
    pub const EMPTY: Self = Self;
}
