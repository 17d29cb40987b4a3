//! The write-ahead log by itself: reading back, cutting, purging, rolling, and sharing syncs.
#![allow(clippy::unwrap_used)]

mod support;

use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use skiff_store::background::Background;
use skiff_store::wal::disk::{Disk, RealDisk};
use skiff_store::wal::frame::Entry;
use skiff_store::wal::{Wal, WalOptions};
use support::hooked::{Count, Full, Gate, HookedDisk};

fn options() -> WalOptions {
    WalOptions { segment_bytes: 4096, cache_bytes: 0 }
}

/// A log whose writer shares a runtime with a task that counts, as it does with Raft's.
struct Log {
    wal: Option<Wal>,
    beats: Arc<Count>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Log {
    fn open(dir: &Path, disk: impl Disk + 'static, options: WalOptions) -> Self {
        let (wal, writer) = Wal::open(dir, Arc::new(disk), options).unwrap();
        let beats = Arc::new(Count::default());
        let beating = beats.clone();
        let beat = async move {
            loop {
                beating.add_one();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let run = async move {
            tokio::select! {
                () = writer.run(Background::Threads) => {}
                () = beat => {}
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let thread = std::thread::spawn(move || runtime.block_on(run));
        Self { wal: Some(wal), beats, writer: Some(thread) }
    }

    /// The other task goes on.
    fn wait_for_beats(&self, more: u64) {
        self.beats.wait_for(self.beats.now() + more);
    }
}

impl Deref for Log {
    type Target = Wal;

    fn deref(&self) -> &Wal {
        self.wal.as_ref().unwrap()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.wal.take());
        self.writer.take().unwrap().join().unwrap();
    }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, RealDisk, options())
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        kind: 1,
        body: format!("entry {index} of term {term} {}", "x".repeat(200)).into(),
    }
}

fn append(wal: &Wal, indexes: std::ops::RangeInclusive<u64>, term: u64) {
    for index in indexes {
        wait(|done| wal.append(vec![entry(index, term)], done));
    }
}

fn wait(start: impl FnOnce(skiff_store::wal::Done)) {
    let (tell, told) = mpsc::channel();
    start(Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap().unwrap();
}

fn read(wal: &Wal) -> Vec<(u64, u64)> {
    let entries = wal.read(0, u64::MAX).unwrap();
    for got in &entries {
        assert_eq!(*got, entry(got.index, got.term));
    }
    entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

fn segments(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".log")).count()
}

#[test]
fn entries_and_the_vote_survive_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    wait(|done| wal.save_state("vote".into(), done));
    append(&wal, 0..=99, 1);
    assert!(segments(dir.path()) > 4);
    assert_eq!(read(&wal).len(), 100);
    drop(wal);
    let wal = open(dir.path());
    assert_eq!(read(&wal).len(), 100);
    assert_eq!(wal.state().unwrap(), "vote");
    assert_eq!(wal.last(), Some((99, 1)));
}

#[test]
fn what_was_cut_stays_cut_and_can_be_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    append(&wal, 0..=9, 1);
    wait(|done| wal.truncate_after(Some(4), done));
    append(&wal, 5..=6, 2);
    let expected: Vec<_> = (0..=4).map(|n| (n, 1)).chain([(5, 2), (6, 2)]).collect();
    assert_eq!(read(&wal), expected);
    drop(wal);
    let wal = open(dir.path());
    assert_eq!(read(&wal), expected);
    wait(|done| wal.truncate_after(None, done));
    append(&wal, 0..=0, 3);
    drop(wal);
    assert_eq!(read(&open(dir.path())), [(0, 3)]);
}

#[test]
fn purged_segments_are_reused_and_nothing_old_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0;
    for round in 1..=6 {
        let wal = open(dir.path());
        append(&wal, next..=next + 49, round);
        next += 50;
        wal.purge(next - 3, round);
        append(&wal, next..=next, round);
        next += 1;
        let last = next - 1;
        assert_eq!(read(&wal), [(last - 2, round), (last - 1, round), (last, round)]);
        drop(wal);
        assert!(segments(dir.path()) <= 3, "{} segments", segments(dir.path()));
        let wal = open(dir.path());
        assert_eq!(read(&wal).len(), 3, "round {round}");
        assert_eq!(wal.purged(), Some((last - 3, round)));
        drop(wal);
    }
}

#[test]
fn counts_the_newest_entries_that_fit_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    assert_eq!(wal.entries_within(1 << 20, 9), 0);
    append(&wal, 0..=9, 1);
    wal.purge(2, 1);
    let one = entry(3, 1).body.len() as u64;
    assert_eq!(wal.entries_within(u64::MAX, 9), 7);
    assert_eq!(wal.entries_within(u64::MAX, 4), 2);
    assert_eq!(wal.entries_within(3 * one, 8), 3);
    assert_eq!(wal.entries_within(3 * one - 1, 8), 2);
    assert_eq!(wal.entries_within(one, 1), 0);
}

