//! What a disk says of itself: INQUIRY with its pages, READ CAPACITY, REPORT LUNS.

use super::sense::Sense;
use super::{BLOCK_BYTES, COMPARE_BLOCKS_MAX, Facts, GRANULE_BLOCKS, RANGES_MAX, SAME_BLOCKS_MAX, TRANSFER_BLOCKS_MAX};

const VENDOR: &[u8; 8] = b"SWARMDSK";
const PRODUCT: &[u8; 16] = b"swarmdisk       ";
const REVISION: &[u8; 4] = b"0001";
/// Of no device at all: what other logical units are.
pub(in crate::iscsi) const NO_DEVICE: u8 = 0x7f;

/// Version descriptors: SAM-5, iSCSI, SPC-4, SBC-3.
const VERSIONS: [u16; 4] = [0x00a0, 0x0960, 0x0460, 0x04c0];

/// Pages of vital product data.
const SUPPORTED: u8 = 0x00;
const SERIAL: u8 = 0x80;
const IDENTIFICATION: u8 = 0x83;
const BLOCK_LIMITS: u8 = 0xb0;
const CHARACTERISTICS: u8 = 0xb1;
const PROVISIONING: u8 = 0xb2;
const PAGES: [u8; 6] = [SUPPORTED, SERIAL, IDENTIFICATION, BLOCK_LIMITS, CHARACTERISTICS, PROVISIONING];

/// Standard data.
pub(in crate::iscsi) fn standard() -> Vec<u8> {
    let mut data = vec![0; 96];
    data[2] = 0x06; // SPC-4
    data[3] = 0x12; // LUNs may be hierarchical; format of data
    data[4] = 96 - 5;
    data[7] = 0x02; // many commands at a time
    data[8..16].copy_from_slice(VENDOR);
    data[16..32].copy_from_slice(PRODUCT);
    data[32..36].copy_from_slice(REVISION);
    for (place, version) in data[58..].chunks_exact_mut(2).zip(VERSIONS) {
        place.copy_from_slice(&version.to_be_bytes());
    }
    data
}

/// A page of vital product data.
///
/// # Errors
/// There is no such page.
pub(in crate::iscsi) fn page(page: u8, facts: &Facts) -> Result<Vec<u8>, Sense> {
    let body = match page {
        SUPPORTED => PAGES.to_vec(),
        SERIAL => facts.serial.as_bytes().to_vec(),
        IDENTIFICATION => identification(facts),
        BLOCK_LIMITS => block_limits(facts),
        CHARACTERISTICS => {
            let mut body = vec![0; 60];
            body[1] = 1; // it does not rotate
            body
        }
        PROVISIONING if facts.is_writable => vec![0, 0xe4, 0x02, 0], // UNMAP, WRITE SAME 16 and 10; zeros then; thin
        PROVISIONING => vec![0; 4],
        _ => return Err(Sense::INVALID_FIELD),
    };
    let mut data = vec![0, page];
    data.extend((body.len() as u16).to_be_bytes());
    data.extend(body);
    Ok(data)
}

fn identification(facts: &Facts) -> Vec<u8> {
    let mut body = Vec::new();
    let mut push = |kind: [u8; 2], id: &[u8]| {
        body.extend([kind[0], kind[1], 0, id.len() as u8]);
        body.extend_from_slice(id);
    };
    // NAA, locally assigned; vendor and serial; names: of the unit, then of the port.
    let naa = 3 << 60 | facts.id >> 4;
    push([0x01, 0x03], &naa.to_be_bytes());
    push([0x02, 0x01], &[VENDOR, facts.serial.as_bytes()].concat());
    push([0x53, 0x08], &name(&format!("{},L,0x{:016x}", facts.iqn, naa)));
    push([0x51, 0x94], &[0, 0, 0, 1]);
    push([0x53, 0x98], &name(&format!("{},t,0x0001", facts.iqn)));
    body
}

/// Text that ends in zeros, a multiple of four bytes.
fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    bytes
}

fn block_limits(facts: &Facts) -> Vec<u8> {
    let mut page = vec![0; 64];
    let mut put = |at: usize, value: u32| page[at..at + 4].copy_from_slice(&value.to_be_bytes());
    put(4, GRANULE_BLOCKS); // granularity of transfers
    put(8, TRANSFER_BLOCKS_MAX);
    put(12, facts.preferred_blocks);
    if facts.is_writable {
        put(20, SAME_BLOCKS_MAX);
        put(24, RANGES_MAX as u32);
        put(28, GRANULE_BLOCKS);
        put(32, 0x8000_0000); // aligned to the first block
        put(40, SAME_BLOCKS_MAX);
        page[5] = COMPARE_BLOCKS_MAX;
    }
    page.split_off(4)
}

/// READ CAPACITY (10): of a disk that is too large for it, as many as it can say.
pub(in crate::iscsi) fn capacity_10(facts: &Facts) -> Vec<u8> {
    let last = u32::try_from(facts.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    [last.to_be_bytes(), (BLOCK_BYTES as u32).to_be_bytes()].concat()
}

/// READ CAPACITY (16).
pub(in crate::iscsi) fn capacity_16(facts: &Facts) -> Vec<u8> {
    let mut data = vec![0; 32];
    data[..8].copy_from_slice(&facts.blocks.saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&(BLOCK_BYTES as u32).to_be_bytes());
    data[13] = facts.physical_shift;
    data[14] = if facts.is_writable { 0xc0 } else { 0 }; // can be trimmed, and is zeros then
    data
}

/// REPORT LUNS: the one there is, unless only well-known ones are asked for.
///
/// # Errors
/// What is asked for has no meaning.
pub(in crate::iscsi) fn luns(select: u8) -> Result<Vec<u8>, Sense> {
    let count = match select {
        0x00 | 0x02 => 1,
        0x01 => 0,
        _ => return Err(Sense::INVALID_FIELD),
    };
    let mut data = vec![0; 8 + 8 * count];
    data[3] = 8 * count as u8;
    Ok(data)
}
