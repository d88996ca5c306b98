//! What swarmdisk's hosts share: the store, the node, exports, the commands.

pub mod check;
pub mod digest;
pub mod disk;
pub mod image;
pub mod latency;
pub mod log;
pub mod node;
pub mod observed;
pub mod pack;
pub mod progress;
pub mod report;
pub mod store;
pub mod trace;
pub mod units;
