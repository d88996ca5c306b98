//! The `swarmdisk` command for Windows: all that is not Windows' alone is in `swarmdisk-host`, which other systems'
//! commands share.

fn main() -> std::process::ExitCode {
    swarmdisk_host::cli::main(swarmdisk_host::device::Exports { ublk: None, vhost_user: None })
}
