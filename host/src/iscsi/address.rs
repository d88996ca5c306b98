//! Where an iSCSI target listens, and URIs of disks.
//!
//! *Source*: the URI is that of libiscsi, QEMU and others: `iscsi://HOST:PORT/IQN/LUN`.

use crate::nbd::address::host_and_port;
use std::fmt;
use std::str::FromStr;

/// The port of the protocol (IANA).
pub const PORT: u16 = 3260;

/// Where a target shall listen: `HOST:PORT`, or `HOST` for port 3260; port 0 takes a free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IscsiListen {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// No place to listen. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no place to listen; write HOST:PORT as in 127.0.0.1:3260")]
pub struct ListenError(String);

impl FromStr for IscsiListen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        match host_and_port(text) {
            Some((host, port)) => Ok(Self { host, port: port.unwrap_or(PORT) }),
            None => Err(ListenError(text.to_owned())),
        }
    }
}

impl fmt::Display for IscsiListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// Where a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IscsiUri {
    /// The portal.
    pub listen: IscsiListen,
    /// The target's name.
    pub iqn: String,
}

impl fmt::Display for IscsiUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iscsi://{}/{}/0", self.listen, self.iqn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_uris() {
        let listen: IscsiListen = "127.0.0.1:0".parse().unwrap();
        assert_eq!(listen, IscsiListen { host: "127.0.0.1".into(), port: 0 });
        assert_eq!("::1".parse::<IscsiListen>().ok(), None);
        let listen: IscsiListen = "[::1]".parse().unwrap();
        let uri = IscsiUri { listen, iqn: "iqn.2026-01.swarmdisk:x".into() };
        assert_eq!(uri.to_string(), "iscsi://[::1]:3260/iqn.2026-01.swarmdisk:x/0");
        for text in ["", ":1", "a:b", "a:65536", "a b:1"] {
            assert!(text.parse::<IscsiListen>().is_err(), "{text}");
        }
    }
}
