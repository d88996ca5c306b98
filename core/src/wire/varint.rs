//! Unsigned LEB128 of 32-bit numbers, for the lists within frames.
//!
//! *Invariants*: one number, one form: what is longer than needed is refused. *Bounds*: 1 to 5 bytes.

/// Longest form, in bytes.
#[cfg(test)]
const BYTES_MAX: usize = 5;

/// Length of `value` in bytes.
pub(super) const fn len(value: u32) -> usize {
    (32 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Writes `value` to the front of `out` and returns its length; `None` and nothing written if it does not fit.
pub(super) fn write(mut value: u32, out: &mut [u8]) -> Option<usize> {
    let target = out.get_mut(..len(value))?;
    let last = target.len() - 1;
    for byte in &mut target[..last] {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    target[last] = value as u8;
    Some(last + 1)
}

/// Reads the number at the front; `None` if it is cut off, over 32 bits or longer than needed.
pub(super) fn read(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0;
    let mut shift = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let low = u32::from(byte & 0x7F);
        if shift == 28 && byte > 0x0F {
            return None;
        }
        value |= low << shift;
        if byte < 0x80 {
            return if byte == 0 && at > 0 { None } else { Some((value, &bytes[at + 1..])) };
        }
        shift += 7;
    }
    None
}

/// Folds the sign into bit 0, so that small numbers of either sign are short.
pub(super) const fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

/// The inverse of [`zigzag`].
pub(super) const fn unzigzag(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_round_trip() {
        for value in (0..32).flat_map(|bit| [(1u32 << bit) - 1, 1 << bit]).chain([u32::MAX]) {
            let mut out = [0; BYTES_MAX];
            let used = write(value, &mut out).unwrap();
            assert_eq!(used, len(value));
            assert_eq!(read(&out[..used]), Some((value, &[][..])));
            assert_eq!(read(&out[..used - 1]), None);
            assert_eq!(write(value, &mut out[..used - 1]), None);
            assert_eq!(zigzag(unzigzag(value)), value);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        assert_eq!(read(&[0x80, 0x00]), None, "padded");
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0xFF, 0x1F]), None, "33 bits");
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), None, "six bytes");
    }

    #[test]
    fn signs_alternate() {
        assert_eq!([0, -1, 1, -2, i32::MAX, i32::MIN].map(zigzag), [0, 1, 2, 3, u32::MAX - 1, u32::MAX]);
    }
}
