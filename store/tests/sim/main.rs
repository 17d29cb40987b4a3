//! The store under faults, simulated: whole members in one thread, with simulated time,
//! disks, network and processes. Everything follows from a seed.
//!
//! ```text
//! run ──▶ cluster ──▶ host    a member's process: runtime, clock, pause, kill
//!            │          ├ disk    loses and tears what was not synced
//!            │          └ engine  and what may happen to its folder besides
//!            ├──▶ network   late, lost, doubled, out of order, one way
//!            ├──▶ traffic, watcher ──▶ history ──▶ model ──▶ checker
//!            └──▶ faults    what goes wrong, and when
//! ```
//!
//! `SKIFF_SIM_SEEDS=10000` runs so many seeds, from `SKIFF_SIM_FIRST` on; `SKIFF_SIM_SEED=n`
//! replays one and tells its story.
#![allow(clippy::unwrap_used)]

mod bugs;
mod checker;
mod cluster;
mod disk;
mod engine;
mod faults;
mod history;
mod host;
mod members;
mod model;
mod network;
mod random;
mod run;
mod scenarios;
mod seeds;
mod traffic;
mod watcher;
