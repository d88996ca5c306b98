//! Where an NBD server listens, and URIs of exports.
//!
//! *Invariants*: a URI that was rendered parses to the same. *Source*: `doc/uri.md` of the NBD project, RFC 3986.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port that a URI without one means (IANA).
pub const PORT: u16 = 10809;

/// Where a server shall listen: `HOST:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdListen {
    /// TCP; port 0 takes a free one.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// The URI of an export: `nbd://HOST[:PORT][/NAME]` or `nbd+unix:///[NAME]?socket=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdUri {
    /// Where the server is.
    pub server: NbdListen,
    /// The export's name, often empty.
    pub export: String,
}

/// What was given is no place to listen, or no URI. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// No place to listen.
    #[error("`{0}` is no place to listen; write HOST:PORT as in 127.0.0.1:10809, or unix:PATH")]
    Listen(String),
    /// No NBD URI, or one with TLS or for vsock.
    #[error("`{0}` is no NBD URI that can be used; write nbd://HOST:PORT or nbd+unix:///?socket=PATH")]
    Uri(String),
}

impl FromStr for NbdListen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fail = || AddressError::Listen(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(fail()) } else { Ok(Self::Unix(path.into())) };
        }
        match host_and_port(text) {
            Some((host, Some(port))) => Ok(Self::Tcp { host, port }),
            _ => Err(fail()),
        }
    }
}

impl FromStr for NbdUri {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parse = || {
            if let Some(rest) = text.strip_prefix("nbd://") {
                let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
                let (host, port) = host_and_port(authority)?;
                let server = NbdListen::Tcp { host, port: port.unwrap_or(PORT) };
                return Some(Self { server, export: decode_text(name)? });
            }
            let (name, query) = text.strip_prefix("nbd+unix:///")?.split_once('?')?;
            let socket = query.split('&').find_map(|pair| pair.strip_prefix("socket="))?;
            let path = decode_path(socket).filter(|path| !path.as_os_str().is_empty())?;
            Some(Self { server: NbdListen::Unix(path), export: decode_text(name)? })
        };
        parse().ok_or_else(|| AddressError::Uri(text.to_owned()))
    }
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            NbdListen::Tcp { host, port } => {
                if host.contains(':') {
                    write!(f, "nbd://[{host}]:{port}")?;
                } else {
                    write!(f, "nbd://{host}:{port}")?;
                }
                if self.export.is_empty() {
                    return Ok(());
                }
                f.write_str("/")?;
                encode(f, self.export.as_bytes())
            }
            NbdListen::Unix(path) => {
                f.write_str("nbd+unix:///")?;
                encode(f, self.export.as_bytes())?;
                f.write_str("?socket=")?;
                encode(f, path_bytes(path))
            }
        }
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
pub(crate) fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let usable = |c: char| !c.is_control() && !c.is_whitespace() && !"/?#@%[]".contains(c);
    if host.is_empty() || !host.chars().all(usable) {
        return None;
    }
    let port = match port {
        Some(port) if port.starts_with('+') => return None,
        Some(port) => Some(port.parse().ok()?),
        None => None,
    };
    Some((host.to_owned(), port))
}

/// Percent-encodes all but RFC 3986's unreserved characters and `/`.
fn encode(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|&byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => write!(f, "{}", char::from(byte)),
        _ => write!(f, "%{byte:02X}"),
    })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    Some(decoded)
}

fn decode_text(text: &str) -> Option<String> {
    String::from_utf8(decode(text)?).ok()
}

#[cfg(unix)]
fn decode_path(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(std::ffi::OsString::from_vec(decode(text)?).into())
}

#[cfg(not(unix))]
fn decode_path(text: &str) -> Option<PathBuf> {
    decode_text(text).map(PathBuf::from)
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_to_listen() {
        let tcp = |host: &str, port| Ok(NbdListen::Tcp { host: host.to_owned(), port });
        assert_eq!("127.0.0.1:0".parse(), tcp("127.0.0.1", 0));
        assert_eq!("[::1]:10809".parse(), tcp("::1", 10809));
        assert_eq!("unix:/run/a b".parse(), Ok(NbdListen::Unix("/run/a b".into())));
        for text in ["", "unix:", "localhost", ":1", "a:b", "a:65536", "a:+1", "::1:1", "a b:1", "a/b:1"] {
            assert!(text.parse::<NbdListen>().is_err(), "{text}");
        }
    }

    #[test]
    fn uris() {
        for text in [
            "nbd://127.0.0.1:1234",
            "nbd://[::1]:10809/guest-3",
            "nbd+unix:///?socket=/run/a%20b%25",
            "nbd+unix:///guest-1?socket=/x",
        ] {
            assert_eq!(text.parse::<NbdUri>().unwrap().to_string(), text);
        }
        assert_eq!("nbd://host/".parse::<NbdUri>().unwrap().to_string(), "nbd://host:10809");
        for text in
            ["", "nbd://", "nbds://a:1", "nbd+unix:///", "nbd+unix:///?socket=", "nbd+unix:///?socket=%G0", "http://a"]
        {
            assert!(text.parse::<NbdUri>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn uris_come_back(path in "/.{1,40}", export in ".{0,20}") {
            let uri = NbdUri { server: NbdListen::Unix(path.into()), export };
            prop_assert_eq!(uri.to_string().parse(), Ok(uri));
        }

        #[test]
        fn junk_never_panics(text in ".{0,60}") {
            let _ = text.parse::<NbdUri>();
            let _ = text.parse::<NbdListen>();
            let _ = format!("nbd+unix:///{text}").parse::<NbdUri>();
        }
    }
}
