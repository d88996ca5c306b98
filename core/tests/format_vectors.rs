//! The formats' bytes, fixed: whoever changes what these say changes the format, and raises its version.

use swarmdisk_core::bitmap::Bits;
use swarmdisk_core::engine::{
    Action, BlobKind, Body, Config, Event, Fill, Landing, Limits, Offered, PeerError, Reason, Tuning, Verdict,
};
use swarmdisk_core::format::held::{self, HeldWriter, Kind};
use swarmdisk_core::format::leaf::{self, LeafEntry, LeafView};
use swarmdisk_core::format::manifest::{Codec, Layout, ManifestView};
use swarmdisk_core::format::overlay::{self, Header, Slot, Unit};
use swarmdisk_core::format::profile::{self, ProfileEntry, ProfileView};
use swarmdisk_core::format::recording::{
    self, Decoded, Heard, LiveSetting, OrderKind, Policies, RECORD_BYTES_MAX, Record, SelectorKind, Setup,
};
use swarmdisk_core::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use swarmdisk_core::geometry::Geometry;
use swarmdisk_core::ids::{Address, Digest, GuestId, NodeId, PeerId, SlotId, UploadId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::time::{Duration, Instant};
use swarmdisk_core::wire::{Farewell, Role, WireError};

/// An id for all of them: 00 01 02 … 1f.
const IMAGE: Digest = {
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = at as u8;
        at += 1;
    }
    Digest(bytes)
};
const IMAGE_HEX: &str =
    "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f";

/// Hex with comments; `{image}` is the id, `{zeros N}` so many zeros.
fn bytes(text: &str) -> Vec<u8> {
    let text = text.replace("{image}", IMAGE_HEX);
    let words = text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    let mut out = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if word == "{zeros" {
            let count = words.next().and_then(|count| count.strip_suffix('}')).unwrap();
            out.resize(out.len() + count.parse::<usize>().unwrap(), 0);
        } else {
            out.push(u8::from_str_radix(word, 16).unwrap());
        }
    }
    out
}

#[test]
fn superblock() {
    let expected = bytes(
        "53 57 41 52 4d 44 53 4b   # magic: SWARMDSK
         01 00 00 00               # version 1
         00 00 00 00               # reserved
         {image}                   # image id
         00 10 00 00 00 00 00 00   # offset of the manifest: 4096
         54 00 00 00               # length of the manifest: 84
         00 00 00 00               # reserved
         45 23 01 00 00 00 00 00   # length of the file: 0x12345
         {zeros 4020}
         4f a1 42 5c               # CRC32 of all before",
    );
    let block = Superblock { image: IMAGE, manifest_offset: 4096, manifest_bytes: 84, file_bytes: 0x12345 };
    assert_eq!(expected.len(), SUPERBLOCK_BYTES);
    assert_eq!(block.encode()[..], expected);
    assert_eq!(Superblock::parse(&expected), Ok(block));
}

#[test]
fn manifest() {
    let expected = bytes(
        "53 57 4d 46   # magic: SWMF
         01            # version 1
         f0 93 09      # image: 150,000 bytes
         10            # chunks of 2^16 bytes
         01            # codec: zstd
         80 40         # offset of the leaf pages: 8192
         80 60         # offset of the payloads: 12288
         e8 67         # length of the file: 13288
         {image}       # hash of leaf page 0",
    );
    let layout = Layout::plan(Geometry::new(150_000, 16).unwrap(), Codec::Zstd, 1000).unwrap();
    let mut out = [0; 64];
    let length = layout.encode_header(&mut out).unwrap();
    assert_eq!([&out[..length], &IMAGE.0].concat(), expected);
    let view = ManifestView::parse(&expected).unwrap();
    assert_eq!(view.layout(), layout);
    assert_eq!(view.leaf_digest(view.geometry().leaf(0).unwrap()), IMAGE);
}

