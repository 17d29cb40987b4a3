//! What is on disk is cut, flipped, removed or full: one clear error, or the member heals
//! itself. Never is something that was acknowledged missing in silence.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use skiff_store::kv::*;
use skiff_store::{OpenError, Store};
use support::members::Tmpfs;
use support::*;

const KEYS: usize = 200;

async fn fill(dir: &Path) {
    let store = open(dir).await;
    for n in 0..KEYS {
        put(&store, &format!("k{n:04}"), &format!("value {n} {}", "x".repeat(300))).await;
    }
    store.shutdown().await;
}

async fn check_all(store: &Store) {
    let all = store.range(prefix("k")).await.unwrap();
    assert_eq!(all.kvs.len(), KEYS);
    for (n, kv) in all.kvs.iter().enumerate() {
        assert_eq!(kv.key, format!("k{n:04}"));
        assert!(kv.value.starts_with(format!("value {n} ").as_bytes()));
    }
    assert_eq!(all.revision, KEYS as i64 + 1);
}

fn log_segment(dir: &Path) -> PathBuf {
    dir.join("store/log/0000000000000001.log")
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn lose_engine(dir: &Path) {
    std::fs::remove_dir_all(dir.join("store/engine")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_last_log_record_is_dropped_and_the_rest_is_there() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    lose_engine(dir.path());
    // The crash came while one more frame was being written: its header made it, its body
    // did not.
    let path = log_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let end = used(&bytes).next_multiple_of(8);
    let last = last_frame(&bytes, end);
    let sequence = u64::from_le_bytes(bytes[last + 16..last + 24].try_into().unwrap());
    let header = bytes[last..last + 24].to_vec();
    bytes[end..end + 24].copy_from_slice(&header);
    bytes[end + 16..end + 24].copy_from_slice(&(sequence + 1).to_le_bytes());
    bytes[end + 24..end + 60].fill(0xab);
    std::fs::write(&path, &bytes).unwrap();

    let store = open(dir.path()).await;
    check_all(&store).await;
    put(&store, "k-after", "1").await;
    store.shutdown().await;
    drop(store);
    lose_engine(dir.path());
    let store = open(dir.path()).await;
    assert_eq!(value(&store, "k-after").await.as_deref(), Some("1"));
    store.shutdown().await;
}

fn last_frame(bytes: &[u8], end: usize) -> usize {
    let magic = 0x3157_4b53u32.to_le_bytes();
    (0..end).step_by(8).rfind(|at| bytes[*at..*at + 4] == magic).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_file_that_was_cut_short_loses_only_its_last_record() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    lose_engine(dir.path());
    let path = log_segment(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    let end = used(&bytes);
    std::fs::write(&path, &bytes[..end - 5]).unwrap();
    let store = open(dir.path()).await;
    let revision = store.revision();
    // The last frame may be the last put or Raft's own.
    assert!(revision >= KEYS as i64, "revision {revision}");
    assert_eq!(store.range(prefix("k")).await.unwrap().kvs.len() as i64, revision - 1);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_middle_of_the_log_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let path = log_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = used(&bytes) / 2;
    bytes[middle] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let error = Store::open(config(dir.path())).await.err().expect("refused");
    assert!(matches!(error, OpenError::Log(_)), "{error}");
    let text = error.to_string();
    let expected = format!("store: log: {} is damaged at byte ", path.display());
    assert!(text.starts_with(&expected), "{text}");
    assert!(text.ends_with("restore this member from a snapshot or rejoin it"), "{text}");
}

/// Replays its choices from the seed in the message.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit.max(1)
    }
}

fn engine_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("store/engine"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.metadata().unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

fn damage_engine(dir: &Path, random: &mut Random) -> String {
    let files = engine_files(dir);
    let path = &files[random.below(files.len() as u64) as usize];
    let mut bytes = std::fs::read(path).unwrap();
    let len = bytes.len() as u64;
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let what = match random.below(4) {
        0 => {
            bytes.truncate(random.below(len) as usize);
            format!("{name} cut to {}", bytes.len())
        }
        1 => {
            let from = random.below(len) as usize;
            let to = (from + 4096).min(bytes.len());
            bytes[from..to].fill(0);
            format!("{name} zeroed at {from}")
        }
        _ => {
            let count = 1 + random.below(40);
            // Most of the file may be blank; what counts is near its start.
            let reach = len.min(128 << 10);
            for _ in 0..count {
                let at = random.below(reach) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            format!("{count} bits flipped in {name}")
        }
    };
    std::fs::write(path, bytes).unwrap();
    what
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupted_engine_folder_is_rebuilt() {
    let rounds: u64 = std::env::var("SKIFF_STORE_DAMAGE_ROUNDS").map_or(12, |n| n.parse().unwrap());
    for seed in 1..=rounds {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path()).await;
        let what = damage_engine(dir.path(), &mut Random(seed));
        println!("seed {seed}: {what}");
        let store = open(dir.path()).await;
        check_all(&store).await;
        put(&store, "after", "1").await;
        store.shutdown().await;
        drop(store);
        let store = open(dir.path()).await;
        check_all_but_revision(&store).await;
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_engine_left_is_moved_aside_and_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    lose_engine(dir.path());
    let engine = dir.path().join("store/engine");
    std::fs::create_dir(&engine).unwrap();
    std::fs::write(engine.join("db"), "sled's").unwrap();
    let store = open(dir.path()).await;
    check_all(&store).await;
    store.shutdown().await;
    assert!(dir.path().join("store/engine.broken/db").exists());
}

async fn check_all_but_revision(store: &Store) {
    assert_eq!(store.range(prefix("k")).await.unwrap().kvs.len(), KEYS);
    assert_eq!(value(store, "after").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_engine_comes_back_from_snapshot_and_log() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let store = open(dir.path()).await;
    let (lease, _) = store.lease_grant(77, 600).await.unwrap();
    store.defragment().await.unwrap();
    delete(&store, "k0000").await;
    put(&store, "k0000", "value 0 again").await;
    let revision = store.revision();
    let before = store.hash_kv(0).await.unwrap();
    store.shutdown().await;
    drop(store);
    lose_engine(dir.path());
    let store = open(dir.path()).await;
    assert_eq!(store.revision(), revision);
    assert_eq!(store.hash_kv(0).await.unwrap(), before);
    assert_eq!(store.leases().await.unwrap(), [lease]);
    assert_eq!(value(&store, "k0000").await.as_deref(), Some("value 0 again"));
    store.shutdown().await;
    drop(store);

    // Without the snapshot, what the log has given up cannot come back: said, not hidden.
    lose_engine(dir.path());
    std::fs::remove_dir_all(dir.path().join("store/snapshots")).unwrap();
    let error = Store::open(config(dir.path())).await.err().expect("refused");
    assert!(matches!(error, OpenError::Lost { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(dir.path().join("disk"), 32);
    let store = open(&disk.0).await;
    put(&store, "before", "1").await;

    let filler = disk.0.join("filler");
    let filled = std::fs::write(&filler, vec![1u8; 64 << 20]);
    assert!(filled.is_err(), "the disk is full");
    let refused = store.txn(txn(vec![put_op("during", "1")])).await;
    let path = disk.0.join("store").display().to_string();
    assert_eq!(refused, Err(KvError::NoSpace { path }));
    let own = skiff_store::RaisedAlarm {
        member: store.identity().member_id,
        alarm: Alarm::NoSpace,
        by_itself: true,
    };
    assert_eq!(store.status().alarms, [own]);
    assert_eq!(value(&store, "before").await.as_deref(), Some("1"));
    assert_eq!(value(&store, "during").await, None);

    std::fs::remove_file(&filler).unwrap();
    put(&store, "after", "1").await;
    assert_eq!(store.status().alarms, []);
    store.shutdown().await;
    drop(store);

    // Opened on a full disk: what is there can be read.
    let _ = std::fs::write(&filler, vec![1u8; 64 << 20]);
    let store = open(&disk.0).await;
    assert_eq!(value(&store, "after").await.as_deref(), Some("1"));
    assert!(matches!(store.txn(txn(vec![put_op("x", "1")])).await, Err(KvError::NoSpace { .. })));
    store.shutdown().await;
    drop(store);
}
