//! Debian's `etcdctl` 3.4, unchanged, against the store: what it prints is what etcd makes
//! it print.
#![allow(clippy::unwrap_used)]

mod etcd_support;

use etcd_support::*;
use serde_json::json;
use skiff_store::Store;
use tokio::io::{AsyncBufReadExt, BufReader};

async fn walk(served: &Served) {
    assert_eq!(served.ctl(&["put", "a", "1"]).await, "OK\n");
    assert_eq!(served.ctl(&["get", "a"]).await, "a\n1\n");
    assert_eq!(served.ctl(&["get", "missing"]).await, "");
    assert_eq!(served.ctl(&["put", "--prev-kv", "a", "2"]).await, "OK\na\n1\n");
    assert_eq!(served.ctl(&["get", "a", "--rev", "2"]).await, "a\n1\n");
    assert_eq!(served.ctl(&["del", "a", "--prev-kv"]).await, "1\na\n2\n");
    assert_eq!(served.ctl(&["del", "a"]).await, "0\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_gets_and_deletes() {
    let served = Served::plain().await;
    walk(&served).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_client_certificate_and_not_without() {
    let served = Served::secure().await;
    walk(&served).await;
    let health = served.ctl(&["endpoint", "health"]).await;
    assert!(health.contains("is healthy"), "{health}");
    let status = served.ctl(&["endpoint", "status"]).await;
    assert!(status.starts_with("https://127.0.0.1:"), "{status}");

    let mut nobody = etcdctl(&served.url());
    nobody.arg("--cacert").arg(served.path("ca.crt"));
    nobody.args(["--dial-timeout", "1s", "--command-timeout", "2s", "get", "a"]);
    let output = run(nobody, "").await;
    assert!(!output.status.success(), "without a certificate: {:?}", text(&output));
    let mut in_the_clear = etcdctl(&format!("http://{}", served.address));
    in_the_clear.args(["--dial-timeout", "1s", "--command-timeout", "2s", "get", "a"]);
    let output = run(in_the_clear, "").await;
    assert!(!output.status.success(), "in the clear: {:?}", text(&output));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_with_every_option() {
    let served = Served::plain().await;
    for (key, value) in [("k/1", "c"), ("k/2", "b"), ("k/3", "a"), ("l", "z")] {
        served.ctl(&["put", key, value]).await;
    }
    served.ctl(&["put", "k/1", "c2"]).await;
    assert_eq!(served.ctl(&["get", "--prefix", "k/"]).await, "k/1\nc2\nk/2\nb\nk/3\na\n");
    let keys = served.ctl(&["get", "--prefix", "--keys-only", "k/"]).await;
    assert_eq!(keys, "k/1\n\nk/2\n\nk/3\n\n");
    let values = |args: &'static [&'static str]| {
        let served = &served;
        async move {
            let args = [&["get", "--print-value-only"], args].concat();
            served.ctl(&args).await.split_whitespace().collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(values(&["--prefix", "k/", "--sort-by", "value"]).await, "a b c2");
    assert_eq!(values(&["--prefix", "k/", "--order", "DESCEND"]).await, "a b c2");
    let by_change = ["--prefix", "k/", "--sort-by", "MODIFY", "--order", "DESCEND"];
    let args = [&["get", "--print-value-only"][..], &by_change[..]].concat();
    assert_eq!(served.ctl(&args).await, "c2\na\nb\n");
    assert_eq!(values(&["--prefix", "k/", "--limit", "2"]).await, "c2 b");
    assert_eq!(values(&["--from-key", "k/3"]).await, "a z");
    assert_eq!(values(&["k/2", "k/9"]).await, "b a");
    assert_eq!(values(&["--prefix", "k/", "--rev", "3"]).await, "c b");
    assert_eq!(values(&["--prefix", ""]).await, "c2 b a z");

    let cut = served.json(&["get", "--prefix", "k/", "--limit", "1"]).await;
    assert_eq!((&cut["more"], &cut["count"]), (&json!(true), &json!(3)));
    assert_eq!(cut["header"]["revision"], 6);
    assert_eq!(cut["header"]["member_id"], served.store.identity().member_id);
    assert_eq!(cut["header"]["cluster_id"], served.store.identity().cluster_id);
    assert_eq!(cut["header"]["raft_term"], served.store.raft_term());
    let kv = &cut["kvs"][0];
    assert_eq!((&kv["create_revision"], &kv["mod_revision"]), (&json!(2), &json!(6)));
    assert_eq!((&kv["version"], &kv["key"]), (&json!(2), &json!("ay8x")));
    let hex = served.ctl(&["get", "--hex", "l"]).await;
    assert_eq!(hex, "\\x6c\n\\x7a\n");
    let future = served.ctl_fails(&["get", "--rev", "99", "l"]).await;
    assert!(
        future.contains("etcdserver: mvcc: required revision is a future revision"),
        "{future}"
    );
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions() {
    let served = Served::plain().await;
    served.ctl(&["put", "a", "1"]).await;
    let words = "value(\"a\") = \"1\"\nversion(\"b\") = \"0\"\n\n\
                 put b two\nget a\ndel a\n\nget b\n\n";
    let first = served.ctl_with_stdin(&["txn"], words).await;
    assert_eq!(first, "SUCCESS\n\nOK\n\na\n1\n\n1\n");
    let second = served.ctl_with_stdin(&["txn"], words).await;
    assert_eq!(second, "FAILURE\n\nb\ntwo\n");
    let twice = "\nput x 1\nput x 2\n\n\n";
    let output = run(served.etcdctl(&["txn"]), twice).await;
    let (_, err) = text(&output);
    assert!(err.contains("etcdserver: duplicate key given in txn request"), "{err}");
    served.stop().await;
}

/// Starts `etcdctl watch`, and returns its first `lines` lines.
async fn watch(served: &Served, args: &[&str], lines: usize) -> Vec<String> {
    let mut child = served.etcdctl(args).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut got = Vec::new();
    while got.len() < lines {
        let line = tokio::time::timeout(PATIENCE, out.next_line()).await;
        got.push(line.expect("the watch speaks in time").unwrap().expect("the watch goes on"));
    }
    child.kill().await.unwrap();
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches() {
    let served = Served::plain().await;
    served.ctl(&["put", "k/1", "a"]).await;
    served.ctl(&["put", "k/2", "b"]).await;
    served.ctl(&["put", "k/1", "c"]).await;
    served.ctl(&["del", "k/2"]).await;
    served.ctl(&["put", "other", "x"]).await;
    served.ctl(&["put", "k/3", "d"]).await;
    let history = watch(&served, &["watch", "--prefix", "--rev", "3", "k/"], 11).await;
    let expect = ["PUT", "k/2", "b", "PUT", "k/1", "c", "DELETE", "k/2", "", "PUT", "k/3"];
    assert_eq!(history, expect);
    let args = ["watch", "--prev-kv", "--rev", "4", "k/1"];
    assert_eq!(watch(&served, &args, 5).await, ["PUT", "k/1", "a", "k/1", "c"]);
    let args = ["watch", "--prev-kv", "--rev", "5", "k/2"];
    assert_eq!(watch(&served, &args, 5).await, ["DELETE", "k/2", "b", "k/2", ""]);

    // From now on: something is written until the watch has seen it.
    let live = watch(&served, &["watch", "live"], 3);
    let writing = async {
        loop {
            served.ctl(&["put", "live", "now"]).await;
        }
    };
    tokio::select! {
        lines = live => assert_eq!(lines, ["PUT", "live", "now"]),
        () = writing => {}
    }
    served.ctl(&["compaction", "5"]).await;
    let output = run(served.etcdctl(&["watch", "--rev", "2", "k/1"]), "").await;
    let (out, err) = text(&output);
    assert!((out + &err).contains("required revision has been compacted"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases() {
    let served = Served::plain().await;
    let granted = served.ctl(&["lease", "grant", "300"]).await;
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(300s)\n"));
    served.ctl(&["put", "held", "x", "--lease", &id]).await;
    let left = served.ctl(&["lease", "timetolive", "--keys", &id]).await;
    assert!(left.starts_with(&format!("lease {id} granted with TTL(300s), remaining(")), "{left}");
    assert!(left.ends_with("attached keys([held])\n"), "{left}");
    let alive = served.ctl(&["lease", "keep-alive", "--once", &id]).await;
    assert_eq!(alive, format!("lease {id} keepalived with TTL(300)\n"));
    assert_eq!(served.ctl(&["lease", "list"]).await, format!("found 1 leases\n{id}\n"));
    assert_eq!(served.ctl(&["lease", "revoke", &id]).await, format!("lease {id} revoked\n"));
    assert_eq!(served.ctl(&["get", "held"]).await, "");
    let gone = served.ctl(&["lease", "timetolive", &id]).await;
    assert_eq!(gone, format!("lease {id} already expired\n"));
    let refused = served.ctl_fails(&["put", "held", "x", "--lease", &id]).await;
    assert!(refused.contains("etcdserver: requested lease not found"), "{refused}");
    let refused = served.ctl_fails(&["lease", "revoke", &id]).await;
    assert!(refused.contains("etcdserver: requested lease not found"), "{refused}");
    let refused = served.ctl_fails(&["lease", "keep-alive", "--once", &id]).await;
    assert!(refused.contains("etcdserver: requested lease not found"), "{refused}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction() {
    let served = Served::plain().await;
    for value in ["1", "2", "3"] {
        served.ctl(&["put", "a", value]).await;
    }
    assert_eq!(served.ctl(&["compaction", "3"]).await, "compacted revision 3\n");
    let text = "etcdserver: mvcc: required revision has been compacted";
    let error = served.ctl_fails(&["get", "a", "--rev", "2"]).await;
    assert!(error.contains(text), "{error}");
    let error = served.ctl_fails(&["compaction", "3"]).await;
    assert!(error.contains(text), "{error}");
    assert_eq!(served.ctl(&["get", "a", "--rev", "3"]).await, "a\n2\n");
    assert_eq!(served.ctl(&["compaction", "--physical", "4"]).await, "compacted revision 4\n");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_asks() {
    let served = Served::plain().await;
    served.ctl(&["put", "a", "1"]).await;
    let status = &served.json(&["endpoint", "status"]).await[0]["Status"];
    let me = served.store.identity().member_id;
    assert_eq!(status["header"]["member_id"], me);
    assert_eq!((&status["leader"], &status["header"]["revision"]), (&json!(me), &json!(2)));
    assert!(status["version"].as_str().unwrap().starts_with("3.4."), "{status}");
    assert!(status["dbSize"].as_i64().unwrap() > 0, "{status}");
    assert_eq!(status["raftIndex"], status["raftAppliedIndex"]);
    assert!(served.ctl(&["endpoint", "health"]).await.contains("is healthy"));
    let hash = served.json(&["endpoint", "hashkv"]).await[0]["HashKV"]["hash"].clone();
    assert!(hash.as_u64().unwrap() > 0);
    let members = served.json(&["member", "list"]).await;
    let member = &members["members"][0];
    assert_eq!((&member["ID"], &member["name"]), (&json!(me), &json!("test")));
    assert_eq!(member["peerURLs"], json!(["http://127.0.0.1:2380"]));
    assert!(served.ctl(&["defrag"]).await.starts_with("Finished defragmenting"));
    assert_eq!(served.ctl(&["alarm", "list"]).await, "");
    assert_eq!(served.ctl(&["alarm", "disarm"]).await, "");
    assert_eq!(served.json(&["endpoint", "hashkv"]).await[0]["HashKV"]["hash"], hash);
    let refused = served.ctl_fails(&["member", "remove", "abc"]).await;
    assert!(refused.contains("etcdserver: member not found"), "{refused}");
    let refused = served.ctl_fails(&["move-leader", "abc"]).await;
    assert!(refused.contains("etcdserver: bad leader transferee"), "{refused}");
    let refused = served.ctl_fails(&["auth", "disable"]).await;
    assert!(refused.contains("etcdserver: authentication is not enabled"), "{refused}");
    let refused = served.ctl_fails(&["user", "list"]).await;
    assert!(refused.contains("a client is known by its certificate"), "{refused}");
    // A user is no hindrance where there are none, as with etcd.
    assert_eq!(served.ctl(&["--user", "root:secret", "get", "a"]).await, "a\n1\n");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_snapshot_can_be_restored() {
    let served = Served::plain().await;
    let big = "x".repeat(100_000);
    for i in 0..20 {
        let value = format!("{i}{big}");
        served.ctl(&["put", &format!("k{i}"), &value]).await;
    }
    let path = served.path("backup");
    let path = path.to_str().unwrap();
    let saved = served.ctl(&["snapshot", "save", path]).await;
    assert!(saved.contains(&format!("Snapshot saved at {path}")), "{saved}");
    let status = Store::snapshot_status(path.as_ref()).unwrap();
    assert_eq!((status.revision, status.records), (21, 20));

    let other = tempfile::tempdir().unwrap();
    Store::restore(path.as_ref(), &config(other.path())).unwrap();
    let store = Store::open(config(other.path())).await.unwrap();
    assert_eq!(store.revision(), 21);
    store.shutdown().await;
    served.stop().await;
}
