//! Helpers shared by the cross-crate tests.

pub mod appliance;
pub mod qemu;
pub mod skip;
