//! Skiff's store and etcd side by side, through etcd's API. `./dev bench store` builds what is
//! needed and calls this:
//!
//! ```text
//! etcd_bench --skiff target/release/skiff --etcd 3.4=/usr/bin/etcd [--rounds 5] [ROWS..]
//! ```
//!
//! The servers take turns on loopback, each time with an empty folder. Prints each one's
//! median, the ratio to the best etcd, and the goal.

mod floor;
mod load;
mod rows;
mod servers;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use rows::{Goal, Rows, Settings};
use servers::Program;
use tokio::signal::unix::{SignalKind, signal};
use wire::Failure;

#[derive(Parser)]
struct Args {
    /// The skiff binary
    #[arg(long)]
    skiff: PathBuf,
    /// An etcd to compare with, as NAME=PATH; may be given more than once
    #[arg(long)]
    etcd: Vec<String>,
    /// Medians are of so many
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each load
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    #[arg(long, default_value_t = 10_000_000)]
    overwrites: u64,
    /// Of the leader of three
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Where the servers keep their data
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
    /// All of them if none is given
    rows: Vec<Rows>,
}

#[derive(Default)]
struct Row {
    goal: Option<Goal>,
    values: BTreeMap<usize, Vec<f64>>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = args.dir.join(format!("skiff-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run(&args, &dir) => outcome,
            // Either way the servers are ended too.
            signal = ended() => Err(format!("ended by {}", signal?).into()),
        }
    });
    std::fs::remove_dir_all(&dir)?;
    outcome
}

async fn ended() -> std::io::Result<&'static str> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminated.recv() => "SIGTERM",
        _ = interrupted.recv() => "SIGINT",
    })
}

fn programs(args: &Args) -> Result<Vec<Program>, Failure> {
    let skiff = args.skiff.display().to_string();
    let mut programs = vec![Program {
        name: "skiff".into(),
        command: vec![skiff, "store".into()],
        is_etcd: false,
    }];
    for etcd in &args.etcd {
        let (name, path) = etcd.split_once('=').ok_or("--etcd takes NAME=PATH")?;
        programs.push(Program {
            name: format!("etcd {name}"),
            command: vec![path.into()],
            is_etcd: true,
        });
    }
    Ok(programs)
}

async fn run(args: &Args, dir: &std::path::Path) -> Result<(), Failure> {
    let programs = programs(args)?;
    let wanted =
        if args.rows.is_empty() { Rows::value_variants().to_vec() } else { args.rows.clone() };
    let settings = Settings {
        time: Duration::from_secs(args.seconds),
        overwrites: args.overwrites,
        kills: args.kills,
    };
    println!("{}", load_average()?);
    header(&programs);
    for rows in wanted {
        // Long by themselves, and of a size where chance evens out.
        let rounds = if matches!(rows, Rows::Overwrites | Rows::Gap) { 1 } else { args.rounds };
        let mut order = Vec::new();
        let mut table: BTreeMap<String, Row> = BTreeMap::new();
        for round in 1..=rounds {
            for (at, program) in programs.iter().enumerate() {
                eprint!("\r{rows:?}: round {round} of {rounds}, {}          ", program.name);
                let figures = match rows::measure(rows, program, dir, &settings).await {
                    Ok(figures) => figures,
                    Err(error) => {
                        eprintln!("\n{rows:?} on {}: {error}", program.name);
                        continue;
                    }
                };
                for figure in figures {
                    if !order.contains(&figure.row) {
                        order.push(figure.row.clone());
                    }
                    let row = table.entry(figure.row).or_default();
                    row.goal = Some(figure.goal);
                    row.values.entry(at).or_default().push(figure.value);
                }
            }
        }
        eprint!("\r{:60}\r", "");
        for name in order {
            print_row(&name, &table[&name], programs.len());
        }
    }
    println!("{}", load_average()?);
    Ok(())
}

fn load_average() -> Result<String, Failure> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(format!("load average {}", load.split(' ').take(3).collect::<Vec<_>>().join(" ")))
}

fn header(programs: &[Program]) {
    let names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
    println!("| | {} | ratio | goal |", names.join(" | "));
    println!("|{}", "---|".repeat(names.len() + 3));
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print_row(name: &str, row: &Row, programs: usize) {
    let medians: Vec<_> = (0..programs).map(|at| row.values.get(&at).map(|v| median(v))).collect();
    let cells: Vec<_> = medians.iter().map(|m| m.map_or("-".into(), number)).collect();
    let goal = row.goal.unwrap_or(Goal::Shown { more_is_better: true });
    let more_is_better = matches!(goal, Goal::AtLeast(_) | Goal::Shown { more_is_better: true });
    let etcds = medians[1..].iter().flatten().copied();
    let best = if more_is_better { etcds.reduce(f64::max) } else { etcds.reduce(f64::min) };
    let ratio = medians[0].zip(best).map(|(skiff, best)| skiff / best);
    let verdict = |met: Option<bool>| match met {
        Some(true) => "",
        Some(false) => ": missed",
        None => ": not measured",
    };
    let goal = match goal {
        Goal::AtLeast(least) => {
            format!("at least {least} times{}", verdict(ratio.map(|ratio| ratio >= least)))
        }
        Goal::AtMost(most) => {
            format!("at most {most} times{}", verdict(ratio.map(|ratio| ratio <= most)))
        }
        Goal::AtMostAlone(most) => {
            format!("at most {most}{}", verdict(medians[0].map(|skiff| skiff <= most)))
        }
        Goal::Shown { .. } => String::new(),
    };
    let ratio = ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
    println!("| {name} | {} | {ratio} | {goal} |", cells.join(" | "));
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
