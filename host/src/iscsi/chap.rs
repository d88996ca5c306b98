//! CHAP with MD5 (RFC 1994; RFC 7143, section 12.1.3): who may log in, and proof that this is the target.
//!
//! *Invariants*: secrets are neither printed nor sent; a challenge is used once. *Bounds*: names of up to 255 bytes,
//! secrets of 12 (96 bits, which RFC 7143, section 9.2.1 asks for) to 255, challenges of up to 1,024.

use md5::{Digest, Md5};
use std::fmt;
use std::path::{Path, PathBuf};

/// Length of our challenges.
const CHALLENGE_BYTES: usize = 16;
/// Longest challenge that is answered.
const CHALLENGE_BYTES_MAX: usize = 1024;
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 12..=255;
const NAME_BYTES: std::ops::RangeInclusive<usize> = 1..=255;

/// A name and what proves it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub(super) name: String,
    pub(super) secret: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whom the target lets in, and as whom it shows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chap {
    initiator: Secret,
    target: Option<Secret>,
}

/// A file is no use as `--chap-file`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChapFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; check --chap-file", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something else.
    #[error(
        "{} is no --chap-file: its first line must be NAME SECRET (12 to 255 bytes without blanks), its second, if any, \
         another such pair for the target", path.display()
    )]
    Form {
        /// Which.
        path: PathBuf,
    },
}

impl Chap {
    /// Reads a file: the first line is the name and the secret of initiators, parted by blanks; the second, if any, those
    /// by which the target shows itself to initiators that ask for it.
    ///
    /// # Errors
    /// [`ChapFileError`]: it cannot be read, or says something else.
    pub fn read(path: &Path) -> Result<Self, ChapFileError> {
        let io = |source| ChapFileError::Io { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        Self::parse(&text).ok_or_else(|| ChapFileError::Form { path: path.to_owned() })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let initiator = Secret::parse(lines.next()?)?;
        let target = lines.next().map(|line| Secret::parse(line).ok_or(())).transpose().ok()?;
        // With one secret for both, a challenge could be had answered by the end that set it (RFC 7143, section 9.2.1).
        let is_same = target.as_ref().is_some_and(|target| target.secret == initiator.secret);
        if is_same || lines.next().is_some() { None } else { Some(Self { initiator, target }) }
    }

    /// By what initiators are let in.
    pub(super) fn login(&self) -> Secret {
        self.initiator.clone()
    }

    /// A challenge, of this session alone.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn challenge() -> std::io::Result<Challenge> {
        let mut random = [0; CHALLENGE_BYTES + 1];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let [id, challenge @ ..] = random;
        Ok(Challenge { id, challenge })
    }

    /// Whether an initiator that answers so is the one that may log in.
    pub(super) fn admits(&self, challenge: &Challenge, name: &str, response: &[u8]) -> bool {
        let expected = answer(challenge.id, &self.initiator.secret, &challenge.challenge);
        // Every byte is looked at, so that the time says nothing.
        let differing = expected.iter().zip(response).fold(0, |seen, (one, other)| seen | one ^ other);
        name == self.initiator.name && response.len() == expected.len() && differing == 0
    }

    /// The target's name and its answer to an initiator's challenge; none where it has none to give, or should not.
    pub(super) fn prove(&self, own: &Challenge, id: u8, challenge: &[u8]) -> Option<(&str, [u8; 16])> {
        let secret = self.target.as_ref()?;
        let is_fit = (1..=CHALLENGE_BYTES_MAX).contains(&challenge.len()) && challenge != own.challenge;
        is_fit.then(|| (secret.name.as_str(), answer(id, &secret.secret, challenge)))
    }
}

impl Secret {
    fn parse(line: &str) -> Option<Self> {
        let (name, secret) = line.split_once(char::is_whitespace)?;
        let secret = secret.trim_start();
        let is_fit = NAME_BYTES.contains(&name.len()) && SECRET_BYTES.contains(&secret.len());
        let has_blank = secret.contains(char::is_whitespace);
        (is_fit && !has_blank).then(|| Self { name: name.to_owned(), secret: secret.to_owned() })
    }
}

/// What an initiator has to answer.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub id: u8,
    pub challenge: [u8; CHALLENGE_BYTES],
}

fn answer(id: u8, secret: &str, challenge: &[u8]) -> [u8; 16] {
    Md5::new().chain_update([id]).chain_update(secret).chain_update(challenge).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# who may log in\nguest  0123456789ab\ntarget abcdefghijkl\n";

    #[test]
    fn a_file_is_read() {
        let chap = Chap::parse(FILE).unwrap();
        assert_eq!((chap.initiator.name.as_str(), chap.initiator.secret.as_str()), ("guest", "0123456789ab"));
        assert!(!format!("{chap:?}").contains("0123456789ab"));
        for wrong in [
            "",
            "guest",
            "guest short",
            "guest 0123456789ab c",
            "guest 0123456789ab\ntarget 0123456789ab",
            "guest 0123456789ab\ntarget",
            "a 0123456789ab\nb 0123456789abc\nc 0123456789abcd",
        ] {
            assert!(Chap::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn only_the_right_name_and_answer_are_let_in() {
        let chap = Chap::parse(FILE).unwrap();
        let challenge = Challenge { id: 7, challenge: [3; 16] };
        let right = answer(7, "0123456789ab", &[3; 16]);
        assert!(chap.admits(&challenge, "guest", &right));
        assert!(!chap.admits(&challenge, "other", &right));
        assert!(!chap.admits(&challenge, "guest", &right[..15]) && !chap.admits(&challenge, "guest", &[]));
        assert!(!chap.admits(&Challenge { id: 8, ..challenge }, "guest", &right));
        assert_eq!(chap.prove(&challenge, 1, &[9; 20]), Some(("target", answer(1, "abcdefghijkl", &[9; 20]))));
        assert_eq!(chap.prove(&challenge, 1, &[3; 16]), None, "our own challenge is not answered");
        assert_ne!(Chap::challenge().unwrap(), Chap::challenge().unwrap());
    }

    #[test]
    fn the_answer_is_that_of_rfc_1994() {
        // printf '\x01secretchallenge' | md5sum
        let expected = [0x46, 0xe4, 0x77, 0x70, 0x03, 0x0e, 0x2b, 0x4e, 0x26, 0xa0, 0xdb, 0x72, 0xa7, 0xef, 0xec, 0x00];
        assert_eq!(answer(1, "secret", b"challenge"), expected);
    }
}
