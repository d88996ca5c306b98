//! `attach --iscsi --mount`, against a stand-in for PowerShell: Wine has neither that nor an initiator. What the cmdlets do is
//! for a real Windows to show (README.md).
#![cfg(windows)]

mod common;

use common::{CHUNK, Fixture, Running, fail, finish, stand_in};
use std::fs;
use std::process::Command;

/// `attach --mount` with the stand-in first on the path, which shall answer so.
fn attach(fixture: &Fixture, answer: &str, more: &[&str]) -> Option<Command> {
    let mut path = stand_in()?.with_file_name("path").into_os_string();
    path.push(";");
    path.push(std::env::var_os("PATH").unwrap());
    let mut command = Command::new(&fixture.program);
    command.args(["attach", &fixture.text("disk.swarm"), "--iscsi", "127.0.0.1:0", "--mount"]).args(more);
    command.env("PATH", path).env("STANDIN_ANSWER", answer).env("STANDIN_LOG", fixture.path("log"));
    Some(command)
}

fn asked(fixture: &Fixture) -> Vec<String> {
    fs::read_to_string(fixture.path("log")).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn mount_has_a_stand_in_for_powershell_attach_and_detach_the_disk() {
    let fixture = Fixture::new(20 * CHUNK);
    fs::write(fixture.path("chap"), "guest 0123456789abcd\n").unwrap();
    for (more, login) in [(vec![], "[] []"), (vec!["--chap-file", &fixture.text("chap")], "[guest] [0123456789abcd]")] {
        let _ = fs::remove_file(fixture.path("log"));
        let Some(command) = attach(&fixture, "disk", &more) else { return };
        let mut node = Running::start(command);
        assert_eq!(node.next_line(), "mounted as disk 7");
        let iqn = node.uri().split('/').nth(3).unwrap().to_owned();
        node.stop_silent();
        let each = |what: &str| format!("{what} 127.0.0.1 {iqn} {login} reached");
        assert_eq!(asked(&fixture), [each("attach"), each("detach")]);
    }
}

#[test]
fn what_a_stand_in_for_powershell_complains_about_is_said_in_one_line_and_undone() {
    let fixture = Fixture::new(20 * CHUNK);
    for (answer, says) in [
        ("service", "Windows' iSCSI initiator is not there"),
        ("nodisk", "shows no disk"),
        ("Access is denied.", "powershell.exe could not attach the disk: Access is denied."),
    ] {
        let Some(mut command) = attach(&fixture, answer, &[]) else { return };
        let complaint = fail(1, finish(&mut command));
        assert!(complaint.contains(says), "{complaint}");
    }
    let asked = asked(&fixture);
    let whats: Vec<&str> = asked.iter().filter_map(|line| line.split(' ').next()).collect();
    // Where there is no service, nothing was begun.
    assert_eq!(whats, ["attach", "attach", "detach", "attach", "detach"]);
}
