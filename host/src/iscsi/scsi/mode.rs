//! MODE SENSE and MODE SELECT: how the disk works. All that can be changed of it is whether it is write-protected (SWP).

use super::sense::Sense;
use super::{BLOCK_BYTES, Facts};

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const EXCEPTIONS: u8 = 0x1c;
const CODES: [u8; 3] = [CACHING, CONTROL, EXCEPTIONS];
const ALL: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// What of a page is asked for.
const CHANGEABLE: u8 = 1;
const DEFAULT: u8 = 2;
const SAVED: u8 = 3;

/// Where the control page has SWP, behind its two first bytes.
const SWP_AT: usize = 2;
const SWP: u8 = 0x08;

/// What MODE SENSE asks for.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(in crate::iscsi) struct Asked {
    pub is_long: bool,
    pub without_descriptor: bool,
    pub control: u8,
    pub page: u8,
    pub subpage: u8,
}

/// The pages that are asked for, with a header, and a block descriptor if wished.
///
/// # Errors
/// There is no such page, or nothing is saved.
pub(in crate::iscsi) fn sense(facts: &Facts, is_protected: bool, asked: Asked) -> Result<Vec<u8>, Sense> {
    if asked.control == SAVED {
        return Err(Sense::NOT_SAVED);
    }
    if asked.subpage != 0 && !(asked.page == ALL && asked.subpage == ALL_SUBPAGES) {
        return Err(Sense::INVALID_FIELD);
    }
    let mut pages = Vec::new();
    for code in CODES.into_iter().filter(|code| asked.page == *code || asked.page == ALL) {
        let body = match asked.control {
            CHANGEABLE => changeable(code, facts),
            DEFAULT => page(code, facts, false),
            _ => page(code, facts, is_protected),
        };
        pages.extend([code, body.len() as u8]);
        pages.extend(body);
    }
    if pages.is_empty() {
        return Err(Sense::INVALID_FIELD);
    }
    let descriptor = if asked.without_descriptor { Vec::new() } else { block_descriptor(facts) };
    // Write-protected or not; DPO and FUA are understood.
    let specific = if facts.is_writable && !is_protected { 0x10 } else { 0x90 };
    let mut data = if asked.is_long {
        let bytes = (6 + descriptor.len() + pages.len()) as u16;
        [&bytes.to_be_bytes()[..], &[0, specific, 0, 0], &(descriptor.len() as u16).to_be_bytes()].concat()
    } else {
        vec![(3 + descriptor.len() + pages.len()) as u8, 0, specific, descriptor.len() as u8]
    };
    data.extend(descriptor);
    data.extend(pages);
    Ok(data)
}

/// What MODE SELECT wants: whether the disk is to be write-protected.
///
/// # Errors
/// The list is cut off, or changes what cannot be changed.
pub(in crate::iscsi) fn select(facts: &Facts, is_protected: bool, is_long: bool, list: &[u8]) -> Result<bool, Sense> {
    let mut wanted = is_protected;
    if list.is_empty() {
        return Ok(wanted);
    }
    let (head, rest) = part(list, if is_long { 8 } else { 4 })?;
    let descriptor_bytes = if is_long { u16::from_be_bytes([head[6], head[7]]) } else { head[3].into() };
    let (descriptor, mut pages) = part(rest, descriptor_bytes.into())?;
    if !descriptor.is_empty() && descriptor != block_descriptor(facts) {
        return Err(Sense::INVALID_PARAMETER);
    }
    while !pages.is_empty() {
        let (head, rest) = part(pages, 2)?;
        let (body, rest) = part(rest, head[1].into())?;
        if !CODES.contains(&head[0]) {
            return Err(Sense::INVALID_PARAMETER);
        }
        let (current, changeable) = (page(head[0], facts, is_protected), changeable(head[0], facts));
        let mut bytes = body.iter().zip(&current).zip(changeable);
        if body.len() != current.len() || bytes.any(|((new, old), may)| (new ^ old) & !may != 0) {
            return Err(Sense::INVALID_PARAMETER);
        }
        if head[0] == CONTROL {
            wanted = body[SWP_AT] & SWP != 0;
        }
        pages = rest;
    }
    Ok(wanted)
}

fn part(list: &[u8], bytes: usize) -> Result<(&[u8], &[u8]), Sense> {
    list.split_at_checked(bytes).ok_or(Sense::PARAMETER_LENGTH)
}

/// Number and length of blocks (SBC-3, section 6.3.2.2).
fn block_descriptor(facts: &Facts) -> Vec<u8> {
    let blocks = u32::try_from(facts.blocks).unwrap_or(u32::MAX);
    [blocks.to_be_bytes(), (BLOCK_BYTES as u32).to_be_bytes()].concat()
}

