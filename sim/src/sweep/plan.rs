//! The points of a sweep, each with its scenario, checked before anything runs.
//!
//! *Invariants*: grid order is that of counting, the first key slowest, seeds fastest; points have numbers from 1. The
//! fingerprint stands for all that decides the rows: scenarios, what is in the files that they name, seeds, and the version.

use super::{Axis, POINTS_MAX, Seeds, SweepError};
use crate::model::{ImageModel, Setup};
use crate::scenario::{self, Scenario};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Digits of a fingerprint.
const FINGERPRINT_DIGITS: usize = 16;

/// All points of a sweep.
#[derive(Debug)]
pub struct Plan {
    /// The grid's keys.
    pub keys: Vec<String>,
    /// Which sweep this is.
    pub fingerprint: String,
    seeds: Vec<u64>,
    places: Vec<Place>,
}

/// A point but for its seed.
#[derive(Debug)]
struct Place {
    values: Vec<String>,
    scenario: Scenario,
}

/// A point.
#[derive(Debug, Copy, Clone)]
pub struct Point<'a> {
    /// From 1, in grid order.
    pub number: u32,
    /// Of each key.
    pub values: &'a [String],
    /// Of its draws.
    pub seed: u64,
    /// What is run.
    pub scenario: &'a Scenario,
}

impl Plan {
    /// The points of a grid over a scenario in which `set` is set at all of them. Without seeds, the scenario's own is taken.
    ///
    /// # Errors
    /// [`SweepError`]; a point that cannot be is named.
    pub fn new(
        path: &Path,
        set: &[(String, String)],
        axes: &[Axis],
        seeds: Option<&Seeds>,
    ) -> Result<Self, SweepError> {
        let keys: Vec<String> = axes.iter().map(|axis| axis.key.clone()).collect();
        if let Some(key) = keys.iter().enumerate().find_map(|(at, key)| keys[..at].contains(key).then_some(key)) {
            return Err(SweepError::Grid(format!("the grid has `{key}` twice; give all its values at once")));
        }
        let place_count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.values.len()));
        let seed_count = seeds.map_or(1, |seeds| seeds.0.len());
        let point_count = place_count.and_then(|count| count.checked_mul(seed_count));
        let Some((place_count, _)) = place_count.zip(point_count.filter(|count| *count <= POINTS_MAX)) else {
            return Err(SweepError::Grid(format!("the grid has more than {POINTS_MAX} points; make several sweeps")));
        };
        // What is wrong with the file itself is no fault of a point.
        scenario::load(path)?;
        let places = (0..place_count).map(|place| {
            let (assignments, values) = assignments(set, axes, place);
            let scenario = scenario::load_with(path, &assignments).map_err(|error| SweepError::Point {
                point: label(place * seed_count + 1, &keys, &values, None),
                message: error.to_string(),
            })?;
            Ok(Place { values, scenario })
        });
        let places = places.collect::<Result<Vec<_>, SweepError>>()?;
        let seeds = seeds.map_or_else(|| vec![places[0].scenario.seed], |seeds| seeds.0.clone());
        let mut plan = Self { keys, fingerprint: String::new(), seeds, places };
        plan.fingerprint = plan.fingerprint()?;
        Ok(plan)
    }

    /// How many points there are.
    pub fn point_count(&self) -> usize {
        self.places.len() * self.seeds.len()
    }

    /// A point, by number.
    ///
    /// # Panics
    /// If there is no such point.
    pub fn point(&self, number: u32) -> Point<'_> {
        let index = number as usize - 1;
        let place = &self.places[index / self.seeds.len()];
        let seed = self.seeds[index % self.seeds.len()];
        Point { number, values: &place.values, seed, scenario: &place.scenario }
    }

    /// A point as people are told of it.
    pub fn label(&self, number: u32) -> String {
        let point = self.point(number);
        label(number as usize, &self.keys, point.values, Some(point.seed))
    }

    /// Reads all files that these points name, and makes each ready with one of its seeds, so that what cannot run is known
    /// before anything has. Ends early once it `is_stopped`.
    ///
    /// # Errors
    /// [`SweepError::Point`].
    pub fn check(&self, points: &[u32], is_stopped: impl Fn() -> bool) -> Result<(), SweepError> {
        let mut checked = BTreeSet::new();
        for number in points.iter().take_while(|_| !is_stopped()) {
            if !checked.insert((*number as usize - 1) / self.seeds.len()) {
                continue;
            }
            let point = self.point(*number);
            Setup::new(point.scenario.clone(), point.seed)
                .map_err(|error| SweepError::Point { point: self.label(*number), message: error.to_string() })?;
        }
        Ok(())
    }

    fn fingerprint(&self) -> Result<String, SweepError> {
        let mut hasher = blake3::Hasher::new();
        let mut files = BTreeMap::new();
        let head = (env!("CARGO_PKG_VERSION"), &self.keys, &self.seeds);
        let mut add = |part: serde_json::Result<Vec<u8>>, number: u32| match part {
            Ok(bytes) => {
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(&bytes);
                Ok(())
            }
            Err(error) => Err(SweepError::Point { point: self.label(number), message: error.to_string() }),
        };
        add(serde_json::to_vec(&head), 1)?;
        for (index, place) in self.places.iter().enumerate() {
            let number = (index * self.seeds.len() + 1) as u32;
            let scenario = by_content(&place.scenario, &mut files)
                .map_err(|message| SweepError::Point { point: self.label(number), message })?;
            add(serde_json::to_vec(&scenario), number)?;
        }
        Ok(hasher.finalize().to_hex()[..FINGERPRINT_DIGITS].to_owned())
    }
}

