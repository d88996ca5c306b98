//! NBD: a disk for QEMU, libnbd, the Linux kernel and whoever else speaks it.
//!
//! Both ends follow the NBD protocol document (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>,
//! cited here as *proto.md*) and its URIs (`doc/uri.md` there): fixed newstyle negotiation, simple and structured
//! replies, `base:allocation`. TLS and extended headers are not spoken; clients that ask for them are told so.
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | where to listen, and URIs |
//! | [`server`] | listeners, limits, shutdown |
//! | [`client`] | reads from any NBD server |
//!
//! Exports: the name `""` is guest 0, `guest-N` is guest N (0 to 65,535), so that several machines on one node can be
//! told apart; all connections with one name are one guest. Any other name is refused.

pub mod address;
pub mod client;
mod handshake;
mod proto;
pub mod server;
mod transmission;

pub use address::{AddressError, NbdListen, NbdUri};
pub use client::NbdClient;
pub use server::{NbdServer, ServerConfig, ServerError};
