//! `swarmdisk.exe`, run under Wine on the machine of the tests.
//!
//! What it shows is that the program's own code is right on Windows' interfaces as Wine has them; what only a real Windows
//! can show is in `host-windows/README.md`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::{Finished, Process, RUN_DEADLINE};
use crate::skip::{Missing, find_file, find_tool};

/// The program.
#[derive(Debug, Clone)]
pub struct WindowsSwarmdisk {
    program: PathBuf,
}

impl WindowsSwarmdisk {
    /// Builds it from these sources, unless that is done.
    ///
    /// # Errors
    /// When Wine or the cross-compiler is missing.
    ///
    /// # Panics
    /// When it does not compile.
    pub fn find() -> Result<Self, Missing> {
        static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
        let compiler = find_tool("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64");
        compiler
            .and_then(|_| find_file("/usr/lib/wine/wine64", "wine64"))
            .map_err(|missing| Missing { remedy: "run tests/windows/toolchain.sh".into(), ..missing })?;
        Ok(Self { program: PROGRAM.get_or_init(build).clone() })
    }

    /// Starts it with these arguments; paths among them are this machine's, [as it sees them](seen).
    ///
    /// # Panics
    /// When no process can be started.
    pub fn spawn(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(script("wine.sh"));
        command.arg(&self.program).args(arguments).stdin(Stdio::null());
        Process::start(command)
    }

    /// Runs it to its end, which must be a success.
    ///
    /// # Panics
    /// When it is none, or takes longer than [`RUN_DEADLINE`].
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let finished: Finished = self.spawn(arguments).wait(RUN_DEADLINE);
        assert!(finished.status.success(), "{arguments:?}: {finished:?}");
        finished.stdout
    }
}

/// A path of this machine as programs under Wine see it.
///
/// # Panics
/// When it is not absolute, or no text.
pub fn seen(path: &Path) -> String {
    assert!(path.is_absolute(), "{}", path.display());
    format!("Z:{}", path.to_str().expect("the path is text").replace('/', "\\"))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("windows").join(name)
}

fn build() -> PathBuf {
    let output = Command::new(script("build.sh")).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.expect("bash is there");
    assert!(output.status.success(), "swarmdisk.exe cannot be built; run tests/windows/toolchain.sh");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}
