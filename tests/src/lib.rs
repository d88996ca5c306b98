//! Helpers shared by the cross-crate tests.

pub mod appliance;
pub mod boots;
pub mod compare;
pub mod data_path;
pub mod disk;
pub mod fixture;
pub mod guest_kernel;
pub mod guest_script;
pub mod images;
pub mod netlab;
pub mod output;
pub mod priority;
pub mod process;
pub mod qemu;
pub mod reality;
pub mod recall;
pub mod simulated;
pub mod skip;
pub mod tiny;
pub mod windows;
pub mod windows_like;