#[test]
fn a_log_that_jumps_ahead_to_a_snapshot_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    append(&wal, 0..=4, 1);
    wal.purge(1000, 7);
    append(&wal, 1001..=1002, 7);
    drop(wal);
    let wal = open(dir.path());
    assert_eq!(read(&wal), [(1001, 7), (1002, 7)]);
    assert_eq!(wal.purged(), Some((1000, 7)));
}

/// etcd #14370: nothing is answered before the sync; and what queues up shares the next one.
#[test]
fn nothing_is_done_before_its_sync_and_what_waits_shares_one() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let big = WalOptions { segment_bytes: 1 << 20, cache_bytes: 0 };
    let wal = Log::open(dir.path(), HookedDisk(gate.clone()), big);
    let (tell, told) = mpsc::channel();
    let start = |index: u64| {
        let tell = tell.clone();
        wal.append(
            vec![entry(index, 1)],
            Box::new(move |result| tell.send((index, result.is_ok())).unwrap()),
        );
    };
    start(0);
    gate.begun.wait_for(1);
    for index in 1..=100 {
        start(index);
    }
    assert!(told.try_recv().is_err(), "answered before the sync");
    // Readable, though, as Raft demands.
    assert_eq!(wal.read(0, u64::MAX).unwrap().len(), 101);
    gate.allow_one();
    assert_eq!(told.recv().unwrap(), (0, true));
    gate.begun.wait_for(2);
    assert!(told.try_recv().is_err(), "answered before the sync");
    gate.allow_all();
    let rest: Vec<_> = told.iter().take(100).map(|(index, _)| index).collect();
    assert_eq!(rest, (1..=100).collect::<Vec<_>>());
    assert_eq!(wal.written().0, 2);
}

/// A disk that took long once is waited for where that holds up nobody.
#[test]
fn a_slow_disk_does_not_hold_up_the_tasks_beside_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let big = WalOptions { segment_bytes: 1 << 20, cache_bytes: 0 };
    let wal = Log::open(dir.path(), HookedDisk(gate.clone()), big);
    let (tell, told) = mpsc::channel();
    let start = |index: u64| {
        let tell = tell.clone();
        wal.append(vec![entry(index, 1)], Box::new(move |_| tell.send(index).unwrap()));
    };
    start(0);
    gate.begun.wait_for(1);
    std::thread::sleep(Duration::from_millis(20));
    gate.allow_one();
    assert_eq!(told.recv().unwrap(), 0);
    start(1);
    gate.begun.wait_for(2);
    wal.wait_for_beats(10);
    assert!(told.try_recv().is_err(), "answered before the sync");
    gate.allow_all();
    assert_eq!(told.recv().unwrap(), 1);
}

/// In every place of a segment, its head and the roll to it included.
#[test]
fn space_is_waited_for_beside_the_other_tasks_and_nothing_is_written_twice() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Full::default());
    let wal = Log::open(dir.path(), HookedDisk(disk.clone()), options());
    wait(|done| wal.save_state("vote".into(), done));
    for index in 0..40 {
        disk.set(true);
        let before = disk.waited.now();
        let (tell, told) = mpsc::channel();
        wal.append(vec![entry(index, 1)], Box::new(move |result| tell.send(result).unwrap()));
        disk.waited.wait_for(before + 1);
        wal.wait_for_beats(2);
        assert!(told.try_recv().is_err(), "answered though there was no space");
        disk.set(false);
        told.recv().unwrap().unwrap();
    }
    assert!(segments(dir.path()) > 2);
    drop(wal);
    let wal = open(dir.path());
    assert_eq!(read(&wal).len(), 40);
    assert_eq!(wal.state().unwrap(), "vote");
}

/// A crash between a segment's creation and its first frame must not leave one that the vote
/// is missing from when those before it go.
#[test]
fn a_segment_that_a_crash_left_empty_begins_with_the_vote() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path());
    wait(|done| wal.save_state("vote".into(), done));
    append(&wal, 0..=3, 1);
    drop(wal);
    let first = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .unwrap();
    let name = first.file_name().unwrap().to_str().unwrap();
    let number = name.trim_end_matches(".log");
    let second =
        format!("{:0width$}.log", number.parse::<u64>().unwrap() + 1, width = number.len());
    std::fs::write(dir.path().join(second), vec![0; 4096]).unwrap();
    let wal = open(dir.path());
    append(&wal, 4..=6, 1);
    wal.purge(4, 1);
    drop(wal);
    assert!(!first.exists(), "the first segment is not needed any more");
    let wal = open(dir.path());
    assert_eq!(read(&wal), [(5, 1), (6, 1)]);
    assert_eq!(wal.state().unwrap(), "vote");
}
