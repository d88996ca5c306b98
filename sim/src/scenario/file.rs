//! Scenarios from files: errors name the file and the line.

use super::{ArrivalKind, Factor, NODES_MAX, Policy, SEEDS_MAX, Scenario, Share, Size, Span};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use swarmdisk_core::geometry::{CHUNK_SHIFT_MAX, CHUNK_SHIFT_MIN};

/// How many of the nodes may leave in a minute, in percent.
const CHURN_MAX: Factor = Factor(60_000 * 1_000_000);

/// Why there is no scenario: whoever wrote it is at fault, or the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; name a scenario such as those in sim/scenarios", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or a value is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Wrong {
        /// In which file.
        path: PathBuf,
        /// On which line, from 1.
        line: usize,
        /// What.
        message: String,
    },
    /// A key that was set from outside is wrong.
    #[error("`{assignment}`: {message}; write it as in `policy.window=300`")]
    Assignment {
        /// As it was given.
        assignment: String,
        /// What.
        message: String,
    },
}

/// Reads a scenario.
///
/// # Errors
/// See [`ScenarioError`].
pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
    load_with(path, &[])
}

/// Reads a scenario and sets keys in it: dotted path and value, as in `("policy.window", "300")`. Numbers in a path count
/// from 0: `group.0.count`.
///
/// # Errors
/// See [`ScenarioError`].
pub fn load_with(path: &Path, assignments: &[(String, String)]) -> Result<Scenario, ScenarioError> {
    let text = fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
    let mut scenario = Scenario::parse(&text, path)?;
    if !assignments.is_empty() {
        scenario = assigned(&text, path, assignments)?;
    }
    if scenario.name.is_empty() {
        scenario.name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let in_workloads = scenario.workloads.iter_mut().flat_map(|workload| &mut workload.traces);
    let of_images = scenario.images.iter_mut().filter_map(|image| image.swarm.as_mut());
    for file in in_workloads.chain(&mut scenario.profile.traces).chain(of_images) {
        *file = folder.join(&*file);
    }
    Ok(scenario)
}

fn assigned(text: &str, path: &Path, assignments: &[(String, String)]) -> Result<Scenario, ScenarioError> {
    let mut table: toml::Table = toml::from_str(text).map_err(|error| wrong(text, path, &error))?;
    for (key, value) in assignments {
        let fail = |message: &str| ScenarioError::Assignment {
            assignment: format!("{key}={value}"),
            message: message.to_owned(),
        };
        // What is no value of TOML is text: `network.rack-rtt=1ms`.
        let parsed =
            toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut table| table.remove("v"));
        let value = parsed.unwrap_or_else(|| toml::Value::String(value.clone()));
        set(&mut table, key, value).ok_or_else(|| fail("there is no such place in the scenario"))?;
        // Each by itself, so that the error names the one that is wrong.
        if let Err(error) = table.clone().try_into::<Scenario>() {
            return Err(fail(error.message().lines().next().unwrap_or_default()));
        }
    }
    let scenario: Scenario = table.try_into().map_err(|error| wrong(text, path, &error))?;
    scenario.check().map_err(|(key, message)| at_key(text, path, key, message))?;
    Ok(scenario)
}

/// Sets a dotted key; tables and first elements of lists that are not there are made.
fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> Option<()> {
    let (head, rest) = match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            return Some(());
        }
        Some(parts) => parts,
    };
    let lists = ["image", "group", "workload", "fault"];
    let fresh = || match lists.contains(&head) {
        true => toml::Value::Array(Vec::new()),
        false => toml::Value::Table(toml::Table::new()),
    };
    match table.entry(head).or_insert_with(fresh) {
        toml::Value::Table(inner) => set(inner, rest, value),
        toml::Value::Array(list) => {
            let (index, rest) = rest.split_once('.')?;
            let index: usize = index.parse().ok()?;
            if index == list.len() {
                list.push(toml::Value::Table(toml::Table::new()));
            }
            set(list.get_mut(index)?.as_table_mut()?, rest, value)
        }
        _ => None,
    }
}

