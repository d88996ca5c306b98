//! What a process has cost so far, as Linux's `/proc` says (proc(5)).
//!
//! *Units*: seconds of processor time, bytes of memory. *Bounds*: processor time in steps of 10 ms.

use std::collections::BTreeMap;
use std::ffi::OsString;
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

/// How often each thread of a process has been switched from, by its own will or not.
#[derive(Debug, Clone)]
pub struct Switches(BTreeMap<OsString, u64>);

impl Switches {
    /// How many there were since, of all threads that are still there: a thread takes its count with it when it ends.
    pub fn since(&self, before: &Self) -> u64 {
        let of = |(task, count): (&OsString, &u64)| count.saturating_sub(before.0.get(task).copied().unwrap_or(0));
        self.0.iter().map(of).sum()
    }
}

/// The context switches of a process so far.
///
/// # Errors
/// When there is no such process.
pub fn context_switches(pid: u32) -> Result<Switches, Failure> {
    let folder = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&folder).map_err(Failure::file(folder.as_ref()))?;
    let count = |task: fs::DirEntry| {
        // A thread may end meanwhile.
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let sum = number(&status, "voluntary_ctxt_switches:") + number(&status, "nonvoluntary_ctxt_switches:");
        Some((task.file_name(), sum))
    };
    Ok(Switches(tasks.flatten().filter_map(count).collect()))
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
    use crate::process::Process;
    use std::process::{self, Command};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn what_a_process_does_is_counted() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do sleep 0.001; done"]);
        let busy = Process::start(command);
        let now = || (cpu_seconds(busy.pid()).unwrap(), context_switches(busy.pid()).unwrap());
        let before = now();
        let until = Instant::now() + Duration::from_secs(30);
        let mut after = now();
        while (after.0 <= before.0 || after.1.since(&before.1) < 10) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
            after = now();
        }
        assert!(after.0 > before.0 && after.1.since(&before.1) >= 10, "{before:?} {after:?}");
        assert_eq!(after.1.since(&after.1), 0);
        let resident = resident(process::id()).unwrap();
        assert!(resident.anonymous > 100_000 && resident.file > 100_000, "{resident:?}");
        assert!(cpu_seconds(u32::MAX).is_err());
    }

    #[test]
    fn a_thread_that_ended_takes_nothing_from_the_others() {
        let of = |counts: &[(&str, u64)]| Switches(counts.iter().map(|(task, n)| (OsString::from(task), *n)).collect());
        assert_eq!(of(&[("1", 5), ("3", 2)]).since(&of(&[("1", 4), ("2", 1000)])), 3);
    }
}
