//! `swarmdisk service` under a service control manager: Windows' own, or Wine's.
#![cfg(windows)]

mod common;

use common::{Fixture, Running, fail, run, succeed, wait_for};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// A service that seeds an image and attaches it from that seed. Gives the NBD server's port.
fn configure(fixture: &Fixture) -> u16 {
    let ports = [free_port(), free_port()];
    let config = format!(
        "[[seed]]\nfiles = ['disk.swarm']\nlisten = '127.0.0.1:{}'\n\n[[attach]]\ntarget = 'swarm://127.0.0.1:{}/{}'\n\
         nbd = '127.0.0.1:{}'\ncache = 'cache'\nreport = 'report.json'\n",
        ports[0], ports[0], fixture.id, ports[1]
    );
    fs::write(fixture.path("swarmdisk.toml"), config).unwrap();
    ports[1]
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Reads the whole disk, once it can be read, and compares it with the image.
fn read_all(fixture: &Fixture, port: u16) {
    wait_for("disk", || TcpStream::connect(("127.0.0.1", port)).ok());
    fixture.read_all(&format!("nbd://127.0.0.1:{port}"));
}

/// Takes the service away, whatever becomes of the test.
struct Cleared<'a>(&'a Path);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        let _ = run(self.0, &["service", "remove"]);
    }
}

#[test]
fn the_service_is_installed_started_stopped_and_removed() {
    let fixture = Fixture::new((1 << 20) + 1000);
    let port = configure(&fixture);
    let program = &fixture.program;
    let service = |verb: &str| run(program, &["service", verb]);
    let _cleared = Cleared(program);
    assert!(fail(1, service("start")).contains("`swarmdisk service install --config FILE` makes it"));
    let install = ["service", "install", "--config", &fixture.text("swarmdisk.toml")];
    assert!(succeed(program, &install).contains("is installed"));
    assert!(fail(1, run(program, &install)).contains("`swarmdisk service remove` takes it away"));
    assert!(fail(1, service("stop")).contains("it does not run"));

    // Twice, as it must leave nothing behind that keeps it from starting.
    for _ in 0..2 {
        assert_eq!(succeed(program, &["service", "start"]).trim(), "the service runs");
        assert!(fail(1, service("start")).contains("it runs already"));
        read_all(&fixture, port);
        assert_eq!(succeed(program, &["service", "stop"]).trim(), "the service has stopped");
        // What it was asked to write at its end is there: it has detached.
        let report = fs::read_to_string(fixture.path("report.json")).unwrap();
        assert!(report.contains(&format!("\"guest_read_bytes\": {}", fixture.image.len())), "{report}");
        fs::remove_file(fixture.path("report.json")).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    // A file that says what cannot be ends it at its start.
    fs::write(fixture.path("swarmdisk.toml"), "[[seed]]\nfile = 'disk.swarm'\n").unwrap();
    assert!(fail(1, service("start")).contains("ended at its start"));
    assert!(fail(2, run(program, &install)).contains("swarmdisk.toml:2: `seed` has no option `file`"));
    assert_eq!(succeed(program, &["service", "remove"]).trim(), "the service is removed");
    assert!(fail(1, service("stop")).contains("there is none"));
}

#[test]
fn what_the_service_does_can_be_seen_in_a_console() {
    let fixture = Fixture::new(1 << 18);
    let port = configure(&fixture);
    // From another folder: paths begin at the file's.
    let running = Running::start(fixture.command(&["service", "run", "--config", &fixture.text("swarmdisk.toml")]));
    assert!(running.first_line.starts_with("swarm://127.0.0.1:"));
    read_all(&fixture, port);
    assert_eq!(running.stop(), "");
    assert!(fixture.path("report.json").is_file());
}
