//! iSCSI: a disk for Windows, ESXi, iPXE, QEMU and whoever else has an initiator, without a driver of our own.
//!
//! A target with one logical unit, after RFC 7143 (iSCSI) and RFC 7144 (its update), SBC-3 and SPC-4 (what a disk is asked).
//! Of the crates that there are, `iscsi-target` 1.0 blocks a thread for each connection, allocates whatever length an
//! initiator writes into a header, and has neither UNMAP nor reservations; so this is our own.
//!
//! | module | holds |
//! |---|---|
//! | [`address`] | where to listen, and URIs |
//! | [`chap`] | who may log in |
//! | [`identity`] | what target and disk are called |
//! | [`initiator`] | the initiator of this machine, told to attach the disk |
//! | [`server`] | listeners, limits, shutdown |
//! | `login`, `parameters`, `text` | the login phase, apart from sockets |
//! | `pdu` | units of the protocol, apart from sockets |
//! | `scsi` | commands of disks, apart from sockets and from iSCSI |
//! | `target` | what all sessions share: the disk, reservations, who is there |
//! | `connection` and those below it | one session: tasks, transfers, answers |
//!
//! *Limits*: one connection a session (several sessions at once), error recovery level 0 (a broken connection ends its
//! session, and the initiator logs in anew), all tasks are simple: those with the attribute `ORDERED` are not held back.

pub mod address;
pub mod chap;
mod connection;
pub mod identity;
pub mod initiator;
mod login;
mod parameters;
mod pdu;
mod scsi;
pub mod server;
mod target;
mod text;

pub use address::{IscsiListen, IscsiUri};
pub use chap::{Chap, ChapFileError};
pub use identity::Identity;
pub use initiator::{Initiator, InitiatorError};
pub use server::{IscsiConfig, IscsiServer, IscsiServerError, PhysicalBlocks};
