//! One seed: a storm over a cluster with clients, then calm, then the reckoning.

use skiff_store::kv::*;

use super::bugs::Bug;
use super::checker;
use super::cluster::Cluster;
use super::faults::Weather;
use super::history::{Asked, Told};
use super::network::At;
use super::random::{Digest, Random};
use super::traffic::{Client, put};

/// How long the cluster may take to be whole again when nothing is wrong any more.
const HEALS_MS: u64 = 20_000;

pub struct Outcome {
    pub digest: Digest,
    pub operations: usize,
    pub revisions: Revision,
    pub story: Vec<String>,
    pub fault: Option<String>,
}

/// Everything about the run follows from the seed.
pub fn seed(seed: u64, bug: Option<Bug>) -> Outcome {
    let mut random = Random::new(seed ^ 0xfeed);
    let members = *random.pick(&[1, 1, 3, 3, 3, 3, 3, 3, 3, 5]);
    let weather = Weather::random(&mut random);
    let spares = if weather.membership && members == 3 { 2 } else { 0 };
    let mut cluster = Cluster::with_spares(seed, members, spares, bug);
    cluster.tell(format!("{members} members, {weather:?}"));
    let clients = random.between(2, 6) as usize;
    cluster.traffic(clients, 3);
    cluster.run_for(600);
    let storm_ms = random.between(2_000, 5_000);
    cluster.storm(weather, storm_ms);
    finish(cluster, random.percent(50))
}

/// Calm, and the reckoning; with a loss of all power in between if asked for.
pub fn finish(mut cluster: Cluster, blackout: bool) -> Outcome {
    cluster.heal();
    cluster.run_for(400);
    let mut fault = settle(&mut cluster).err();
    if fault.is_none() && blackout {
        for at in 0..cluster.hosts.len() {
            cluster.end(at, true);
        }
        cluster.heal();
        fault = settle(&mut cluster).err();
    }
    let record = cluster.history.record();
    let checked = checker::check(&record);
    let operations = record.operations.len();
    let revisions = checked.as_ref().map_or(0, |model| model.last());
    // What the history shows says more than what it led to.
    let fault = cluster.violation.clone().or(checked.err()).or(fault);
    let told = record.operations.iter().map(|operation| {
        let (from, to) = (operation.called_ms, operation.returned_ms);
        (to, format!("{from:>6}-{to} ms  {}", checker::brief(operation)))
    });
    let calls: Vec<_> = if fault.is_some() { told.collect() } else { Vec::new() };
    drop(record);
    let digest = cluster.digest();
    let mut story = std::mem::take(&mut cluster.story);
    story.extend(calls);
    story.sort_by_key(|(ms, _)| *ms);
    let story = story.into_iter().map(|(_, text)| text).collect();
    Outcome { digest, operations, revisions, story, fault }
}

/// Until a write goes through and everybody has it, the same everywhere.
fn settle(cluster: &mut Cluster) -> Result<(), String> {
    let until = cluster.now_ms + HEALS_MS;
    let revision = write_until(cluster, until)?;
    loop {
        if let Some(violation) = &cluster.violation {
            return Err(violation.clone());
        }
        let lagging = lagging(cluster, revision);
        let Some(lagging) = lagging else { break };
        if cluster.now_ms > until {
            return Err(format!("{HEALS_MS} ms after the faults ended, {lagging}"));
        }
        cluster.run_for(20);
    }
    same_hashes(cluster, revision)
}

fn lagging(cluster: &Cluster, revision: Revision) -> Option<String> {
    let Some(current) = cluster.current() else { return Some("nobody leads".into()) };
    let record = cluster.history.record();
    for at in current {
        if record.audits[at].next <= revision {
            return Some(format!("member {at} has not applied revision {revision}"));
        }
    }
    for watched in &record.watches {
        if watched.next <= revision {
            return Some(format!(
                "the watch of {:?} waits for revision {} of {revision}",
                watched.prefix, watched.next
            ));
        }
    }
    None
}

/// Asks one member after the other.
fn write_until(cluster: &mut Cluster, until: u64) -> Result<Revision, String> {
    let mut attempt = 0;
    let mut last = String::from("nobody serves");
    while cluster.now_ms < until {
        if let Some(violation) = &cluster.violation {
            return Err(violation.clone());
        }
        let at = attempt % cluster.hosts.len();
        attempt += 1;
        let value = format!("calm-{}-{attempt}", cluster.now_ms);
        // Both prefixes, so that every watch hears of it.
        let success =
            ["a/calm", "b/calm"].map(|key| put(key.into(), value.clone().into(), 0)).into();
        let txn = TxnRequest { success, ..Default::default() };
        match ask(cluster, at, Asked::Txn(txn), until) {
            Told::Txn(response) => return Ok(response.revision),
            other => last = format!("{other:?}"),
        }
        cluster.run_for(20);
    }
    Err(format!("{HEALS_MS} ms after the faults ended no write goes through: {last}"))
}

/// One question from outside of the traffic, while time goes by.
pub fn ask(cluster: &mut Cluster, at: At, asked: Asked, until: u64) -> Told {
    let random = cluster.random.fork();
    let (faces, history) = (cluster.faces.clone(), cluster.history.clone());
    let mut client = Client::new(99, random, faces, history, cluster.bug);
    let asking = cluster.runtime_handle().spawn(async move { client.ask(at, asked).await });
    wait(cluster, asking, until).unwrap_or(Told::Unknown("time is over".into()))
}

/// Lets time go by until the task has ended.
pub fn wait<T>(cluster: &mut Cluster, task: tokio::task::JoinHandle<T>, until: u64) -> Option<T> {
    while !task.is_finished() {
        if cluster.now_ms > until || cluster.violation.is_some() {
            return None;
        }
        cluster.tick();
    }
    futures_util::FutureExt::now_or_never(task)?.ok()
}

fn same_hashes(cluster: &mut Cluster, revision: Revision) -> Result<(), String> {
    let mut hashes = Vec::new();
    for at in cluster.current().ok_or("nobody leads")? {
        let face = cluster.faces.get(at).ok_or("a member is gone")?;
        let hashing = face.handle.spawn(async move { face.store.hash_kv(revision).await });
        let until = cluster.now_ms + 5_000;
        match wait(cluster, hashing, until) {
            Some(Ok(hash)) => hashes.push(hash),
            Some(Err(KvError::Compacted { .. })) => return Ok(()),
            other => return Err(format!("member {at} cannot hash revision {revision}: {other:?}")),
        }
    }
    // A request whose client has given up may still compact, and that changes what is hashed.
    let first = hashes[0];
    for (at, hash) in hashes.iter().enumerate() {
        if hash.compacted == first.compacted && hash.hash != first.hash {
            return Err(format!("at revision {revision} members 0 and {at} differ: {hashes:?}"));
        }
    }
    Ok(())
}
