//! The `swarmdisk` command for Windows: all that is not Windows' alone is in `swarmdisk-host`, which other systems'
//! commands share.

fn main() -> std::process::ExitCode {
    let mut exports = swarmdisk_host::device::Exports::default();
    #[cfg(windows)]
    {
        exports.wnbd = Some(&swarmdisk_host_windows::wnbd::Wnbd);
        exports.services = Some(&swarmdisk_host_windows::service::WindowsServices);
    }
    swarmdisk_host::cli::main(exports)
}
