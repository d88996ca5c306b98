//! The simulator's network against SimGrid and closed forms: `tests/simgrid/compare.sh`, with its own limits.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use swarmdisk_tests::process::{Process, find_or_build};
use swarmdisk_tests::skip::{Missing, find_file, find_tool, need};

const DEADLINE: Duration = Duration::from_secs(300);

fn tools() -> Result<(), Missing> {
    find_tool("g++", "g++")?;
    find_file("/usr/include/simgrid/s4u.hpp", "libsimgrid-dev").map(drop)
}

#[test]
fn flows_are_as_fast_as_in_simgrid() {
    let Some(()) = need(tools()) else { return };
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("simgrid/compare.sh"));
    command.env("SWARMDISK_SIM", find_or_build("swarmdisk-sim", "swarmdisk-sim"));
    let finished = Process::start(command).wait(DEADLINE);
    println!("{}", finished.stdout);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains("worst difference: "), "{}", finished.stdout);
}
