//! What swarmdisk's hosts share.

pub mod digest;
pub mod store;
