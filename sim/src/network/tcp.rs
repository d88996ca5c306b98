//! TCP as far as both models need it: windows, headers, what loss costs.
//!
//! *Sources*: initial window, RFC 6928; slow start after idle, RFC 2861 and RFC 9293; rate under random loss: Mathis,
//! Semke, Mahdavi, Ott, "The macroscopic behavior of the TCP congestion avoidance algorithm" (CCR 1997).
//! *Units*: bytes, nanoseconds, parts per million.

use super::Nanos;

/// Payload of a full segment, in bytes: Ethernet's 1,500 less 20 (IP), 20 (TCP), 12 (timestamps).
pub const MSS_BYTES: u64 = 1448;
/// Headers of a packet in bytes: Ethernet 14, IP 20, TCP 32.
pub(super) const HEADER_BYTES: u64 = 66;
/// What a connection may send before it has heard anything.
const INITIAL_WINDOW_BYTES: u64 = 10 * MSS_BYTES;
/// A connection that was silent for so long begins anew.
pub(super) const RTO: Nanos = 200_000_000;

/// How connections behave; the same for all of a run.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Largest window in bytes.
    pub window_bytes_max: u64,
    /// Whether windows begin small.
    pub slow_start: bool,
    /// Packets lost at random, in parts per million.
    pub loss_ppm: u32,
    /// Bytes not yet on the wire that a socket takes.
    pub socket_bytes: u32,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { window_bytes_max: 4 << 20, slow_start: true, loss_ppm: 0, socket_bytes: 64 * 1024 }
    }
}

/// The congestion window of one pipe, in the simple form: doubled each round trip until it no longer binds.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Window {
    bytes: u64,
    last_sent: Nanos,
}

impl Window {
    pub(super) fn new(tcp: &Tcp) -> Self {
        let bytes = if tcp.slow_start { INITIAL_WINDOW_BYTES.min(tcp.window_bytes_max) } else { tcp.window_bytes_max };
        Self { bytes, last_sent: 0 }
    }

    /// Bytes that may be under way.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The pipe begins to send again: after a silence the window is halved for each time-out that has passed.
    pub(super) fn resume(&mut self, now: Nanos, tcp: &Tcp) {
        let idle = now.saturating_sub(self.last_sent) / RTO;
        if tcp.slow_start && idle > 0 {
            let shrunk = self.bytes >> idle.min(32);
            self.bytes = shrunk.max(INITIAL_WINDOW_BYTES).min(self.bytes);
        }
    }

    /// The pipe has stopped to send.
    pub(super) fn pause(&mut self, now: Nanos) {
        self.last_sent = now;
    }

    /// A round trip has passed in which the window was used up.
    pub(super) fn double(&mut self, tcp: &Tcp) {
        self.bytes = (self.bytes * 2).min(tcp.window_bytes_max);
    }

    /// Acknowledgements let more through, or a loss less.
    pub(super) fn set(&mut self, bytes: u64, tcp: &Tcp) {
        self.bytes = bytes.min(tcp.window_bytes_max);
    }
}

impl Tcp {
    /// The most that a window lets through, in bytes a second.
    pub(super) fn window_rate(window_bytes: u64, rtt: Nanos) -> u64 {
        match rtt {
            0 => u64::MAX,
            rtt => (u128::from(window_bytes) * 1_000_000_000 / u128::from(rtt)).max(1) as u64,
        }
    }

    /// What random losses let through, in bytes a second: MSS / RTT × √(3/2) / √loss.
    pub(super) fn loss_rate(&self, rtt: Nanos) -> u64 {
        if self.loss_ppm == 0 || rtt == 0 {
            return u64::MAX;
        }
        // √(1.5 / (ppm / 10⁶)) in thousandths.
        let factor_milli = (1_500_000_000_000 / u64::from(self.loss_ppm)).isqrt();
        (u128::from(MSS_BYTES) * u128::from(factor_milli) * 1_000_000 / u128::from(rtt)).max(1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_double_and_shrink_when_idle() {
        let tcp = Tcp::default();
        let mut window = Window::new(&tcp);
        assert_eq!(window.bytes(), 14_480);
        window.double(&tcp);
        window.double(&tcp);
        assert_eq!(window.bytes(), 57_920);
        window.pause(1_000);
        window.resume(1_000 + RTO - 1, &tcp);
        assert_eq!(window.bytes(), 57_920);
        window.resume(1_000 + RTO, &tcp);
        assert_eq!(window.bytes(), 28_960);
        window.resume(1_000 + 9 * RTO, &tcp);
        assert_eq!(window.bytes(), 14_480);
    }

    #[test]
    fn loss_limits_as_the_formula_says() {
        let tcp = Tcp { loss_ppm: 10_000, ..Tcp::default() };
        // 1448 / 0.04 × 1.2247 / 0.1 = 443,350 bytes a second.
        let rate = tcp.loss_rate(40_000_000);
        assert!((443_000..443_500).contains(&rate), "{rate}");
        assert_eq!(Tcp::default().loss_rate(40_000_000), u64::MAX);
    }
}
