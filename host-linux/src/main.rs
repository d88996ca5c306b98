//! The `swarmdisk` command for Linux: all that is not Linux's alone is in `swarmdisk-host`, which other systems'
//! commands share.

use swarmdisk_host::device::Exports;
use swarmdisk_host_linux::ublk::Ublk;
use swarmdisk_host_linux::vhost_user::VhostUser;

fn main() -> std::process::ExitCode {
    swarmdisk_host::cli::main(Exports { ublk: Some(&Ublk), vhost_user: Some(&VhostUser), ..Exports::default() })
}
