//! Holds what all links together send (or receive) to a rate: `--limit-up`, `--limit-down`.
//!
//! *Purpose*: a virtual schedule (GCRA, ITU-T I.371): each taker reserves the next stretch of time on one line and waits
//! until it begins. Takers ask for at most a [`slice_bytes`](Pacer::slice_bytes) at a time, so links that compete take turns.
//! *Invariants*: over any span the bytes granted are at most rate × span + burst + one slice a waiting taker.
//! *Units*: bytes of TCP payload. *Bounds*: burst and slice are 5 ms of the rate each, the slice at most 16 KiB.

use std::sync::Mutex;
use tokio::time::{Duration, Instant, sleep_until};

const BURST: Duration = Duration::from_millis(5);
const SLICE_BYTES_MIN: u64 = 512;
const SLICE_BYTES_MAX: u64 = 16 * 1024;

/// A rate that all links share.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_sec: u64,
    /// When the next taker may go.
    next: Mutex<Instant>,
}

impl Pacer {
    /// A pacer for this rate in bytes a second; 0 is taken as 1.
    pub fn new(bytes_per_sec: u64) -> Self {
        Self { bytes_per_sec: bytes_per_sec.max(1), next: Mutex::new(Instant::now()) }
    }

    /// The most that one call of [`take`](Self::take) should ask for, in bytes.
    pub fn slice_bytes(&self) -> usize {
        (self.bytes_per_sec / 200).clamp(SLICE_BYTES_MIN, SLICE_BYTES_MAX) as usize
    }

    /// Waits until `bytes` more may pass. Dropped while it waits, it has used up its turn all the same.
    pub async fn take(&self, bytes: usize) {
        let start = self.reserve(Instant::now(), bytes);
        if start > Instant::now() {
            sleep_until(start).await;
        }
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, bytes: usize) {
        let mut next = self.next.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *next = next.checked_sub(self.span(bytes)).unwrap_or(*next);
    }

    fn reserve(&self, now: Instant, bytes: usize) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A timer that fires late, or a short pause, is made up for, but no more than one burst.
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = (*next).max(earliest);
        *next = start + self.span(bytes);
        start
    }

    fn span(&self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_sec)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::link::read_slice;
    use std::sync::Arc;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn any_span_keeps_the_rate_but_for_one_burst() {
        let pacer = Pacer::new(1_000_000);
        let begin = Instant::now() + Duration::from_secs(1);
        let slice = pacer.slice_bytes();
        assert_eq!(slice, 5000);
        // Asks without a pause: the n-th slice starts when the ones before it have passed, less the burst.
        for turn in 0..100u32 {
            let start = pacer.reserve(begin, slice);
            assert_eq!(start, begin - BURST + Duration::from_millis(5) * turn);
        }
        // After a long pause no more than one burst has been saved up.
        let later = begin + Duration::from_secs(10);
        assert_eq!(pacer.reserve(later, slice), later - BURST);
        assert_eq!(pacer.reserve(later, slice), later);
        pacer.give_back(slice);
        assert_eq!(pacer.reserve(later, slice), later);
    }

    #[test]
    fn slices_are_small_at_any_rate() {
        assert_eq!(Pacer::new(0).slice_bytes(), 512);
        assert_eq!(Pacer::new(12_500_000).slice_bytes(), 16384);
        assert_eq!(Pacer::new(u64::MAX).slice_bytes(), 16384);
    }

    const LINKS: usize = 4;
    const RATE: u64 = 8_000_000;
    const SPAN: Duration = Duration::from_secs(2);

    /// Runs `LINKS` loopback connections for `SPAN`, of which one side is paced; returns what each sink has read.
    async fn run(up: Option<Arc<Pacer>>, down: Option<Arc<Pacer>>) -> Vec<u64> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = Instant::now() + SPAN;
        let mut sinks = Vec::new();
        for _ in 0..LINKS {
            let up = up.clone();
            tokio::spawn(async move {
                let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
                let slice = up.as_ref().map_or(65536, |pacer| pacer.slice_bytes());
                while Instant::now() < end {
                    if let Some(pacer) = &up {
                        pacer.take(slice).await;
                    }
                    if tokio::time::timeout_at(end, socket.write_all(&vec![7; slice])).await.is_err() {
                        break;
                    }
                }
            });
            let (mut socket, _) = listener.accept().await.unwrap();
            let down = down.clone();
            sinks.push(tokio::spawn(async move {
                let (mut sum, mut buffer) = (0, Vec::with_capacity(65536));
                while let Ok(Ok(count)) =
                    tokio::time::timeout_at(end, read_slice(&mut socket, &mut buffer, 65536, down.as_deref())).await
                {
                    sum += count as u64;
                    buffer.clear();
                }
                sum
            }));
        }
        let mut sums = Vec::new();
        for sink in sinks {
            sums.push(sink.await.unwrap());
        }
        sums
    }

    /// Above the rate is an error; below it may be this machine's fault, so it is only printed.
    fn judge(what: &str, sums: &[u64]) {
        let rate = sums.iter().sum::<u64>() as f64 / SPAN.as_secs_f64();
        println!("{what}: {:.1} % of the rate; links {sums:?}", rate * 100.0 / RATE as f64);
        assert!(rate <= RATE as f64 * 1.05, "{what}: {rate}");
        let (least, most) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
        assert!(*least * 2 >= *most, "{what}: links share unfairly: {sums:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn senders_share_a_rate_over_loopback() {
        judge("up", &run(Some(Arc::new(Pacer::new(RATE))), None).await);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn receivers_share_a_rate_over_loopback() {
        judge("down", &run(None, Some(Arc::new(Pacer::new(RATE)))).await);
    }
}
