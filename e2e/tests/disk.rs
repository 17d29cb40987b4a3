//! Damage to what is on the disk, and a disk that is full: what was acknowledged is there, or the server stops and names
//! the file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use skiff_e2e::cluster::{Cluster, binary};
use skiff_e2e::eventually;

const SOON: Duration = Duration::from_secs(60);
const OBJECTS: usize = 40;

fn fill(cluster: &Cluster, prefix: &str, count: usize) {
    let all: String = (0..count)
        .map(|n| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {prefix}-{n}}}\ndata: {{n: \"{n}\"}}\n---\n"))
        .collect();
    cluster.apply(&all);
}

fn names(cluster: &Cluster) -> Vec<String> {
    let text = cluster.skiff(&["get", "configmaps", "-o", "name"]);
    text.lines().map(str::to_owned).collect()
}

/// The newest segment, and where what was written into it ends: the rest is reserved, and zero.
fn log_end(cluster: &Cluster) -> (PathBuf, usize) {
    let dir = cluster.path("data/store/log");
    let files = std::fs::read_dir(&dir).expect("a log").flatten().map(|entry| entry.path());
    let written = files.filter_map(|path| {
        let bytes = std::fs::read(&path).ok()?;
        let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        Some((path, end))
    });
    let mut written: Vec<_> = written.collect();
    written.sort();
    written.pop().expect("a segment")
}

fn overwrite(path: &Path, at: usize, with: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).expect("opens");
    file.write_all_at(with, at as u64).expect("writes");
}

#[test]
fn a_damaged_store_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start_with("damage", &["--disable-agent"]);
    fill(&cluster, "kept", OBJECTS);
    let before = names(&cluster);
    a_corrupt_engine_is_rebuilt(&mut cluster, &before);
    a_torn_last_record_is_dropped(&mut cluster, &before);
    damage_in_the_middle_stops_the_server(&mut cluster);
}

/// Random bytes at seeded places of the engine's files.
fn a_corrupt_engine_is_rebuilt(cluster: &mut Cluster, before: &[String]) {
    for seed in [1_u64, 2, 3] {
        cluster.stop_server();
        let mut random = seed;
        let mut files = Vec::new();
        collect(&cluster.path("data/store/engine"), &mut files);
        assert!(!files.is_empty());
        for path in files {
            let length = std::fs::metadata(&path).expect("a file").len() as usize;
            for _ in 0..8 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                overwrite(&path, (random >> 20) as usize % length.max(1), &random.to_le_bytes());
            }
        }
        cluster.start_server();
        cluster.wait_ready();
        assert_eq!(names(cluster), before, "seed {seed}");
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => collect(&path, files),
            path => files.push(path),
        }
    }
}

fn a_torn_last_record_is_dropped(cluster: &mut Cluster, before: &[String]) {
    // As if it were torn before it was acknowledged: this one may be missing, and nothing before it.
    fill(cluster, "last", 1);
    cluster.kill_server();
    let (path, end) = log_end(cluster);
    overwrite(&path, end - 5, &[0; 5]);
    cluster.start_server();
    cluster.wait_ready();
    let kept: Vec<String> =
        names(cluster).into_iter().filter(|name| name != "configmap/last-0").collect();
    assert_eq!(kept, before);
    assert!(cluster.log().contains("torn"), "the log tells of it:\n{}", cluster.log());
}

fn damage_in_the_middle_stops_the_server(cluster: &mut Cluster) {
    fill(cluster, "later", 3);
    cluster.stop_server();
    let (path, end) = log_end(cluster);
    overwrite(&path, end / 2, b"damage here");
    let mut command = cluster.host.command(binary().to_str().expect("UTF-8"));
    let output = command.arg("server").args(cluster.server_flags()).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains("is damaged at byte"), "{said}");
    assert!(last.contains(&path.display().to_string()), "the file is named: {last}");
}

/// Takes the small disk away with the test, and the folder around it, which could not go with a disk in it.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = self.0.parent().map(std::fs::remove_dir_all);
    }
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    let mut mounted = None;
    let mut cluster = Cluster::start_in("full", &[], |dir| {
        let data = dir.join("data");
        std::fs::create_dir(&data).expect("makes");
        let size = "size=400m";
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", size, "none"]).arg(&data).status();
        assert!(done.expect("mount starts").success());
        mounted = Some(Mounted(data));
    });
    cluster.import_images();
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: runs}\nspec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: \"skiff.local/demo-web:1\"}]}\n");
    cluster.wait_field(&["pod", "runs"], "{.status.phase}", "Running", SOON);
    let started = "jsonpath={.status.containerStatuses[0].state.running.startedAt}";
    let before = cluster.skiff(&["get", "pod", "runs", "-o", started]);

    let filler = cluster.path("data/filler");
    let fill = format!("cat /dev/zero > {} 2>/dev/null; true", filler.display());
    Command::new("sh").args(["-c", &fill]).status().expect("starts");
    let mut acknowledged = Vec::new();
    let refused = eventually("a refusal", SOON, || {
        let name = format!("big-{}", acknowledged.len());
        let value = format!("--from-literal=v={}", "x".repeat(60_000));
        let done = cluster.try_skiff(&["create", "configmap", &name, &value]);
        if done.status.success() {
            acknowledged.push(format!("configmap/{name}"));
            return Err("still accepted".into());
        }
        Ok(String::from_utf8_lossy(&done.stderr).into_owned())
    });
    let data = cluster.path("data").display().to_string();
    assert_eq!(refused.trim().lines().count(), 1, "{refused}");
    assert!(
        refused.contains("no space left for writes in") && refused.contains(&data),
        "{refused}"
    );
    // Reads go on, and so does the pod.
    for name in &acknowledged {
        assert!(names(&cluster).contains(name), "{name} was acknowledged");
    }
    let ip = cluster.skiff(&["get", "pod", "runs", "-o", "jsonpath={.status.podIP}"]);
    let answer = cluster.http(&format!("http://{ip}:8080/"), None).expect("the pod answers");
    assert!(answer.contains("version 1"), "{answer}");

    std::fs::remove_file(&filler).expect("removes");
    eventually("writes to resume", SOON, || {
        let done = cluster.try_skiff(&["create", "configmap", "resumed", "--from-literal=a=b"]);
        if done.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&done.stderr).into())
        }
    });
    assert_eq!(
        cluster.skiff(&["get", "pod", "runs", "-o", started]),
        before,
        "it ran all the time"
    );
    // And over a restart everything that was acknowledged is there.
    cluster.kill_server();
    cluster.start_server();
    cluster.wait_ready();
    let now = names(&cluster);
    for name in acknowledged.iter().chain(&["configmap/resumed".to_owned()]) {
        assert!(now.contains(name), "{name} was acknowledged");
    }
    drop(cluster);
    drop(mounted);
}
