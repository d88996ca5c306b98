//! What a guest waits for 4 KiB that are not here, when a peer on this machine has them: against a request and a response of
//! the same lengths over plain TCP.
//!
//! *What is in it*: the NBD request and its answer, the engine, the link both ways, the seed's read, the hash,
//! decompression (not of the raw image). A chunk travels as a whole, so the plain response is as long as the mean payload.
//! Each chunk is read once, in random order, nothing is prefetched; some reads wait for a leaf page too.
//! *Units*: microseconds.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use super::Bench;
use super::figure::{Figure, Side, Target};
use super::subject::{CHUNK_BYTES, Codec};
use crate::compare::session::{Failure, Session};
use crate::fixture::text;
use crate::images::Numbers;
use crate::process::Process;

/// What is read.
const READ_BYTES: usize = 4 << 10;
/// Lengths of a request's and of an answer's head on the wire, about.
const REQUEST_BYTES: usize = 40;
const HEAD_BYTES: usize = 24;

/// Measures all of it.
///
/// # Errors
/// When a program is missing or fails, or a byte is wrong.
pub fn measure(bench: &Bench<'_>) -> Result<Vec<Figure>, Failure> {
    let mut figures = of(bench, "raw", Codec::None)?;
    figures.extend(of(bench, "zstd", Codec::Zstd)?);
    Ok(figures)
}

fn of(bench: &Bench<'_>, codec_name: &str, codec: Codec) -> Result<Vec<Figure>, Failure> {
    let packed = bench.subject.packed(codec);
    let seed = Process::start(bench.swarmdisk.command(["seed", &text(&packed.path), "--listen", "127.0.0.1:0"]));
    let reference = bench.span.line(&seed, "swarm://")?;
    let chunks = bench.subject.image_bytes / CHUNK_BYTES;
    let payload_bytes = HEAD_BYTES + (packed.bytes / chunks) as usize;
    let mut plain = Plain::connect(payload_bytes).map_err(Failure::file("127.0.0.1".as_ref()))?;
    let misses = bench.full_or(1000.min(chunks), 100) as usize;
    let mut figures = [("p50", 2.0), ("p99", 5.0)].map(|(what, most)| Figure {
        what: format!("4 KiB demand miss from a loopback peer, {codec_name}: {what}"),
        unit: "µs",
        ours: Vec::new(),
        others: vec![Side { name: "plain TCP", values: Vec::new() }],
        target: Target::AtMost(most),
    });
    for round in 0..bench.setup.rounds {
        let ours = miss(bench, &reference, round, misses)?;
        let theirs = (0..misses).map(|_| timed(|| plain.ask())).collect::<Result<_, _>>();
        let theirs = theirs.map_err(Failure::file("127.0.0.1".as_ref()))?;
        let sides = [percentiles(ours), percentiles(theirs)];
        for (at, figure) in figures.iter_mut().enumerate() {
            figure.ours.push(sides[0][at]);
            figure.others[0].values.push(sides[1][at]);
        }
    }
    Ok(figures.into())
}

/// Misses of a node that has nothing.
fn miss(bench: &Bench<'_>, reference: &str, round: usize, misses: usize) -> Result<Vec<f64>, Failure> {
    let [socket, cache] = [format!("miss-{round}.sock"), format!("miss-{round}")].map(|name| bench.subject.path(&name));
    let (nbd, cache) = (format!("unix:{}", text(&socket)), text(&cache));
    let arguments = ["attach", reference, "--nbd", &nbd, "--cache", &cache, "--prefetch", "off"];
    let session = Session::default();
    let node = Process::start(bench.swarmdisk.command(arguments));
    bench.span.line(&node, "ready ")?;
    session.keep(node);
    let failed = || Failure::file(&socket);
    let image = std::fs::File::open(&bench.subject.raw).map_err(Failure::file(&bench.subject.raw))?;
    let mut guest = Guest::connect(&socket).map_err(failed())?;
    let mut order: Vec<u64> = (0..bench.subject.image_bytes / CHUNK_BYTES).collect();
    let mut numbers = Numbers(round as u64);
    (1..order.len()).rev().for_each(|at| order.swap(at, numbers.below(at as u64 + 1) as usize));
    let mut times = Vec::with_capacity(misses);
    for chunk in order.into_iter().take(misses) {
        let offset = chunk * CHUNK_BYTES;
        times.push(timed(|| guest.read(offset)).map_err(failed())?);
        let mut expected = [0; READ_BYTES];
        std::os::unix::fs::FileExt::read_exact_at(&image, &mut expected, offset).map_err(failed())?;
        if guest.data() != expected {
            return Err(Failure::Mismatches(1));
        }
    }
    drop(guest);
    // Before its cache goes.
    session.end();
    std::fs::remove_dir_all(&cache).map_err(Failure::file(cache.as_ref()))?;
    Ok(times)
}

fn timed(work: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_nanos() as f64 / 1e3)
}

/// The median and the 99th percentile.
fn percentiles(mut micros: Vec<f64>) -> [f64; 2] {
    micros.sort_by(f64::total_cmp);
    [50, 99].map(|percent| micros[(micros.len() * percent / 100).min(micros.len() - 1)])
}

/// An NBD client that does nothing beside one read at a time (proto.md: fixed newstyle, `NBD_OPT_EXPORT_NAME`, simple replies).
struct Guest {
    stream: UnixStream,
    answer: [u8; 16 + READ_BYTES],
}

impl Guest {
    fn connect(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.read_exact(&mut [0; 18])?;
        // Flags: fixed newstyle, no zeros after the export's size.
        stream.write_all(&3u32.to_be_bytes())?;
        stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\0")?;
        stream.read_exact(&mut [0; 10])?;
        Ok(Self { stream, answer: [0; 16 + READ_BYTES] })
    }

    fn read(&mut self, offset: u64) -> io::Result<()> {
        let mut request = [0; 28];
        request[..4].copy_from_slice(&0x2560_9513u32.to_be_bytes());
        request[16..24].copy_from_slice(&offset.to_be_bytes());
        request[24..].copy_from_slice(&(READ_BYTES as u32).to_be_bytes());
        self.stream.write_all(&request)?;
        // An error has no data: it is seen by its number.
        self.stream.read_exact(&mut self.answer[..16])?;
        if self.answer[4..8] != [0; 4] {
            return Err(io::Error::other("the read failed"));
        }
        self.stream.read_exact(&mut self.answer[16..])
    }

    fn data(&self) -> [u8; READ_BYTES] {
        *self.answer.last_chunk().expect("it is that long")
    }
}

/// A connection to a thread that answers each request at once.
struct Plain {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Plain {
    fn connect(answer_bytes: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut server, _) = listener.accept()?;
        for end in [&stream, &server] {
            end.set_nodelay(true)?;
        }
        thread::spawn(move || {
            let answer = vec![7; answer_bytes];
            while server.read_exact(&mut [0; REQUEST_BYTES]).is_ok() && server.write_all(&answer).is_ok() {}
        });
        Ok(Self { stream, answer: vec![0; answer_bytes] })
    }

    fn ask(&mut self) -> io::Result<()> {
        self.stream.write_all(&[1; REQUEST_BYTES])?;
        self.stream.read_exact(&mut self.answer)
    }
}
