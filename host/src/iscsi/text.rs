//! Keys and values: the text of logins and text requests (RFC 7143, section 6.1).
//!
//! *Invariants*: what is not text of this form is refused whole. *Bounds*: [`TEXT_BYTES_MAX`] of text, [`PAIRS_MAX`] pairs.

/// Longest text of one negotiation, in bytes, over however many units.
pub(super) const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most pairs in it.
const PAIRS_MAX: usize = 128;
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 63;

/// The pairs of a text, in its order; none if it is no such text.
pub(super) fn pairs(text: &[u8]) -> Option<Vec<(&str, &str)>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut pairs = Vec::new();
    for pair in text.split('\0').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX || pairs.len() == PAIRS_MAX {
            return None;
        }
        pairs.push((key, value));
    }
    Some(pairs)
}

/// The value of a key.
pub(super) fn value<'a>(pairs: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|pair| pair.0 == key).map(|pair| pair.1)
}

/// Appends a pair.
pub(super) fn push(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// A number as it may be written: decimal, or hexadecimal after `0x`.
pub(super) fn number(value: &str) -> Option<u32> {
    match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    }
}

/// Bytes as they may be written: hexadecimal after `0x`, base64 after `0b`.
pub(super) fn binary(value: &str) -> Option<Vec<u8>> {
    let (kind, digits) = value.split_at_checked(2)?;
    match kind {
        "0x" | "0X" => hex(digits),
        "0b" | "0B" => base64(digits),
        _ => None,
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let odd = digits.len() % 2;
    let nibbles: Vec<u8> = std::iter::repeat_n('0', odd)
        .chain(digits.chars())
        .map(|digit| digit.to_digit(16).map(|nibble| nibble as u8))
        .collect::<Option<_>>()?;
    Some(nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// RFC 4648, section 4.
fn base64(digits: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.trim_end_matches('=').bytes() {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// Bytes in hexadecimal, after `0x`.
pub(super) fn to_binary(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_read() {
        let found = pairs(b"A=1\0B=x=y\0\0").unwrap();
        assert_eq!(found, [("A", "1"), ("B", "x=y")]);
        assert_eq!((value(&found, "B"), value(&found, "C")), (Some("x=y"), None));
        assert!(pairs(b"A").is_none() && pairs(b"=1\0").is_none() && pairs(b"\xff=1\0").is_none());
        assert!(pairs(&b"A=1\0".repeat(PAIRS_MAX + 1)).is_none());
    }

    #[test]
    fn numbers_and_bytes_are_read() {
        assert_eq!((number("0x10"), number("16"), number("-1"), number("")), (Some(16), Some(16), None, None));
        assert_eq!(binary("0xfF01"), Some(vec![255, 1]));
        assert_eq!(binary("0xf01"), Some(vec![15, 1]));
        assert_eq!(binary("0bZm9vYmE="), Some(b"fooba".to_vec()));
        assert!(binary("0xg0").is_none() && binary("0b*").is_none() && binary("ff").is_none() && binary("é").is_none());
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,20}") {
            let _ = pairs(&bytes);
            let _ = (binary(&text), number(&text), binary(&format!("0b{text}")), binary(&format!("0x{text}")));
        }

        #[test]
        fn bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(binary(&to_binary(&bytes)), Some(bytes));
        }
    }
}
