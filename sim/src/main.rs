//! The `swarmdisk-sim` command.
use bumpalo::Bump;
use std::path::Path;
use swarmdisk_sim::{model::Setup, scenario, world::{Quiet, World}};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let sets: Vec<(String,String)> = args[2..].iter().map(|a| { let (k,v)=a.split_once('=').unwrap(); (k.into(), v.into()) }).collect();
    let scenario = scenario::load_with(Path::new(&args[1]), &sets).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) });
    let setup = Setup::new(scenario, 1).unwrap();
    let bump = Bump::new();
    let t = std::time::Instant::now();
    let mut world = World::new(&setup, &bump, Quiet);
    let built = t.elapsed();
    let done = world.run(|w| { if w.event_count() % (1<<21) == 0 { eprintln!("{:?} virtual {} ms, {} events, booting {}", t.elapsed(), w.now()/1_000_000, w.event_count(), w.booting()); } true });
    let first = setup.seed_count();
    let mut ratios: Vec<f64> = (first..setup.nodes.len()).filter_map(|n| { let y = world.tally(n); Some((y.end? - setup.nodes[n].start) as f64 / (y.think + y.reading) as f64) }).collect();
    ratios.sort_by(f64::total_cmp);
    let w: u64 = (0..setup.images.len()).map(|i| setup.wire_bytes(i, &setup.working_set(i))).sum();
    let origin: u64 = (first..setup.nodes.len()).map(|n| world.tally(n).origin_bytes).sum();
    let peer: u64 = (first..setup.nodes.len()).map(|n| world.tally(n).peer_bytes).sum();
    let frames: u64 = (0..setup.nodes.len()).map(|n| world.tally(n).frames).sum();
    println!("done {done} built {built:?} wall {:?} virtual {} ms events {} digest {:016x}", t.elapsed(), world.now()/1_000_000, world.event_count(), world.digest());
    println!("n {} median {:?} max {:?} amp {:.3} peer/n {:.3} frames/n {} us/chunk {:.1} bump {} MB", ratios.len(), ratios.get(ratios.len()/2), ratios.last(), origin as f64 / w as f64, peer as f64 / w as f64 / ratios.len() as f64, frames/ratios.len().max(1) as u64, t.elapsed().as_micros() as f64/(ratios.len() as f64*1500.0), bump.allocated_bytes()>>20);
    for n in 0..3.min(setup.nodes.len()) { if let Some(e)=world.engine(n) { println!("{n} {:?}", e.stats()); } }
}
