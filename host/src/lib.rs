//! What swarmdisk's hosts share.

pub mod digest;
pub mod log;
pub mod node;
pub mod store;
