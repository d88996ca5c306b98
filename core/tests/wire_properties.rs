//! The wire against all that a peer, friendly or not, can send.

use proptest::prelude::*;
use swarmdisk_core::ids::{Address, Digest, NodeId};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::wire::*;

/// Numbers from which a frame of any kind is made.
#[derive(Debug, Clone)]
struct Shape {
    kind: Option<Kind>,
    unknown: u8,
    small: [u16; 3],
    large: [u32; 3],
    long: u64,
    id: [u8; 32],
    list: Vec<u8>,
}

impl Shape {
    fn frame(&self) -> Frame<'_> {
        let Self { small, large, long, list, .. } = self;
        let digest = Digest(self.id);
        let node = NodeId(*self.id.first_chunk().unwrap());
        let address = Address { ip: *self.id.last_chunk().unwrap(), port: small[0] };
        let run = Run { first: large[0], count: small[1] };
        let body_bytes = large[1] % (BODY_BYTES_MAX + 1);
        let range = BlobRange { digest, total_bytes: large[0], offset: large[2], bytes: body_bytes };
        let hello = || Hello {
            version: small[1],
            features: *long,
            image: digest,
            node,
            listen: address,
            role: [Role::Node, Role::Seed][usize::from(small[2]) % 2],
            requests_max: small[2],
            locality: Locality { zone: large[0], rack: large[1], host: large[2] },
        };
        let classes = [Class::Demand, Class::Prefetch, Class::Fill];
        use Farewell::*;
        let farewells = [Leaving, Duplicate, Crowded, Misbehaved, UnknownImage, Version];
        let Some(kind) = self.kind else { return Frame::Unknown(self.unknown) };
        match kind {
            Kind::Hello => Frame::Hello(hello()),
            Kind::Bye => Frame::Bye(farewells[usize::from(small[0]) % 6]),
            Kind::Ping => Frame::Ping(*long),
            Kind::Pong => Frame::Pong(*long),
            Kind::Map => Frame::Map(Map { first: large[0], count: large[1], runs: list }),
            Kind::Have => Frame::Have(Pieces { runs: list }),
            Kind::Lost => Frame::Lost(Pieces { runs: list }),
            Kind::Request => Frame::Request(Request {
                run,
                class: classes[usize::from(small[0]) % 3],
                insist: small[2] % 2 == 1,
                raise: small[2] & 2 != 0,
                due_millis: large[1],
            }),
            Kind::Cancel => Frame::Cancel(run),
            Kind::Data => Frame::Data(Data { piece: large[0], bytes: body_bytes }),
            Kind::Busy => Frame::Busy(Busy { run, retry_millis: small[0] }),
            Kind::Refuse => Frame::Refuse(run),
            Kind::Redirect => Frame::Redirect(Redirect { run, node, address }),
            Kind::Peers => {
                let (addresses, localities) = list.split_at(list.len() / 2);
                Frame::Peers(Peers { addresses, localities })
            }
            Kind::Offer => Frame::Offer(Offer { kind: self.unknown, digest, bytes: large[1] }),
            Kind::BlobRequest => Frame::BlobRequest(range),
            Kind::Blob => Frame::Blob(range),
            Kind::BlobRefuse => Frame::BlobRefuse(digest),
            Kind::BlobRedirect => Frame::BlobRedirect(BlobRedirect { digest, address }),
            Kind::Touched => Frame::Touched(Touched { age_millis: large[0], touches: list }),
        }
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = vec![0; HEAD_BYTES_MAX];
        let length = encode(&self.frame(), &mut out).expect("every shape fits");
        out.truncate(length);
        out
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let unknown = any::<u8>().prop_filter("a known kind", |kind| Kind::from_number(*kind).is_none());
    let kind = prop::option::weighted(0.95, prop::sample::select(Kind::ALL));
    let list = prop::collection::vec(any::<u8>(), 0..=LIST_BYTES_MAX);
    (kind, unknown, any::<[u16; 3]>(), any::<[u32; 3]>(), any::<u64>(), any::<[u8; 32]>(), list)
        .prop_map(|(kind, unknown, small, large, long, id, list)| Shape { kind, unknown, small, large, long, id, list })
}

/// Bytes with a right checksum, so that what lies behind it is tested too.
fn sealed(kind: u8, flags: u8, body_bytes: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u16).to_le_bytes().to_vec();
    out.extend([kind, flags]);
    if flags & 2 != 0 {
        out.extend(body_bytes.to_le_bytes());
    }
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

fn refused(bytes: &[u8]) -> WireError {
    decode(bytes).expect_err("a peer's fault")
}

