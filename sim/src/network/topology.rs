//! Hosts, their racks and zones, and the links on the way between two hosts.
//!
//! *Invariants*: a path is up from the host to the nearest place that both share, then down; a link is one direction.
//! *Units*: bytes a second of TCP payload, nanoseconds one way. *Bounds*: at most [`PATH_LINKS_MAX`] links a path.

use super::{HostIndex, Nanos};

/// Host, rack and zone, up and down.
pub const PATH_LINKS_MAX: usize = 6;

/// A link's number.
pub type LinkIndex = u32;

/// A host's place and its own links.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// What it can send, in bytes a second.
    pub up: u64,
    /// What it can receive, in bytes a second.
    pub down: u64,
    /// Its rack; racks are numbered across all zones.
    pub rack: u32,
}

/// All of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologySpec {
    /// The hosts.
    pub hosts: Vec<HostSpec>,
    /// The zone of each rack.
    pub rack_zones: Vec<u32>,
    /// What a rack can send and receive, in bytes a second; none: no limit.
    pub rack_rate: Option<u64>,
    /// The same of a zone.
    pub zone_rate: Option<u64>,
    /// From host to host in one rack, in nanoseconds one way.
    pub rack_latency: Nanos,
    /// The same between racks of a zone.
    pub zone_latency: Nanos,
    /// The same between zones.
    pub world_latency: Nanos,
}

/// The way between two hosts.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub struct Path {
    links: [LinkIndex; PATH_LINKS_MAX],
    length: u8,
    /// One way, in nanoseconds.
    pub latency: Nanos,
}

impl Path {
    /// The links, in order.
    pub fn links(&self) -> &[LinkIndex] {
        &self.links[..self.length.into()]
    }
}

/// What a link is for, in reports.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Usage {
    /// What a host sends.
    Up,
    /// What a host receives.
    Down,
}

/// The hosts and links of a network.
#[derive(Debug, Clone)]
pub struct Topology {
    spec: TopologySpec,
    rates: Vec<u64>,
    rack_base: u32,
    zone_base: u32,
}

impl Topology {
    /// Lays out the links: two a host, then two a rack and two a zone where these are limited.
    pub fn new(spec: TopologySpec) -> Self {
        let mut rates: Vec<u64> = spec.hosts.iter().flat_map(|host| [host.up.max(1), host.down.max(1)]).collect();
        let rack_base = rates.len() as u32;
        if let Some(rate) = spec.rack_rate {
            rates.extend(spec.rack_zones.iter().flat_map(|_| [rate.max(1); 2]));
        }
        let zone_base = rates.len() as u32;
        if let Some(rate) = spec.zone_rate {
            let zones = spec.rack_zones.iter().max().map_or(0, |zone| zone + 1);
            rates.extend((0..zones).flat_map(|_| [rate.max(1); 2]));
        }
        Self { spec, rates, rack_base, zone_base }
    }

    /// What it was made from.
    pub fn spec(&self) -> &TopologySpec {
        &self.spec
    }

    /// Number of hosts.
    pub fn host_count(&self) -> usize {
        self.spec.hosts.len()
    }

    /// The rate of each link, in bytes a second.
    pub fn rates(&self) -> &[u64] {
        &self.rates
    }

    /// A host's own link.
    pub fn host_link(&self, host: HostIndex, usage: Usage) -> LinkIndex {
        host * 2 + u32::from(usage == Usage::Down)
    }

    /// The links of racks and zones, each with a name for people.
    pub fn shared_links(&self) -> impl Iterator<Item = (String, LinkIndex)> {
        (self.rack_base..self.rates.len() as u32).map(|link| {
            let (what, base) = if link < self.zone_base { ("rack", self.rack_base) } else { ("zone", self.zone_base) };
            let (number, way) = ((link - base) / 2, if (link - base).is_multiple_of(2) { "up" } else { "down" });
            (format!("{what} {number} {way}"), link)
        })
    }

    /// The rack of a host.
    pub fn rack(&self, host: HostIndex) -> u32 {
        self.spec.hosts[host as usize].rack
    }

    /// The zone of a host.
    pub fn zone(&self, host: HostIndex) -> u32 {
        self.spec.rack_zones[self.rack(host) as usize]
    }

    /// The way from one host to another.
    pub fn path(&self, from: HostIndex, to: HostIndex) -> Path {
        let mut path = Path { links: [0; PATH_LINKS_MAX], length: 0, latency: self.latency(from, to) };
        let mut push = |link| {
            path.links[usize::from(path.length)] = link;
            path.length += 1;
        };
        let (racks, zones) = ((self.rack(from), self.rack(to)), (self.zone(from), self.zone(to)));
        let (rack_limited, zone_limited) = (self.spec.rack_rate.is_some(), self.spec.zone_rate.is_some());
        push(self.host_link(from, Usage::Up));
        if racks.0 != racks.1 && rack_limited {
            push(self.rack_base + racks.0 * 2);
        }
        if zones.0 != zones.1 && zone_limited {
            push(self.zone_base + zones.0 * 2);
            push(self.zone_base + zones.1 * 2 + 1);
        }
        if racks.0 != racks.1 && rack_limited {
            push(self.rack_base + racks.1 * 2 + 1);
        }
        push(self.host_link(to, Usage::Down));
        path
    }

    /// One way, in nanoseconds.
    pub fn latency(&self, from: HostIndex, to: HostIndex) -> Nanos {
        if self.rack(from) == self.rack(to) {
            self.spec.rack_latency
        } else if self.zone(from) == self.zone(to) {
            self.spec.zone_latency
        } else {
            self.spec.world_latency
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TopologySpec {
        let host = |rack| HostSpec { up: 10, down: 20, rack };
        TopologySpec {
            hosts: vec![host(0), host(0), host(1), host(2)],
            rack_zones: vec![0, 0, 1],
            rack_rate: Some(100),
            zone_rate: Some(1000),
            rack_latency: 1,
            zone_latency: 2,
            world_latency: 3,
        }
    }

    #[test]
    fn paths_climb_no_higher_than_they_must() {
        let topology = Topology::new(spec());
        // Hosts 0 to 7, racks 8 to 13, zones 14 to 17.
        assert_eq!(topology.rates().len(), 18);
        let way = |from, to| (topology.path(from, to).links().to_vec(), topology.path(from, to).latency);
        assert_eq!(way(0, 1), (vec![0, 3], 1));
        assert_eq!(way(0, 2), (vec![0, 8, 11, 5], 2));
        assert_eq!(way(3, 0), (vec![6, 12, 16, 15, 9, 1], 3));
    }

    #[test]
    fn links_without_a_limit_are_not_there() {
        let topology = Topology::new(TopologySpec { rack_rate: None, zone_rate: None, ..spec() });
        assert_eq!(topology.rates().len(), 8);
        assert_eq!(topology.path(0, 3).links(), [0, 7]);
    }
}
