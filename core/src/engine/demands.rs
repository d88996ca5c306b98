//! Stub.

/// Row.
#[derive(Debug, Copy, Clone)]
pub struct Demand;
impl Demand {
    /// An unused row.
    pub const EMPTY: Self = Self;
}
