//! The `swarmdisk` command for Linux.

fn main() {}
