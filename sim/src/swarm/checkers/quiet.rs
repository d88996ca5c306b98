//! *Quiet*: once all have finished, a swarm says next to nothing.
//!
//! A link is asked every 10 s of silence whether it lives: two frames of at most 21 bytes each way, 4 bytes a second from
//! either side. So a node with n links may send [`BYTES_PER_SEC`] and n times [`BYTES_PER_SEC_A_LINK`]. Judged only where
//! caches have room for all: into a full one the profile is fetched again and again, as its chunks push each other out.

use super::Judgement;
use crate::network::Nanos;
use crate::world::Observation;

/// What a node may send without any link to speak of.
const BYTES_PER_SEC: u64 = 40;
/// What it may send for each link.
const BYTES_PER_SEC_A_LINK: u64 = 5;
const SECOND: u64 = 1_000_000_000;

/// See the module's docs.
#[derive(Debug)]
pub struct Quiet {
    sent_bytes: Vec<u64>,
    /// Since when what is sent counts.
    since: Option<Nanos>,
}

impl Quiet {
    /// For so many nodes.
    pub fn new(node_count: usize) -> Self {
        Self { sent_bytes: vec![0; node_count], since: None }
    }

    /// From now on there is nothing to be said.
    pub fn begin(&mut self, now: Nanos) {
        self.since = Some(now);
    }

    /// Something has happened at a node.
    pub fn observe(&mut self, node: usize, what: Observation) {
        if let (Observation::Sent { bytes, .. }, Some(_)) = (what, self.since) {
            self.sent_bytes[node] += u64::from(bytes);
        }
    }

    /// It is `now`, and a node has so many links.
    ///
    /// # Errors
    /// It has said too much.
    pub fn judge(&self, now: Nanos, node: usize, link_count: usize) -> Judgement {
        let Some(span) = self.since.and_then(|since| now.checked_sub(since)).filter(|span| *span > 0) else {
            return Ok(());
        };
        let rate = (u128::from(self.sent_bytes[node]) * u128::from(SECOND) / u128::from(span)) as u64;
        let most = BYTES_PER_SEC + BYTES_PER_SEC_A_LINK * link_count as u64;
        if rate <= most {
            return Ok(());
        }
        Err(format!("{rate} bytes a second with {link_count} links though there is nothing to do; {most} are the most"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_talks_for_nothing_is_noticed() {
        let mut quiet = Quiet::new(1);
        let sent = Observation::Sent { to: 1, bytes: 1000 };
        quiet.observe(0, sent);
        assert_eq!(quiet.judge(SECOND, 0, 0), Ok(()), "it has not begun");
        quiet.begin(10 * SECOND);
        (0..10).for_each(|_| quiet.observe(0, sent));
        assert_eq!(quiet.judge(60 * SECOND, 0, 32), Ok(()), "200 bytes a second");
        assert!(quiet.judge(60 * SECOND, 0, 31).is_err());
    }
}