#[test]
fn leaf_page() {
    let expected = bytes(
        "00 30 00 00 00 00 00 00   # offset of the first payload: 12288
         {image} e8 03 00 00       # chunk 0: hash; 1000 bytes, compressed
         {zeros 32} 00 00 00 00    # chunk 1: all zero
         {image} f0 49 00 80       # chunk 2: hash; 18,928 bytes, as it is",
    );
    let layout = Layout::plan(Geometry::new(150_000, 16).unwrap(), Codec::Zstd, 30_000).unwrap();
    let g = layout.geometry();
    let entries = [
        LeafEntry { digest: IMAGE, offset: 12288, bytes: 1000, stored: false },
        LeafEntry { digest: Digest::default(), offset: 13288, bytes: 0, stored: false },
        LeafEntry { digest: IMAGE, offset: 13288, bytes: 18_928, stored: true },
    ];
    let mut out = vec![0; leaf::leaf_bytes(3)];
    leaf::encode_start(&mut out, 12288);
    for (at, entry) in entries.iter().enumerate() {
        leaf::encode_entry(&mut out, at as u32, entry);
    }
    assert_eq!(out, expected);
    let view = LeafView::parse(&expected, &layout, g.leaf(0).unwrap()).unwrap();
    assert_eq!(view.entries().map(|(_, entry)| entry).collect::<Vec<_>>(), entries);
    assert_eq!(view.zero_runs().collect::<Vec<_>>(), [(g.chunk(1).unwrap(), 1)]);
}

#[test]
fn overlay() {
    let expected = bytes(
        "53 57 41 52 4d 4f 56 4c   # magic: SWARMOVL
         01 00 00 00               # version 1
         0c 00 00 00               # units of 2^12 bytes
         {image}                   # image id
         f0 49 02 00 00 00 00 00   # image: 150,000 bytes
         {zeros 4036}
         75 7d f9 f3               # CRC32 of all before",
    );
    let header = Header { image: IMAGE, layout: overlay::Layout::new(150_000).unwrap() };
    assert_eq!(header.encode()[..], expected);
    assert_eq!(Header::parse(&expected), Ok(header));
    assert_eq!((header.layout.slot_offset(0, 1), header.layout.data_start()), (8192, 12_288));
    let expected = bytes(
        "02 00 00 00 00 00 00 00   # generation 2
         00 00 00 00               # page 0
         44 33 22 11               # attempt 0x11223344
         90 55 25 00               # units 0, 1: image; 2: data; 3: zeros; 4 to 7: data; 8, 9: data; 10: zeros; then image
         {zeros 4072}
         e1 b3 31 18               # CRC32 of the image id and all before",
    );
    let mut states = [0; overlay::STATE_BYTES];
    overlay::set_units(&mut states, 2, 1, Unit::Data);
    overlay::set_units(&mut states, 3, 1, Unit::Zero);
    overlay::set_units(&mut states, 4, 6, Unit::Data);
    overlay::set_units(&mut states, 10, 1, Unit::Zero);
    let page = overlay::encode_page(&header, 0, 2, 0x1122_3344, &states);
    assert_eq!(page[..], expected);
    assert_eq!(overlay::parse_slot(&header, 0, &page), Slot::Good { generation: 2, states: &states });
}

#[test]
fn held_log() {
    let expected = bytes(
        "53 57 41 52 4d 48 4c 44   # magic: SWARMHLD
         01 00 00 00               # version 1
         04 00 00 00               # the image has 4 pieces
         {image}
         {zeros 12}
         cb 39 21 70               # CRC32 of all before
         03 00 00 00 01 00 00 00   # from piece 3, 1 piece
         00 00 00 00 9f cf e8 79   # record 0: held; CRC32 of image id and record
         00 00 00 00 02 00 00 00   # from piece 0, 2 pieces
         01 00 00 00 e9 7d 45 38   # record 1: held
         01 00 00 00 01 00 00 00   # from piece 1, 1 piece
         02 00 00 80 ab 1a 62 d2   # record 2: lost",
    );
    let mut out = vec![0; expected.len()];
    out[..64].copy_from_slice(&held::header(IMAGE, 4));
    let (mut writer, mut rest) = (HeldWriter::new(IMAGE), &mut out[64..]);
    writer.append(&mut rest, 3, 1, Kind::Held).unwrap();
    writer.append(&mut rest, 0, 2, Kind::Held).unwrap();
    writer.append(&mut rest, 1, 1, Kind::Lost).unwrap();
    assert_eq!(out, expected);
    let mut words = [0];
    assert_eq!(held::replay(&mut &expected[..], IMAGE, 4, &mut words).unwrap().good_count, 3);
    assert_eq!(Bits::new(&words, 4).runs(0).collect::<Vec<_>>(), [(0, 1), (3, 1)]);
}

