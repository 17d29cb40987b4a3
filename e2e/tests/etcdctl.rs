//! Every command of Debian's etcdctl 3.4 but those of auth, user and role, at each of three
//! members that are processes of their own; with the output that etcd makes it print.
//!
//! `etcdctl check perf` takes a minute, so it has to be asked for:
//! `cargo test --workspace --test etcdctl -- --ignored`

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_e2e::store::{Member, Members};

/// A command that goes on until it is ended.
struct Running(Child, BufReader<std::process::ChildStdout>);

impl Running {
    fn start(member: &Member, args: &[&str], stdin: &str) -> Self {
        let mut command = member.etcdctl_command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run etcdctl: it is in Debian's package etcd-client");
        // Kept open in the child: an interactive command ends with its input.
        child.stdin.as_mut().expect("stdin").write_all(stdin.as_bytes()).expect("write");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        Self(child, out)
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        let line = |_| {
            let mut line = String::new();
            self.1.read_line(&mut line).expect("a line");
            line.trim_end().to_owned()
        };
        (0..count).map(line).collect()
    }

    fn interrupt(mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT).expect("interrupt etcdctl");
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_stdin(member: &Member, args: &[&str], stdin: &str) -> String {
    let mut command = member.etcdctl_command(args);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("run etcdctl");
    child.stdin.take().expect("stdin").write_all(stdin.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("etcdctl ends");
    assert!(output.status.success(), "etcdctl {args:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_command_at_every_member() {
    let members = Members::start(3);
    for (at, member) in members.list.iter().enumerate() {
        keys(member, &format!("m{at}"));
        watches(member, &format!("w{at}"));
        leases(member);
        locks_and_elections(member, &format!("e{at}"));
        maintenance(member);
        snapshots(member);
    }
    cluster(&members);
    alarms(&members);
    leadership(&members);
}

fn keys(member: &Member, key: &str) {
    let (other, prefix) = (format!("{key}/b"), format!("{key}/"));
    let key = &format!("{key}/a");
    assert_eq!(member.ctl(&["put", key, "1"]), "OK\n");
    assert_eq!(member.ctl(&["put", key, "2", "--prev-kv"]), format!("OK\n{key}\n1\n"));
    assert_eq!(with_stdin(member, &["put", &other], "from stdin"), "OK\n");
    assert_eq!(member.ctl(&["get", key]), format!("{key}\n2\n"));
    assert_eq!(member.ctl(&["get", key, "--consistency=s", "--print-value-only"]), "2\n");
    let both = format!("{key}\n2\n{other}\nfrom stdin\n");
    assert_eq!(member.ctl(&["get", "--prefix", &prefix]), both);
    let keys = member.ctl(&["get", "--prefix", &prefix, "--keys-only", "--order=DESCEND"]);
    assert_eq!(keys, format!("{other}\n\n{key}\n\n"));
    let got = member.json(&["get", key]);
    assert_eq!((&got["count"], &got["kvs"][0]["version"]), (&1.into(), &2.into()));
    let old = got["header"]["revision"].as_i64().expect("a revision") - 2;
    assert_eq!(member.ctl(&["get", key, "--rev", &old.to_string()]), format!("{key}\n1\n"));

    let words = format!("value(\"{key}\") = \"2\"\n\nput {key} 3\nget {key}\n\nget {other}\n\n");
    assert_eq!(with_stdin(member, &["txn"], &words), format!("SUCCESS\n\nOK\n\n{key}\n3\n"));
    let failed = format!("FAILURE\n\n{other}\nfrom stdin\n");
    assert_eq!(with_stdin(member, &["txn"], &words), failed);

    assert_eq!(member.ctl(&["del", key, "--prev-kv"]), format!("1\n{key}\n3\n"));
    assert_eq!(member.ctl(&["del", key]), "0\n");
    assert_eq!(member.ctl(&["del", "--prefix", &prefix]), "1\n");
    let now = got["header"]["revision"].as_i64().expect("a revision").to_string();
    assert_eq!(member.ctl(&["compaction", &now]), format!("compacted revision {now}\n"));
    let gone = member.ctl_fails(&["get", key, "--rev", &old.to_string()]);
    assert!(gone.contains("etcdserver: mvcc: required revision has been compacted"), "{gone}");
    let future = member.ctl_fails(&["compaction", "100000"]);
    assert!(
        future.contains("etcdserver: mvcc: required revision is a future revision"),
        "{future}"
    );
}

fn watches(member: &Member, key: &str) {
    let put = member.json(&["put", key, "1"]);
    let revision = put["header"]["revision"].as_i64().expect("a revision").to_string();
    member.ctl(&["put", key, "2"]);
    member.ctl(&["del", key]);
    let mut plain = Running::start(member, &["watch", key, "--rev", &revision], "");
    assert_eq!(plain.lines(9), ["PUT", key, "1", "PUT", key, "2", "DELETE", key, ""]);
    let prev = ["watch", key, "--rev", &revision, "--prev-kv"];
    let mut prev = Running::start(member, &prev, "");
    let expect = ["PUT", key, "1", "PUT", key, "1", key, "2", "DELETE", key, "2", key, ""];
    assert_eq!(prev.lines(13), expect);
    // Several watches on one stream, and progress of them all.
    let words = format!("watch {key} --rev {revision}\nwatch other\nprogress\n");
    let mut interactive = Running::start(member, &["watch", "-i"], &words);
    let mut lines = interactive.lines(10);
    let progress = lines.iter().position(|line| line.starts_with("progress notify: "));
    lines.remove(progress.unwrap_or_else(|| panic!("no progress in {lines:?}")));
    assert_eq!(lines, ["PUT", key, "1", "PUT", key, "2", "DELETE", key, ""]);
    let exec = "echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE";
    let exec = ["watch", key, "--rev", &revision, "--", "sh", "-c", exec];
    let mut exec = Running::start(member, &exec, "");
    let told = format!("\"PUT\" \"{key}\" \"1\"");
    // After all the events that came together.
    assert_eq!(exec.lines(10)[9], told);
}

fn leases(member: &Member) {
    let granted = member.ctl(&["lease", "grant", "3"]);
    let id = granted.split(' ').nth(1).expect("an id").to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(3s)\n"));
    let mut alive = Running::start(member, &["lease", "keep-alive", &id], "");
    let line = format!("lease {id} keepalived with TTL(3)");
    assert_eq!(alive.lines(2), [line.as_str(), &line]);
    assert_eq!(member.ctl(&["put", "leased", "1", "--lease", &id]), "OK\n");
    let left = member.ctl(&["lease", "timetolive", &id, "--keys"]);
    assert!(left.starts_with(&format!("lease {id} granted with TTL(3s), remaining(")), "{left}");
    assert!(left.ends_with("s), attached keys([leased])\n"), "{left}");
    let list = member.ctl(&["lease", "list"]);
    assert!(list.starts_with("found ") && list.contains(&format!("\n{id}\n")), "{list}");
    drop(alive);
    assert_eq!(member.ctl(&["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(member.ctl(&["get", "leased"]), "");
    let gone = member.ctl(&["lease", "timetolive", &id]);
    assert_eq!(gone, format!("lease {id} already expired\n"));
    let refused = member.ctl_fails(&["lease", "keep-alive", "--once", &id]);
    assert!(refused.contains("etcdserver: requested lease not found"), "{refused}");
}

fn locks_and_elections(member: &Member, name: &str) {
    assert_eq!(member.ctl(&["lock", name, "--", "echo", "inside"]), "inside\n");
    let failed = member.ctl_fails(&["lock", name, "--", "false"]);
    assert!(failed.contains("exit status 1"), "{failed}");
    let mut holder = Running::start(member, &["lock", name], "");
    assert!(holder.lines(1)[0].starts_with(&format!("{name}/")));
    let mut next = Running::start(member, &["lock", name, "--", "echo", "next"], "");
    // It holds the lock as long as it runs.
    holder.interrupt();
    assert_eq!(next.lines(1), ["next"]);

    let election = format!("{name}-election");
    let mut first = Running::start(member, &["elect", &election, "first"], "");
    let leader = first.lines(2);
    assert!(leader[0].starts_with(&format!("{election}/")) && leader[1] == "first", "{leader:?}");
    let mut listener = Running::start(member, &["elect", "--listen", &election], "");
    assert_eq!(listener.lines(2), leader);
    let mut second = Running::start(member, &["elect", &election, "second"], "");
    first.interrupt();
    assert_eq!(second.lines(2)[1], "second");
    assert_eq!(listener.lines(2)[1], "second");
}

fn maintenance(member: &Member) {
    let url = &member.client_url;
    assert_eq!(member.ctl(&["version"]), "etcdctl version: 3.4.23\nAPI version: 3.4\n");
    let health = member.ctl(&["endpoint", "health"]);
    let healthy = format!("{url} is healthy: successfully committed proposal: took = ");
    assert!(health.starts_with(&healthy), "{health}");
    let status = member.ctl(&["endpoint", "status"]);
    let fields: Vec<_> = status.trim_end().split(", ").collect();
    assert!(fields.len() >= 9 && fields[0] == url && fields[2].starts_with("3.4."), "{status}");
    let hash = member.ctl(&["endpoint", "hashkv"]);
    assert!(hash.starts_with(&format!("{url}, ")), "{hash}");
    let done = format!("Finished defragmenting etcd member[{url}]\n");
    assert_eq!(member.ctl(&["defrag"]), done);
    assert_eq!(member.ctl(&["alarm", "list"]), "");
    assert_eq!(member.ctl(&["alarm", "disarm"]), "");
}

/// The file is skiff's own: etcdctl saves it, and skiff reads it.
fn snapshots(member: &Member) {
    let file = member.data_dir().with_extension("snapshot");
    let path = file.to_str().expect("UTF-8");
    let saved = member.ctl(&["snapshot", "save", path]);
    assert!(saved.ends_with(&format!("Snapshot saved at {path}\n")), "{saved}");
    let refused = member.ctl_fails(&["snapshot", "status", path]);
    assert_eq!(refused, "Error: invalid database\n");
    let skiff = |args: &[&str]| {
        let output = std::process::Command::new(skiff_e2e::cluster::binary()).args(args).output();
        let output = output.expect("run skiff");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let status = skiff(&["snapshot", "status", path]);
    assert!(status.contains("whole, its hashes match"), "{status}");
    let restored = member.data_dir().with_extension("restored");
    let to = restored.to_str().expect("UTF-8");
    skiff(&["snapshot", "restore", path, "--store-only", "--data-dir", to]);
    assert!(restored.is_dir());
}

fn cluster(members: &Members) {
    let first = &members.list[0];
    for args in [["endpoint", "health"], ["endpoint", "status"], ["endpoint", "hashkv"]] {
        let all = first.ctl(&[args[0], args[1], "--cluster"]);
        assert_eq!(all.lines().count(), 3, "{all}");
    }
    assert_eq!(first.ctl(&["defrag", "--cluster"]).lines().count(), 3);
    let hashes = first.ctl(&["endpoint", "hashkv", "--cluster"]);
    let hash = |line: &str| line.split(", ").nth(1).expect("a hash").to_owned();
    let hashes: Vec<_> = hashes.lines().map(hash).collect();
    assert!(hashes[0] == hashes[1] && hashes[1] == hashes[2], "{hashes:?}");

    let cluster = first.json(&["endpoint", "status"])[0]["Status"]["header"]["cluster_id"].clone();
    let cluster = cluster.as_u64().expect("an id");
    for (at, member) in members.list.iter().enumerate() {
        let id = member.status().expect("its id").1;
        let (peer, client) = (&member.peer_url, &member.client_url);
        let list = member.ctl(&["member", "list"]);
        let line = format!("{id:x}, started, {}, {peer}, {client}, false", member.name);
        assert!(list.lines().any(|listed| listed == line), "{line} in {list}");
        let updated = member.ctl(&["member", "update", &format!("{id:x}"), "--peer-urls", peer]);
        assert_eq!(updated, format!("Member {id:16x} updated in cluster {cluster:16x}\n"));
        let url = format!("http://127.0.0.1:{}", at + 1);
        let added = member.ctl(&["member", "add", "new", "--learner", "--peer-urls", &url]);
        let new = added.split_whitespace().nth(1).expect("an id").to_owned();
        assert!(added.starts_with(&format!("Member {new:>16} added to cluster {cluster:16x}\n")));
        assert!(added.contains("\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n"), "{added}");
        let unstarted = format!("{new}, unstarted, , {url}, , true");
        assert!(member.ctl(&["member", "list"]).lines().any(|line| line == unstarted));
        let early = member.ctl_fails(&["member", "promote", &new]);
        let text = "etcdserver: can only promote a learner member which is in sync with leader";
        assert!(early.contains(text), "{early}");
        let removed = member.ctl(&["member", "remove", &new]);
        assert_eq!(removed, format!("Member {new:>16} removed from cluster {cluster:16x}\n"));
    }
}

/// Raised over gRPC, for etcdctl has no word for it.
fn alarms(members: &Members) {
    use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client};
    let url = members.list[1].client_url.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let raised = runtime.expect("a runtime").block_on(async {
        let mut client = Client::connect([url], None).await.expect("connect");
        let mut options = AlarmOptions::new();
        options.with_member(7);
        client.alarm(AlarmAction::Activate, AlarmType::Nospace, Some(options)).await
    });
    assert_eq!(raised.expect("it is raised").alarms().len(), 1);
    for member in &members.list {
        assert_eq!(member.ctl(&["alarm", "list"]), "memberID:7 alarm:NOSPACE \n");
        let refused = member.ctl_fails(&["put", "k", "v"]);
        assert!(refused.contains("etcdserver: mvcc: database space exceeded"), "{refused}");
        assert_eq!(member.ctl(&["del", "k"]), "0\n");
    }
    assert_eq!(members.list[2].ctl(&["alarm", "disarm"]), "memberID:7 alarm:NOSPACE \n");
    for member in &members.list {
        assert_eq!(member.ctl(&["alarm", "list"]), "");
        assert_eq!(member.ctl(&["put", "k", "v"]), "OK\n");
    }
}

fn leadership(members: &Members) {
    let from = members.leader();
    let to = (from + 1) % 3;
    let id = |at: usize| members.list[at].status().expect("its id").1;
    let (from_id, to_id) = (id(from), id(to));
    let args = ["--endpoints", &members.endpoints(), "move-leader", &format!("{to_id:x}")];
    let moved = members.list[to].ctl(&args);
    assert_eq!(moved, format!("Leadership transferred from {from_id:x} to {to_id:x}\n"));
    assert_eq!(members.leader(), to);
    let wrong = members.list[from].ctl_fails(&["move-leader", &format!("{from_id:x}")]);
    assert!(wrong.contains("no leader endpoint given at "), "{wrong}");
    let nobody = members.list[to].ctl_fails(&["move-leader", "1"]);
    assert!(nobody.contains("etcdserver: bad leader transferee"), "{nobody}");
}

#[test]
fn a_mirror_follows_and_data_fits() {
    let (members, other) = (Members::start(3), Members::start(1));
    let (from, to) = (&members.list[1], &other.list[0]);
    from.ctl(&["put", "k/before", "1"]);
    let args = ["make-mirror", &to.client_url, "--prefix", "k/", "--dest-prefix", "copy/"];
    let mirror = Running::start(from, &args, "");
    let arrives = |key: &str, value: &str| {
        skiff_e2e::eventually(&format!("{key} is mirrored"), skiff_e2e::store::PATIENCE, || {
            let got = to.ctl(&["get", key, "--print-value-only"]);
            if got.trim() == value { Ok(()) } else { Err(got) }
        });
    };
    arrives("copy/before", "1");
    members.list[2].ctl(&["put", "k/after", "2"]);
    arrives("copy/after", "2");
    from.ctl(&["del", "k/before"]);
    arrives("copy/before", "");
    drop(mirror);

    let passed = from.ctl(&["check", "datascale", "--load", "s", "--auto-compact"]);
    assert!(passed.contains("PASS: Approximate system memory used : "), "{passed}");
}

/// etcdctl's own minute of load; `SKIFF_CHECK_PERF=m` (or l, xl) is a heavier one.
#[test]
fn performance_is_checked() {
    let members = Members::start(3);
    let load = std::env::var("SKIFF_CHECK_PERF").unwrap_or("s".into());
    let passed = members.list[0].ctl(&["check", "perf", "--load", &load]);
    assert!(passed.contains("PASS: Throughput is "), "{passed}");
    println!("{passed}");
}