impl Scenario {
    /// Reads a scenario; `path` is for errors.
    ///
    /// # Errors
    /// [`ScenarioError::Wrong`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|error| wrong(text, path, &error))?;
        scenario.check().map_err(|(key, message)| at_key(text, path, key, message))?;
        Ok(scenario)
    }

    /// What no value shows by itself: the key, and what is wrong.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let nodes: u64 = self.groups.iter().map(|group| u64::from(group.count)).sum();
        let seeds = u64::from(self.seeds.count);
        if nodes == 0 || nodes > NODES_MAX.into() {
            return Err(("group.count", format!("{nodes} nodes; there must be 1 to {NODES_MAX}")));
        }
        if seeds == 0 || seeds > SEEDS_MAX.into() {
            return Err(("seeds.count", format!("{seeds} seeds; there must be 1 to {SEEDS_MAX}")));
        }
        if let Some(group) = self.groups.iter().find(|group| group.racks == 0 || group.racks > group.count) {
            return Err((
                "group.racks",
                format!("{} racks for {} nodes; give each at least one", group.racks, group.count),
            ));
        }
        self.check_images()?;
        self.check_bounds(nodes)?;
        if self.workloads.is_empty() || self.workloads.iter().all(|workload| workload.weight == 0) {
            return Err(("workload.weight", "no workload is ever drawn; give one a weight".into()));
        }
        if self.workloads.iter().any(|workload| workload.traces.is_empty() && workload.chunks == 0) {
            return Err(("workload.chunks", "a made-up boot reads at least one chunk".into()));
        }
        if self.arrivals.size == 0 && self.arrivals.kind == ArrivalKind::Waves {
            return Err(("arrivals.size", "a wave has at least one node".into()));
        }
        if u32::from(self.seeds.links) * u32::from(self.seed_requests()) > u32::from(u16::MAX) || self.seeds.links == 0
        {
            return Err(("seeds.links", "a seed takes 1 to 65535 links".into()));
        }
        if self.seeds.unchoked_for < Span::millis(1) {
            return Err(("seeds.unchoked-for", "a node is served for some time; 1ms is the least".into()));
        }
        self.policies().try_for_each(check_policy)?;
        Ok(())
    }

    /// Beyond these a run would be wrong, or never end.
    fn check_bounds(&self, nodes: u64) -> Result<(), (&'static str, String)> {
        if self.groups.iter().any(|group| group.zone >= NODES_MAX) {
            return Err(("group.zone", format!("zones are numbered 0 to {}", NODES_MAX - 1)));
        }
        if self.faults.iter().any(|fault| fault.node.is_some_and(|node| u64::from(node) >= nodes)) {
            return Err(("fault.node", format!("the nodes are numbered 0 to {}", nodes - 1)));
        }
        if self.network.loss > Share(500_000) {
            return Err(("network.loss", "beyond half of the packets nothing is modelled; 0.5 is the most".into()));
        }
        if self.leaving.percent_per_minute > CHURN_MAX {
            return Err((
                "leaving.percent-per-minute",
                "a node leaves at most ten times a second: 60000 is the most".into(),
            ));
        }
        if self.policies().any(|policy| policy.timeout < Span::millis(1)) {
            return Err(("policy.timeout", "a fetch needs time; 1ms is the least".into()));
        }
        let unsent = self.policies().map(|policy| ("policy.unsent", policy.unsent));
        if let Some((key, _)) = unsent.chain([("seeds.unsent", self.seeds.unsent)]).find(|(_, size)| *size == Size(0)) {
            return Err((key, "whoever hands nothing over sends nothing; 1 byte is the least".into()));
        }
        if self.host.capacity == Some(0) {
            return Err(("host.capacity", "a cache holds at least one piece; leave the key out for no bound".into()));
        }
        Ok(())
    }

    fn check_images(&self) -> Result<(), (&'static str, String)> {
        for image in &self.images {
            let shift = image.chunk.0.trailing_zeros() as u8;
            if !image.chunk.0.is_power_of_two() || !(CHUNK_SHIFT_MIN..=CHUNK_SHIFT_MAX).contains(&shift) {
                return Err(("image.chunk", "a chunk is a power of two from 16K to 1M".into()));
            }
            if image.size.0 == 0 || image.size.0 > 1 << 44 {
                return Err(("image.size", "an image has 1 byte to 16T".into()));
            }
            if image.payload_min > image.payload_max || image.payload_max > image.chunk || image.payload_min.0 == 0 {
                return Err((
                    "image.payload-max",
                    "payloads are 1 byte to a chunk long, payload-min at most payload-max".into(),
                ));
            }
        }
        if self.images.is_empty() {
            return Err(("image", "there is no image".into()));
        }
        for group in &self.groups {
            let known = |name: &String| self.images.iter().any(|image| image.name == *name);
            if let Some(name) = group.image.as_ref().filter(|name| !known(name)) {
                return Err(("group.image", format!("no image is named `{name}`")));
            }
            let known = |name: &String| self.workloads.iter().any(|workload| workload.name == *name);
            if let Some(name) = group.workload.as_ref().filter(|name| !known(name)) {
                return Err(("group.workload", format!("no workload is named `{name}`")));
            }
        }
        Ok(())
    }

    /// Requests that one peer may have waiting at a seed: fewer where it has very many links.
    pub(crate) fn seed_requests(&self) -> u16 {
        (u16::MAX / self.seeds.links.max(1)).min(self.policy.requests_per_peer).max(1)
    }
}

/// What an engine would refuse.
fn check_policy(policy: &Policy) -> Result<(), (&'static str, String)> {
    if policy.links_max == 0 || u32::from(policy.links_max) * u32::from(policy.requests_per_peer.max(1)) > 65535 {
        return Err(("policy.links-max", "links times requests-per-peer must be 1 to 65535".into()));
    }
    if policy.transfers == 0 {
        return Err(("transfers", "a node must be able to fetch something; 1 is the least".into()));
    }
    if policy.requests_per_peer == 0 {
        return Err(("policy.requests-per-peer", "a peer must be able to ask for something; 1 is the least".into()));
    }
    Ok(())
}

