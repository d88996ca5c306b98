//! What each command does for a user, end to end, with the real program.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use swarmdisk_tests::disk::NbdDisk;
use swarmdisk_tests::fixture::{Fixture, read_report, text, wait_until};
use swarmdisk_tests::images::{flip, folder, write_mixed};
use swarmdisk_tests::process::{DEADLINE, Swarmdisk};
use swarmdisk_tests::skip::{find_tool, need};

const MIB: u64 = 1 << 20;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn an_image_has_one_id_in_every_format() {
    let Some(qemu_img) = need(find_tool("qemu-img", "qemu-utils")) else { return };
    let (swarmdisk, folder) = (Swarmdisk::find(), folder());
    let raw = folder.path().join("disk.raw");
    write_mixed(&raw, 8 * MIB, 1);
    let pack = |image: &Path| {
        let (image, out) = (text(image), text(&image.with_extension("swarm")));
        let packed = json(&swarmdisk.succeed(["pack", &image, &out, "--json"]));
        assert_eq!(packed["image_bytes"], 8 * MIB, "{image}");
        assert_eq!(packed["file_bytes"], fs::metadata(&out).unwrap().len(), "{image}");
        packed["image"].clone()
    };
    let id = pack(&raw);
    for format in ["qcow2", "vmdk", "vhdx"] {
        let image = folder.path().join(format!("as-{format}.img"));
        let mut convert = Command::new(&qemu_img);
        convert.args(["convert", "-f", "raw", "-O", format]).arg(&raw).arg(&image);
        assert!(convert.status().unwrap().success());
        assert_eq!(pack(&image), id, "{format}");
    }
}

#[test]
fn a_profile_is_built_offered_and_followed() {
    let fixture = Fixture::mixed(16 * MIB, 2);
    let (seed, reference) = fixture.seed(&["--json"]);
    let line = json(&reference);
    assert_eq!(line["file"], text(&fixture.swarm));
    let reference = line["reference"].as_str().unwrap().to_owned();

    let (trace, report) = (fixture.text("boot.trace"), fixture.text("report.json"));
    let (node, uri) = fixture.attach(&reference, "first", &["--record", &trace, "--prefetch", "off"]);
    let disk = NbdDisk::open(&uri);
    for at in (0..16).rev() {
        disk.read(at * MIB + 5, 70_000).unwrap();
    }
    drop(disk);
    node.stop();

    let (swarm, profile) = (text(&fixture.swarm), fixture.text("boot.profile"));
    // What is no file of its own stays what it is.
    let (link, target) = (fixture.path("link"), fixture.path("target"));
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for out in ["/dev/stdout", &text(&link)] {
        fixture.swarmdisk.succeed(["profile", "build", &trace, "--image", &swarm, "-o", out]);
    }
    assert!(link.is_symlink() && fs::metadata(&target).unwrap().len() > 0);
    assert!(Path::new("/dev/stdout").is_symlink());
    let built = fixture.swarmdisk.succeed(["profile", "build", &trace, "--image", &swarm, "-o", &profile, "--json"]);
    let built = json(&built);
    assert_eq!((&built["image"], &built["runs"]), (&fixture.id.clone().into(), &1.into()));
    let shown = json(&fixture.swarmdisk.succeed(["profile", "show", &profile, "--json"]));
    assert_eq!(shown["entries"].as_array().unwrap().len() as u64, built["chunks"].as_u64().unwrap());
    assert!(fixture.swarmdisk.succeed(["profile", "show", &profile]).contains(&fixture.id));
    seed.stop();

    // Who follows it has those chunks before any guest asks.
    let (_seed, reference) = fixture.seed(&["--profile", &profile]);
    let (node, uri) = fixture.attach(&reference, "second", &["--report", &report]);
    wait_until("the profile's chunks are there", || {
        u64::from(fixture.image_status(&node).held_pieces) >= built["chunks"].as_u64().unwrap()
    });
    let replay = ["replay", &trace, "--disk", &uri, "--verify", &text(&fixture.raw), "--speed", "100", "--json"];
    let replayed = json(&fixture.swarmdisk.succeed(replay));
    assert_eq!((&replayed["reads"], &replayed["mismatches"]), (&16.into(), &0.into()));
    node.stop();
    let report = read_report(Path::new(&report));
    assert_eq!((report.demand_misses, report.guest_reads), (0, 16));
    assert!(report.prefetched_bytes > 0, "{report:?}");
}