#[test]
fn profile() {
    let expected = bytes(
        "53 57 41 52 4d 50 52 46   # magic: SWARMPRF
         02 00                     # version 2
         03 00                     # merged from 3 runs
         {image}
         04 00 00 00               # 4 entries
         02                        # 2 groups
         {zeros 7}
         02 00                     # the first of 2 runs
         01 00                     # the second of 1
         00 00 ff ff               # chunk 0 (the next), at once, in all runs
         00 ac 02 ff 00            # chunk 1 (the next), 300 ms later, in all runs of the first group
         cc 0f 00 80 00            # chunk 1000 (998 further), 0 ms later, in half of them
         cd 0f dc 24 00 ff         # chunk 2 (999 back), 4700 ms later, in the second group
         5c 3f ec 08               # CRC32 of all before",
    );
    let g = Geometry::new(1 << 30, 16).unwrap();
    let entry = |chunk, at_millis, of_groups: [u8; 2]| {
        let mut entry = ProfileEntry::single(g.chunk(chunk).unwrap(), at_millis, of_groups[0]);
        entry.probabilities[1] = of_groups[1];
        entry
    };
    let entries =
        [entry(0, 0, [255, 255]), entry(1, 300, [255, 0]), entry(1000, 300, [128, 0]), entry(2, 5000, [0, 255])];
    let mut out = [0; 200];
    let length = profile::encode(IMAGE, &[2, 1], &entries, &mut out).unwrap();
    assert_eq!(out[..length], expected);
    let view = ProfileView::parse(&expected, IMAGE, g).unwrap();
    assert_eq!(view.entries().collect::<Vec<_>>(), entries);
    assert_eq!(view.groups().collect::<Vec<_>>(), [2, 1]);
}

/// Ids are minted by an engine alone; these are read from bytes.
fn id<T: serde::de::DeserializeOwned>(bytes: [u8; 2]) -> T {
    postcard::from_bytes(&bytes).unwrap()
}

fn setup() -> Setup {
    let config = Config {
        limits: Limits::NODE,
        node: NodeId([9; 16]),
        image: IMAGE,
        role: Role::Node,
        listen: Address { ip: [1; 16], port: 7000 },
        locality: Locality { zone: 1, rack: 2, host: 0x80 },
        manifest_bytes: 84,
        payload_bytes: 3000,
        profile: Some(Offered { digest: IMAGE, bytes: 300 }),
        teach: true,
        leaves_first: false,
        fill: Fill::Rate(1_000_000),
        seed: 5,
        unsent_bytes_max: 4 << 20,
        tuning: Tuning { batch: Duration::from_millis(50), ..Tuning::DEFAULT },
    };
    let policies = Policies {
        profile_window: Some(300),
        live: Some(LiveSetting { lessons: 8192, window: 300 }),
        sequential_ahead: None,
        order: OrderKind::Owners,
        selector: SelectorKind::ExpectedCompletion,
    };
    Setup { now: Instant::from_micros(10), geometry: Geometry::new(150_000, 16).unwrap(), config, policies }
}