fn wrong(text: &str, path: &Path, error: &toml::de::Error) -> ScenarioError {
    let line = error.span().map_or(1, |span| line_of(text, span.start));
    let message = error.message().split('\n').map(str::trim).collect::<Vec<_>>().join("; ");
    ScenarioError::Wrong { path: path.to_owned(), line, message }
}

/// `key` is a table's and its own name; without it the line is the table's, and without that the first.
fn at_key(text: &str, path: &Path, key: &str, message: String) -> ScenarioError {
    let (table, name) = key.split_once('.').unwrap_or((key, ""));
    let (mut in_table, mut header) = (false, None);
    let is_it = |(number, line): (usize, &str)| {
        let line = line.trim_start();
        if let Some(title) = line.strip_prefix('[') {
            in_table = title.trim_start_matches('[').split(']').next().map(str::trim) == Some(table);
            header = header.or(in_table.then_some(number));
        }
        let is_key = in_table && line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='));
        is_key.then_some(number)
    };
    let at = text.lines().enumerate().find_map(is_it);
    ScenarioError::Wrong { path: path.to_owned(), line: at.or(header).map_or(1, |line| line + 1), message }
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Rate, Share};

    fn message(text: &str) -> String {
        Scenario::parse(text, Path::new("a.toml")).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_a_scenario() {
        assert_eq!(Scenario::parse("", Path::new("a")).unwrap(), Scenario::default());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = "[[group]]\ncount = 3\nheld = 0.5\n[[fault]]\nwhat = \"crash\"\nat = \"2s\"\n";
        let scenario = Scenario::parse(text, Path::new("a")).unwrap();
        assert_eq!((scenario.groups[0].count, scenario.groups[0].held), (3, Share(500_000)));
        let again = toml::to_string(&scenario).unwrap();
        assert_eq!(Scenario::parse(&again, Path::new("a")).unwrap(), scenario);
    }

    #[test]
    fn errors_name_file_and_line() {
        assert!(
            message("seed = 1\n[network]\nlos = 0.1\n").starts_with("a.toml:3: unknown field `los`, expected one of")
        );
        assert_eq!(
            message("\n[seeds]\nup = \"fast\"\n"),
            "a.toml:3: `fast` is no rate; write it as in 100mbit or 12MB (a second)"
        );
        assert!(message("[[group]]\ncount = 0\n").starts_with("a.toml:2: 0 nodes;"));
        assert!(message("[[fault]]\nwhat = \"crahs\"\nat = \"1s\"\n").starts_with("a.toml:2: unknown variant `crahs`"));
        assert!(message("[[image]]\nchunk = \"65K\"\n").starts_with("a.toml:2: a chunk is a power of two"));
        assert!(message("seed = \n").starts_with("a.toml:1:"));
        for (text, line) in [
            ("[[group]]\nzone = 4000000000\n", 2),
            ("[[fault]]\nwhat = \"kill\"\nat = \"1s\"\nnode = 8\n", 4),
            ("[seeds]\ncount = 2\n[[group]]\ncount = 0\n", 4),
            ("[[group]]\nracks = 3\n[seeds]\n# none\n count= 0\n", 5),
            ("[network]\nloss = 1\n", 2),
            ("[leaving]\npercent-per-minute = 1e9\n", 2),
            ("[policy]\ntimeout = \"0s\"\n", 2),
            ("[policy]\nunsent = 0\n", 2),
            ("[seeds]\nunsent = 0\n", 2),
            ("[seeds]\nunchoked-for = \"0s\"\n", 2),
            ("[host]\ncapacity = 0\n", 2),
        ] {
            assert!(message(text).starts_with(&format!("a.toml:{line}: ")), "{}", message(text));
        }
        assert!(message("[[group]]\nimage = \"v2\"\n").starts_with("a.toml:2: no image is named `v2`"));
    }

    #[test]
    fn keys_can_be_set_from_outside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.toml");
        fs::write(&path, "[seeds]\ncount = 2\n").unwrap();
        let set = |key: &str, value: &str| load_with(&path, &[(key.into(), value.into())]);
        assert_eq!(set("group.0.count", "40").unwrap().groups[0].count, 40);
        assert_eq!(set("seeds.up", "1gbit").unwrap().seeds.up, Rate(125_000_000));
        assert_eq!(set("name", "x").unwrap().name, "x");
        assert_eq!(load(&path).unwrap().name, "small");
        for (key, value) in [("seeds.upp", "1gbit"), ("group.5.count", "1"), ("seeds.up", "7"), ("seed.x", "1")] {
            let error = set(key, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{key}={value}`: ")), "{error}");
        }
    }
}
