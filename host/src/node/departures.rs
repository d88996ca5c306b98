//! What of a link's bytes has left for the network, as far as can be seen from here.
//!
//! *Why*: a socket takes what fills the connection's window, and that may be far more than the network carries at once: the
//! rest waits in queues, on this machine or behind it, where no demand can overtake it, and the node's own requests wait
//! behind it. So bytes have left when the other side has acknowledged them; those that fill the path without any queue are
//! on their way. *Invariants*: all that is noted leaves in the end. *Units*: bytes. *Bounds*: a look at the socket each
//! [`LOOK_MIN`] at most, and only while something waits. Where the system does not tell (not Linux), what the socket has
//! taken has left.

use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

/// One looks again when the queue should be empty, within these.
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(10);
/// Segments whose acknowledgement the other side may hold back (RFC 1122, section 4.2.3.2).
#[cfg(target_os = "linux")]
const HELD_BACK: u64 = 2;

/// Of one link.
#[derive(Debug)]
pub(crate) struct Departures {
    #[cfg(target_os = "linux")]
    socket: Option<std::os::fd::OwnedFd>,
    /// Bytes that the socket took and that have not been said to have left.
    waiting: u32,
    look_at: Option<Instant>,
}

impl Departures {
    /// For this connection.
    pub fn of(stream: &TcpStream) -> Self {
        #[cfg(target_os = "linux")]
        let socket = std::os::fd::AsFd::as_fd(stream).try_clone_to_owned().ok();
        #[cfg(not(target_os = "linux"))]
        let _ = stream;
        Self {
            #[cfg(target_os = "linux")]
            socket,
            waiting: 0,
            look_at: None,
        }
    }

    /// The socket has taken so many.
    pub fn note(&mut self, bytes: u32) {
        self.waiting = self.waiting.saturating_add(bytes);
    }

    /// How many have left since the last time.
    pub fn take(&mut self) -> u32 {
        if self.waiting == 0 {
            return 0;
        }
        let (queued, span) = self.queued();
        let left = self.waiting.saturating_sub(queued);
        self.waiting -= left;
        self.look_at = (self.waiting > 0).then(|| Instant::now() + span.clamp(LOOK_MIN, LOOK_MAX));
        left
    }

    /// When to ask again, if anything waits.
    pub fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// What waits in queues, and about how long.
    #[cfg(target_os = "linux")]
    fn queued(&self) -> (u32, Duration) {
        use std::os::fd::AsFd;
        let info = self.socket.as_ref().and_then(|socket| crate::sys::tcp_info(socket.as_fd()));
        let Some(info) = info else { return (0, LOOK_MIN) };
        let segment = u64::from(info.segment_bytes);
        let on_its_way = info.bytes_per_sec.saturating_mul(info.min_rtt_micros.into()) / 1_000_000;
        let unacked = u64::from(info.unacked_segments) * segment;
        let in_network = unacked.saturating_sub(on_its_way + HELD_BACK * segment);
        let queued = in_network + u64::from(info.unsent_bytes);
        let micros = queued.saturating_mul(1_000_000) / info.bytes_per_sec.max(1);
        (u32::try_from(queued).unwrap_or(u32::MAX), Duration::from_micros(micros))
    }

    #[cfg(not(target_os = "linux"))]
    fn queued(&self) -> (u32, Duration) {
        (0, LOOK_MIN)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::{sleep_until, timeout};

    #[tokio::test]
    async fn what_the_other_side_has_not_got_waits() {
        const BYTES: usize = 4 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        let mut departures = Departures::of(&sender);
        assert_eq!((departures.take(), departures.look_at()), (0, None), "nothing waits");
        let bytes = vec![7; BYTES];
        let mut taken = 0;
        // Nobody reads: the receiver's buffer fills up, then the sender's.
        while let Ok(more) = timeout(Duration::from_millis(200), sender.write(&bytes)).await {
            taken += more.unwrap();
        }
        departures.note(taken as u32);
        let first = departures.take() as usize;
        assert!(0 < first && first < taken, "{first} of {taken} bytes have left");
        let reader = tokio::spawn(async move { receiver.read_exact(&mut vec![0; taken]).await.map(drop) });
        let mut left = first;
        while let Some(at) = departures.look_at() {
            sleep_until(at).await;
            left += departures.take() as usize;
        }
        assert_eq!(left, taken);
        timeout(Duration::from_secs(10), reader).await.unwrap().unwrap().unwrap();
    }
}
