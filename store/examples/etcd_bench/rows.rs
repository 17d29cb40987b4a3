//! What is measured, with which goal.

use std::path::Path;
use std::time::{Duration, Instant};

use skiff_proto::grpc::etcdserverpb as pb;

use crate::floor;
use crate::load::{self, FILL_KEYS, KEYS, Kind, Outcome, Until};
use crate::servers::{Member, Program, Servers};
use crate::wire::Failure;

/// Compactions of the overwrites: so many revisions are kept.
const KEEP_REVISIONS: i64 = 10_000;
/// Overwrites between two compactions.
const COMPACT_EVERY: u64 = 100_000;
const WATCHERS: usize = 1000;

/// A group of rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Rows {
    Puts,
    Creates,
    Ranges,
    Watch,
    Memory,
    Start,
    Members,
    Gap,
    Overwrites,
}

pub struct Settings {
    pub time: Duration,
    pub overwrites: u64,
    pub kills: usize,
}

/// What a row should come to, as skiff's figure against the best etcd's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Skiff's figure itself.
    AtMostAlone(f64),
    /// Only to be looked at.
    Shown {
        more_is_better: bool,
    },
}

pub struct Figure {
    pub row: String,
    pub goal: Goal,
    pub value: f64,
}

struct Figures(Vec<Figure>);

impl Figures {
    fn add(&mut self, row: impl Into<String>, goal: Goal, value: f64) {
        self.0.push(Figure { row: row.into(), goal, value });
    }
}

/// One round of some rows on one program.
pub async fn measure(
    rows: Rows,
    program: &Program,
    base: &Path,
    settings: &Settings,
) -> Result<Vec<Figure>, Failure> {
    let mut figures = Figures(Vec::new());
    match rows {
        Rows::Puts => puts(program, base, settings, &mut figures).await?,
        Rows::Creates => creates(program, base, settings, &mut figures).await?,
        Rows::Ranges => ranges(program, base, settings, &mut figures).await?,
        Rows::Watch => {
            let servers = Servers::start(program, base, 1).await?;
            let writes = 500 * settings.time.as_secs();
            let events = load::fan_out(servers.ports()[0], WATCHERS, writes).await?;
            figures.add("watch events/s to 1,000 watchers", Goal::AtLeast(2.0), events);
        }
        Rows::Memory => memory(program, base, &mut figures).await?,
        Rows::Start => start(program, base, &mut figures).await?,
        Rows::Members => {
            let servers = Servers::start(program, base, 3).await?;
            let done = timed(&servers, Kind::Put, 64, settings).await?.0;
            figures.add("three members: puts/s, 64 clients", Goal::AtLeast(1.8), done.per_second);
        }
        Rows::Gap => gap(program, base, settings, &mut figures).await?,
        Rows::Overwrites => overwrites(program, base, settings, &mut figures).await?,
    }
    Ok(figures.0)
}

/// A run, and the servers' processor time for each call in microseconds.
async fn timed(
    servers: &Servers,
    kind: Kind,
    clients: usize,
    settings: &Settings,
) -> Result<(Outcome, f64), Failure> {
    let ports = servers.ports();
    // Numbers go on where the clients before stopped, so that creates find nothing.
    let first = clients as u64 * 10_000_000;
    load::run(&ports, kind, clients, first, Until::Time(settings.time / 5)).await?;
    let cpu = servers.cpu_seconds()?;
    let done =
        load::run(&ports, kind, clients, first + 5_000_000, Until::Time(settings.time)).await?;
    Ok((done, (servers.cpu_seconds()? - cpu) * 1e6 / done.count as f64))
}

async fn puts(
    program: &Program,
    base: &Path,
    settings: &Settings,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let servers = Servers::start(program, base, 1).await?;
    // Beside a server that has nothing to do, on the same disk.
    let folder = base.to_owned();
    let floor = tokio::task::spawn_blocking(move || floor::measure(&folder)).await??;
    let less = Goal::Shown { more_is_better: false };
    figures.add("the disk alone, append and fdatasync: p50, us", less, floor.disk_us);
    figures.add("with an echo over TCP before it: p50, us", less, floor.echo_us);
    for clients in [1, 64, 256] {
        let (done, cpu_us) = timed(&servers, Kind::Put, clients, settings).await?;
        let row = |what: &str| format!("puts, {clients} clients: {what}");
        let shown = Goal::Shown { more_is_better: true };
        let rate = if clients > 1 { Goal::AtLeast(2.0) } else { shown };
        figures.add(row("/s"), rate, done.per_second);
        let less = Goal::Shown { more_is_better: false };
        figures.add(
            row("p50, us"),
            if clients == 1 { Goal::AtMost(1.0) } else { less },
            done.p50_us,
        );
        if clients == 1 {
            let times = done.p50_us / floor.disk_us;
            figures.add(row("p50, times the disk alone"), Goal::AtMostAlone(1.5), times);
        }
        figures.add(
            row("p99, us"),
            if clients == 64 { Goal::AtMost(0.5) } else { less },
            done.p99_us,
        );
        figures.add(
            row("server CPU each, us"),
            if clients == 64 { Goal::AtMost(0.4) } else { less },
            cpu_us,
        );
    }
    Ok(())
}

async fn creates(
    program: &Program,
    base: &Path,
    settings: &Settings,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let servers = Servers::start(program, base, 1).await?;
    for clients in [64, 256] {
        let (done, cpu_us) = timed(&servers, Kind::Create, clients, settings).await?;
        let row = |what: &str| format!("creates, {clients} clients: {what}");
        figures.add(row("/s"), Goal::AtLeast(2.0), done.per_second);
        figures.add(row("server CPU each, us"), Goal::Shown { more_is_better: false }, cpu_us);
    }
    Ok(())
}

