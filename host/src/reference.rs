//! References to images: `swarm://HOST:PORT/IMAGE-ID`, with more hosts separated by commas.
//!
//! *Purpose*: a reference pins content (the id is the hash of the manifest) and says where to begin to look for it.
//! *Bounds*: at most [`HOSTS_MAX`] hosts.

use crate::digest::{from_hex, to_hex};
use std::fmt;
use std::str::FromStr;
use swarmdisk_core::ids::Digest;

/// Most hosts in one reference.
pub const HOSTS_MAX: usize = 64;

/// Where an image is served and which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `HOST:PORT` of each seed, not resolved yet; at least one.
    pub hosts: Vec<String>,
    /// The image's id.
    pub image: Digest,
}

/// Why a text is no reference. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Another scheme, or none.
    #[error("`{0}` is no reference; write swarm://HOST:PORT/IMAGE-ID as `swarmdisk seed` prints it")]
    Scheme(String),
    /// HTTP origins are not read yet.
    #[error("images cannot be read from HTTP servers yet; download the file and attach or seed that")]
    Http,
    /// There is no id.
    #[error("`{0}` lacks the image's id; a reference ends in /IMAGE-ID, as `swarmdisk seed` prints it")]
    NoImage(String),
    /// The id is not 64 hex digits.
    #[error("`{0}` is no image id; an id is 64 hex digits, as `swarmdisk seed` prints it")]
    Image(String),
    /// A host lacks its port or is empty, or there are too many.
    #[error("`{0}` is no HOST:PORT; separate up to 64 of them by commas")]
    Host(String),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Err(ReferenceError::Http);
        }
        let rest = text.strip_prefix("swarm://").ok_or_else(|| ReferenceError::Scheme(text.into()))?;
        let (hosts, image) = rest.split_once('/').ok_or_else(|| ReferenceError::NoImage(text.into()))?;
        if image.is_empty() {
            return Err(ReferenceError::NoImage(text.into()));
        }
        let image = from_hex(image).ok_or_else(|| ReferenceError::Image(image.into()))?;
        let hosts: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        if hosts.len() > HOSTS_MAX {
            return Err(ReferenceError::Host(format!("{} hosts", hosts.len())));
        }
        match hosts.iter().find(|host| !is_host_and_port(host)) {
            Some(bad) => Err(ReferenceError::Host(bad.clone())),
            None => Ok(Self { hosts, image }),
        }
    }
}

/// Whether a text has the form `HOST:PORT` or `[IPV6]:PORT`, with a port that can be dialled.
pub fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let host_fits = !host.is_empty() && (bracketed || !host.contains(':'));
    host_fits && port.parse::<u16>().is_ok_and(|port| port != 0)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "swarm://{}/{}", self.hosts.join(","), to_hex(&self.image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn references_go_both_ways() {
        for hosts in ["127.0.0.1:7000", "seed.example:7000,[::1]:7001"] {
            let text = format!("swarm://{hosts}/{ID}");
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| text.parse::<Reference>().unwrap_err();
        assert!(matches!(error("disk.swarm"), ReferenceError::Scheme(_)));
        assert!(matches!(error("https://host/disk.swarm"), ReferenceError::Http));
        assert!(matches!(error("swarm://host:1"), ReferenceError::NoImage(_)));
        assert!(matches!(error("swarm://host:1/"), ReferenceError::NoImage(_)));
        assert!(matches!(error("swarm://host:1/12"), ReferenceError::Image(_)));
        for hosts in ["host", "host:0", ":7", "host:70000", "::1:7", "a:1,,b:2", ""] {
            assert!(matches!(error(&format!("swarm://{hosts}/{ID}")), ReferenceError::Host(_)), "{hosts}");
        }
    }
}
