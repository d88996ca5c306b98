//! Where a node stands: zone, rack and host, as labels that only say whether two nodes share them.
//!
//! *Purpose*: bytes shall cross from rack to rack once, not once for each node. *Invariants*: a level's label is computed of
//! its name and of all coarser ones that are said, so it equals another only if these do; hence nearness is an ultrametric:
//! who is near the same node is as near each other. *Units*: 32 bits a level, 0 if it is not said: names need not travel, and
//! of two different ones at most some 2^-32 are taken for the same, which costs a detour and nothing else.
//!
//! Labels of peers are their word. What hangs on them is whose turn it is to fetch and who is asked first, and there in
//! bounds: the order of prefetching waits for nobody longer than it is patient, and what a guest waits for is asked of
//! whoever is expected to send it clearly sooner ([`policy`](crate::policy)).

use serde::{Deserialize, Serialize};

/// A node's labels.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locality {
    /// Of its zone, 0 if it has not said.
    pub zone: u32,
    /// Of its rack.
    pub rack: u32,
    /// Of the machine that it runs on.
    pub host: u32,
}

/// How many places two nodes share. Ordered: the nearest is the greatest.
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// None that is known.
    #[default]
    Far,
    /// The zone.
    Zone,
    /// The rack.
    Rack,
    /// The machine.
    Host,
}

impl Nearness {
    /// From the nearest on.
    pub const ALL: [Self; 4] = [Self::Host, Self::Rack, Self::Zone, Self::Far];

    /// How many levels farther than `nearest` this is.
    pub const fn levels_beyond(self, nearest: Self) -> u32 {
        (nearest as u32).saturating_sub(self as u32)
    }
}

impl Locality {
    /// Nothing is said.
    pub const NONE: Self = Self { zone: 0, rack: 0, host: 0 };

    /// The labels of these names. A name has no comma in it, or it could be taken for two.
    pub fn new(zone: Option<&str>, rack: Option<&str>, host: Option<&str>) -> Self {
        let mut said = crc32fast::Hasher::new();
        let mut label = |key: &str, name: Option<&str>| {
            let name = name?;
            [key, "=", name, ","].iter().for_each(|part| said.update(part.as_bytes()));
            Some(said.clone().finalize().max(1))
        };
        let [zone, rack, host] = [("zone", zone), ("rack", rack), ("host", host)].map(|(key, name)| label(key, name));
        Self { zone: zone.unwrap_or(0), rack: rack.unwrap_or(0), host: host.unwrap_or(0) }
    }

    /// Whether anything is said.
    pub const fn is_said(&self) -> bool {
        self.zone != 0 || self.rack != 0 || self.host != 0
    }

    /// How near a node of these labels is.
    pub const fn nearness(&self, other: &Self) -> Nearness {
        if self.host != 0 && self.host == other.host {
            Nearness::Host
        } else if self.rack != 0 && self.rack == other.rack {
            Nearness::Rack
        } else if self.zone != 0 && self.zone == other.zone {
            Nearness::Zone
        } else {
            Nearness::Far
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finer_label_equals_only_where_the_coarser_ones_do() {
        let of = |zone, rack, host| Locality::new(zone, rack, host);
        let (a, b) = (Some("a"), Some("b"));
        let here = of(a, Some("7"), Some("x"));
        let near = |other| here.nearness(&other);
        assert_eq!(near(here), Nearness::Host);
        assert_eq!(near(of(a, Some("7"), Some("y"))), Nearness::Rack);
        assert_eq!(near(of(a, Some("8"), Some("x"))), Nearness::Zone, "a host of that name in another rack");
        assert_eq!(near(of(b, Some("7"), Some("x"))), Nearness::Far, "a rack of that name in another zone");
        assert_eq!(near(of(None, Some("7"), Some("x"))), Nearness::Far, "a rack of who knows which zone");
        assert_eq!(near(of(a, None, None)), Nearness::Zone);
        assert_eq!(near(Locality::NONE), Nearness::Far);
        assert_eq!(Locality::NONE.nearness(&Locality::NONE), Nearness::Far, "what is not said is not shared");
        let racks = [of(None, a, None), of(None, b, None)];
        assert_eq!(racks[0].nearness(&racks[0]), Nearness::Rack, "the zone need not be said");
        assert_eq!(racks[0].nearness(&racks[1]), Nearness::Far);
    }

    #[test]
    fn labels_are_those_of_the_protocol() {
        // CRC-32 of `zone=a,`, of `zone=a,rack=7,` and of `zone=a,host=x,`.
        let crc = |text: &[u8]| crc32fast::hash(text);
        assert_eq!(
            Locality::new(Some("a"), Some("7"), None),
            Locality { zone: crc(b"zone=a,"), rack: crc(b"zone=a,rack=7,"), host: 0 }
        );
        assert_eq!(Locality::new(Some("a"), None, Some("x")).host, crc(b"zone=a,host=x,"));
        assert!(!Locality::new(None, None, None).is_said());
    }
}