/// Walks all that a frame lists, as a receiver would.
fn walk(frame: &Frame<'_>) {
    let (bytes, limit) = match frame {
        Frame::Map(map) => (map.runs, map.first.saturating_add(map.count)),
        Frame::Have(pieces) | Frame::Lost(pieces) => (pieces.runs, 1 << 20),
        Frame::Peers(peers) => {
            let count = unpack_addresses(peers.addresses).map(|addresses| addresses.len());
            assert_eq!(count.ok(), (peers.addresses.len() % 18 == 0).then_some(peers.addresses.len() / 18));
            let count = unpack_localities(peers.localities).map(|localities| localities.len());
            assert_eq!(count.ok(), (peers.localities.len() % 12 == 0).then_some(peers.localities.len() / 12));
            return;
        }
        Frame::Touched(touched) => {
            let count = decode_touches(touched.touches, 1 << 20).count();
            assert!(count <= touched.touches.len() / 2 + 1);
            return;
        }
        _ => return,
    };
    assert!(decode_runs(bytes, 0, limit).count() <= bytes.len() / 2 + 1);
}

proptest! {
    #[test]
    fn any_frame_round_trips(shape in shapes(), behind in prop::collection::vec(any::<u8>(), 0..40)) {
        let frame = shape.frame();
        let bytes = shape.encoded();
        let consumed = bytes.len();
        let body_bytes = match frame {
            Frame::Data(data) => data.bytes,
            Frame::Blob(range) => range.bytes,
            _ => 0,
        };
        let stream = [bytes, behind].concat();
        prop_assert_eq!(decode(&stream), Ok(Decoded::Frame { frame, consumed, body_bytes }));
    }

    #[test]
    fn any_prefix_needs_more_and_says_how_much(shape in shapes()) {
        let bytes = shape.encoded();
        for length in 0..bytes.len() {
            let wanted = if length < 4 { 4 } else { bytes.len() };
            prop_assert_eq!(decode(&bytes[..length]), Ok(Decoded::NeedMore { bytes: wanted }));
        }
    }

    #[test]
    fn a_short_buffer_is_full(shape in shapes(), cut in any::<prop::sample::Index>()) {
        let mut out = vec![0; cut.index(shape.encoded().len())];
        prop_assert_eq!(encode(&shape.frame(), &mut out), Err(Full));
    }

    /// A length that has grown may ask for more instead; given more, it fails like the rest.
    #[test]
    fn a_flipped_bit_is_noticed(shape in shapes(), at in any::<prop::sample::Index>(), filler in any::<u8>()) {
        let mut bytes = shape.encoded();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let is_frame = matches!(decode(&bytes), Ok(Decoded::Frame { .. }));
        prop_assert!(!is_frame);
        bytes.resize(bytes.len() + HEAD_BYTES_MAX, filler);
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..2 * HEAD_BYTES_MAX)) {
        match decode(&bytes) {
            Ok(Decoded::NeedMore { bytes: wanted }) => {
                prop_assert!(wanted > bytes.len() && wanted <= HEAD_BYTES_MAX);
            }
            Ok(Decoded::Frame { consumed, .. }) => prop_assert!(consumed <= bytes.len()),
            Err(_) => {}
        }
    }

    #[test]
    fn no_sealed_bytes_do_harm(
        kind in prop_oneof![4 => prop::sample::select(Kind::ALL).prop_map(Kind::number), 1 => any::<u8>()],
        flags in 0u8..4,
        body_bytes in 0..=BODY_BYTES_MAX + 1,
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            prop::collection::vec(0u8..3, 0..100),
            prop::collection::vec(any::<u8>(), 0..=PAYLOAD_BYTES_MAX),
        ],
    ) {
        let bytes = sealed(kind, flags, body_bytes, &payload);
        match decode(&bytes) {
            Ok(Decoded::NeedMore { .. }) => prop_assert!(false, "it is whole"),
            Ok(Decoded::Frame { frame, consumed, body_bytes: landed }) => {
                prop_assert_eq!(consumed, bytes.len());
                prop_assert_eq!(landed, if flags & 2 != 0 { body_bytes } else { 0 });
                walk(&frame);
                if !matches!(frame, Frame::Unknown(_)) {
                    let mut again = [0; HEAD_BYTES_MAX];
                    let length = encode(&frame, &mut again).unwrap();
                    prop_assert_eq!(
                        decode(&again[..length]),
                        Ok(Decoded::Frame { frame, consumed: length, body_bytes: landed })
                    );
                }
            }
            Err(WireError::UnknownKind(unknown)) => prop_assert!(unknown == kind && flags & 1 == 0),
            Err(WireError::TooBig) => prop_assert!(body_bytes > BODY_BYTES_MAX),
            Err(WireError::Malformed) => prop_assert!(Kind::from_number(kind).is_some()),
            Err(WireError::Checksum) => prop_assert!(false, "it was right"),
        }
    }
}

