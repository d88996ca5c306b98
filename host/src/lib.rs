//! What swarmdisk's hosts share.

pub mod disk;
pub mod latency;
pub mod observed;
pub mod report;
pub mod trace;
pub mod units;
