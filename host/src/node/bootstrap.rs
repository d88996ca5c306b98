//! Before there is an engine: the manifest and a profile, from whoever answers first, or from a node that it names.
//!
//! *Invariants*: the manifest's hash is the image's id, the profile's the one offered with it; nothing else is believed. A
//! node that was named has [`NAMED_TIMEOUT`] to be dialled and greeted, as long for the manifest, and as long for the profile:
//! one that delivers nothing costs two of them, one that delivers the manifest late and no profile three. Then who named it
//! is asked again.
//! *Units*: bytes. *Bounds*: a manifest of [`MANIFEST_BYTES_MAX`], a profile of 16 MiB, in parts of [`PART_BYTES`]; an answer
//! takes at most [`ANSWER_TIMEOUT`], all of it the deadline; [`ADDRESSES_MAX`] addresses are tried.

use super::link::{READ_BYTES, Rates, read_slice};
use super::socket::{LinkError, Socket, dial, to_socket_addr};
use super::{PROFILE_BYTES_MAX, random_node};
use crate::digest::{digest_of, to_hex};
use crate::log;
use bytes::{Buf, BytesMut};
use std::io;
use std::net::SocketAddr;
use swarmdisk_core::ids::{Address, Digest};
use swarmdisk_core::locality::Locality;
use swarmdisk_core::wire::{
    BlobRange, BlobRedirect, Decoded, Farewell, Frame, HEAD_BYTES_MAX, Hello, Offer, PREFACE_BYTES, Role, VERSION,
    agreed_version, decode, encode,
};
use tokio::io::AsyncWriteExt;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};

/// Longest manifest: that of 2^31 chunks, in bytes.
const MANIFEST_BYTES_MAX: usize = (1 << 28) + 4096;
const PART_BYTES: u32 = 256 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node that a seed has named may take until it is greeted, and for each blob.
const NAMED_TIMEOUT: Duration = Duration::from_secs(2);
/// How much later the next address is tried, if the one before has not answered.
const STAGGER: Duration = Duration::from_millis(200);
const ROUND_PAUSE: Duration = Duration::from_millis(500);
const ADDRESSES_MAX: usize = 64;
const OFFER_PROFILE: u8 = 1;
/// How long an offer is waited for from a node that says nothing at all.
const OFFER_WAIT: Duration = Duration::from_secs(1);

/// What to fetch, and from whom.
#[derive(Debug, Clone)]
pub struct BootstrapOptions {
    /// The image's id.
    pub image: Digest,
    /// `HOST:PORT` of nodes that may have it.
    pub hosts: Vec<String>,
    /// What may be received.
    pub rates: Rates,
    /// How long to try.
    pub patience: Duration,
    /// Whether a profile is wanted as well.
    pub wants_profile: bool,
}

/// What was fetched.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The manifest; its hash is the image's id.
    pub manifest: Vec<u8>,
    /// The profile that was offered, as it came: whether it makes sense is for its reader to say.
    pub profile: Option<Vec<u8>>,
    /// Who sent them.
    pub from: SocketAddr,
    /// What was received for it in all, in bytes.
    pub received_bytes: u64,
}

/// Why there is nothing. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// There is nobody to ask.
    #[error("nobody is named who may have the image; give a swarm:// reference or --peer")]
    NoHosts,
    /// Nobody answered; one of them may be the reason why.
    #[error("nobody has sent image {image}: {}", list(.attempts))]
    Nobody {
        /// The image's id.
        image: String,
        /// What came of each address, in the last round.
        attempts: Vec<AttemptError>,
    },
}

/// Why one node did not send what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// There is no link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The name has no address.
    #[error("{host} has no address: {source}; check its spelling")]
    Name {
        /// As it was given.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The node is there, but does not serve this image.
    #[error("{address} does not serve that image; check the reference")]
    UnknownImage {
        /// Who.
        address: SocketAddr,
    },
    /// The node is there, but speaks another version.
    #[error(
        "{address} speaks another version of the protocol than this node's, {VERSION}; use the same swarmdisk on both"
    )]
    Version {
        /// Who.
        address: SocketAddr,
    },
    /// What it sent as the manifest is not.
    #[error("{address} sent a manifest that is not the image's; remove it from the reference")]
    WrongManifest {
        /// Who.
        address: SocketAddr,
    },
    /// The node is there, but full, or ending.
    #[error("{address} closed the link ({farewell:?}); try again later")]
    Left {
        /// Who.
        address: SocketAddr,
        /// Why.
        farewell: Farewell,
    },
    /// What it says makes no sense.
    #[error("{address} broke the protocol ({what}); use the same swarmdisk on both")]
    Protocol {
        /// Who.
        address: SocketAddr,
        /// How.
        what: &'static str,
    },
}

