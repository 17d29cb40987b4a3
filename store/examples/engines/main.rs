//! Three engines behind the same trait: the store's own segments, redb and sled.
//!
//! ```text
//! cargo run --release -p skiff-store --example engines -- [--overwrites 10000000] [--values 100000]
//! ```
//!
//! Values of 1 KiB are written, then overwritten in random order with the old versions
//! removed every 100,000, in batches as the engine's thread makes them. Printed: how long
//! batches took, what the process wrote, the disk at the end and at most against the live data, and how long opening and reading
//! everything took.

mod redb;
mod sled;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use redb::RedbEngine;
use skiff_store::engine::segments::SegmentEngine;
use skiff_store::engine::worker::HOLD_RECORDS;
use skiff_store::engine::{Engine, Meta, Tidy};
use skiff_store::mvcc::WriteBatch;
use skiff_store::mvcc::record::Record;
use skiff_store::mvcc::revision::Rev;
use skiff_store::wal::disk::RealDisk;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Open = fn(&Path) -> Result<Box<dyn Engine>, Failure>;

/// Records of a KiB that make the batch that the engine's thread holds back at most.
const BATCH_RECORDS: usize = 256;
const COMPACT_EVERY: u64 = 100_000;
const VALUE_BYTES: usize = 1024;
/// Of redb and sled; the segments have none.
const CACHE_BYTES: u64 = 16 << 20;
const SEGMENT_BYTES: u64 = 8 << 20;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 1_000_000)]
    overwrites: u64,
    #[arg(long, default_value_t = 100_000)]
    values: u64,
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
    /// One of them alone.
    #[arg(long)]
    engine: Option<String>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let engines: [(&str, Open); 3] = [
        ("segments", |path| {
            Ok(Box::new(SegmentEngine::open(Arc::new(RealDisk), path, SEGMENT_BYTES)?))
        }),
        ("redb", |path| Ok(Box::new(RedbEngine::open(path, CACHE_BYTES)?))),
        ("sled", |path| Ok(Box::new(sled::SledEngine::open(path, CACHE_BYTES)?))),
    ];
    let chosen = |name: &str| args.engine.as_deref().is_none_or(|only| only == name);
    for (name, open) in engines.into_iter().filter(|(name, _)| chosen(name)) {
        let dir = args.dir.join(format!("skiff-engines-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let outcome = measure(name, open, &dir, &args);
        std::fs::remove_dir_all(&dir)?;
        outcome?;
    }
    Ok(())
}

/// Feeds an engine as the store does.
struct Feeder {
    engine: Box<dyn Engine>,
    batch: WriteBatch,
    revision: i64,
    times: Vec<Duration>,
}

impl Feeder {
    fn put(&mut self, key: u64) -> Result<Rev, Failure> {
        self.revision += 1;
        let rev = Rev::first_of(self.revision);
        let mut value = vec![0; VALUE_BYTES];
        for (n, byte) in value.iter_mut().enumerate() {
            // Not all the same, or compression would be measured.
            *byte = (self.revision as usize * 31 + n * n) as u8;
        }
        let record = Record {
            key: format!("/registry/pods/default/{key:09}").into(),
            value: value.into(),
            create: self.revision,
            version: 1,
            lease: 0,
        };
        self.batch.puts.push((rev, record));
        if self.batch.puts.len() >= BATCH_RECORDS {
            self.apply()?;
        }
        Ok(rev)
    }

    fn apply(&mut self) -> Result<(), Failure> {
        let meta = Meta { revision: self.revision, ..Meta::default() };
        let begin = Instant::now();
        self.engine.apply(&self.batch, Some(&meta))?;
        self.batch = WriteBatch::default();
        while self.engine.tidy(Tidy::Needed)? {}
        self.times.push(begin.elapsed());
        Ok(())
    }
}

fn measure(name: &str, open: Open, dir: &Path, args: &Args) -> Result<(), Failure> {
    let path = dir.join("engine");
    let mut feeder = Feeder {
        engine: open(&path)?,
        batch: WriteBatch::default(),
        revision: 1,
        times: Vec::new(),
    };
    let (cpu, written) = (cpu_seconds()?, written_bytes()?);
    let begin = Instant::now();
    let mut newest = Vec::new();
    for key in 0..args.values {
        newest.push(feeder.put(key)?);
    }
    let (mut old, mut peak) = (Vec::new(), 0);
    let mut random = 1_u64;
    for n in 1..=args.overwrites {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = (random >> 33) % args.values;
        let rev = feeder.put(key)?;
        old.push(std::mem::replace(&mut newest[key as usize], rev));
        if n.is_multiple_of(COMPACT_EVERY) {
            old.sort_unstable();
            for some in old.chunks(HOLD_RECORDS) {
                feeder.batch.removes.extend_from_slice(some);
                feeder.apply()?;
            }
            old.clear();
            peak = peak.max(feeder.engine.disk_bytes());
            eprint!("\r{name}: {n} overwrites   ");
        }
    }
    feeder.apply()?;
    feeder.engine.flush()?;
    let (took, cpu) = (begin.elapsed(), cpu_seconds()? - cpu);
    let written = written_bytes()? - written;
    feeder.times.sort_unstable();
    let at = |permille: usize| feeder.times[(feeder.times.len() - 1) * permille / 1000];
    let live = args.values as f64 * VALUE_BYTES as f64;
    let records = (args.values + args.overwrites) as f64;
    println!(
        "\r{name}: {took:.1?}, {:.1} us CPU a record, {:.1} times written, a batch p50 {:.1?} p99 {:.1?} max {:.1?}; disk {:.1} times the live data, {:.1} at most",
        cpu * 1e6 / records,
        written / (records * VALUE_BYTES as f64),
        at(500),
        at(990),
        at(1000),
        feeder.engine.disk_bytes() as f64 / live,
        peak as f64 / live,
    );
    feeder.engine.close()?;
    drop(feeder);
    let begin = Instant::now();
    let engine = open(&path)?;
    let opened = begin.elapsed();
    let mut seen = 0;
    let all = Rev::new(i64::MAX, u32::MAX);
    engine.scan(Rev::default(), all, &mut |_, _| {
        seen += 1;
        true
    })?;
    println!("{name}: opened in {opened:.1?}, {seen} records read by {:.1?}", begin.elapsed());
    Ok(())
}

/// What this process had the kernel write to the disk.
fn written_bytes() -> Result<f64, Failure> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes")?.parse()?)
}

fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit(')').next().ok_or("no stat")?;
    let field = |n: usize| -> Result<f64, Failure> {
        Ok(after.split_whitespace().nth(n).ok_or("short")?.parse()?)
    };
    // Clock ticks are hundredths of a second on Linux.
    Ok((field(11)? + field(12)?) / 100.0)
}
