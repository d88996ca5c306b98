//! What a target and its disk are called.
//!
//! *Invariants*: an image as it is has the same name and identifiers wherever it is attached, as its bytes are the same: to
//! an initiator that reaches it on several nodes these are ways to one disk. One that is written to has its own, lest two
//! overlays be taken for one disk: the same again for the same file on the same machine, another each time in memory.

use crate::digest::to_hex;
use std::path::Path;
use swarmdisk_core::ids::Digest;

/// The authority of our names is nobody's domain: none was ever registered for them.
const PREFIX: &str = "iqn.2026-01.swarmdisk:";
/// How much of a digest is in a name, and in a serial number (as much as virtio has room for), in hexadecimal digits.
const NAME_DIGITS: usize = 32;
const SERIAL_DIGITS: usize = 20;

/// The names of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The target's name.
    pub iqn: String,
    /// The disk's serial number.
    pub serial: String,
    /// By this initiators know the disk again.
    pub id: u64,
}

impl Identity {
    /// Of an image as it is.
    pub fn of_image(image: Digest) -> Self {
        let digits = to_hex(&image);
        let id = image.0.first_chunk().copied().map_or(0, u64::from_be_bytes);
        Self { iqn: format!("{PREFIX}{}", &digits[..NAME_DIGITS]), serial: digits[..SERIAL_DIGITS].to_owned(), id }
    }

    /// Of an image under what is written into this file.
    pub fn of_overlay(image: Digest, overlay: &Path) -> Self {
        let path = std::path::absolute(overlay).unwrap_or_else(|_| overlay.to_owned());
        Self::of_parts(&[&image.0, machine().as_bytes(), path.as_os_str().as_encoded_bytes()])
    }

    /// Of an image under what is written into memory.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn of_memory(image: Digest) -> std::io::Result<Self> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        Ok(Self::of_parts(&[&image.0, &random]))
    }

    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("swarmdisk iSCSI identity of a written disk");
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self::of_image(Digest(*hasher.finalize().as_bytes()))
    }
}

/// What the machine is called: empty if it is not known.
fn machine() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    return std::env::var("COMPUTERNAME").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_what_is_read() {
        let image = Digest([0xab; 32]);
        let plain = Identity::of_image(image);
        assert_eq!(plain.iqn, "iqn.2026-01.swarmdisk:abababababababababababababababab");
        assert_eq!((plain.serial.len(), plain.id), (20, 0xabab_abab_abab_abab));
        let one = Identity::of_overlay(image, "one".as_ref());
        assert_eq!(one, Identity::of_overlay(image, &std::path::absolute("one").unwrap()));
        assert_ne!(one, Identity::of_overlay(image, "two".as_ref()));
        assert_ne!(one, Identity::of_overlay(Digest([0xac; 32]), "one".as_ref()));
        assert_ne!(one, plain);
        assert_ne!(Identity::of_memory(image).unwrap(), Identity::of_memory(image).unwrap());
    }
}
