//! What swarmdisk's hosts share.

pub mod log;
pub mod node;
