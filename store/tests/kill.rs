//! kill -9 in a loop: a child writes and reports every acknowledgement through a pipe; what
//! it reported must be there for the next child, and revisions never go back.
//!
//! `SKIFF_STORE_KILLS=1000 cargo test -p skiff-store --test kill` for the long run.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::*;

const DIR: &str = "SKIFF_STORE_KILL_DIR";
const WRITERS: usize = 8;

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone; then nobody counts.
    let _ = out.write_all(line.as_bytes());
    let _ = out.flush();
}

/// Not a test by itself: what the children run.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = config(Path::new(&dir));
        // Small, so that snapshots and purges happen between kills too.
        config.snapshot_log_bytes = 200 << 10;
        let store = skiff_store::Store::open(config).await.unwrap();
        // The test harness has begun a line of its own.
        say("\n");
        for writer in 0..WRITERS {
            let have = value(&store, &format!("w{writer}")).await.map_or(0, |v| number(&v));
            say(&format!("have {writer} {have}\n"));
        }
        say(&format!("revision {}\n", store.revision()));
        let tasks: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let key = format!("w{writer}");
                    let mut next = value(&store, &key).await.map_or(0, |v| number(&v)) + 1;
                    loop {
                        let padding = "x".repeat((next as usize * 37) % 2000);
                        put(&store, &key, &format!("{next} {padding}")).await;
                        say(&format!("ack {writer} {next}\n"));
                        if writer == 0 && next.is_multiple_of(50) {
                            use skiff_store::kv::Kv;
                            let _ = store.compact(store.revision() - 5, false).await;
                        }
                        next += 1;
                    }
                })
            })
            .collect();
        futures_util::future::join_all(tasks).await;
    });
}

fn number(value: &str) -> u64 {
    value.split(' ').next().unwrap().parse().unwrap()
}

struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &Path) -> Writer {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Writer(child)
}

#[derive(Default)]
struct Seen {
    acked: [u64; WRITERS],
    revision: i64,
}

/// Lets a child start, checks what it has, and kills it after some acknowledgements.
fn round(dir: &Path, round: u64, seen: &mut Seen) {
    let mut child = spawn(dir);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let kill_after = round * 7919 % 300;
    let mut acks = 0;
    let mut checked = 0;
    let mut killed = false;
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["have", writer, have] => {
                let (writer, have): (usize, u64) = (writer.parse().unwrap(), have.parse().unwrap());
                let acked = seen.acked[writer];
                assert!(
                    have == acked || have == acked + 1,
                    "round {round}: writer {writer} was told that {acked} is stored, and finds {have}"
                );
                seen.acked[writer] = have;
                checked += 1;
            }
            ["revision", revision] => {
                let revision = revision.parse().unwrap();
                assert!(
                    revision >= seen.revision,
                    "round {round}: revision {} became {revision}",
                    seen.revision
                );
                seen.revision = revision;
            }
            ["ack", writer, n] => {
                let writer: usize = writer.parse().unwrap();
                seen.acked[writer] = n.parse().unwrap();
                acks += 1;
                if acks > kill_after && !killed {
                    // What is in the pipe already was acknowledged too, and is read on.
                    child.0.kill().unwrap();
                    killed = true;
                }
            }
            _ => {}
        }
    }
    if checked < WRITERS {
        let mut error = String::new();
        let _ = std::io::Read::read_to_string(child.0.stderr.as_mut().unwrap(), &mut error);
        panic!("round {round}: the store did not start: {error}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    if std::env::var(DIR).is_ok() {
        return;
    }
    let rounds: u64 = std::env::var("SKIFF_STORE_KILLS").map_or(30, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut seen = Seen::default();
    for n in 1..=rounds {
        round(dir.path(), n, &mut seen);
    }
    println!("{rounds} kills, {} revisions", seen.revision);
}
