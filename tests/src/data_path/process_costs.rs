//! What a process has cost so far, as Linux's `/proc` says (proc(5)).
//!
//! *Units*: seconds of processor time, bytes of memory. *Bounds*: processor time in steps of 10 ms.

use std::fs;

use crate::compare::session::Failure;

/// Processor time that a process has used, its children that it has waited for included, in seconds.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let stat = read(&format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may have anything in it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // From the third field on; user and system time, own and children's, are the 14th to the 17th.
    let ticks: u64 = fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// How often all threads of a process together have been switched to, by their own will or not.
///
/// # Errors
/// When there is no such process.
pub fn context_switches(pid: u32) -> Result<u64, Failure> {
    let folder = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&folder).map_err(Failure::file(folder.as_ref()))?;
    let mut sum = 0;
    for task in tasks.flatten() {
        // A thread may end meanwhile.
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        sum += number(&status, "voluntary_ctxt_switches:") + number(&status, "nonvoluntary_ctxt_switches:");
    }
    Ok(sum)
}

/// Memory of a process, in bytes.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct Resident {
    /// Its own.
    pub anonymous: u64,
    /// Of files that it has mapped: its program and libraries, shared with whoever runs them too.
    pub file: u64,
}

/// The memory that a process has in use now. What the page cache holds of the files that it reads is not in it.
///
/// # Errors
/// When there is no such process.
pub fn resident(pid: u32) -> Result<Resident, Failure> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let bytes = |name| number(&status, name) << 10;
    Ok(Resident { anonymous: bytes("RssAnon:") + bytes("RssShmem:"), file: bytes("RssFile:") })
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::file(path.as_ref()))
}

fn number(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;
    use std::time::{Duration, Instant};

    #[test]
    fn this_process_has_cost_something() {
        let pid = process::id();
        let before = (cpu_seconds(pid).unwrap(), context_switches(pid).unwrap());
        let until = Instant::now() + Duration::from_secs(30);
        while cpu_seconds(pid).unwrap() <= before.0 && Instant::now() < until {}
        std::thread::sleep(Duration::from_millis(1));
        assert!(cpu_seconds(pid).unwrap() > before.0);
        assert!(context_switches(pid).unwrap() > before.1);
        let resident = resident(pid).unwrap();
        assert!(resident.anonymous > 100_000 && resident.file > 100_000, "{resident:?}");
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