/// What is set at a place of the grid, and the grid's values there as rows show them.
fn assignments(set: &[(String, String)], axes: &[Axis], place: usize) -> (Vec<(String, String)>, Vec<String>) {
    let mut rest = place;
    let mut chosen: Vec<(&Axis, usize)> = Vec::new();
    for axis in axes.iter().rev() {
        chosen.push((axis, rest % axis.values.len()));
        rest /= axis.values.len();
    }
    let chosen = chosen.into_iter().rev().map(|(axis, at)| (&axis.key, &axis.values[at]));
    let of_grid = chosen.clone().map(|(key, value)| (key.clone(), value.text.clone()));
    (set.iter().cloned().chain(of_grid).collect(), chosen.map(|(_, value)| value.shown.clone()).collect())
}

fn label(number: usize, keys: &[String], values: &[String], seed: Option<u64>) -> String {
    let pairs = keys.iter().zip(values).map(|(key, value)| format!("{key}={value}"));
    let all: Vec<String> = pairs.chain(seed.map(|seed| format!("seed={seed}"))).collect();
    if all.is_empty() { format!("point {number}") } else { format!("point {number} ({})", all.join(" ")) }
}

/// The scenario with the content's hash in place of each path, so that it is the same on every machine, and without what
/// only people read.
fn by_content(scenario: &Scenario, known: &mut BTreeMap<PathBuf, String>) -> Result<Scenario, String> {
    let mut scenario = scenario.clone();
    scenario.name.clear();
    scenario.about.clear();
    for image in &mut scenario.images {
        let Some(path) = image.swarm.clone() else { continue };
        let id = match known.get(&path) {
            Some(id) => id.clone(),
            // The id stands for all of the image, and takes a moment where hashing gigabytes would not.
            None => {
                let model = ImageModel::new(image, 0, 0).map_err(|error| error.to_string())?;
                blake3::Hash::from_bytes(model.digest.0).to_hex().to_string()
            }
        };
        image.swarm = Some(PathBuf::from(&id));
        known.insert(path, id);
    }
    let in_workloads = scenario.workloads.iter_mut().flat_map(|workload| &mut workload.traces);
    for path in in_workloads.chain(&mut scenario.profile.traces) {
        let id = match known.get(path) {
            Some(id) => id.clone(),
            None => hash_of(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        };
        known.insert(std::mem::replace(path, PathBuf::from(&id)), id);
    }
    Ok(scenario)
}

fn hash_of(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    hasher.flush()?;
    Ok(hasher.finalize().to_hex().to_string())
}
