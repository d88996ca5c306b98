//! The `swarmdisk-sim` command.
fn main() {}
