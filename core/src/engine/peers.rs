//! Stub.

/// Row.
#[derive(Debug, Copy, Clone)]
pub struct PeerRow;
impl PeerRow {
    /// An unused row.
    pub const EMPTY: Self = Self;
}