#[test]
fn a_damaged_cache_is_found_repaired_and_fetched_again() {
    let fixture = Fixture::mixed(8 * MIB, 3);
    let (_seed, reference) = fixture.seed(&[]);
    let fill = || {
        let (node, uri) = fixture.attach(&reference, "cache", &["--report", &fixture.text("report.json")]);
        NbdDisk::open(&uri).assert_equal(&fixture.raw);
        node.stop();
        read_report(&fixture.path("report.json"))
    };
    assert!(fill().fetched_bytes.origin > 0);
    assert_eq!(fill().fetched_bytes.origin, 0, "all of it is in the cache");

    let cache = fixture.text("cache");
    let check = |more: &[&str]| {
        let finished = fixture.swarmdisk.run([&["check", "--cache", &cache, "--json"], more].concat());
        (finished.status.code(), json(&finished.stdout)[0].clone())
    };
    assert_eq!(check(&[]).0, Some(0));
    let cached = fixture.cached("cache");
    // The last byte is some chunk's.
    flip(&cached, fs::metadata(&cached).unwrap().len() - 1);
    let (status, found) = check(&[]);
    assert_eq!((status, &found["bad_pieces"]), (Some(1), &1.into()), "{found}");
    assert_eq!(check(&[]).0, Some(1), "without --repair it stays as it is");
    let (status, found) = check(&["--repair"]);
    assert_eq!((status, &found["is_repaired"]), (Some(0), &true.into()), "{found}");
    let (status, found) = check(&[]);
    assert_eq!((status, &found["missing_pieces"]), (Some(0), &1.into()), "{found}");

    let fetched = fill().fetched_bytes.origin;
    assert!((1..=64 << 10).contains(&fetched), "{fetched} bytes for one chunk");
    assert_eq!(fs::read(&cached).unwrap(), fs::read(&fixture.swarm).unwrap());
}