async fn ranges(
    program: &Program,
    base: &Path,
    settings: &Settings,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let servers = Servers::start(program, base, 1).await?;
    load::run(&servers.ports(), Kind::Seed, 64, 0, Until::Count(KEYS)).await?;
    for (serializable, name) in [(false, "linearizable"), (true, "serializable")] {
        let kind = Kind::Range { serializable };
        let (done, cpu_us) = timed(&servers, kind, 64, settings).await?;
        figures.add(format!("ranges, {name}, 64 clients: /s"), Goal::AtLeast(1.8), done.per_second);
        figures.add(format!("ranges, {name}: server CPU each, us"), Goal::AtMost(0.4), cpu_us);
    }
    Ok(())
}

async fn fill(servers: &Servers) -> Result<(), Failure> {
    load::run(&servers.ports(), Kind::Fill, 64, 0, Until::Count(FILL_KEYS)).await?;
    Ok(())
}

async fn memory(program: &Program, base: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let servers = Servers::start(program, base, 1).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    figures.add("memory idle, MiB", Goal::AtMostAlone(12.0), servers.members[0].resident_mib()?);
    fill(&servers).await?;
    let filled = servers.members[0].resident_mib()?;
    figures.add("memory with 100,000 values of 1 KiB, MiB", Goal::AtMost(0.5), filled);
    Ok(())
}

async fn start(program: &Program, base: &Path, figures: &mut Figures) -> Result<(), Failure> {
    let mut servers = Servers::start(program, base, 1).await?;
    fill(&servers).await?;
    let taken = servers.restart(0).await?;
    figures.add("start to healthy with them, ms", Goal::AtMost(0.3), taken.as_secs_f64() * 1e3);
    let resident = servers.members[0].resident_mib()?;
    figures.add("memory after that start, MiB", Goal::AtMost(0.5), resident);
    servers.kill(0)?;
    let begin = Instant::now();
    servers.revive(0).await?;
    let killed = begin.elapsed().as_secs_f64() * 1e3;
    figures.add("start after kill -9 with them, ms", Goal::AtMost(0.3), killed);
    Ok(())
}

async fn gap(
    program: &Program,
    base: &Path,
    settings: &Settings,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let mut servers = Servers::start(program, base, 3).await?;
    let mut worst: f64 = 0.0;
    for _ in 0..settings.kills {
        let leader = servers.leader().await?;
        servers.kill(leader)?;
        let begin = Instant::now();
        let ports: Vec<_> =
            (0..3).filter(|n| *n != leader).map(|n| servers.members[n].port).collect();
        while !any_put(&ports).await {
            if begin.elapsed() > Duration::from_secs(30) {
                return Err("no write for 30 s after the leader was killed".into());
            }
        }
        worst = worst.max(begin.elapsed().as_secs_f64() * 1e3);
        servers.revive(leader).await?;
    }
    let row = format!("leader killed {} times: longest without a write, ms", settings.kills);
    figures.add(row, Goal::AtMostAlone(1000.0), worst);
    Ok(())
}

/// Tries to put on each at the same time, briefly.
async fn any_put(ports: &[u16]) -> bool {
    let tries = ports.iter().map(|port| {
        let put = load::run(std::slice::from_ref(port), Kind::Put, 1, 0, Until::Count(1));
        async {
            tokio::time::timeout(Duration::from_millis(100), put).await.is_ok_and(|r| r.is_ok())
        }
    });
    futures_util::future::join_all(tries).await.contains(&true)
}

/// The disk once nothing is written or given back any more: the last compaction is answered
/// before its work is done.
async fn at_rest(member: &Member) -> Result<f64, Failure> {
    let mut before = member.disk_mib()?;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = member.disk_mib()?;
        if now == before {
            break;
        }
        before = now;
    }
    Ok(before)
}

async fn overwrites(
    program: &Program,
    base: &Path,
    settings: &Settings,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let servers = Servers::start(program, base, 1).await?;
    fill(&servers).await?;
    let member = &servers.members[0];
    let (live, before) =
        (FILL_KEYS as f64 * load::FILL_BYTES as f64 / 1048576.0, member.resident_mib()?);
    let mut done = 0;
    let mut most: f64 = 0.0;
    while done < settings.overwrites {
        load::run(&servers.ports(), Kind::Overwrite, 64, done, Until::Count(COMPACT_EVERY)).await?;
        done += COMPACT_EVERY;
        let revision = FILL_KEYS as i64 + done as i64 - KEEP_REVISIONS;
        let request = pb::CompactionRequest { revision, physical: false };
        load::kv(member.port).await?.compact(request).await?;
        most = most.max(member.disk_mib()?);
        if done.is_multiple_of(1_000_000) {
            eprint!("\r{done} overwrites, {:.0} MiB on disk   ", member.disk_mib()?);
        }
    }
    let at_rest = at_rest(member).await?;
    let count = settings.overwrites / 1000;
    let row = |what: &str| format!("{count},000 overwrites of them: {what}");
    figures.add(row("disk, times the live data"), Goal::AtMostAlone(5.0), at_rest / live);
    figures.add(row("most on the way, times"), Goal::Shown { more_is_better: false }, most / live);
    let shown = Goal::Shown { more_is_better: false };
    figures.add(row("memory before, MiB"), shown, before);
    figures.add(row("memory after, MiB"), shown, member.resident_mib()?);
    let begun = Instant::now();
    load::maintenance(member.port).await?.defragment(pb::DefragmentRequest {}).await?;
    figures.add(row("s for a defragmentation"), shown, begun.elapsed().as_secs_f64());
    figures.add(row("disk after it, times the live data"), shown, member.disk_mib()? / live);
    Ok(())
}