impl AttemptError {
    /// Whether another try would come to the same.
    fn is_final(&self) -> bool {
        match self {
            Self::Link(error) => matches!(error, LinkError::Foreign { .. } | LinkError::Encrypted { .. }),
            Self::UnknownImage { .. } | Self::Version { .. } | Self::WrongManifest { .. } => true,
            Self::Name { .. } | Self::Left { .. } | Self::Protocol { .. } => false,
        }
    }
}

fn list(attempts: &[AttemptError]) -> String {
    if attempts.is_empty() {
        return "no answer in time; check that a seed runs".to_owned();
    }
    let texts: Vec<String> = attempts.iter().map(AttemptError::to_string).collect();
    texts.join("; ")
}

/// Fetches the manifest, and the profile if one is offered, from whoever answers first; tries again until
/// `options.patience` is over, unless all have said that it is of no use.
///
/// # Errors
/// [`BootstrapError::NoHosts`], or [`BootstrapError::Nobody`] with what came of each address.
pub async fn bootstrap(options: BootstrapOptions) -> Result<Bootstrap, BootstrapError> {
    if options.hosts.is_empty() {
        return Err(BootstrapError::NoHosts);
    }
    let deadline = Instant::now() + options.patience;
    let mut last = Vec::new();
    loop {
        let mut attempts = Vec::new();
        match timeout_at(deadline, round(&options, &mut attempts)).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => last = attempts,
            Err(_) if attempts.is_empty() => {}
            Err(_) => last = attempts,
        }
        let is_hopeless = !last.is_empty() && last.iter().all(AttemptError::is_final);
        if is_hopeless || Instant::now() + ROUND_PAUSE >= deadline {
            return Err(BootstrapError::Nobody { image: to_hex(&options.image), attempts: last });
        }
        sleep(ROUND_PAUSE).await;
    }
}

/// Asks all, one a little after the other; the first good answer wins.
async fn round(options: &BootstrapOptions, failed: &mut Vec<AttemptError>) -> Option<Bootstrap> {
    let mut addresses = Vec::new();
    for host in &options.hosts {
        match lookup_host(host.as_str()).await {
            Ok(found) => addresses.extend(found),
            Err(source) => failed.push(AttemptError::Name { host: host.clone(), source }),
        }
    }
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    let mut running = JoinSet::new();
    let mut waiting = addresses.into_iter();
    loop {
        if let Some(address) = waiting.next() {
            let options = options.clone();
            running.spawn(async move { fetch(address, &options).await });
        } else if running.is_empty() {
            return None;
        }
        let patience = if waiting.len() > 0 { STAGGER } else { Duration::MAX };
        // Nobody answered in that time: the next one is asked as well.
        let Ok(done) = timeout(patience, running.join_next()).await else { continue };
        match done {
            Some(Ok(Ok(found))) => return Some(found),
            Some(Ok(Err(error))) => failed.push(error),
            // Cannot be: nothing in there panics, and nothing is aborted.
            Some(Err(_)) | None => {}
        }
    }
}

async fn fetch(address: SocketAddr, options: &BootstrapOptions) -> Result<Bootstrap, AttemptError> {
    let mut talk = Talk::open(address, options).await?;
    let mut named = None;
    let manifest = talk.blob_from_either(&mut named, options, options.image, MANIFEST_BYTES_MAX).await?;
    if digest_of(&manifest) != options.image {
        return Err(AttemptError::WrongManifest { address });
    }
    // Without a profile there is still a manifest.
    let profile =
        if options.wants_profile { talk.profile(&mut named, options).await.unwrap_or_default() } else { None };
    let received_bytes = talk.received_bytes + named.as_ref().map_or(0, |named| named.received_bytes);
    for mut talk in [Some(talk), named].into_iter().flatten() {
        // They would find out.
        let _ = talk.say(&Frame::Bye(Farewell::Leaving)).await;
    }
    Ok(Bootstrap { manifest, profile, from: address, received_bytes })
}

/// A conversation with one node.
struct Talk {
    socket: Socket,
    rates: Rates,
    received_bytes: u64,
    offer: Option<Offer>,
    /// Offers come before all else that a node tells by itself.
    offers_are_over: bool,
}

