//! What swarmdisk's hosts share.

pub mod disk;
