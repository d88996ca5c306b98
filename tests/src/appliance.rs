//! The server image that the boot tests start, built when it is first asked for.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::skip::Missing;

/// The files that `tests/appliance/build.sh` leaves.
#[derive(Debug, Clone)]
pub struct Appliance {
    /// The raw disk: 3 GiB, sparse. It is shared by all tests, so that none may write to it.
    pub disk: PathBuf,
    /// Its kernel, for a boot without a boot loader.
    pub kernel: PathBuf,
    /// That kernel's initial RAM disk.
    pub initrd: PathBuf,
}

impl Appliance {
    /// The appliance of these sources; builds it, which takes about a minute, when there is none.
    ///
    /// # Errors
    /// When it has to be built and cannot be: not root, a tool is missing, no package mirror is reached.
    pub fn get() -> Result<Self, Missing> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("appliance/build.sh");
        build(&script).map_err(|what| Missing {
            what,
            remedy: "as root, run tests/setup/packages.sh and tests/appliance/build.sh".to_owned(),
        })
    }
}

/// Runs the script, passes on its progress, and takes its last word when it fails.
fn build(script: &Path) -> Result<Appliance, String> {
    let mut command = Command::new(script);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", script.display()))?;

    let mut last = String::new();
    for line in BufReader::new(child.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok) {
        writeln!(io::stderr(), "{line}").ok();
        last = line;
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(last);
    }
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end());
    Ok(Appliance { disk: folder.join("disk.raw"), kernel: folder.join("vmlinuz"), initrd: folder.join("initrd.img") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_build_tells_its_last_word() {
        assert_eq!(build(Path::new("/bin/false")).unwrap_err(), "");
        assert!(build(Path::new("/no/such/script")).unwrap_err().contains("/no/such/script"));
    }
}