#[test]
fn recording() {
    let expected = bytes(
        "53 57 41 52 4d 52 45 43   # magic: SWARMREC
         04 00 00 00               # version 4
         b9 00                     # 185 bytes follow, and a CRC32
         00                        # what the engine is made of
         0a                        # when: 10 µs
         f0 93 09 10               # image: 150,000 bytes in chunks of 2^16 bytes
         32 80 01 10 80 08         # limits: 50 peers, 128 transfers, 16 requests a peer, 1024 demands
         80 02 80 08 80 02         # 256 contacts, 1024 changes, 256 served
         80 40 01 00               # 8192 touches, with maps, a cache without a bound
         09 09 09 09 09 09 09 09 09 09 09 09 09 09 09 09   # the node's name
         {image}
         00                        # role: node
         01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 d8 36   # listens at port 7000
         01 02 80 01               # stands in zone 0x01, rack 0x02, host 0x80
         54                        # the manifest's length: 84
         b8 17                     # payloads of 3,000 bytes
         01 {image} ac 02          # offers a profile: hash; 300 bytes
         01                        # seeds that learn are told
         00                        # chunks are not kept back until their leaf page is here
         02 c0 84 3d               # fill: at 1,000,000 bytes a second
         05                        # seed
         80 80 80 02               # at most 4 MiB not sent
         20 04 04                  # 32 prefetches, 4 a peer, 4 a seed
         04 80 8c 8d 9e 02 08      # 4 fills; by themselves after 600 s; a queue of 8
         d0 86 03                  # batch: 50 ms
         e0 a7 12                  # hedge: 300 ms
         80 ad e2 04               # timeout: 10 s
         d0 bb 1b                  # patience: 450 ms
         80 ad e2 04               # ping: 10 s
         80 87 a7 0e               # silence: 30 s
         1e                        # 30 links
         01 ac 02                  # a profile, 300 entries ahead
         01 80 40 ac 02            # live learning of 8192 chunks, 300 ahead
         00                        # no sequential readers
         00 00                     # owners; expected completion
         34 08 22 62               # CRC32 from the length on
         14 00                     # 20 bytes
         01 02 ac 02 ff            # an entry of the profile: chunk 2, at 300 ms, in all runs of the first group
         {zeros 15}                # and in none of the others
         bd db 35 7a
         06 00                     # 6 bytes
         02 ac 02 00 00 02         # told at 300 µs: guest 0 wants chunk 2
         d5 ac 55 1f
         03 00                     # 3 bytes
         06 ac 02                  # asked at 300 µs, nothing to do
         b6 63 b3 69",
    );
    let chunk = setup().geometry.chunk(2).unwrap();
    let now = Instant::from_micros(300);
    let records = [
        Record::Made(setup()),
        Record::Foreseen(ProfileEntry::single(chunk, 300, 255)),
        Record::Handled { now, event: Event::Wanted { guest: GuestId(0), chunk } },
        Record::Idle { now },
    ];
    let mut out = recording::start().to_vec();
    for record in &records {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let length = recording::encode(record, &mut bytes).unwrap();
        out.extend_from_slice(&bytes[..length]);
    }
    assert_eq!(out, expected);
    assert_eq!(recording::check_start(expected.first_chunk().unwrap()), Ok(()));
    let mut at = recording::START_BYTES;
    for record in records {
        let Ok(Decoded::Record { record: read, consumed }) = recording::decode(&expected[at..]) else { panic!() };
        assert_eq!(read, record);
        at += consumed;
    }
}

/// A record's payload, and back.
fn payload(record: &Record<'_>, expected: &str) {
    let mut out = [0; RECORD_BYTES_MAX];
    let length = recording::encode(record, &mut out).unwrap();
    assert_eq!(out[2..length - 4], bytes(expected), "{record:?}");
    assert_eq!(recording::decode(&out), Ok(Decoded::Record { record: record.clone(), consumed: length }));
}

#[test]
fn recorded_events() {
    let (peer, slot, upload): (PeerId, SlotId, UploadId) = (id([1, 2]), id([3, 4]), id([5, 6]));
    let g = setup().geometry;
    let (guest, chunk, leaf, piece) = (GuestId(0), g.chunk(2).unwrap(), g.leaf(0).unwrap(), g.piece(3).unwrap());
    let address = Address { ip: [1; 16], port: 7000 };
    let contact = "07 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 d8 36 01 # address, port; a seed";
    for (event, expected) in [
        (Event::Wanted { guest, chunk }, "00 00 02 # guest, chunk"),
        (Event::Released { guest, chunk }, "01 00 02"),
        (Event::LeafWanted { leaf }, "02 00"),
        (Event::LeafReleased { leaf }, "03 00"),
        (Event::Touched { guest, chunk }, "04 00 02"),
        (Event::Held { first: piece, count: 1 }, "05 03 01 # from piece 3, 1 piece"),
        (Event::PieceLost { piece }, "06 03"),
        (Event::ContactFound { address, seed: true }, contact),
        (Event::PeerOpened { peer, credit_bytes: 300 }, "08 01 02 ac 02 # row, generation; 300 bytes"),
        (Event::PeerClosed { peer }, "09 01 02"),
        (Event::PeerWritable { peer, bytes: 300 }, "0a 01 02 ac 02"),
        (Event::BodyLanded { slot }, "0b 03 04"),
        (Event::BodyVerified { slot, verdict: Verdict::Genuine }, "0c 03 04 00"),
        (Event::BodyVerified { slot, verdict: Verdict::Corrupt }, "0c 03 04 01"),
        (Event::BodyVerified { slot, verdict: Verdict::Unable }, "0c 03 04 02"),
        (Event::BodyStored { slot }, "0d 03 04"),
        (Event::StoreFailed { slot }, "0e 03 04"),
        (Event::Loaded { upload, bytes: 300 }, "0f 05 06 ac 02"),
        (Event::ProfileOffered { profile: None }, "10 00"),
        (Event::ProfileOffered { profile: Some(Offered { digest: IMAGE, bytes: 300 }) }, "10 01 {image} ac 02"),
    ] {
        let now = Instant::from_micros(300);
        payload(&Record::Handled { now, event }, &format!("02 ac 02 {expected}"));
    }
}

