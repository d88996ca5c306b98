//! What is run: sweeps over the two scenarios.

use super::Counts;
use crate::scenario::Image;
use crate::sweep::{Axis, Plan, Seeds, SweepError};
use std::path::PathBuf;

/// All orders, with and without redirects.
pub(super) const REDIRECTS: &str = "redirects";
/// All orders, the seed serves few at a time.
pub(super) const UNCHOKED: &str = "unchoked";
/// The random order that takes the soonest in every second pick.
pub(super) const HALF: &str = "half";
/// What hosts run.
pub(super) const DEFAULTS: &str = "defaults";
/// What hosts run, over VMTorrent's grid.
pub(super) const OURS: &str = "ours";
/// VMTorrent's own policy, over its grid.
pub(super) const VMTORRENT: &str = "vmtorrent";
/// The same with chunks as ours are.
pub(super) const VMTORRENT_CHUNKS: &str = "vmtorrent, our chunks";
/// Nodes that know the seed alone.
pub(super) const ONE_SERVER: &str = "one server";
/// Profiles with gaps.
pub(super) const GAPS: &str = "gaps";
/// Guests of another image than the profile's: with a profile of their own, with the wrong one, with none.
pub(super) const OTHERS: [&str; 3] = ["own profile", "wrong profile", "no profile"];

/// VMTorrent's window, in entries of the profile.
pub(super) const WINDOW: &str = "300";
/// Nodes that a seed serves at a time, beside the optimistic one.
pub(super) const UNCHOKED_NODES: &str = "4";
/// The orders by name.
pub(super) const ORDERS: &str = "windowed-random,rarest,in-order,owners";
/// Shares of the chunks that are left out of the profile.
pub(super) const MISSING: &str = "0.02,0.1";

/// What is to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The folder of the scenarios.
    pub scenarios: PathBuf,
    /// Nodes in the tables of policies.
    pub nodes: Counts,
    /// Nodes in VMTorrent's grid.
    pub grid: Counts,
    /// Of the draws.
    pub seeds: Seeds,
}

/// One sweep.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Its points.
    pub plan: Plan,
}

impl Spec {
    /// The sweeps, checked.
    ///
    /// # Errors
    /// [`SweepError`]: a scenario is missing or wrong.
    pub fn parts(&self) -> Result<Vec<Part>, SweepError> {
        let random = [("policy.window", WINDOW), ("policy.soonest-every", "0")];
        let unchoked = [&random[..], &[("policy.redirect", "off"), ("seeds.unchoked", UNCHOKED_NODES)]].concat();
        let half = [("policy.window", WINDOW), ("policy.soonest-every", "2"), ("policy.order", "windowed-random")];
        let orders = ("policy.order", ORDERS);
        let redirects = ("policy.redirect", "on,off");
        let starts = ("arrivals.kind", "at-once,staggered");
        let image = Image::default();
        let sizes = [image.chunk, image.payload_min, image.payload_max].map(|size| size.0.to_string());
        let keys = ["image.0.chunk", "image.0.payload-min", "image.0.payload-max"];
        let chunks: Vec<(&str, &str)> = keys.into_iter().zip(sizes.iter().map(String::as_str)).collect();
        let alone = [("policy.links", "0"), ("policy.redirect", "off")];
        // A boot that nobody recorded, at its own pace: of another image than the recorded ones.
        let other = [("workload.0.traces", "[]"), ("workload.0.speed", "1")];
        let own = [&other[..], &[("profile.traces", "[]")]].concat();
        let none = [&other[..], &[("profile.offered", "false")]].concat();
        let (nodes, grid) = (&self.nodes, &self.grid);
        Ok(vec![
            self.part(REDIRECTS, "vmtorrent", &random, nodes, &[orders, redirects])?,
            self.part(UNCHOKED, "vmtorrent", &unchoked, nodes, &[orders])?,
            self.part(HALF, "vmtorrent", &half, nodes, &[redirects])?,
            self.part(DEFAULTS, "vmtorrent", &[], nodes, &[])?,
            self.part(GAPS, "vmtorrent", &[], nodes, &[("profile.missing", MISSING)])?,
            self.part(OTHERS[0], "vmtorrent", &own, nodes, &[])?,
            self.part(OTHERS[1], "vmtorrent", &other, nodes, &[])?,
            self.part(OTHERS[2], "vmtorrent", &none, nodes, &[])?,
            self.part(OURS, "vmtorrent", &[], grid, &[starts])?,
            self.part(VMTORRENT, "vmtorrent-own", &[], grid, &[starts])?,
            self.part(VMTORRENT_CHUNKS, "vmtorrent-own", &chunks, grid, &[starts])?,
            self.part(ONE_SERVER, "vmtorrent", &alone, grid, &[("arrivals.kind", "at-once")])?,
        ])
    }

    fn part(
        &self,
        name: &'static str,
        scenario: &str,
        set: &[(&str, &str)],
        counts: &Counts,
        axes: &[(&str, &str)],
    ) -> Result<Part, SweepError> {
        let set: Vec<_> = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let counts: Vec<String> = counts.0.iter().map(u32::to_string).collect();
        let counts = counts.join(",");
        let counts = [("group.0.count", counts.as_str())];
        let axes = counts.iter().chain(axes).map(|(key, values)| format!("{key}={values}").parse());
        let axes: Vec<Axis> = axes.collect::<Result<_, _>>().map_err(SweepError::Grid)?;
        let path = self.scenarios.join(format!("{scenario}.toml"));
        Ok(Part { name, plan: Plan::new(&path, &set, &axes, Some(&self.seeds))? })
    }
}
