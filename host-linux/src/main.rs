//! The `swarmdisk` command for Linux: everything is in `swarmdisk-host`, which other systems' commands share.

fn main() -> std::process::ExitCode {
    swarmdisk_host::cli::main()
}