/// What comes of asking for a blob.
enum Answer {
    /// All of it, unverified.
    Blob(Vec<u8>),
    /// It is to be had there.
    Elsewhere(SocketAddr),
}

/// A frame that matters here.
enum Heard {
    Hello(Hello),
    Blob(BlobRange, Vec<u8>),
    Refused(Digest),
    Redirected(BlobRedirect),
    Other,
}

impl Talk {
    /// Dials and greets.
    async fn open(address: SocketAddr, options: &BootstrapOptions) -> Result<Self, AttemptError> {
        let socket = dial(address, &options.rates).await?;
        let received_bytes = (PREFACE_BYTES + socket.received.len()) as u64;
        let rates = options.rates.clone();
        let mut talk = Self { socket, rates, received_bytes, offer: None, offers_are_over: false };
        talk.greet(options.image).await?;
        Ok(talk)
    }

    fn broken(&self, what: &'static str) -> AttemptError {
        AttemptError::Protocol { address: self.socket.address, what }
    }

    async fn greet(&mut self, image: Digest) -> Result<(), AttemptError> {
        let hello = Hello {
            version: VERSION,
            features: 0,
            image,
            node: random_node(),
            listen: Address::NONE,
            role: Role::Node,
            requests_max: 1,
            locality: Locality::NONE,
        };
        self.say(&Frame::Hello(hello)).await?;
        let Heard::Hello(theirs) = self.hear().await? else { return Err(self.broken("it did not say hello")) };
        let address = self.socket.address;
        agreed_version(theirs.version).ok_or(AttemptError::Version { address })?;
        if theirs.image != image { Err(AttemptError::UnknownImage { address }) } else { Ok(()) }
    }

    /// The whole blob: from the node that was named before or is named now, or from this one. It is verified if it comes from
    /// there, since this one can be asked then.
    async fn blob_from_either(
        &mut self,
        named: &mut Option<Self>,
        options: &BootstrapOptions,
        digest: Digest,
        bytes_max: usize,
    ) -> Result<Vec<u8>, AttemptError> {
        if named.is_none() {
            match self.blob(digest, bytes_max).await? {
                Answer::Blob(blob) => return Ok(blob),
                Answer::Elsewhere(address) => {
                    *named = timeout(NAMED_TIMEOUT, Self::open(address, options)).await.ok().and_then(Result::ok)
                }
            }
        }
        if let Some(other) = named {
            let blob = timeout(NAMED_TIMEOUT, other.blob(digest, bytes_max)).await;
            match blob {
                Ok(Ok(Answer::Blob(blob))) if digest_of(&blob) == digest => return Ok(blob),
                // It is of no use for what comes later either.
                _ => self.received_bytes += named.take().map_or(0, |other| other.received_bytes),
            }
        }
        match self.blob(digest, bytes_max).await? {
            Answer::Blob(blob) => Ok(blob),
            Answer::Elsewhere(_) => Err(self.broken("it named a node once more")),
        }
    }

    /// The whole blob, unverified, or who has it.
    async fn blob(&mut self, digest: Digest, bytes_max: usize) -> Result<Answer, AttemptError> {
        let mut blob = Vec::new();
        loop {
            let offset = blob.len() as u32;
            self.say(&Frame::BlobRequest(BlobRange { digest, total_bytes: 0, offset, bytes: PART_BYTES })).await?;
            let (range, part) = loop {
                match self.hear().await? {
                    Heard::Blob(range, part) => break (range, part),
                    Heard::Redirected(redirect) if redirect.digest == digest && blob.is_empty() => {
                        return Ok(Answer::Elsewhere(to_socket_addr(redirect.address)));
                    }
                    Heard::Refused(refused) if refused == digest => {
                        return Err(AttemptError::UnknownImage { address: self.socket.address });
                    }
                    _ => {}
                }
            };
            let is_next = range.digest == digest && range.offset == offset && !part.is_empty();
            let total = range.total_bytes as usize;
            if !is_next || total > bytes_max || blob.len() + part.len() > total {
                return Err(self.broken("a blob does not fit what was asked for"));
            }
            blob.extend_from_slice(&part);
            if blob.len() == total {
                return Ok(Answer::Blob(blob));
            }
        }
    }

