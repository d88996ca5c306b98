//! The `swarmdisk` command for Linux: what only Linux has is here, all else in `swarmdisk-host`, which other systems'
//! commands share.

mod sys;
mod ublk;

use swarmdisk_host::device::Exports;

fn main() -> std::process::ExitCode {
    swarmdisk_host::cli::main(Exports { ublk: Some(&ublk::Ublk) })
}
