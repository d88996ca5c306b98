//! Tools that others wrote, run to their ends.
#![allow(dead_code)]

use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Whether the tool is there; says so if not.
pub fn have(test: &str, tool: &str, package: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
    if !found {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{test} needs {tool}: install {package}");
        eprintln!("SKIPPED {test}: install {package}");
    }
    found
}

/// How a tool ended.
pub struct Ran {
    pub success: bool,
    pub out: String,
    pub all: String,
}

/// Runs a tool to its end.
pub async fn run(program: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output =
        tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("ends in a minute").unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{program} {arguments:?}: {}\n{out}{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ran { success: output.status.success(), out, all }
}

/// The same; it must succeed.
pub async fn run_well(program: &str, arguments: &[&str]) -> String {
    let ran = run(program, arguments).await;
    assert!(ran.success, "{}", ran.all);
    ran.out
}

/// Runs a script in nbdsh, or skips the test where libnbd's module is missing.
pub async fn nbdsh(test: &str, script: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new("nbdsh");
    // libnbd's module belongs to the system's Python, which need not be the first on the path.
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap());
    command.args(["-c", script]).env("PATH", path).envs(variables.iter().copied()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("No module named") {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{said}");
        eprintln!("SKIPPED {test}: install python3-libnbd");
    } else {
        assert!(output.status.success(), "{said}");
    }
}
