//! What swarmdisk's hosts share: the store, the node, exports, the commands.

pub mod attached;
mod background;
mod buffers;
pub mod check;
pub mod cli;
pub mod demo;
pub mod device;
pub mod digest;
pub mod disk;
mod file;
pub mod image;
pub mod iscsi;
pub mod latency;
pub mod log;
pub mod nbd;
pub mod node;
pub mod observed;
pub mod overlay;
pub(crate) mod own_thread;
pub mod pack;
pub mod profile;
pub mod reference;
pub mod replay;
pub mod report;
pub mod service;
#[cfg(unix)]
pub mod socket_file;
pub mod status;
pub mod store;
mod sys;
