//! What swarmdisk's hosts share.

pub mod check;
pub mod digest;
pub mod image;
pub mod log;
pub mod node;
pub mod pack;
pub mod progress;
pub mod store;
