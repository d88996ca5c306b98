//! What swarmdisk's hosts share.

pub mod disk;
pub mod latency;
pub mod nbd;
pub mod observed;
pub mod replay;
pub mod report;
pub mod trace;
pub mod units;
