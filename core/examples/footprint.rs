//! How much memory an engine needs, for typical images and numbers of peers: `cargo run -p swarmdisk-core --example
//! footprint`.

use swarmdisk_core::engine::{Footprint, Limits};
use swarmdisk_core::geometry::Geometry;

/// What an engine for 100 GiB in chunks of 64 KiB with 50 peers may take.
const TARGET_BYTES: usize = 16 << 20;

const fn need(gib: u64, chunk_kib: u32, limits: Limits) -> Footprint {
    match Geometry::new(gib << 30, 10 + chunk_kib.trailing_zeros() as u8) {
        Ok(geometry) => Footprint::of(geometry, limits),
        Err(_) => panic!("no image is like that"),
    }
}

const _: () = assert!(need(100, 64, Limits::NODE).bytes() <= TARGET_BYTES);

fn main() {
    println!("{:>9} {:>6} {:>6} {:>10} {:>10} {:>10}", "image", "chunk", "peers", "words", "tables", "in all");
    let node = Limits::NODE;
    let firmware = Limits { peers: 8, transfers: 16, demands: 32, contacts: 32, changes: 64, ..node };
    for (gib, chunk_kib, limits) in [
        (4, 64, firmware),
        (10, 64, node),
        (100, 64, node),
        (100, 16, node),
        (100, 256, node),
        (1000, 64, node),
        (100, 64, Limits { peers: 200, ..node }),
        (10, 64, Limits::SEED),
        (100, 64, Limits::SEED),
    ] {
        let need = need(gib, chunk_kib, limits);
        let words = need.words * 8;
        let (tables, all) = (kib(need.bytes() - words), kib(need.bytes()));
        println!("{gib:>5} GiB {chunk_kib:>2} KiB {:>6} {:>10} {tables:>10} {all:>10}", limits.peers, kib(words));
    }
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}
