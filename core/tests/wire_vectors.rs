//! The bytes of every kind of frame, asserted both ways: `vectors/wire-v1.txt`, written apart from this code; and what
//! `PROTOCOL.md` says of them.

use std::collections::BTreeMap;
use swarmdisk_core::ids::{Address, Digest, NodeId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::wire::*;

const IMAGE: Digest = Digest(ascending(0xA0));
const PROFILE: Digest = Digest(ascending(0x40));
const NODE: NodeId = NodeId(ascending(0));
const IPV4: Address = Address { ip: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 7], port: 7001 };
const IPV6: Address = Address { ip: [0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], port: 80 };

const fn ascending<const N: usize>(from: u8) -> [u8; N] {
    let mut out = [from; N];
    let mut at = 1;
    while at < N {
        out[at] = out[at - 1] + 1;
        at += 1;
    }
    out
}

const PROTOCOL: &str = include_str!("../PROTOCOL.md");

/// The bytes in a line of hexadecimal, up to its comment.
fn unhex(line: &str) -> impl Iterator<Item = u8> + '_ {
    let digits = line.split('#').next().unwrap().split_whitespace();
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap())
}

/// The sections of the file: name and bytes.
fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let mut sections = BTreeMap::new();
    let mut name = "";
    for line in include_str!("vectors/wire-v1.txt").lines() {
        if let Some(title) = line.strip_prefix("== ") {
            name = title;
            assert!(sections.insert(name, Vec::new()).is_none(), "{name} twice");
            continue;
        }
        if let Some(section) = sections.get_mut(name) {
            section.extend(unhex(line));
        }
    }
    sections
}

/// What the sections say.
fn frames() -> Vec<(&'static str, Frame<'static>)> {
    let hello = Hello {
        version: 1,
        features: 0,
        image: IMAGE,
        node: NODE,
        listen: IPV4,
        role: Role::Seed,
        requests_max: 300,
        locality: Locality::NONE,
    };
    let other_hello = Hello {
        version: u16::MAX,
        features: 1 << 63,
        listen: Address::NONE,
        role: Role::Node,
        requests_max: 16,
        locality: Locality::new(Some("a"), Some("7"), None),
        ..hello
    };
    let request = |first, count, class, insist, raise| {
        Frame::Request(Request {
            run: Run { first, count },
            class,
            insist,
            raise,
            due_millis: if class == Class::Prefetch { 250 } else { 0 },
        })
    };
    let range = BlobRange { digest: IMAGE, total_bytes: 150_000, offset: 131_072, bytes: 18_928 };
    vec![
        ("Hello", Frame::Hello(hello)),
        ("Hello node", Frame::Hello(other_hello)),
        ("Bye", Frame::Bye(Farewell::Leaving)),
        ("Bye duplicate", Frame::Bye(Farewell::Duplicate)),
        ("Bye crowded", Frame::Bye(Farewell::Crowded)),
        ("Bye misbehaved", Frame::Bye(Farewell::Misbehaved)),
        ("Bye unknown image", Frame::Bye(Farewell::UnknownImage)),
        ("Bye version", Frame::Bye(Farewell::Version)),
        ("Ping", Frame::Ping(0x0102_0304_0506_0708)),
        ("Pong", Frame::Pong(5)),
        ("Map", Frame::Map(Map { first: 1000, count: 500, runs: &[0, 10, 90, 0xC8, 0x01] })),
        ("Have", Frame::Have(Pieces { runs: &[7, 1, 0xC8, 0x01, 2] })),
        ("Lost", Frame::Lost(Pieces { runs: &[9, 1] })),
        ("Request", request(1_600_000, 4, Class::Prefetch, false, false)),
        ("Request demand", request(0, 1, Class::Demand, true, false)),
        ("Request raise", request(5, 2, Class::Demand, false, true)),
        ("Request fill", request(1 << 31, 16, Class::Fill, false, false)),
        ("Cancel", Frame::Cancel(Run { first: 127, count: 1 })),
        ("Data", Frame::Data(Data { piece: 65_536, bytes: 20_000 })),
        ("Data zero", Frame::Data(Data { piece: 1, bytes: 0 })),
        ("Data large", Frame::Data(Data { piece: 2, bytes: BODY_BYTES_MAX })),
        ("Busy", Frame::Busy(Busy { run: Run { first: 3, count: 2 }, retry_millis: 250 })),
        ("Refuse", Frame::Refuse(Run { first: 128, count: u16::MAX })),
        ("Redirect", Frame::Redirect(Redirect { run: Run { first: 42, count: 1 }, node: NODE, address: IPV6 })),
        ("Peers", Frame::Peers(Peers { addresses: &PACKED, localities: &[] })),
        ("Peers located", Frame::Peers(Peers { addresses: &PACKED, localities: &LOCATED })),
        ("Offer", Frame::Offer(Offer { kind: 1, digest: PROFILE, bytes: 50_000 })),
        ("Offer manifest", Frame::Offer(Offer { kind: 0, digest: IMAGE, bytes: 2_400 })),
        ("BlobRequest", Frame::BlobRequest(BlobRange { total_bytes: 0, bytes: 65_536, ..range })),
        ("Blob", Frame::Blob(range)),
        ("BlobRefuse", Frame::BlobRefuse(PROFILE)),
        ("BlobRedirect", Frame::BlobRedirect(BlobRedirect { digest: PROFILE, address: IPV6 })),
        ("Touched", Frame::Touched(Touched { age_millis: 12, touches: &[0xC8, 1, 0, 2, 3, 0xA1, 1, 0x96, 1] })),
        ("Unknown", Frame::Unknown(0xF0)),
    ]
}