#[test]
fn a_complete_cache_needs_no_seed() {
    let fixture = Fixture::mixed(4 * MIB, 4);
    let (seed, reference) = fixture.seed(&[]);
    let (node, uri) = fixture.attach(&reference, "cache", &[]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    node.stop();
    seed.kill();

    let (node, uri) = fixture.attach(&reference, "cache", &[]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    assert!(node.stderr().contains("going on with what the cache holds"), "{}", node.stderr());
    node.stop();
    // It is the very file, so that it can be attached and served as one.
    let (_node, uri) = fixture.attach(&text(&fixture.cached("cache")), "none", &[]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
}

#[test]
fn a_cache_is_one_process_s() {
    let fixture = Fixture::mixed(MIB, 5);
    let (_seed, reference) = fixture.seed(&[]);
    let (_node, uri) = fixture.attach(&reference, "cache", &[]);
    let cache = fixture.text("cache");
    let arguments = ["attach", &reference, "--nbd", "127.0.0.1:0", "--cache", &cache];
    let second = fixture.swarmdisk.spawn(arguments).wait(DEADLINE);
    assert_eq!((second.status.code(), &*second.stdout), (Some(1), ""));
    assert!(second.stderr.contains("is in use by another process; end that one, or choose another --cache"));
    let check = fixture.swarmdisk.run(["check", "--cache", &cache]);
    assert_eq!(check.status.code(), Some(1));
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
}

#[test]
fn reports_and_status_agree() {
    let fixture = Fixture::mixed(8 * MIB, 6);
    let (seed, reference) = fixture.seed(&[]);
    let report = fixture.text("report.json");
    let (node, uri) = fixture.attach(&reference, "cache", &["--report", &report]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);

    let of_node = fixture.status(&node);
    assert_eq!((&*of_node.role, &*of_node.place), ("node", &*uri));
    assert_eq!((of_node.images[0].peers.len(), &*of_node.images[0].peers[0].role), (1, "seed"));
    let of_seed = fixture.status(&seed);
    assert!(reference.contains(&of_seed.place) && of_seed.role == "seed" && of_seed.report.is_none());
    assert_eq!(of_seed.images[0].peers[0].role, "node");
    let people = fixture.swarmdisk.succeed(["status"]);
    assert!(people.contains(&uri) && people.contains(&of_seed.place), "{people}");

    node.stop();
    let report = read_report(Path::new(&report));
    assert_eq!(report.image_bytes, 8 * MIB);
    assert_eq!(report.guest_read_bytes, 8 * MIB);
    assert!(report.demand_misses <= report.guest_reads && report.stall_micros <= report.run_micros, "{report:?}");
    assert_eq!((report.fetched_bytes.peers, report.corrupt_pieces, report.uploaded_bytes), (0, 0, 0));
    assert!(report.prefetched_bytes <= report.fetched_bytes.origin, "{report:?}");
    let latency = report.read_latency_micros;
    assert!(0 < latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max, "{report:?}");
    // All that the seed has sent has come, as chunks or as metadata, and no chunk twice.
    let sent = fixture.image_status(&seed).uploaded_bytes;
    let chunks = report.fetched_bytes.origin;
    assert!(chunks <= sent && sent <= chunks + report.metadata_bytes, "{sent} sent: {report:?}");
    assert!(chunks <= fs::metadata(&fixture.swarm).unwrap().len(), "{report:?}");
}

#[test]
fn nodes_find_each_other_and_share() {
    let fixture = Fixture::mixed(16 * MIB, 7);
    // Slow enough that three nodes are better off with each other.
    let (seed, reference) = fixture.seed(&["--limit-up", "40mbit"]);
    let nodes: Vec<_> = (0..3)
        .map(|index| {
            let report = fixture.text(&format!("report-{index}.json"));
            fixture.attach(&reference, &format!("cache-{index}"), &["--report", &report])
        })
        .collect();
    wait_until("each node knows the seed and both others", || {
        nodes.iter().all(|(node, _)| fixture.image_status(node).peers.len() >= 3)
    });
    std::thread::scope(|scope| {
        for (_, uri) in &nodes {
            scope.spawn(|| NbdDisk::open(uri).assert_equal(&fixture.raw));
        }
    });
    let sent = fixture.image_status(&seed).uploaded_bytes;
    for (node, _) in nodes {
        node.stop();
    }
    let reports: Vec<_> = (0..3).map(|index| read_report(&fixture.path(&format!("report-{index}.json")))).collect();
    let (from_seed, from_peers) = reports
        .iter()
        .fold((0, 0), |(seed, peers), report| (seed + report.fetched_bytes.origin, peers + report.fetched_bytes.peers));
    let file_bytes = fs::metadata(&fixture.swarm).unwrap().len();
    println!("the seed sent {sent}, nodes each other {from_peers}, the file has {file_bytes} bytes");
    assert!(from_peers > 0 && from_seed <= sent, "{from_seed} {from_peers} {sent}");
    assert!(reports.iter().map(|report| report.uploaded_bytes).sum::<u64>() >= from_peers);
    assert!(sent < 3 * file_bytes, "nothing was shared");
}

#[test]
fn one_node_leads_to_all_others() {
    let fixture = Fixture::mixed(4 * MIB, 8);
    let (seed, reference) = fixture.seed(&[]);
    let (_first, uri) = fixture.attach(&reference, "first", &[]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    let listens = fixture.image_status(&seed).peers[0].address.clone();
    let target = format!("swarm://{listens}/{}", fixture.id);
    let (second, uri) = fixture.attach(&target, "second", &[]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    wait_until("the node has found the seed", || {
        fixture.image_status(&second).peers.iter().any(|peer| peer.role == "seed")
    });
}

#[test]
fn a_fill_completes_the_cache() {
    let fixture = Fixture::mixed(8 * MIB, 9);
    let (_seed, reference) = fixture.seed(&[]);
    let (node, _) = fixture.attach(&reference, "cache", &["--fill", "100MB"]);
    wait_until("the cache is complete", || {
        let status = fixture.image_status(&node);
        status.held_pieces == status.pieces
    });
    node.stop();
    assert_eq!(fs::read(fixture.cached("cache")).unwrap(), fs::read(&fixture.swarm).unwrap());
    fixture.swarmdisk.succeed(["check", &text(&fixture.cached("cache"))]);
}

#[test]
fn run_ends_as_its_command_does() {
    let fixture = Fixture::mixed(MIB, 10);
    let (swarm, report) = (text(&fixture.swarm), fixture.text("report.json"));
    let run = |command: &[&str]| {
        let arguments = ["run", &swarm, "--report", &report, "--"];
        fixture.swarmdisk.run([&arguments[..], command].concat())
    };
    let shown = run(&["sh", "-c", "echo {disk}; test {disk} = $SWARMDISK_DISK"]);
    assert_eq!(shown.status.code(), Some(0));
    assert!(shown.stdout.starts_with("nbd+unix:///?socket=") && shown.stderr.is_empty(), "{shown:?}");
    let socket = shown.stdout.trim().split_once("socket=").unwrap().1;
    assert!(!Path::new(socket).exists(), "the socket goes with the command");
    assert_eq!(run(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.code(), Some(128 + 9));
    assert_eq!(run(&["no-such-command"]).status.code(), Some(127));
    assert_eq!(run(&["/"]).status.code(), Some(126));
    fs::remove_file(&report).unwrap();
    let replay = ["replay", "{trace}", "--disk", "{disk}"].map(|word| word.replace("{trace}", &fixture.text("trace")));
    fs::write(fixture.path("trace"), "0 R 0 4096\n1000 R 4096 512\n").unwrap();
    let program = fixture.swarmdisk.command([""; 0]).get_program().to_str().unwrap().to_owned();
    let words: Vec<&str> = [program.as_str()].into_iter().chain(replay.iter().map(String::as_str)).collect();
    assert_eq!(run(&words).status.code(), Some(0));
    assert_eq!(read_report(Path::new(&report)).guest_reads, 2);
}

#[test]
fn run_passes_on_an_interrupt_that_its_command_does_not_get_by_itself() {
    let fixture = Fixture::mixed(MIB, 13);
    let report = fixture.text("report.json");
    let arguments = ["run", &text(&fixture.swarm), "--report", &report, "--", "sh", "-c", "echo begun; exec sleep 60"];
    let run = fixture.swarmdisk.spawn(arguments);
    run.wait_for_line("begun");
    run.signal(rustix::process::Signal::INT);
    assert_eq!(run.wait(DEADLINE).status.code(), Some(128 + 15), "the command was asked to end");
    assert_eq!(read_report(Path::new(&report)).guest_reads, 0);
}

#[test]
fn a_read_fails_after_the_timeout_and_works_when_a_seed_is_back() {
    let fixture = Fixture::random(2 << 20, 11);
    let (seed, reference) = fixture.seed(&[]);
    let address = reference.trim_start_matches("swarm://").split('/').next().unwrap().to_owned();
    let (node, uri) = fixture.attach(&reference, "cache", &["--io-timeout", "2s", "--prefetch", "off"]);
    let disk = NbdDisk::open(&uri);
    disk.read(0, 4096).unwrap();
    seed.kill();
    let began = Instant::now();
    let error = disk.read(MIB, 4096).unwrap_err();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < DEADLINE, "{took:?}: {error}");
    disk.read(0, 4096).expect("what is held is still read");
    let (_seed, again) = fixture.seed(&["--listen", &address]);
    assert_eq!(again, reference);
    wait_until("the disk can be read again", || disk.read(MIB, 4096).is_ok());
    disk.assert_equal(&fixture.raw);
    node.stop();
}

#[test]
fn a_signal_ends_each_command_in_time() {
    use std::os::unix::process::ExitStatusExt;
    let fixture = Fixture::mixed(MIB, 12);
    // One that waits for a swarm: nobody answers at the address of a listener that never accepts.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("swarm://{}/{}", silent.local_addr().unwrap(), fixture.id);
    let cache = fixture.text("cache");
    let mut waiting = fixture.swarmdisk.spawn(["attach", &target, "--nbd", "127.0.0.1:0", "--cache", &cache]);
    wait_until("it waits", || waiting.stderr().contains("still trying"));
    assert!(waiting.is_running());
    waiting.signal(rustix::process::Signal::INT);
    let finished = waiting.wait(DEADLINE);
    assert_eq!((finished.status.code(), finished.status.signal(), &*finished.stdout), (Some(1), None, ""));
    assert!(finished.stderr.ends_with("interrupted before the disk was ready\n"), "{}", finished.stderr);

    let (seed, reference) = fixture.seed(&[]);
    let socket = format!("unix:{}", fixture.text("disk.sock"));
    let (node, uri) = fixture.swarmdisk.attach([&reference, "--nbd", &socket, "--cache", &cache]);
    assert_eq!(uri, format!("nbd+unix:///?socket={}", fixture.text("disk.sock")));
    for process in [node, seed] {
        process.signal(rustix::process::Signal::INT);
        let finished = process.wait(DEADLINE);
        assert_eq!((finished.status.code(), finished.stdout.lines().count()), (Some(0), 1));
        assert_eq!(finished.stderr, "");
    }
    assert!(!fixture.path("disk.sock").exists());
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    let fixture = Fixture::mixed(MIB, 13);
    for arguments in [&["status", "--json"][..], &["check", &text(&fixture.swarm), "--json"], &["--help"]] {
        let mut command = fixture.swarmdisk.command(arguments);
        // Gone before it begins, so that no pipe's buffer can take what it says.
        let (_, writer) = std::io::pipe().unwrap();
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked") && output.status.code().is_some(), "{arguments:?}: {said}");
    }
}
