//! Tests that need a tool or a right which this machine may lack: they say so, and fail where nothing may be skipped.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;

/// What a test lacks, and what would give it to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is not there, such as `no qemu-system-x86_64`.
    pub what: String,
    /// What to do, such as `install qemu-system-x86`.
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Missing {}

/// What was asked for, or `None` once the skip is told: `let Some(qemu) = need(Qemu::find()) else { return };`
///
/// # Panics
/// When it is missing and `CI=true`.
#[track_caller]
pub fn need<T>(found: Result<T, Missing>) -> Option<T> {
    found.map_err(|missing| skip_or_fail(&missing.to_string())).ok()
}

/// Tells that the running test is skipped, and why; the reason ends with what to do about it.
///
/// # Panics
/// When `CI=true`: there every test must run.
#[track_caller]
pub fn skip_or_fail(reason: &str) {
    let line = format!("SKIPPED {}: {reason}\n", thread::current().name().unwrap_or("test"));
    assert!(env::var("CI").as_deref() != Ok("true"), "{line}");
    // Not eprintln!, whose text the test runner keeps back when a test passes.
    io::stderr().write_all(line.as_bytes()).ok();
}

/// The program's path, from `PATH` or the folders of the system's own tools; `package` is Debian's name of what has it.
///
/// # Errors
/// When no such program is installed.
pub fn find_tool(program: &str, package: &str) -> Result<PathBuf, Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Missing::tool(program, package))
}

/// The same of a program that swarmdisk is compared with, which no test but the benchmarks needs.
///
/// # Errors
/// When no such program is installed.
pub fn find_peer(program: &str, package: &str) -> Result<PathBuf, Missing> {
    let remedy = format!("apt-get install {package}, or run tests/setup/peers.sh");
    find_tool(program, package).map_err(|missing| Missing { remedy, ..missing })
}

/// The path, if a file is there; `package` is Debian's name of what has it.
///
/// # Errors
/// When there is no such file.
pub fn find_file(path: &str, package: &str) -> Result<PathBuf, Missing> {
    if Path::new(path).is_file() { Ok(path.into()) } else { Err(Missing::tool(path, package)) }
}

impl Missing {
    fn tool(name: &str, package: &str) -> Self {
        Self {
            what: format!("no {name}"),
            remedy: format!("apt-get install {package}, or run tests/setup/packages.sh"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_found_or_its_package_named() {
        assert!(find_tool("sh", "dash").unwrap().is_absolute());
        let missing = find_tool("no-such-tool", "its-package").unwrap_err().to_string();
        assert!(missing.starts_with("no no-such-tool; apt-get install its-package"), "{missing}");
        let missing = find_peer("no-such-tool", "its-package").unwrap_err().to_string();
        assert_eq!(missing, "no no-such-tool; apt-get install its-package, or run tests/setup/peers.sh");
        assert!(find_file("/no/such/file", "its-package").is_err());
    }

    #[test]
    fn what_is_there_is_no_skip() {
        assert_eq!(need(Ok(7)), Some(7));
    }
}
