//! The `swarmdisk-sim` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    swarmdisk_sim::cli::main()
}
