//! `/metrics`, in the text format of Prometheus, under the names that etcd has for the same.
//! `etcdctl check datascale` reads the memory from here.

use std::fmt::Write;

use crate::store::Store;

pub fn render(store: &Store) -> String {
    let status = store.status();
    let (watches, slow) = store.watch_counts();
    let (syncs, written) = store.log_written();
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let mut gauge = |name: &str, help: &str, value: u64| put(name, "gauge", help, value);
    let number = |revision: i64| u64::try_from(revision).unwrap_or(0);
    gauge("etcd_server_has_leader", "Whether a leader exists.", (status.leader != 0).into());
    let leads = status.leader == status.member_id;
    gauge("etcd_server_is_leader", "Whether this member leads.", leads.into());
    gauge("etcd_server_is_learner", "Whether this member has no vote.", status.is_learner.into());
    let help = "Alarms that are raised.";
    gauge("etcd_debugging_server_alarms", help, status.alarms.len() as u64);
    let help = "Bytes of log, engine and snapshots on disk.";
    gauge("etcd_mvcc_db_total_size_in_bytes", help, status.db_bytes);
    let help = "Bytes of keys and values that can still be read.";
    gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, status.db_bytes_in_use);
    let help = "The newest revision.";
    gauge("etcd_debugging_mvcc_current_revision", help, number(status.revision));
    let help = "The revision of the last compaction.";
    gauge("etcd_debugging_mvcc_compact_revision", help, number(status.compacted));
    gauge("etcd_debugging_mvcc_watcher_total", "Watches that are up to date.", watches as u64);
    let help = "The last entry of the log that is applied.";
    gauge("etcd_server_proposals_applied_total", help, status.raft_applied_index);
    if let Some(bytes) = resident_bytes() {
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.", bytes);
    }
    let help = "Watches that were cut off because they were slow.";
    put("skiff_store_slow_watches_total", "counter", help, slow);
    put("skiff_store_log_syncs_total", "counter", "Syncs of the log.", syncs);
    put("skiff_store_log_written_bytes_total", "counter", "Bytes written to the log.", written);
    text
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