    /// The profile, if one is offered and is what its hash says.
    async fn profile(
        &mut self,
        named: &mut Option<Self>,
        options: &BootstrapOptions,
    ) -> Result<Option<Vec<u8>>, AttemptError> {
        while self.offer.is_none() && !self.offers_are_over {
            match timeout(OFFER_WAIT, self.hear()).await {
                Ok(heard) => drop(heard?),
                Err(_) => return Ok(None),
            }
        }
        let Some(offer) = self.offer else { return Ok(None) };
        if offer.bytes as usize > PROFILE_BYTES_MAX || offer.bytes == 0 {
            return Ok(None);
        }
        let profile = self.blob_from_either(named, options, offer.digest, PROFILE_BYTES_MAX).await?;
        if digest_of(&profile) != offer.digest {
            log::warn(format_args!("{} sent a profile that is not what it offered", self.socket.address));
            return Ok(None);
        }
        Ok(Some(profile))
    }

    async fn say(&mut self, frame: &Frame<'_>) -> Result<(), AttemptError> {
        let mut head = [0; HEAD_BYTES_MAX];
        let Ok(bytes) = encode(frame, &mut head) else { return Ok(()) };
        let address = self.socket.address;
        let sent = timeout(ANSWER_TIMEOUT, self.socket.stream.write_all(&head[..bytes])).await;
        let sent = sent.map_err(|_| LinkError::Silent { address, after: ANSWER_TIMEOUT })?;
        sent.map_err(|source| LinkError::Broken { address, source }.into())
    }

    /// The next frame; a ping is answered, an offer noted, a farewell an error.
    async fn hear(&mut self) -> Result<Heard, AttemptError> {
        let address = self.socket.address;
        let silent = |_| LinkError::Silent { address, after: ANSWER_TIMEOUT };
        let (heard, nonce) = timeout(ANSWER_TIMEOUT, self.next_frame()).await.map_err(silent)??;
        if let Some(nonce) = nonce {
            self.say(&Frame::Pong(nonce)).await?;
        }
        Ok(heard)
    }

    async fn next_frame(&mut self) -> Result<(Heard, Option<u64>), AttemptError> {
        let address = self.socket.address;
        loop {
            let (heard, consumed, body_bytes, nonce) = match decode(&self.socket.received) {
                Ok(Decoded::NeedMore { bytes }) => {
                    self.read_until(bytes).await?;
                    continue;
                }
                Err(_) => return Err(self.broken("no frame")),
                Ok(Decoded::Frame { frame, consumed, body_bytes }) => {
                    let mut nonce = None;
                    let heard = match frame {
                        Frame::Hello(hello) => Heard::Hello(hello),
                        Frame::Blob(range) => Heard::Blob(range, Vec::new()),
                        Frame::BlobRefuse(digest) => Heard::Refused(digest),
                        Frame::BlobRedirect(redirect) => Heard::Redirected(redirect),
                        Frame::Bye(farewell) => return Err(left(address, farewell)),
                        Frame::Offer(offer) => {
                            self.offer = self.offer.or((offer.kind == OFFER_PROFILE).then_some(offer));
                            Heard::Other
                        }
                        Frame::Pong(_) => Heard::Other,
                        other => {
                            self.offers_are_over = true;
                            nonce = if let Frame::Ping(nonce) = other { Some(nonce) } else { None };
                            Heard::Other
                        }
                    };
                    (heard, consumed, body_bytes, nonce)
                }
            };
            self.socket.received.advance(consumed);
            let heard = match heard {
                Heard::Blob(range, _) if body_bytes <= PART_BYTES => {
                    self.read_until(body_bytes as usize).await?;
                    Heard::Blob(range, self.socket.received.split_to(body_bytes as usize).to_vec())
                }
                heard if body_bytes == 0 => heard,
                _ => return Err(self.broken("a body that nobody asked for")),
            };
            return Ok((heard, nonce));
        }
    }

    /// Reads until so many bytes are there.
    async fn read_until(&mut self, bytes: usize) -> Result<(), AttemptError> {
        let Socket { stream, address, received } = &mut self.socket;
        while received.len() < bytes {
            received.reserve(READ_BYTES);
            let count = read_slice::<_, BytesMut>(stream, received, READ_BYTES, self.rates.down.as_deref()).await;
            let broken = |source| LinkError::Broken { address: *address, source };
            self.received_bytes += count.map_err(|down| broken(down.into()))? as u64;
        }
        Ok(())
    }
}

fn left(address: SocketAddr, farewell: Farewell) -> AttemptError {
    match farewell {
        Farewell::UnknownImage => AttemptError::UnknownImage { address },
        Farewell::Version => AttemptError::Version { address },
        farewell => AttemptError::Left { address, farewell },
    }
}
