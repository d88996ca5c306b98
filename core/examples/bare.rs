//! The whole core with nothing below it: no operating system, no allocator, all memory in statics sized when this is
//! compiled. `tests/setup/no-std.sh` links it for bare metal; elsewhere `cargo run -p swarmdisk-core --example bare` runs
//! the same: a chunk is fetched from a seed, and every format is written and read.
#![cfg_attr(target_os = "none", no_std, no_main)]

use swarmdisk_core::bitmap::Bits;
use swarmdisk_core::engine::{
    Action, Change, Config, Contact, Demand, Engine, Event, Fill, Footprint, Landing, Limits, PeerRow, Received,
    Served, Storage, Touch, Transfer, Tuning, Upload, Verdict,
};
use swarmdisk_core::format::leaf::LeafView;
use swarmdisk_core::format::manifest::{Codec, Layout, ManifestView};
use swarmdisk_core::format::profile::{self, ProfileEntry, ProfileView};
use swarmdisk_core::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use swarmdisk_core::format::{held, leaf};
use swarmdisk_core::geometry::{Geometry, LEAF_CHUNKS, Piece};
use swarmdisk_core::ids::{Address, Digest, GuestId, NodeId, PeerId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::policy::{ExpectedCompletion, Lesson, Live, Mixed, Profile, Sequential, WindowedRandom};
use swarmdisk_core::time::Instant;
use swarmdisk_core::wire::{self, Data, Decoded, Frame, HEAD_BYTES_MAX, Hello, LinkKind, Map, Role, RunsEncoder};

const GEOMETRY: Geometry = match Geometry::new(4 << 30, 16) {
    Ok(geometry) => geometry,
    Err(_) => panic!("no image is like that"),
};
const LIMITS: Limits = Limits {
    peers: 8,
    transfers: 16,
    requests_per_peer: 8,
    demands: 32,
    contacts: 16,
    changes: 64,
    served: 0,
    touches: 256,
    maps: true,
    bounded: false,
};
const NEED: Footprint = Footprint::of(GEOMETRY, LIMITS);
/// What this machine has to spare.
const RAM_BYTES: usize = 128 << 10;
const _: () = assert!(NEED.bytes() <= RAM_BYTES, "the image or the limits are too big for this machine");

const IMAGE: Digest = Digest([7; 32]);
const ENTRIES: usize = 64;
const LESSONS: usize = 256;
const NO_ENTRY: ProfileEntry = match GEOMETRY.chunk(0) {
    Some(chunk) => ProfileEntry::single(chunk, 0, 0),
    None => panic!("the image is empty"),
};
/// A manifest of this image's 256 leaf pages.
const MANIFEST_BYTES_MAX: usize = 16 << 10;

type ThisEngine<'a> = Engine<'a, Mixed<'a>, WindowedRandom, ExpectedCompletion>;

/// All memory there is.
struct Memory {
    words: [u64; NEED.words],
    peers: [PeerRow; NEED.peers],
    transfers: [Transfer; NEED.transfers],
    uploads: [Upload; NEED.uploads],
    demands: [Demand; NEED.demands],
    contacts: [Contact; NEED.contacts],
    changes: [Change; NEED.changes],
    served: [Served; NEED.served],
    touches: [Touch; NEED.touches],
    lessons: [Lesson; LESSONS],
    entries: [ProfileEntry; ENTRIES],
    file: [u8; MANIFEST_BYTES_MAX],
    bits: [u64; NEED.words],
}

static mut MEMORY: Memory = Memory {
    words: [0; NEED.words],
    peers: [PeerRow::EMPTY; NEED.peers],
    transfers: [Transfer::EMPTY; NEED.transfers],
    uploads: [Upload::EMPTY; NEED.uploads],
    demands: [Demand::EMPTY; NEED.demands],
    contacts: [Contact::EMPTY; NEED.contacts],
    changes: [Change::EMPTY; NEED.changes],
    served: [Served::EMPTY; NEED.served],
    touches: [Touch::EMPTY; NEED.touches],
    lessons: [Lesson::EMPTY; LESSONS],
    entries: [NO_ENTRY; ENTRIES],
    file: [0; MANIFEST_BYTES_MAX],
    bits: [0; NEED.words],
};

#[cfg(not(target_os = "none"))]
fn main() {
    assert!(boot().is_some());
    println!("{} KiB of memory for the engine", NEED.bytes().div_ceil(1024));
}

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    assert!(boot().is_some());
    loop {}
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// To be called once.
fn boot() -> Option<()> {
    let memory = &raw mut MEMORY;
    // SAFETY: there is one thread, which comes here once, so this is the only reference to `MEMORY`.
    let memory = unsafe { &mut *memory };
    let Memory { words, peers, transfers, uploads, demands, contacts, changes, served, touches, .. } = memory;
    let Memory { lessons, entries, file, bits, .. } = memory;
    formats(file, bits)?;
    let profile = read_profile(file, entries)?;
    let storage = Storage { words, peers, transfers, uploads, demands, contacts, changes, served, touches };
    let policies = Mixed {
        profile: Some(Profile::new(profile, 300)),
        live: Some(Live::new(lessons, 300)),
        sequential: Some(Sequential::new(16)),
    };
    let policies = (policies, WindowedRandom::default(), ExpectedCompletion);
    let engine = Engine::new(Instant::ZERO, GEOMETRY, config(), storage, policies).ok()?;
    fetch(engine)
}

fn config() -> Config {
    Config {
        limits: LIMITS,
        node: NodeId([1; 16]),
        image: IMAGE,
        role: Role::Node,
        listen: Address::NONE,
        locality: Locality::NONE,
        manifest_bytes: 0,
        payload_bytes: 0,
        profile: None,
        teach: true,
        leaves_first: false,
        fill: Fill::Auto,
        seed: 1,
        unsent_bytes_max: u32::MAX,
        tuning: Tuning::DEFAULT,
    }
}

/// A guest wants a chunk; a seed has it.
fn fetch(mut engine: ThisEngine<'static>) -> Option<()> {
    let wanted = GEOMETRY.chunk(300)?;
    let mut now = Instant::ZERO;
    let mut head = [0; HEAD_BYTES_MAX];
    engine.handle(now, Event::ContactFound { address: Address { ip: [1; 16], port: 9000 }, seed: true });
    engine.handle(now, Event::Wanted { guest: GuestId(0), chunk: wanted });
    for _ in 0..1000 {
        let Some(action) = engine.poll(now, &mut head) else {
            now = engine.deadline()?;
            continue;
        };
        match action {
            Action::Dial { peer, .. } => {
                engine.handle(now, Event::PeerOpened { peer, credit_bytes: u32::MAX });
                greet(&mut engine, now, peer)?;
            }
            Action::Transmit { peer, head_bytes, .. } => {
                answer(&mut engine, now, peer, head.get(..head_bytes.into())?)?
            }
            Action::Verify { slot, .. } => {
                engine.handle(now, Event::BodyVerified { slot, verdict: Verdict::Genuine });
            }
            Action::Deliver { piece, .. } if GEOMETRY.kind(piece) == Piece::Chunk(wanted) => return Some(()),
            Action::Store { slot, .. } => engine.handle(now, Event::BodyStored { slot }),
            _ => {}
        }
    }
    None
}

/// What the seed says first.
fn greet(engine: &mut ThisEngine<'_>, now: Instant, peer: PeerId) -> Option<()> {
    let (node, listen, role) = (NodeId([2; 16]), Address::NONE, Role::Seed);
    let hello = Hello {
        version: wire::VERSION,
        features: 0,
        image: IMAGE,
        node,
        listen,
        role,
        requests_max: 16,
        locality: Locality::NONE,
    };
    say(engine, now, peer, &Frame::Hello(hello))?;
    let mut list = [0; 16];
    let mut runs = RunsEncoder::new(&mut list, 0);
    runs.push(0, GEOMETRY.piece_count()).ok()?;
    let length = runs.finish();
    say(engine, now, peer, &Frame::Map(Map { first: 0, count: GEOMETRY.piece_count(), runs: list.get(..length)? }))
}

/// What the seed says to a frame.
fn answer(engine: &mut ThisEngine<'_>, now: Instant, peer: PeerId, head: &[u8]) -> Option<()> {
    let Ok(Decoded::Frame { frame, .. }) = wire::decode(head) else { return None };
    match frame {
        Frame::Ping(nonce) => say(engine, now, peer, &Frame::Pong(nonce)),
        Frame::Request(request) => {
            let end = request.run.first + u32::from(request.run.count);
            (request.run.first..end)
                .try_for_each(|piece| say(engine, now, peer, &Frame::Data(Data { piece, bytes: 100 })))
        }
        _ => Some(()),
    }
}

fn say(engine: &mut ThisEngine<'_>, now: Instant, peer: PeerId, frame: &Frame<'_>) -> Option<()> {
    let mut head = [0; HEAD_BYTES_MAX];
    let length = wire::encode(frame, &mut head).ok()?;
    match engine.receive(now, peer, head.get(..length)?).ok()? {
        Received::Head { body: Landing::Land { slot, .. }, .. } => engine.handle(now, Event::BodyLanded { slot }),
        Received::Head { .. } => {}
        Received::NeedMore { .. } => return None,
    }
    Some(())
}

/// Writes and reads every format.
fn formats(file: &mut [u8; MANIFEST_BYTES_MAX], bits: &mut [u64; NEED.words]) -> Option<()> {
    wire::check_preface(&wire::preface(LinkKind::Plain)).ok()?;
    let layout = Layout::plan(GEOMETRY, Codec::None, 0).ok()?;
    let header_bytes = layout.encode_header(file).ok()?;
    let manifest = file.get(..header_bytes + GEOMETRY.leaf_count() as usize * 32)?;
    let (manifest_offset, manifest_bytes) = (SUPERBLOCK_BYTES as u64, manifest.len() as u32);
    let block = Superblock { image: IMAGE, manifest_offset, manifest_bytes, file_bytes: layout.file_bytes() };
    Superblock::parse(&block.encode()).ok()?;
    let layout = ManifestView::parse(manifest).ok()?.layout();

    let page = file.get_mut(..leaf::leaf_bytes(LEAF_CHUNKS))?;
    page.fill(0);
    leaf::encode_start(page, layout.payload_offset());
    let view = LeafView::parse(page, &layout, GEOMETRY.leaf(0)?).ok()?;
    let zeros: u32 = view.zero_runs().map(|(_, count)| count).sum();

    let mut writer = held::HeldWriter::new(IMAGE);
    let (first, count) = (3, 5);
    let mut log: &mut [u8] = file;
    writer.rewrite(&mut log, Bits::new(&[0xFF], GEOMETRY.piece_count().min(64))).ok()?;
    writer.append(&mut log, first, count, held::Kind::Lost).ok()?;
    let log_bytes = writer.log_bytes() as usize;
    held::replay(&mut file.get(..log_bytes)?, IMAGE, GEOMETRY.piece_count().min(64), bits).ok()?;
    (zeros == LEAF_CHUNKS && bits[0] == 0b111).then_some(())
}

/// Writes a profile and reads it back.
fn read_profile<'a>(file: &mut [u8], entries: &'a mut [ProfileEntry; ENTRIES]) -> Option<&'a [ProfileEntry]> {
    let entry = ProfileEntry::single(GEOMETRY.chunk(301)?, 0, 255);
    let length = profile::encode(IMAGE, &[1], &[entry], file).ok()?;
    let view = ProfileView::parse(file.get(..length)?, IMAGE, GEOMETRY).ok()?;
    let count = view.read_into(entries).ok()?;
    entries.get(..count)
}