#[test]
fn recorded_answers() {
    let (peer, slot, upload): (PeerId, SlotId, UploadId) = (id([1, 2]), id([3, 4]), id([5, 6]));
    let (now, piece) = (Instant::from_micros(300), setup().geometry.piece(3).unwrap());
    let address = Address { ip: [1; 16], port: 7000 };
    let admitted = "03 ac 02 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 d8 36 ac 02 # credit: 300 bytes";
    for (peer, expected) in [(None, "00"), (Some(peer), "01 01 02")] {
        payload(&Record::Admitted { now, address, credit_bytes: 300, peer }, &format!("{admitted}\n{expected}"));
    }
    for (answer, expected) in [
        (Heard::NeedMore { bytes: 300 }, "00 ac 02"),
        (Heard::Head(Landing::None), "01 00"),
        (Heard::Head(Landing::Land { slot, bytes: 300 }), "01 01 03 04 ac 02"),
        (Heard::Head(Landing::Discard { bytes: 300 }), "01 02 ac 02"),
        (Heard::Failed(PeerError::Malformed(WireError::Malformed)), "02 00 00"),
        (Heard::Failed(PeerError::Malformed(WireError::Checksum)), "02 00 01"),
        (Heard::Failed(PeerError::Malformed(WireError::TooBig)), "02 00 02"),
        (Heard::Failed(PeerError::Malformed(WireError::UnknownKind(9))), "02 00 03 09"),
        (Heard::Failed(PeerError::Version(2)), "02 01 02"),
        (Heard::Failed(PeerError::Image), "02 02"),
        (Heard::Failed(PeerError::Unexpected), "02 03"),
        (Heard::Failed(PeerError::OutOfRange), "02 04"),
        (Heard::Failed(PeerError::TooMany), "02 05"),
        (Heard::Failed(PeerError::Bye(Farewell::Version)), "02 06 05"),
    ] {
        let record = Record::Received { now, peer, answer, bytes: &[0xaa, 0xbb] };
        payload(&record, &format!("04 ac 02 01 02 {expected} 02 aa bb # 2 bytes"));
    }
    let blob = Body::Blob { kind: BlobKind::Profile, offset: 300, bytes: 300 };
    for (action, expected) in [
        (Action::Dial { peer, address }, "00 01 02 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 d8 36"),
        (Action::Hangup { peer, reason: Reason::Crowded }, "01 01 02 03"),
        (Action::Transmit { peer, head_bytes: 2, body: None }, "02 01 02 02 00"),
        (Action::Transmit { peer, head_bytes: 2, body: Some(Body::Piece(piece)) }, "02 01 02 02 01 00 03"),
        (Action::Transmit { peer, head_bytes: 2, body: Some(blob) }, "02 01 02 02 01 01 01 ac 02 ac 02"),
        (Action::Load { upload, piece }, "03 05 06 03"),
        (Action::Verify { slot, piece }, "04 03 04 03"),
        (Action::Deliver { slot, piece }, "05 03 04 03"),
        (Action::Store { slot, piece }, "06 03 04 03"),
        (Action::Abandon { slot }, "07 03 04"),
    ] {
        let is_sent = matches!(action, Action::Transmit { .. });
        let (head, hex): (&[u8], _) = if is_sent { (&[0xaa, 0xbb], "02 aa bb # 2 bytes") } else { (&[], "00") };
        payload(&Record::Polled { now, action, head }, &format!("05 ac 02 {expected} {hex}"));
    }
}
