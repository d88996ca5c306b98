//! The formats' bytes, fixed: whoever changes what these say changes the format, and raises its version.

use swarmdisk_core::bitmap::Bits;
use swarmdisk_core::format::held::{self, HeldWriter, Kind};
use swarmdisk_core::format::leaf::{self, LeafEntry, LeafView};
use swarmdisk_core::format::manifest::{Codec, Layout, ManifestView};
use swarmdisk_core::format::profile::{self, ProfileEntry, ProfileView};
use swarmdisk_core::format::superblock::{SUPERBLOCK_BYTES, Superblock};
use swarmdisk_core::geometry::Geometry;
use swarmdisk_core::ids::Digest;

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
         01 00                     # version 1
         03 00                     # merged from 3 runs
         {image}
         04 00 00 00               # 4 entries
         {zeros 8}
         00 00 ff                  # chunk 0 (the next), at once, in all runs
         00 ac 02 ff               # chunk 1 (the next), 300 ms later, in all runs
         cc 0f 00 80               # chunk 1000 (998 further), 0 ms later, in half of them
         cd 0f dc 24 55            # chunk 2 (999 back), 4700 ms later, in a third
         5f 57 fc 13               # CRC32 of all before",
    );
    let g = Geometry::new(1 << 30, 16).unwrap();
    let entry = |chunk, at_millis, probability| ProfileEntry { chunk: g.chunk(chunk).unwrap(), at_millis, probability };
    let entries = [entry(0, 0, 255), entry(1, 300, 255), entry(1000, 300, 128), entry(2, 5000, 85)];
    let mut out = [0; 200];
    let length = profile::encode(IMAGE, 3, &entries, &mut out).unwrap();
    assert_eq!(out[..length], expected);
    let view = ProfileView::parse(&expected, IMAGE, g).unwrap();
    assert_eq!(view.entries().collect::<Vec<_>>(), entries);
}