#[test]
fn bounds_are_kept_from_both_sides() {
    let long = [0; PAYLOAD_BYTES_MAX + 1];
    let mut out = [0; 2 * HEAD_BYTES_MAX];
    let most = PAYLOAD_BYTES_MAX - 2;
    let have = |length| Frame::Have(Pieces { runs: &long[..length] });
    assert_eq!(encode(&have(most), &mut out), Ok(HEAD_BYTES_MAX - 4));
    assert_eq!(encode(&have(most + 1), &mut out), Err(Full), "even with room in the buffer");
    let too_much = Data { piece: 0, bytes: BODY_BYTES_MAX + 1 };
    assert_eq!(encode(&Frame::Data(too_much), &mut out), Err(Full));
    assert_eq!(encode(&Frame::Unknown(Kind::Ping.number()), &mut out), Err(Full));

    assert_eq!(refused(&sealed(Kind::Have.number(), 0, 0, &long)[..4]), WireError::TooBig, "known from the header");
    assert_eq!(refused(&sealed(Kind::Data.number(), 2, BODY_BYTES_MAX + 1, &[0])), WireError::TooBig);
    assert_eq!(refused(&sealed(0xF1, 3, BODY_BYTES_MAX + 1, &[])), WireError::TooBig);
}

#[test]
fn lists_fit_into_every_frame_that_has_one() {
    let mut out = [0; HEAD_BYTES_MAX];
    let list = &[0; LIST_BYTES_MAX];
    let map = Map { first: u32::MAX, count: u32::MAX, runs: list };
    assert_eq!(encode(&Frame::Map(map), &mut out), Ok(HEAD_BYTES_MAX - 4));
    assert!(encode(&Frame::Touched(Touched { age_millis: u32::MAX, touches: list }), &mut out).is_ok());
    let mut packed = [0; 2 * LIST_BYTES_MAX];
    let used = pack_addresses((0..1000).map(|port| Address { ip: [7; 16], port }), &mut packed);
    assert_eq!(used, LIST_BYTES_MAX, "66 addresses, to the byte");
    assert!(encode(&Frame::Peers(Peers { addresses: &packed[..used], localities: &[] }), &mut out).is_ok());
    assert_eq!(unpack_addresses(&packed[..used]).unwrap().last(), Some(Address { ip: [7; 16], port: 65 }));
    assert!(unpack_addresses(&packed[..17]).is_err());
}

#[test]
fn faults_have_their_names() {
    let ping = Kind::Ping.number();
    for flags in [4, 8, 16, 32, 64, 128, 255] {
        assert_eq!(refused(&sealed(ping, flags, 0, &[7])), WireError::Malformed, "reserved flags {flags}");
    }
    assert_eq!(refused(&sealed(ping, 2, 0, &[7])), WireError::Malformed, "a body where none may be");
    assert_eq!(refused(&sealed(Kind::Data.number(), 0, 0, &[7])), WireError::Malformed, "no body where one must be");
    assert_eq!(refused(&sealed(ping, 0, 0, &[7, 7])), WireError::Malformed, "bytes left over");
    assert_eq!(refused(&sealed(ping, 0, 0, &[])), WireError::Malformed, "bytes missing");
    assert_eq!(refused(&sealed(Kind::Bye.number(), 0, 0, &[6])), WireError::Malformed, "no such reason");
    let blob = [&[0xA0; 32][..], &[9, 0, 5]].concat();
    assert!(decode(&sealed(Kind::Blob.number(), 2, 5, &blob)).is_ok());
    assert_eq!(refused(&sealed(Kind::Blob.number(), 2, 4, &blob)), WireError::Malformed, "two lengths for a body");
    assert_eq!(refused(&sealed(0xF1, 0, 0, &[])), WireError::UnknownKind(0xF1));
    let mut wrong = sealed(ping, 0, 0, &[7]);
    wrong[4] = 8;
    assert_eq!(refused(&wrong), WireError::Checksum);
}

#[test]
fn unknown_kinds_are_skipped_with_their_body() {
    let skipped = Decoded::Frame { frame: Frame::Unknown(0xF1), consumed: 15, body_bytes: 9 };
    assert_eq!(decode(&sealed(0xF1, 3, 9, &[1, 2, 3])), Ok(skipped));
    let known = Decoded::Frame { frame: Frame::Ping(7), consumed: 9, body_bytes: 0 };
    assert_eq!(decode(&sealed(Kind::Ping.number(), 1, 0, &[7])), Ok(known), "the flag says nothing of a known kind");
}
