//! The settings, and what is aimed at in each.

use super::{Aim, Measure, Setting};
use Measure::{Against, Median, Origin, OverBound, Percentile95, Slowest, Upload, Waited};

/// A list of settings, of aims.
macro_rules! settings {
    ($($name:literal: $scenario:literal [$($key:literal = $value:literal),*] $({ $($measure:expr => $most:literal),* })?;)*) => {
        &[$(Setting {
            name: $name,
            scenario: $scenario,
            set: &[$(($key, $value)),*],
            aims: &[$($(Aim { of: $measure, most: $most }),*)?],
        }),*]
    };
}

/// The settings.
pub const SETTINGS: &[Setting] = settings! {
    "10 nodes at once": "vmtorrent" ["group.0.count" = "10"]
        { Median => 1.03, Percentile95 => 1.05, Origin => 1.05, Upload => 2.0 };
    "100 nodes at once": "vmtorrent" ["group.0.count" = "100"]
        { Median => 1.03, Percentile95 => 1.05, Origin => 1.05, Upload => 2.0 };
    "1,000 nodes at once": "vmtorrent" ["group.0.count" = "1000"]
        { Median => 1.03, Percentile95 => 1.05, Against("10 nodes at once") => 1.05, Origin => 1.05, Upload => 2.0 };
    "1,000 servers at 1 Gbit/s in 25 racks, the seed at 10 Gbit/s": "data-centre" []
        { Median => 1.03, Percentile95 => 1.05, Origin => 1.05, Upload => 2.0 };
    "8 nodes, each 0.2 s after the one before":
        "vmtorrent" ["group.0.count" = "8", "arrivals.kind" = "staggered", "arrivals.every" = "200ms"]
        { Median => 1.05, Slowest => 1.5 };
    "100 nodes, each 0.2 s after the one before":
        "vmtorrent" ["group.0.count" = "100", "arrivals.kind" = "staggered", "arrivals.every" = "200ms"]
        { Median => 1.03, Slowest => 1.35 };
    "100 nodes, 2 % of what is touched missing from the profile":
        "vmtorrent" ["group.0.count" = "100", "profile.missing" = "0.02"] { Median => 1.10 };
    "100 nodes, 10 % missing": "vmtorrent" ["group.0.count" = "100", "profile.missing" = "0.1"] { Median => 1.35 };
    "1 node, live": "vmtorrent" ["group.0.count" = "1", "policy.prefetch" = "live"];
    "8 nodes at once, live": "vmtorrent" ["group.0.count" = "8", "policy.prefetch" = "live"]
        { Median => 1.6, Against("1 node, live") => 1.10, Origin => 1.2 };
    "8 nodes, each 0.2 s after the one before, live": "vmtorrent"
        ["group.0.count" = "8", "policy.prefetch" = "live", "arrivals.kind" = "staggered", "arrivals.every" = "200ms"]
        { Median => 1.05, Slowest => 1.5 };
    "8 nodes at once at 1 Gbit/s, live": "vmtorrent"
        ["group.0.count" = "8", "policy.prefetch" = "live", "group.0.up" = "1gbit", "group.0.down" = "1gbit", "seeds.up" = "1gbit"]
        { Median => 1.2 };
    "100 nodes at once, think time ÷ 20: the network is the limit":
        "vmtorrent" ["group.0.count" = "100", "workload.0.speed" = "20"] { OverBound => 1.12 };
    "100 nodes at once, think time ÷ 40": "vmtorrent" ["group.0.count" = "100", "workload.0.speed" = "40"]
        { OverBound => 1.12 };
    "100 nodes at once at 25 Mbit/s": "vmtorrent"
        ["group.0.count" = "100", "group.0.up" = "25mbit", "group.0.down" = "25mbit", "seeds.up" = "25mbit"]
        { OverBound => 1.12 };
    "100 desktops at once": "desktop" [] { OverBound => 1.12 };
    "1,000 nodes at once, think time ÷ 20":
        "vmtorrent" ["group.0.count" = "1000", "workload.0.speed" = "20"] { OverBound => 1.12 };
    "100 nodes, each 0.2 s after the one before, 10 % crash a minute": "vmtorrent"
        ["group.0.count" = "100", "arrivals.kind" = "staggered", "arrivals.every" = "200ms", "leaving.kind" = "churn"]
        { Origin => 1.2 };
    "100 servers at 10 Gbit/s and 0.2 ms": "fast" [] { Waited => 0.01 };
    "8 servers at 10 Gbit/s and 0.2 ms, live": "fast" ["group.0.count" = "8", "policy.prefetch" = "live"]
        { Waited => 0.04 };
    "30 nodes of another image than the profile's":
        "vmtorrent" ["group.0.count" = "30", "workload.0.traces" = "[]", "workload.0.speed" = "1"]
        { Against("30 nodes of that image, no profile") => 1.10 };
    "30 nodes of that image, no profile": "vmtorrent" [
        "group.0.count" = "30", "workload.0.traces" = "[]", "workload.0.speed" = "1", "profile.offered" = "false"];
};
