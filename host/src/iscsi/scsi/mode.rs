//! MODE SENSE: how the disk works. Nothing of it can be changed.

use super::sense::Sense;
use super::{BLOCK_BYTES, Facts};

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const EXCEPTIONS: u8 = 0x1c;
const ALL: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// What of a page is asked for.
const CHANGEABLE: u8 = 1;
const SAVED: u8 = 3;

/// The pages that are asked for, with a header, and a block descriptor if wished.
///
/// # Errors
/// There is no such page, or nothing is saved.
pub(in crate::iscsi) fn sense(
    facts: &Facts,
    is_long: bool,
    with_descriptor: bool,
    control: u8,
    page: u8,
    subpage: u8,
) -> Result<Vec<u8>, Sense> {
    if control == SAVED {
        return Err(Sense::NOT_SAVED);
    }
    if subpage != 0 && !(page == ALL && subpage == ALL_SUBPAGES) {
        return Err(Sense::INVALID_FIELD);
    }
    let mut pages = Vec::new();
    for (code, body) in [(CACHING, caching(facts)), (CONTROL, control_page()), (EXCEPTIONS, vec![0; 10])] {
        if page == code || page == ALL {
            pages.extend([code, body.len() as u8]);
            pages.extend(if control == CHANGEABLE { vec![0; body.len()] } else { body });
        }
    }
    if pages.is_empty() {
        return Err(Sense::INVALID_FIELD);
    }
    let descriptor = if with_descriptor { block_descriptor(facts) } else { Vec::new() };
    // Write-protected or not; DPO and FUA are understood.
    let specific = if facts.is_writable { 0x10 } else { 0x90 };
    let mut data = if is_long {
        let bytes = (6 + descriptor.len() + pages.len()) as u16;
        [&bytes.to_be_bytes()[..], &[0, specific, 0, 0], &(descriptor.len() as u16).to_be_bytes()].concat()
    } else {
        vec![(3 + descriptor.len() + pages.len()) as u8, 0, specific, descriptor.len() as u8]
    };
    data.extend(descriptor);
    data.extend(pages);
    Ok(data)
}

/// Number and length of blocks (SBC-3, section 6.3.2.2).
fn block_descriptor(facts: &Facts) -> Vec<u8> {
    let blocks = u32::try_from(facts.blocks).unwrap_or(u32::MAX);
    [blocks.to_be_bytes(), (BLOCK_BYTES as u32).to_be_bytes()].concat()
}

/// What is written is durable once the cache is synchronized.
fn caching(facts: &Facts) -> Vec<u8> {
    let mut body = vec![0; 18];
    body[0] = if facts.is_writable { 0x04 } else { 0 };
    body
}

/// Commands may be reordered; no mode of waiting after an error.
fn control_page() -> Vec<u8> {
    let mut body = vec![0; 10];
    body[1] = 0x10;
    body
}
