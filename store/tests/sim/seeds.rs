//! Many seeds, and what they must come to. Each runs in a process of its own: tokio draws
//! from a generator that is shared by all threads, so only there is a seed's run always the
//! same.

use std::ops::RangeInclusive;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bugs::Bug;
use super::run;

const SEEDS: u64 = 48;

/// The standard library takes the keys of its hash maps from here, and tokio its seeds. With
/// the same bytes every time, nothing in this process is left to chance.
///
/// # Safety
/// As getrandom(2): `buffer` has room for `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: u32) -> isize {
    // SAFETY: the caller says that there is room.
    unsafe { std::ptr::write_bytes(buffer, 0x5a, len) };
    len as isize
}

pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// What a seed's process said.
pub struct Told {
    pub failed: bool,
    pub output: String,
}

impl Told {
    fn numbers(&self) -> (u64, u64) {
        let line = self.output.lines().find(|line| line.starts_with("outcome:"));
        let mut words = line.unwrap_or_default().split(' ').filter_map(|word| word.parse().ok());
        (words.next().unwrap_or(0), words.next().unwrap_or(0))
    }

    /// The last of it.
    pub fn end(&self) -> String {
        let lines: Vec<_> = self.output.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

pub fn in_process(seed: u64, bug: Option<Bug>) -> Told {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["seeds::one_seed", "--exact", "--nocapture"]);
    command.env("SKIFF_SIM_SEED", seed.to_string()).env("RUST_BACKTRACE", "0");
    command.env("SKIFF_SIM_BUG", bug.map_or(String::new(), |bug| format!("{bug:?}")));
    let ended = command.output().unwrap();
    let output = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    Told { failed: !ended.status.success(), output: output.into_owned() }
}

/// Calls with every seed, on as many threads as there are cores, until one returns `false`.
pub fn for_seeds(seeds: RangeInclusive<u64>, each: impl Fn(u64) -> bool + Sync) {
    let (next, last) = (AtomicU64::new(*seeds.start()), *seeds.end());
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last || !each(seed) {
                        next.store(last + 1, Ordering::Relaxed);
                        return;
                    }
                }
            });
        }
    });
}

/// The seed in `SKIFF_SIM_SEED`, with the fault in `SKIFF_SIM_BUG` put back.
#[test]
fn one_seed() {
    let seed = number("SKIFF_SIM_SEED").unwrap_or(1);
    let bug = std::env::var("SKIFF_SIM_BUG").unwrap_or_default();
    let outcome = run::seed(seed, Bug::named(&bug));
    let (operations, revisions) = (outcome.operations, outcome.revisions);
    if let Some(fault) = outcome.fault {
        println!("{}", outcome.story.join("\n"));
        let with = if bug.is_empty() { bug } else { format!("SKIFF_SIM_BUG={bug} ") };
        panic!(
            "seed {seed}: {fault}\n\nreplay it with\n    SKIFF_SIM_SEED={seed} {with}cargo test --workspace --test sim -- seeds::one_seed --exact --nocapture"
        );
    }
    println!("outcome: {operations} operations, {revisions} revisions, {:?}", outcome.digest);
}

#[test]
fn every_seed_keeps_the_promise() {
    let count = number("SKIFF_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("SKIFF_SIM_FIRST").unwrap_or(1);
    let started = std::time::Instant::now();
    let sums = Mutex::new((0, 0));
    let failed: Mutex<Vec<String>> = Mutex::default();
    for_seeds(first..=first + count - 1, |seed| {
        if seed.is_multiple_of(500) {
            println!("seed {seed}, {} s", started.elapsed().as_secs());
        }
        let told = in_process(seed, None);
        if told.failed {
            failed.lock().unwrap().push(told.end());
            return false;
        }
        let (operations, revisions) = told.numbers();
        let mut sums = sums.lock().unwrap();
        *sums = (sums.0 + operations, sums.1 + revisions);
        true
    });
    if let Some(failed) = failed.lock().unwrap().first() {
        panic!("{failed}");
    }
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let (operations, revisions) = *sums.lock().unwrap();
    println!(
        "{count} seeds from {first} on, {operations} operations, {revisions} revisions, {:.0} seeds a minute",
        count as f64 / minutes
    );
}

#[test]
fn a_seed_replays_to_the_last_byte() {
    for seed in 1..=4 {
        let (once, again) = (in_process(seed, None), in_process(seed, None));
        let outcome = |output: &str| {
            output.lines().find(|line| line.starts_with("outcome:")).map(str::to_owned)
        };
        assert!(!once.failed, "{}", once.end());
        assert_eq!(outcome(&once.output), outcome(&again.output), "seed {seed}");
    }
}

/// A harness that finds nothing proves nothing: each fault has to be found in so many seeds.
fn finds(bug: Bug, seeds: u64) {
    let found: Mutex<Option<(u64, String)>> = Mutex::default();
    for_seeds(1..=seeds, |seed| {
        let told = in_process(seed, Some(bug));
        if told.failed {
            let fault = told.output.lines().find(|line| line.starts_with("seed "));
            let fault = fault.unwrap_or("it panicked").to_owned();
            found.lock().unwrap().get_or_insert((seed, fault));
        }
        !told.failed
    });
    let found = found.lock().unwrap();
    let (seed, fault) =
        found.as_ref().unwrap_or_else(|| panic!("{bug:?} is not found in {seeds} seeds"));
    println!("{bug:?} is found at seed {seed}: {fault}");
}

#[test]
fn finds_a_sync_that_lies() {
    finds(Bug::SyncLies, 20);
}

#[test]
fn finds_reads_without_a_quorum() {
    finds(Bug::ReadWithoutQuorum, 20);
}

#[test]
fn finds_an_applied_index_without_its_data() {
    finds(Bug::AppliedWithoutData, 20);
}

#[test]
fn finds_a_log_that_goes_before_its_snapshot_is_synced() {
    finds(Bug::PurgeBeforeSnapshotSync, 20);
}

#[test]
fn finds_a_vote_that_is_not_synced() {
    finds(Bug::VoteNotSynced, 20);
}

#[test]
fn finds_leases_that_run_out_early() {
    finds(Bug::FastClock, 20);
}

#[test]
fn finds_a_watch_that_skips() {
    finds(Bug::WatchSkipsOne, 20);
}
