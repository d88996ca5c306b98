//! What is wrong with what it is given: one clear line and the right exit status, no panic, no file half made.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use swarmdisk_core::format::manifest::ManifestView;
use swarmdisk_core::format::superblock::Superblock;
use swarmdisk_core::ids::{Address, Digest, NodeId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::wire::{
    Farewell, Frame, HEAD_BYTES_MAX, Hello, LinkKind, Role, VERSION, VERSION_MIN, encode, preface,
};
use swarmdisk_tests::disk::NbdDisk;
use swarmdisk_tests::fixture::{Fixture, text, wait_until};
use swarmdisk_tests::images::{Numbers, flip};
use swarmdisk_tests::skip::need;
use swarmdisk_tests::tiny::TinyDisk;

/// How long any of it may take; it bounds a failure only.
const DEADLINE: Duration = Duration::from_secs(40);
const USAGE: i32 = 2;
const REST: i32 = 1;

/// Runs the command and holds it to its word: this status, nothing on stdout, one line on stderr with this in it.
#[track_caller]
fn refused(fixture: &Fixture, command: &str, status: i32, says: &str) {
    let finished = fixture.swarmdisk.spawn(command.split_whitespace()).wait(DEADLINE);
    let complaint: Vec<&str> = finished.stderr.lines().filter(|line| !is_progress(line)).collect();
    assert_eq!(finished.status.code(), Some(status), "{command}: {finished:?}");
    assert_eq!(finished.stdout, "", "{command}");
    assert!(complaint.len() == 1, "{command}: not one line: {complaint:#?}");
    assert!(complaint[0].starts_with("swarmdisk: ") && complaint[0].contains(says), "{command}: {}", complaint[0]);
    assert!(!finished.stderr.contains("panicked"), "{command}: {}", finished.stderr);
}

fn is_progress(line: &str) -> bool {
    line.ends_with('%') && (line.starts_with("packing: ") || line.starts_with("checking: "))
}

#[test]
fn arguments_that_cannot_be_right() {
    let fixture = Fixture::mixed(1 << 20, 1);
    let (swarm, id) = (text(&fixture.swarm), &fixture.id);
    let attach = format!("attach {swarm} --nbd 127.0.0.1:0");
    let (socket, chap) = (fixture.text("socket"), fixture.text("chap"));
    fs::write(&chap, "guest 0123456789abc\n").unwrap();
    for (command, says) in [
        ("pack".into(), "required arguments were not provided: <IMAGE> <OUT.swarm>; see `swarmdisk pack --help`"),
        ("pakc".into(), "a similar subcommand exists: 'pack'"),
        ("pack a b --chunk-size 65K".into(), "a chunk is a power of two from 16K to 1M"),
        ("pack a b --level 23".into(), "23 is not in 1..=22"),
        ("pack a b --codec lz4".into(), "possible values: zstd, none"),
        ("seed".into(), "<FILE.swarm>..."),
        (format!("seed {swarm} --limit-up 12"), "`12` is no rate; write it as in 100mbit or 12MB"),
        (format!("seed {swarm} --listen here"), "invalid socket address syntax"),
        (format!("seed {swarm} --listen 0.0.0.0:0"), "0.0.0.0:0 can be reached by others; pass --open"),
        (format!("seed {swarm} --status 0.0.0.0:0"), "pass --open to let them read the status"),
        (format!("attach {swarm}"), "--nbd <ADDR|unix:PATH>"),
        (format!("{attach} --ublk"), "cannot be used with"),
        (format!("attach {swarm} --ublk=x"), "invalid value 'x' for '--ublk[=<N>]'"),
        (format!("{attach} --recover"), "cannot be used with"),
        (format!("run {swarm} --recover -- true"), "--ublk"),
        (format!("run {swarm} --ublk --nbd 127.0.0.1:0 -- true"), "cannot be used with"),
        (format!("{attach} --vhost-user {socket}"), "cannot be used with"),
        (format!("attach {swarm} --vhost-user"), "--vhost-user <PATH>"),
        (format!("{attach} --wnbd"), "cannot be used with"),
        (format!("attach {swarm} --wnbd --recover"), "cannot be used with"),
        (format!("attach {swarm} --wnbd"), "WNBD is Windows'; choose --nbd here"),
        (format!("attach {swarm} --vhost-user {socket} --recover"), "cannot be used with"),
        (format!("run {swarm} --vhost-user {socket} --ublk -- true"), "cannot be used with"),
        (format!("run {swarm} --vhost-user {socket} --nbd 127.0.0.1:0 -- true"), "cannot be used with"),
        (format!("{attach} --iscsi 127.0.0.1:0"), "cannot be used with"),
        (format!("attach {swarm} --iscsi here:x"), "`here:x` is no place to listen; write HOST:PORT"),
        (format!("attach {swarm} --iscsi 0.0.0.0:0"), "listen on 127.0.0.1, or pass --chap-file, or --open"),
        (format!("{attach} --chap-file {socket}"), "cannot be used with"),
        (format!("{attach} --mount"), "cannot be used with"),
        (format!("attach {swarm} --iscsi 127.0.0.1:0 --mount --chap-file {chap}"), "would show the secret"),
        (format!("{attach} --physical-block 512"), "cannot be used with"),
        (format!("attach {swarm} --iscsi 127.0.0.1:0 --physical-block 1024"), "write 512 or 4096"),
        (format!("run {swarm} --chap-file {socket} -- true"), "--iscsi <ADDR>"),
        (format!("run {swarm} --iscsi 127.0.0.1:0 --ublk -- true"), "cannot be used with"),
        (format!("attach {swarm} --nbd here"), "`here` is no place to listen; write HOST:PORT"),
        (format!("attach {swarm} --nbd 0.0.0.0:0"), "listen on 127.0.0.1, or pass --open"),
        (format!("{attach} --listen [::]:0"), "[::]:0 can be reached by others; pass --open"),
        (format!("{attach} --io-timeout 5"), "`5` is no time; write it as in 200ms, 30s or 5m"),
        (format!("{attach} --fill much"), "or off, or auto"),
        (format!("{attach} --locality row=3"), "`row` is none of zone, rack and host; write it as in zone=a,rack=7"),
        (format!("{attach} --locality rack=1,rack=2"), "the rack is named twice"),
        (format!("seed {swarm} --locality zone="), "the zone has no name"),
        (format!("{attach} --peer here"), "write HOST:PORT"),
        ("attach swarm://127.0.0.1:1 --nbd 127.0.0.1:0".into(), "a reference ends in /IMAGE-ID"),
        ("attach swarm://127.0.0.1:1/12 --nbd 127.0.0.1:0".into(), "an id is 64 hex digits"),
        (format!("attach swarm://here/{id} --nbd 127.0.0.1:0"), "`here` is no HOST:PORT"),
        (format!("attach ftp://here:1/{id} --nbd 127.0.0.1:0"), "write swarm://HOST:PORT/IMAGE-ID"),
        (format!("attach https://here/x#{id} --nbd 127.0.0.1:0"), "download the file"),
        (format!("run {swarm}"), "<COMMAND>..."),
        ("replay t --disk d --speed 0".into(), "pass a positive number"),
        ("check".into(), "<FILE.swarm>..."),
        ("check --repair".into(), "--cache <DIR>"),
    ] {
        refused(&fixture, &command, USAGE, says);
    }
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let fixture = Fixture::mixed(1 << 20, 2);
    let other = Fixture::mixed(1 << 20, 3);
    let at = |name: &str| fixture.text(name);
    for (name, content) in
        [("empty", ""), ("short", "swarm"), ("trace", "0 R 0 512\n"), ("beyond", "0 R 9000000 512\n")]
    {
        fs::write(fixture.path(name), content).unwrap();
    }
    fs::write(fixture.path("bad.trace"), "# begins well\n0 R 0 512\n1 R zero 512\n").unwrap();
    fs::create_dir(fixture.path("folder")).unwrap();
    let (raw, swarm, profile) = (text(&fixture.raw), text(&fixture.swarm), at("profile"));
    fixture.swarmdisk.succeed(["profile", "build", &at("trace"), "--image", &swarm, "-o", &profile]);
    let (out, missing, folder, nbd) = (at("out"), at("missing"), at("folder"), "--nbd 127.0.0.1:0");
    let (empty, short, beyond, bad_trace, trace) =
        (at("empty"), at("short"), at("beyond"), at("bad.trace"), at("trace"));
    let (nowhere, foreign) = (format!("{missing}/file"), text(&other.swarm));
    for (command, says) in [
        (format!("pack {missing} {out}"), "cannot read"),
        (format!("pack {folder} {out}"), "Is a directory"),
        (format!("pack {empty} {out}"), "there is nothing to pack"),
        (format!("pack {raw} {folder}"), "choose another name for the output"),
        (format!("pack {raw} {nowhere}"), "No such file or directory (os error 2); make room, or choose another name"),
        (format!("pack {raw} {raw}"), "is the image itself"),
        (format!("pack {raw} /dev/null"), "it is no regular file"),
        (format!("pack {swarm} {out}"), "is packed already"),
        (format!("seed {missing}"), "cannot open"),
        (format!("seed {folder}"), "Is a directory"),
        (format!("seed {raw}"), "not a .swarm file; `swarmdisk pack` makes such files"),
        (format!("seed {short}"), "shorter than a superblock"),
        (format!("seed {swarm} --profile {missing}"), "cannot read the profile"),
        (format!("seed {swarm} --profile {raw}"), "is no profile; make one with `swarmdisk profile build`"),
        (format!("seed {foreign} --profile {profile}"), "is a profile of another image"),
        (format!("attach {missing} {nbd}"), "cannot open"),
        (format!("attach {folder} {nbd}"), "Is a directory"),
        (format!("attach {raw} {nbd}"), "not a .swarm file"),
        (format!("attach {foreign} {nbd} --profile {profile}"), "the profile belongs to another image"),
        (format!("attach {swarm} {nbd} --report {nowhere}"), "choose another --report"),
        (format!("attach {swarm} {nbd} --report {folder}"), "choose another --report"),
        (format!("attach {swarm} {nbd} --record {nowhere}"), "choose another --record"),
        (format!("attach {swarm} --iscsi 127.0.0.1:0 --chap-file {missing}"), "check --chap-file"),
        (format!("attach {swarm} --iscsi 127.0.0.1:0 --chap-file {short}"), "its first line must be NAME SECRET"),
        (format!("attach {swarm} --nbd unix:{nowhere}"), "choose another --nbd"),
        (format!("attach {swarm} --nbd unix:{raw}"), "is there and is no socket"),
        (format!("attach {swarm} --vhost-user {nowhere}"), "choose another --vhost-user"),
        (format!("attach {swarm} --vhost-user {raw}"), "is there and is no socket"),
        (format!("run {swarm} --vhost-user {raw} -- true"), "is there and is no socket"),
        (format!("replay {missing} --disk {raw}"), "No such file"),
        (format!("replay {bad_trace} --disk {raw}"), "line 3 of the trace"),
        (format!("replay {trace} --disk {missing}"), "cannot open"),
        (format!("replay {trace} --disk {raw} --report {nowhere}"), "choose another --report"),
        (format!("replay {trace} --disk {raw} --writes"), "this disk is read-only; attach it with --overlay"),
        (format!("replay {trace} --disk {raw} --verify {missing}"), "missing"),
        (format!("profile build {bad_trace} --image {swarm} -o {out}"), "line 3 of the trace"),
        (format!("profile build {beyond} --image {swarm} -o {out}"), "was it recorded with another image?"),
        (format!("profile build {trace} --image {raw} -o {out}"), "not a .swarm file"),
        (format!("profile build {trace} --image {swarm} -o {nowhere}"), "choose another -o"),
        (format!("profile show {raw}"), "this is no profile"),
        (format!("check {raw}"), "not a .swarm file"),
        (format!("attach swarm://127.0.0.1:1/{} {nbd} --cache {raw}", fixture.id), "cannot make the cache"),
        (format!("check --cache {missing}"), "cannot list"),
    ] {
        refused(&fixture, &command, REST, says);
        assert!(!Path::new(&out).exists(), "{command} has left something");
    }
    // Neither what was there before nor anything beside it has changed.
    let mut left: Vec<_> = fs::read_dir(fixture.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    let given = ["bad.trace", "beyond", "disk.raw", "disk.swarm", "empty", "folder", "profile", "short", "trace"];
    assert_eq!(left, given);
}

/// A copy of the fixture's file with one thing wrong.
fn damaged(fixture: &Fixture, name: &str, damage: impl FnOnce(&Path)) -> String {
    let copy = fixture.path(name);
    fs::copy(&fixture.swarm, &copy).unwrap();
    damage(&copy);
    text(&copy)
}

fn cut(path: &Path, bytes: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// Where in the file the first leaf page begins.
fn first_leaf(path: &Path) -> u64 {
    let file = fs::read(path).unwrap();
    let superblock = Superblock::parse(&file).unwrap();
    let manifest = &file[superblock.manifest_offset as usize..][..superblock.manifest_bytes as usize];
    let view = ManifestView::parse(manifest).unwrap();
    view.leaf_offset(view.geometry().leaf(0).unwrap())
}

#[test]
fn a_damaged_head_is_refused() {
    let fixture = Fixture::mixed(1 << 20, 4);
    let bytes = fs::metadata(&fixture.swarm).unwrap().len();
    let files = [
        (damaged(&fixture, "a.swarm", |path| cut(path, 100)), "shorter than a superblock"),
        (damaged(&fixture, "b.swarm", |path| cut(path, 4100)), "4100 bytes long but should be"),
        (damaged(&fixture, "c.swarm", |path| cut(path, bytes - 1)), "copy the file again"),
        (damaged(&fixture, "d.swarm", |path| cut(path, bytes + 1)), "copy the file again"),
        (damaged(&fixture, "e.swarm", |path| flip(path, 3)), "not a .swarm file"),
        (damaged(&fixture, "f.swarm", |path| flip(path, 20)), "its checksum is wrong"),
        (damaged(&fixture, "g.swarm", |path| flip(path, 4100)), "does not fit the image id"),
    ];
    for (file, says) in files {
        for command in ["seed FILE", "attach FILE --nbd 127.0.0.1:0", "check FILE", "run FILE -- true"] {
            refused(&fixture, &command.replace("FILE", &file), REST, says);
        }
    }
}

/// Attaches a damaged file alone: bytes are right, or there is an error, and that at once.
fn read_damaged(fixture: &Fixture, file: &str) -> (u64, u64) {
    let (_node, uri) = fixture.swarmdisk.attach([file, "--nbd", "127.0.0.1:0"]);
    let (disk, image) = (NbdDisk::open(&uri), fs::read(&fixture.raw).unwrap());
    let (mut good, mut failed) = (0, 0);
    let began = Instant::now();
    for _ in 0..2 {
        for offset in (0..disk.bytes()).step_by(64 << 10) {
            match disk.read(offset, 64 << 10) {
                Ok(bytes) => {
                    assert!(bytes == image[offset as usize..][..64 << 10], "wrong bytes at {offset}");
                    good += 1;
                }
                Err(error) => {
                    assert!(error.contains("damaged"), "{error}");
                    failed += 1;
                }
            }
        }
    }
    assert!(began.elapsed() < DEADLINE, "a file alone waits for nobody");
    (good, failed)
}

#[test]
fn a_damaged_payload_is_found_and_never_read() {
    let fixture = Fixture::mixed(1 << 20, 5);
    let last = fs::metadata(&fixture.swarm).unwrap().len() - 1;
    let file = damaged(&fixture, "payload.swarm", |path| flip(path, last));
    let check = fixture.swarmdisk.run(["check", &file]);
    assert_eq!(check.status.code(), Some(REST));
    assert!(check.stdout.contains("1 of ") && check.stdout.contains("pieces are damaged"), "{check:?}");
    let (good, failed) = read_damaged(&fixture, &file);
    assert_eq!((good, failed), (30, 2));
}

#[test]
fn a_damaged_leaf_page_is_found_and_never_believed() {
    let fixture = Fixture::mixed(1 << 20, 6);
    let file = damaged(&fixture, "leaf.swarm", |path| flip(path, first_leaf(path) + 50));
    let check = fixture.swarmdisk.run(["check", &file]);
    assert_eq!(check.status.code(), Some(REST));
    assert!(check.stdout.contains("the first is leaf page 0"), "{check:?}");
    assert_eq!(read_damaged(&fixture, &file), (0, 32));
}

#[test]
fn a_damaged_seed_is_no_wrong_byte_elsewhere() {
    let fixture = Fixture::mixed(1 << 20, 7);
    let last = fs::metadata(&fixture.swarm).unwrap().len() - 1;
    let file = damaged(&fixture, "payload.swarm", |path| flip(path, last));
    let (_bad, reference) = fixture.swarmdisk.seed([&file]);
    let (_good, good) = fixture.seed(&[]);
    let peer = good.trim_start_matches("swarm://").split('/').next().unwrap().to_owned();
    let (_node, uri) = fixture.attach(&reference, "cache", &["--peer", &peer]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
}

#[test]
fn places_that_are_taken() {
    let fixture = Fixture::mixed(1 << 20, 8);
    let swarm = text(&fixture.swarm);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let (live, dead) = (fixture.text("live.sock"), fixture.text("dead.sock"));
    let _live = UnixListener::bind(&live).unwrap();
    drop(UnixListener::bind(&dead).unwrap());
    for (command, says) in [
        (format!("seed {swarm} --listen {port}"), "choose another --listen"),
        (format!("seed {swarm} --status {port}"), "choose another --status"),
        (format!("attach {swarm} --nbd 127.0.0.1:0 --listen {port}"), "choose another --listen"),
        (format!("attach {swarm} --nbd 127.0.0.1:0 --status {port}"), "choose another --status"),
        (format!("attach {swarm} --nbd {port}"), "choose another --nbd"),
        (format!("attach {swarm} --nbd unix:{live}"), "is in use by another process"),
    ] {
        let trace = fixture.path("old.trace");
        fs::write(&trace, "0 R 0 512\n").unwrap();
        let record = if command.starts_with("attach") { format!(" --record {}", text(&trace)) } else { String::new() };
        refused(&fixture, &(command + &record), REST, says);
        assert_eq!(fs::read_to_string(&trace).unwrap(), "0 R 0 512\n", "an attempt that fails costs no trace");
    }
    assert!(Path::new(&live).exists(), "a live socket stays");
    let (node, uri) = fixture.swarmdisk.attach([&swarm, "--nbd", &format!("unix:{dead}")]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    node.kill();
    assert!(Path::new(&dead).exists());
    let (_node, uri) = fixture.swarmdisk.attach([&swarm, "--nbd", &format!("unix:{dead}")]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
}

/// Answers every connection with these bytes, and holds it open.
fn stranger(says: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut heard = [0; 8];
            // Whoever speaks first may be any of the two.
            stream.set_read_timeout(Some(Duration::from_millis(100))).ok();
            let _ = stream.read(&mut heard);
            let _ = stream.write_all(&says);
            open.push(stream);
        }
    });
    address
}

/// A preface, and a frame.
fn speaks(kind: LinkKind, frame: &Frame<'_>) -> Vec<u8> {
    let mut head = [0; HEAD_BYTES_MAX];
    let bytes = encode(frame, &mut head).unwrap();
    [&preface(kind)[..], &head[..bytes]].concat()
}

#[test]
fn peers_that_are_none() {
    let fixture = Fixture::mixed(1 << 20, 9);
    let hello = |version, image| Hello {
        version,
        features: 0,
        image,
        node: NodeId([7; 16]),
        listen: Address::NONE,
        role: Role::Seed,
        requests_max: 1,
        locality: Locality::NONE,
    };
    let other = Digest([9; 32]);
    let peers = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "does not speak the swarm's protocol but HTTP; check the port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "does not speak the swarm's protocol but SSH"),
        (Numbers(1).bytes(4096), "does not speak the swarm's protocol but \""),
        (b"swarmdk\x09".to_vec(), "an unknown kind of swarm link"),
        (speaks(LinkKind::Encrypted, &Frame::Pong(1)), "wants encrypted links"),
        (speaks(LinkKind::Plain, &Frame::Hello(hello(VERSION_MIN - 1, other))), "speaks another version"),
        (speaks(LinkKind::Plain, &Frame::Bye(Farewell::Version)), "speaks another version"),
        (speaks(LinkKind::Plain, &Frame::Hello(hello(VERSION, other))), "does not serve that image"),
        (speaks(LinkKind::Plain, &Frame::Pong(1)), "broke the protocol"),
        ([&preface(LinkKind::Plain)[..], &[0xff; 64]].concat(), "broke the protocol"),
        (Vec::new(), "no answer in time; check that a seed runs"),
    ];
    thread::scope(|scope| {
        for (index, (speech, says)) in peers.into_iter().enumerate() {
            let fixture = &fixture;
            scope.spawn(move || {
                let (cache, address) = (fixture.text(&format!("cache-{index}")), stranger(speech));
                let target = format!("swarm://{address}/{}", fixture.id);
                let command = format!("attach {target} --nbd 127.0.0.1:0 --cache {cache} --io-timeout 2s");
                refused(fixture, &command, REST, says);
                assert_eq!(fs::read_dir(&cache).unwrap().count(), 0, "nothing is made of nothing");
            });
        }
    });
    let (_seed, reference) = fixture.seed(&[]);
    let unknown = reference.replace(&fixture.id, &"0".repeat(64));
    let command = format!("attach {unknown} --nbd 127.0.0.1:0 --cache {}", fixture.text("cache"));
    refused(&fixture, &command, REST, "does not serve that image; check the reference");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let command = format!("attach swarm://{gone}/{} --nbd 127.0.0.1:0 --io-timeout 1s", fixture.id);
    refused(&fixture, &format!("{command} --cache {}", fixture.text("cache")), REST, "check the address");
}

#[test]
fn strangers_do_not_disturb_a_seed() {
    let fixture = Fixture::mixed(1 << 20, 10);
    let (seed, reference) = fixture.seed(&[]);
    let address = reference.trim_start_matches("swarm://").split('/').next().unwrap().to_owned();
    let mut open = Vec::new();
    for speech in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", b"\0\0\0\0", b"", &Numbers(2).bytes(100_000)] {
        let mut stream = TcpStream::connect(&address).unwrap();
        // It may close the connection at the first byte.
        let _ = stream.write_all(speech);
        open.push(stream);
    }
    let (_node, uri) = fixture.attach(&reference, "cache", &[]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    let finished = seed.stop();
    assert!(finished.stderr.lines().all(|line| line.contains("does not speak the swarm's protocol")), "{finished:?}");
}

#[test]
fn a_disk_that_is_full() {
    let fixture = Fixture::random(4 << 20, 11);
    let Some(tiny) = need(TinyDisk::mount(fixture.path("tiny"), 1 << 20)) else { return };
    let (raw, out) = (text(&fixture.raw), text(&tiny.path().join("out.swarm")));
    refused(&fixture, &format!("pack {raw} {out}"), REST, "No space left on device (os error 28); make room");
    assert_eq!(fs::read_dir(tiny.path()).unwrap().count(), 0, "nothing is left");

    // A cache on it: what does not fit is not kept, and not one byte is wrong.
    let (_seed, reference) = fixture.seed(&[]);
    let (mut node, uri) = fixture.attach(&reference, "tiny", &["--io-timeout", "5s"]);
    NbdDisk::open(&uri).assert_equal(&fixture.raw);
    wait_until("it says so", || node.stderr().contains("no space left"));
    assert!(node.is_running() && !node.stderr().contains("panicked"), "{}", node.stderr());
    assert!(node.stderr().lines().count() == 1, "said once is enough: {}", node.stderr());
}

#[test]
fn a_frontend_for_which_there_are_no_descriptors() {
    let fixture = Fixture::mixed(1 << 20, 12);
    let (swarm, socket) = (text(&fixture.swarm), fixture.path("vhost.sock"));
    let (node, _) = fixture.swarmdisk.attach([&swarm, "--vhost-user", &text(&socket)]);
    let pid = Pid::from_raw(node.pid() as i32).unwrap();
    let given = getrlimit(Resource::Nofile);
    // Enough for one of the threads that would serve it, and then for its connection, or for no more.
    for free in [6, 5] {
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(limit_for(node.pid(), free)), ..given }).unwrap();
        let mut frontend = UnixStream::connect(&socket).unwrap();
        frontend.set_read_timeout(Some(DEADLINE)).unwrap();
        assert_eq!(frontend.read(&mut [0]).unwrap(), 0, "it is let go with {free} descriptors");
        wait_until("its threads have ended", || !has_workers(node.pid()));
        prlimit(Some(pid), Resource::Nofile, given).unwrap();
    }

    // Another one is served: it asks for the features (the protocol's message 1, of version 1).
    let mut frontend = UnixStream::connect(&socket).unwrap();
    frontend.set_read_timeout(Some(DEADLINE)).unwrap();
    frontend.write_all(&[1, 1, 0].map(u32::to_le_bytes).concat()).unwrap();
    frontend.read_exact(&mut [0; 12 + 8]).unwrap();
    drop(frontend);
    let stderr = node.stop().stderr;
    // Each once, however often it was tried.
    let is_told = (1..=2).contains(&stderr.lines().count());
    assert!(is_told && stderr.lines().all(|line| line.contains("Too many open files")), "{stderr}");
}

/// The limit that leaves a process so many descriptors.
fn limit_for(pid: u32, free: u64) -> u64 {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: Vec<u64> = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    (0..).filter(|number| !open.contains(number)).nth(free as usize).unwrap()
}

/// Whether there are threads that serve a frontend's queues.
fn has_workers(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.any(|name| name.trim() == "vring_worker")
}