/// The first stands in rack 7 of zone a, of the other nothing is known.
const LOCATED: [u8; 24] = [
    0x4f, 0x63, 0xa1, 0x64, 0x1e, 0xab, 0xca, 0x5c, 0, 0, 0, 0, // zone, rack, no host
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

const PACKED: [u8; 36] = {
    let mut out = [0; 36];
    let (mut at, pair) = (0, [IPV4, IPV6]);
    while at < 36 {
        let Address { ip, port } = pair[at / 18];
        out[at] = if at % 18 < 16 { ip[at % 18] } else { port.to_be_bytes()[at % 18 - 16] };
        at += 1;
    }
    out
};

#[test]
fn every_vector_holds_both_ways() {
    let mut vectors = vectors();
    for (name, frame) in frames() {
        let wanted = vectors.remove(name).unwrap_or_else(|| panic!("{name} is not in the file"));
        let mut out = [0; HEAD_BYTES_MAX];
        let length = encode(&frame, &mut out).unwrap();
        assert_eq!(out[..length], wanted, "{name}: {:02x?}", &out[..length]);
        let body_bytes = match frame {
            Frame::Data(data) => data.bytes,
            Frame::Blob(range) => range.bytes,
            _ => 0,
        };
        assert_eq!(decode(&wanted), Ok(Decoded::Frame { frame, consumed: length, body_bytes }), "{name}");
        let kind = frame.kind().map_or("Unknown".into(), |kind| format!("{kind:?}"));
        assert_eq!(name.split(' ').next(), Some(kind.as_str()), "a section's first word is its kind");
    }
    assert!(vectors.is_empty(), "sections without a frame: {:?}", vectors.keys());
}

#[test]
fn every_kind_has_a_vector() {
    for kind in Kind::ALL {
        let vector = frames().into_iter().find(|(_, frame)| frame.kind() == Some(*kind));
        assert!(vector.is_some(), "{kind:?} needs a section in vectors/wire-v1.txt");
        assert_eq!(Kind::from_number(kind.number()), Some(*kind));
    }
    for number in [0].into_iter().chain(0xF0..=0xFF) {
        assert_eq!(Kind::from_number(number), None, "{number:#x} is never assigned");
    }
}

#[test]
fn the_document_shows_the_same_bytes() {
    let vectors = vectors();
    let mut shown = 0;
    for block in PROTOCOL.split("```hex ").skip(1) {
        let (name, lines) = block.split("\n```").next().unwrap().split_once('\n').unwrap();
        let bytes: Vec<u8> = lines.lines().flat_map(unhex).collect();
        assert_eq!(Some(&bytes), vectors.get(name), "the example of {name}");
        shown += 1;
    }
    assert!(shown >= 2, "the document has no examples");
    for kind in Kind::ALL {
        let row = format!("| `{:#04x}` | {kind:?} |", kind.number());
        assert!(PROTOCOL.contains(&row), "the table of kinds lacks {row}");
    }
    for link in [LinkKind::Plain, LinkKind::Encrypted] {
        let line = preface(link).map(|byte| format!("{byte:02x}")).join(" ");
        assert!(PROTOCOL.contains(&line), "the preface {line} is missing");
    }
}

#[test]
fn the_sizes_that_the_document_counts_on_are_right() {
    let vectors = vectors();
    let bytes = |name| vectors[name].len();
    assert_eq!((bytes("Request"), bytes("Data")), (17, 15));
    assert!(bytes("Busy") + 2 <= 14, "a Busy, were its piece 16,384 or more");
    assert_eq!(bytes("Have") - 5, 9, "a Have without its runs");
}

#[test]
fn a_link_speaks_the_lower_of_two_versions() {
    assert_eq!(agreed_version(VERSION), Some(VERSION));
    assert_eq!(agreed_version(u16::MAX), Some(VERSION), "the newer side decides whether it can");
    assert_eq!(agreed_version(VERSION_MIN - 1), None);
}

#[test]
fn lists_in_vectors_say_what_their_comments_say() {
    let runs: Vec<_> = decode_runs(&[0, 10, 90, 0xC8, 0x01], 1000, 1500).map(Result::unwrap).collect();
    assert_eq!(runs, [(1000, 10), (1100, 200)]);
    let runs: Vec<_> = decode_runs(&[7, 1, 0xC8, 0x01, 2], 0, 210).map(Result::unwrap).collect();
    assert_eq!(runs, [(7, 1), (208, 2)]);
    let touches: Vec<_> = decode_touches(&[0xC8, 1, 0, 2, 3, 0xA1, 1, 0x96, 1], 102).map(Result::unwrap).collect();
    assert_eq!(touches, [(100, 0), (101, 3), (20, 150)]);
    assert_eq!(unpack_addresses(&PACKED).unwrap().collect::<Vec<_>>(), [IPV4, IPV6]);
    let mut packed = [0; 36];
    assert_eq!((pack_addresses([IPV4, IPV6], &mut packed), packed), (36, PACKED));
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (name, bytes) in vectors() {
        for bit in 0..bytes.len() * 8 {
            // With more bytes behind it, so that a length that has grown finds a "checksum" to fail.
            let mut flipped = [bytes.as_slice(), &[0x5A; HEAD_BYTES_MAX]].concat();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "{name}: bit {bit}");
        }
    }
}

#[test]
fn prefaces_are_told_apart_at_the_first_wrong_byte() {
    assert_eq!(preface(LinkKind::Plain), *b"swarmdk\x00");
    assert_eq!(preface(LinkKind::Encrypted), *b"swarmdk\x01");
    assert_eq!(check_preface(b"swarmdk\x00\x47\x00\x01"), Ok(Preface::Link(LinkKind::Plain)));
    assert_eq!(check_preface(b"swarmdk\x01"), Ok(Preface::Link(LinkKind::Encrypted)));
    for length in 0..8 {
        assert_eq!(check_preface(&b"swarmdk"[..length.min(7)]), Ok(Preface::NeedMore));
        let mut wrong = *b"swarmdk\x00";
        wrong[length] = b'?';
        assert_eq!(check_preface(&wrong[..=length]), Err(ForeignProtocol), "byte {length}");
    }
    assert_eq!(check_preface(b"GET / HTTP/1.1\r\n"), Err(ForeignProtocol));
}
