//! The engine's rules, one small test each: one engine driven by hand with real frames.

#[path = "../net/mod.rs"]
mod net;

mod evicting;
mod fetching;
mod filling;
mod hand;
mod keeping;
mod linking;
mod locality;
mod serving;
mod sharing;
mod teaching;