/// A page without its two first bytes.
fn page(code: u8, facts: &Facts, is_protected: bool) -> Vec<u8> {
    match code {
        // What is written is durable once the cache is synchronized.
        CACHING => {
            let mut body = vec![0; 18];
            body[0] = if facts.is_writable { 0x04 } else { 0 };
            body
        }
        // Commands may be reordered; no mode of waiting after an error.
        CONTROL => {
            let mut body = vec![0; 10];
            body[1] = 0x10;
            body[SWP_AT] = if is_protected { SWP } else { 0 };
            body
        }
        _ => vec![0; 10],
    }
}

/// The bits of a page that can be changed.
fn changeable(code: u8, facts: &Facts) -> Vec<u8> {
    let mut body = vec![0; page(code, facts, false).len()];
    if code == CONTROL && facts.is_writable {
        body[SWP_AT] = SWP;
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(is_writable: bool) -> Facts {
        let (iqn, serial) = (String::new(), String::new());
        Facts { blocks: 0x0102_0304, is_writable, physical_shift: 3, preferred_blocks: 128, iqn, serial, id: 0 }
    }

    fn ask(is_writable: bool, is_protected: bool, control: u8, page: u8) -> Result<Vec<u8>, Sense> {
        let asked = Asked { is_long: false, without_descriptor: false, control, page, subpage: 0 };
        sense(&facts(is_writable), is_protected, asked)
    }

    #[test]
    fn pages_lie_behind_a_head_and_a_descriptor() {
        let data = ask(true, false, 0, CONTROL).unwrap();
        assert_eq!(data[..12], [23, 0, 0x10, 8, 1, 2, 3, 4, 0, 0, 2, 0]);
        assert_eq!(data[12..], [CONTROL, 10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]);
        let all = ask(true, false, 0, ALL).unwrap();
        assert_eq!((all[0] as usize, all[12], all[32], all[44]), (all.len() - 1, CACHING, CONTROL, EXCEPTIONS));
        let asked = Asked { is_long: true, without_descriptor: true, control: 0, page: CACHING, subpage: 0 };
        assert_eq!(sense(&facts(false), false, asked).unwrap()[..11], [0, 26, 0, 0x90, 0, 0, 0, 0, CACHING, 18, 0]);
        assert_eq!(sense(&facts(true), false, asked).unwrap()[..11], [0, 26, 0, 0x10, 0, 0, 0, 0, CACHING, 18, 4]);
        assert_eq!(ask(true, false, SAVED, CONTROL), Err(Sense::NOT_SAVED));
        assert_eq!(ask(true, false, 0, 0x02), Err(Sense::INVALID_FIELD));
    }

    #[test]
    fn write_protection_alone_can_be_changed() {
        for (is_writable, changes) in [(true, SWP), (false, 0)] {
            let changeable = ask(is_writable, false, CHANGEABLE, ALL).unwrap();
            let expected: Vec<u8> = (0..changeable.len() - 12).map(|at| if at == 24 { changes } else { 0 }).collect();
            let bodies: Vec<u8> = (12..changeable.len())
                .map(|at| if [12, 13, 32, 33, 44, 45].contains(&at) { 0 } else { changeable[at] })
                .collect();
            assert_eq!(bodies, expected);
        }
        let facts = facts(true);
        let mut list = ask(true, false, 0, ALL).unwrap();
        assert_eq!(select(&facts, false, false, &list), Ok(false));
        list[36] |= SWP;
        assert_eq!(select(&facts, false, false, &list), Ok(true));
        assert_eq!(select(&self::facts(false), false, false, &list), Err(Sense::INVALID_PARAMETER));
        assert_eq!(select(&facts, false, false, &list[..list.len() - 1]), Err(Sense::PARAMETER_LENGTH));
        for at in 4..list.len() {
            let mut wrong = list.clone();
            wrong[at] ^= 0x01;
            assert!(select(&facts, false, false, &wrong).is_err(), "{at}");
        }
        // What it says then.
        let data = ask(true, true, 0, CONTROL).unwrap();
        assert_eq!((data[2], data[16]), (0x90, SWP));
        assert_eq!(ask(true, true, DEFAULT, CONTROL).unwrap()[16], 0);
        assert_eq!(select(&facts, true, false, &[]), Ok(true));
        assert_eq!(select(&facts, true, true, &[&[0; 8][..], &data[12..16], &[0; 8]].concat()), Ok(false));
    }

    proptest! {
        #[test]
        fn junk_never_panics(list in proptest::collection::vec(any::<u8>(), 0..60), is_long: bool) {
            let _ = select(&facts(true), false, is_long, &list);
        }
    }
}
