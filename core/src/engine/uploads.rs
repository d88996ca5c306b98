//! Stub.

/// Row.
#[derive(Debug, Copy, Clone)]
pub struct Upload;
impl Upload {
    /// An unused row.
    pub const EMPTY: Self = Self;
}
/// Row.
#[derive(Debug, Copy, Clone)]
pub struct Served;
impl Served {
    /// An unused row.
    pub const EMPTY: Self = Self;
}
