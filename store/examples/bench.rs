//! How fast the store is by itself, called through `Kv` without a network.
//!
//! ```text
//! cargo run --release -p skiff-store --example bench -- [FOLDER] [SECONDS]
//! ```
//!
//! Prints puts and ranges a second by the number of clients, the disk's own append and
//! fdatasync beside them, memory and the time to start with 100,000 values of 1 KiB.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use skiff_store::kv::*;
use skiff_store::{Config, Store};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = args.next().map_or(Ok(3), |s| s.parse())?;
    let dir = base.join(format!("skiff-store-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let outcome = run(&dir, Duration::from_secs(seconds)).await;
    std::fs::remove_dir_all(&dir)?;
    outcome
}

async fn run(dir: &Path, time: Duration) -> Result<(), Failure> {
    disk_alone(dir)?;
    let store = Store::open(config(dir)).await?;
    println!("idle: {} KiB resident", resident_kib()?);
    for clients in [1, 32, 64, 256] {
        measure("puts, 256 bytes", &store, clients, time, put).await?;
    }
    for clients in [1, 64] {
        measure("linearizable ranges of one key", &store, clients, time, get).await?;
    }
    store.shutdown().await;
    drop(store);
    std::fs::remove_dir_all(dir.join("store"))?;

    let store = Store::open(config(dir)).await?;
    let tasks = (0..64).map(|client| fill(store.clone(), client));
    futures_util::future::try_join_all(tasks).await?;
    println!("100,000 values of 1 KiB: {} KiB resident", resident_kib()?);
    let all = Instant::now();
    let listed = store.range(RangeRequest::new(KeyRange::Prefix("big/".into()))).await?;
    println!("range of all {}: {:?}", listed.kvs.len(), all.elapsed());
    drop(listed);
    println!("status: {:?}", store.status());
    store.shutdown().await;
    drop(store);

    let start = Instant::now();
    let store = Store::open(config(dir)).await?;
    let first = store.range(one("big/0000000")).await?;
    println!(
        "start with them: {:?}, {} key read, {} KiB resident",
        start.elapsed(),
        first.kvs.len(),
        resident_kib()?
    );
    idle(&store).await?;
    store.shutdown().await;
    Ok(())
}

fn config(dir: &Path) -> Config {
    Config::new("bench", dir.join("store"))
}

fn disk_alone(dir: &Path) -> Result<(), Failure> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(dir.join("disk"))?;
    let mut times = Vec::new();
    for n in 0..1000 {
        let start = Instant::now();
        file.write_all_at(&[7; 512], n * 512)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    println!("disk alone, append and fdatasync of 512 bytes: {}", quantiles(&mut times));
    Ok(())
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("p50 {:?}, p99 {:?}", at(50), at(99))
}

async fn measure<F, T>(
    what: &str,
    store: &Arc<Store>,
    clients: usize,
    time: Duration,
    call: F,
) -> Result<(), Failure>
where
    F: Fn(Arc<Store>, usize, usize) -> T + Copy + Send + 'static,
    T: Future<Output = Result<(), KvError>> + Send,
{
    let (cpu, (syncs, _)) = (cpu_time()?, store.log_written());
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                for n in 0.. {
                    let call_start = Instant::now();
                    call(store.clone(), client, n).await?;
                    times.push(call_start.elapsed());
                    if start.elapsed() > time {
                        break;
                    }
                }
                Ok::<_, KvError>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let elapsed = start.elapsed();
    let count = times.len();
    println!(
        "{what}, {clients} clients: {:.0}/s, {}, {:.1} us CPU each, {:.1} a sync",
        count as f64 / elapsed.as_secs_f64(),
        quantiles(&mut times),
        (cpu_time()? - cpu).as_micros() as f64 / count as f64,
        count as f64 / (store.log_written().0 - syncs).max(1) as f64,
    );
    Ok(())
}

async fn put(store: Arc<Store>, client: usize, n: usize) -> Result<(), KvError> {
    let key = format!("bench/{client:03}/{:04}", n % 1000);
    put_value(&store, key, vec![b'v'; 256]).await
}

async fn put_value(store: &Store, key: String, value: Vec<u8>) -> Result<(), KvError> {
    let op = Op::Put(PutRequest {
        key: key.into(),
        value: value.into(),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    });
    let request = TxnRequest { success: vec![op], ..Default::default() };
    store.txn(request).await.map(|_| ())
}

async fn get(store: Arc<Store>, client: usize, n: usize) -> Result<(), KvError> {
    store.range(one(&format!("bench/{client:03}/{:04}", n % 1000))).await.map(|_| ())
}

fn one(key: &str) -> RangeRequest {
    RangeRequest::new(KeyRange::One(key.to_owned().into()))
}

async fn fill(store: Arc<Store>, client: usize) -> Result<(), KvError> {
    for n in (client..100_000).step_by(64) {
        put_value(&store, format!("big/{n:07}"), vec![b'v'; 1024]).await?;
    }
    Ok(())
}

async fn idle(store: &Store) -> Result<(), Failure> {
    let (cpu, written) = (cpu_time()?, written_bytes()?);
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!(
        "idle for 5 s: {:?} CPU, {} bytes written, revision {}",
        cpu_time()? - cpu,
        written_bytes()? - written,
        store.revision()
    );
    Ok(())
}

fn resident_kib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no size")?.parse()?)
}

fn written_bytes() -> Result<u64, Failure> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find(|line| line.starts_with("write_bytes:")).ok_or("no write_bytes")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit(')').next().ok_or("no stat")?;
    let field = |n: usize| -> Result<u64, Failure> {
        Ok(after.split_whitespace().nth(n).ok_or("short")?.parse()?)
    };
    // Clock ticks are hundredths of a second on Linux.
    Ok(Duration::from_millis((field(11)? + field(12)?) * 10))
}
