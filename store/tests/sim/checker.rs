//! Holds what clients were told against the model.
//!
//! Writes have a total order, their revisions. So a history is linearizable if every answer
//! fits the state at its revision, and revisions never go against real time: what is called
//! after something has returned has at least its revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use skiff_store::kv::*;

use super::history::{Asked, Operation, Record, Told, Watched};
use super::model::{Model, show};

/// Returns the model if nothing is wrong.
pub fn check(record: &Record) -> Result<Model, String> {
    let model = Model::new(record)?;
    let mut effects = Effects::default();
    for operation in &record.operations {
        answers(&model, operation, &mut effects)
            .map_err(|fault| format!("{fault}\n    in {}", describe(operation)))?;
    }
    provenance(&model, record, &effects)?;
    real_time(&model, record, &effects)?;
    serializable_reads(record)?;
    leases(&model, record)?;
    for watched in &record.watches {
        watch(&model, watched)?;
    }
    Ok(model)
}

/// One line for a replayed seed's story.
pub fn brief(operation: &Operation) -> String {
    let ops = |ops: &[Op]| {
        let one = |op: &Op| match op {
            Op::Put(put) => format!("{}={}", text(&put.key), text(&put.value)),
            Op::Delete(DeleteRequest { range: KeyRange::One(key), .. }) => {
                format!("-{}", text(key))
            }
            _ => "..".into(),
        };
        ops.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let asked = match &operation.asked {
        Asked::Txn(txn) if txn.compare.is_empty() => ops(&txn.success),
        Asked::Txn(txn) => format!("if unchanged {}", ops(&txn.success)),
        Asked::Range(request) if request.serializable => "a serializable range".into(),
        Asked::Range(_) => "a range".into(),
        other => format!("{other:?}"),
    };
    let told = match &operation.told {
        Told::Range(response) => format!("revision {}", response.revision),
        Told::Txn(response) if response.succeeded => format!("revision {}", response.revision),
        Told::Txn(response) => format!("no, revision {}", response.revision),
        other => format!("{other:?}"),
    };
    format!("client {} asks member {}: {asked} -> {told}", operation.client, operation.member)
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).split(' ').next().unwrap_or_default().to_owned()
}

pub fn describe(operation: &Operation) -> String {
    let Operation { client, member, incarnation, called_ms, returned_ms, .. } = operation;
    let told = format!("{:?}", operation.told);
    let told: String = told.chars().take(600).collect();
    format!(
        "client {client} asked member {member} (life {incarnation}) at {called_ms} to {returned_ms} ms: {:?}\n    told {told}",
        operation.asked
    )
}

/// Which operation made which revision.
#[derive(Default)]
struct Effects {
    by_revision: BTreeMap<Revision, u64>,
}

impl Effects {
    fn made(&mut self, revision: Revision, operation: &Operation) -> Result<(), String> {
        match self.by_revision.insert(revision, operation.called) {
            Some(_) => Err(format!("revision {revision} was acknowledged twice")),
            None => Ok(()),
        }
    }
}

/// The ops that ran, and what they must have changed at the revision.
fn expected_changes(ops: &[Op], answers: &[OpResponse]) -> Vec<(Bytes, Option<Bytes>)> {
    let mut changes = Vec::new();
    for (op, answer) in ops.iter().zip(answers) {
        match op {
            Op::Put(put) => changes.push((put.key.clone(), Some(put.value.clone()))),
            Op::Delete(DeleteRequest { range: KeyRange::One(key), .. }) => {
                if matches!(answer, OpResponse::Delete { deleted, .. } if *deleted > 0) {
                    changes.push((key.clone(), None));
                }
            }
            _ => {}
        }
    }
    changes
}

fn applied_changes(model: &Model, revision: Revision) -> Vec<(Bytes, Option<Bytes>)> {
    let change = |event: &Event| {
        let value = (event.kind == EventType::Put).then(|| event.kv.value.clone());
        (event.kv.key.clone(), value)
    };
    model.revisions.get(&revision).map_or(Vec::new(), |all| all.iter().map(change).collect())
}

fn answers(model: &Model, operation: &Operation, effects: &mut Effects) -> Result<(), String> {
    match (&operation.asked, &operation.told) {
        (Asked::Range(request), Told::Range(response)) => {
            let at = if request.revision > 0 { request.revision } else { response.revision };
            expect_range(model, &request.range, at, response)
        }
        (Asked::Txn(txn), Told::Txn(response)) => {
            let revision = response.revision;
            let ops = if response.succeeded { &txn.success } else { &txn.failure };
            let wrote = applied_changes(model, revision);
            let expected = expected_changes(ops, &response.responses);
            // A transaction that changes nothing answers with the revision it found.
            let before = if expected.is_empty() { revision } else { revision - 1 };
            for compare in &txn.compare {
                if holds(model, compare, before) != response.succeeded {
                    return Err(format!("the comparison says otherwise at revision {before}"));
                }
            }
            for (op, answer) in ops.iter().zip(&response.responses) {
                match (op, answer) {
                    (Op::Range(request), OpResponse::Range(range)) => {
                        expect_range(model, &request.range, before, range)?;
                    }
                    (Op::Delete(delete), OpResponse::Delete { deleted, .. }) => {
                        let there = model.range(&delete.range, before).len();
                        if there as i64 != *deleted {
                            return Err(format!("{deleted} keys deleted, {there} were there"));
                        }
                    }
                    _ => {}
                }
            }
            if expected.is_empty() {
                return Ok(());
            }
            if wrote != expected {
                let found = model.revisions.get(&revision).map_or(String::new(), |all| show(all));
                return Err(format!("revision {revision} is {found}"));
            }
            effects.made(revision, operation)
        }
        _ => Ok(()),
    }
}

fn expect_range(
    model: &Model,
    range: &KeyRange,
    at: Revision,
    response: &RangeResponse,
) -> Result<(), String> {
    let expected = model.range(range, at);
    if expected == response.kvs {
        return Ok(());
    }
    let brief = |kvs: &[KeyValue]| {
        kvs.iter()
            .map(|kv| format!("{}@{}", String::from_utf8_lossy(&kv.key), kv.mod_revision))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Err(format!(
        "a range at revision {at} returned [{}], it was [{}]",
        brief(&response.kvs),
        brief(&expected)
    ))
}

fn holds(model: &Model, compare: &Compare, at: Revision) -> bool {
    let (KeyRange::One(key), CompareTarget::Mod(given)) = (&compare.range, &compare.target) else {
        return true;
    };
    model.get(key, at).map_or(0, |kv| kv.mod_revision) == *given
}

/// Every value in the history was written by somebody, once, and not by who was refused.
fn provenance(model: &Model, record: &Record, effects: &Effects) -> Result<(), String> {
    let mut writers: BTreeMap<&Bytes, &Operation> = BTreeMap::new();
    for operation in &record.operations {
        let Asked::Txn(txn) = &operation.asked else { continue };
        for op in txn.success.iter().chain(&txn.failure) {
            if let Op::Put(put) = op {
                writers.insert(&put.value, operation);
            }
        }
    }
    let mut seen: BTreeSet<(&Bytes, &Bytes)> = BTreeSet::new();
    for (revision, changes) in &model.revisions {
        for event in changes.iter().filter(|event| event.kind == EventType::Put) {
            let value = String::from_utf8_lossy(&event.kv.value).into_owned();
            if !seen.insert((&event.kv.value, &event.kv.key)) {
                return Err(format!("{value} was applied twice, again at revision {revision}"));
            }
            // Calls that are still open at the end are not in the record.
            let Some(operation) = writers.get(&event.kv.value) else { continue };
            match &operation.told {
                Told::Refused(error) => {
                    return Err(format!(
                        "{value} is at revision {revision}, but was refused: {error}"
                    ));
                }
                Told::Txn(response) if !effects.by_revision.contains_key(revision) => {
                    return Err(format!(
                        "{value} is at revision {revision}, but was answered with {}",
                        response.revision
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What an operation says about when it was: its revision.
fn revision_of(operation: &Operation) -> Option<Revision> {
    match (&operation.asked, &operation.told) {
        (Asked::Range(request), Told::Range(response)) if !request.serializable => {
            Some(response.revision)
        }
        (Asked::Txn(_), Told::Txn(response)) => Some(response.revision),
        (_, Told::LeaseRevoked(revision)) => Some(*revision),
        (_, Told::Compacted(revision)) => Some(*revision),
        _ => None,
    }
}

fn real_time(model: &Model, record: &Record, effects: &Effects) -> Result<(), String> {
    let mut timed: Vec<(&Operation, Revision)> =
        record.operations.iter().filter_map(|op| Some((op, revision_of(op)?))).collect();
    let mut by_return = timed.clone();
    by_return.sort_by_key(|(operation, _)| operation.returned);
    timed.sort_by_key(|(operation, _)| operation.called);
    let mut returned = by_return.iter().peekable();
    let mut newest: Option<(&Operation, Revision)> = None;
    for (operation, revision) in &timed {
        while let Some((before, seen)) = returned.next_if(|(op, _)| op.returned < operation.called)
        {
            if newest.is_none_or(|(_, newest)| *seen > newest) {
                newest = Some((before, *seen));
            }
        }
        let Some((before, newest)) = newest else { continue };
        let made = effects.by_revision.get(revision) == Some(&operation.called);
        // A write is newer than all before it; a read is not older.
        if *revision < newest || (made && *revision == newest) {
            return Err(format!(
                "revision {revision} goes back in time, {newest} had been seen\n    by {}\n    then {}",
                describe(before),
                describe(operation)
            ));
        }
    }
    never_from_the_future(model, record, effects)
}

/// Nobody sees a write that has not been asked for yet.
fn never_from_the_future(model: &Model, record: &Record, effects: &Effects) -> Result<(), String> {
    let mut earliest_above = u64::MAX;
    let mut called = BTreeMap::new();
    for revision in model.revisions.keys().rev() {
        if let Some(at) = effects.by_revision.get(revision) {
            earliest_above = earliest_above.min(*at);
        }
        called.insert(*revision, effects.by_revision.get(revision).copied());
    }
    for operation in &record.operations {
        let Some(revision) = revision_of(operation) else { continue };
        if let Some(Some(at)) = called.get(&revision)
            && operation.returned < *at
        {
            return Err(format!("revision {revision} was seen before it was asked for"));
        }
    }
    Ok(())
}

/// What one process shows without asking the others is old at worst, and never goes back.
fn serializable_reads(record: &Record) -> Result<(), String> {
    let mut by_life: BTreeMap<(usize, u64), Vec<(&Operation, Revision)>> = BTreeMap::new();
    for operation in &record.operations {
        let revision = match &operation.told {
            Told::Range(response) => response.revision,
            Told::Txn(response) => response.revision,
            _ => continue,
        };
        let life = (operation.member, operation.incarnation);
        by_life.entry(life).or_default().push((operation, revision));
    }
    for operations in by_life.values_mut() {
        operations.sort_by_key(|(operation, _)| operation.called);
        let mut ended: Vec<(u64, Revision)> = Vec::new();
        for (operation, revision) in operations.iter() {
            let before = ended.iter().filter(|(returned, _)| *returned < operation.called);
            let newest = before.map(|(_, revision)| *revision).max().unwrap_or(0);
            if *revision < newest {
                return Err(format!(
                    "a member went back from revision {newest}: {}",
                    describe(operation)
                ));
            }
            ended.push((operation.returned, *revision));
        }
    }
    Ok(())
}

/// A clock may be read a tick late.
const CLOCK_SLACK_MS: u64 = 20;

/// No lease that nobody has revoked runs out before its time, counted from when its last
/// renewal that was acknowledged had been asked for.
fn leases(model: &Model, record: &Record) -> Result<(), String> {
    if record.clock_jumped {
        return Ok(());
    }
    let mut due_ms: BTreeMap<LeaseId, (u64, &Operation)> = BTreeMap::new();
    for operation in &record.operations {
        let (id, ttl_seconds) = match (&operation.asked, &operation.told) {
            (Asked::LeaseGrant { id, .. }, Told::LeaseGranted(ttl)) => (*id, *ttl),
            (Asked::LeaseKeepAlive { id }, Told::LeaseAlive(ttl)) => (*id, *ttl),
            _ => continue,
        };
        let due = operation.called_ms + 1000 * ttl_seconds.unsigned_abs();
        let latest = due_ms.entry(id).or_insert((due, operation));
        if due > latest.0 {
            *latest = (due, operation);
        }
    }
    for (revision, changes) in &model.revisions {
        for event in changes.iter().filter(|event| event.kind == EventType::Delete) {
            let key = String::from_utf8_lossy(&event.kv.key).into_owned();
            let id = key.strip_prefix("b/lease-").and_then(|id| id.parse().ok());
            let Some(id) = id.filter(|id| !record.revoking.contains(id)) else { continue };
            let at_ms = record.seen_ms.get(revision).copied().unwrap_or(u64::MAX);
            if let Some((due, operation)) = due_ms.get(&id)
                && at_ms.saturating_add(CLOCK_SLACK_MS) < *due
            {
                return Err(format!(
                    "lease {id} ran out at {at_ms} ms, and was due at {due} ms at the earliest\n    in {}",
                    describe(operation)
                ));
            }
        }
    }
    Ok(())
}

/// A watch has all events of its keys, once, in order.
fn watch(model: &Model, watched: &Watched) -> Result<(), String> {
    let name = format!("the watch of {:?} from {}", watched.prefix, watched.from);
    if let Some(fault) = watched.faults.first() {
        return Err(format!("{name}: {fault}"));
    }
    let gone =
        |revision: Revision| watched.gaps.iter().any(|(from, to)| (*from..*to).contains(&revision));
    let mut expected = Vec::new();
    for (revision, changes) in model.revisions.range(watched.from..watched.next) {
        if gone(*revision) {
            continue;
        }
        let wanted = |event: &&Event| event.kv.key.starts_with(watched.prefix.as_bytes());
        expected.extend(changes.iter().filter(wanted));
    }
    let mut got = watched.events.iter();
    for event in &expected {
        let Some(next) = got.next() else {
            return Err(format!(
                "{name} lost {} of revision {}",
                show(&[(*event).clone()]),
                event.kv.mod_revision
            ));
        };
        if (next.kind, &next.kv) != (event.kind, &event.kv) {
            return Err(format!(
                "{name} got {} of revision {} where {} of revision {} was due",
                show(std::slice::from_ref(next)),
                next.kv.mod_revision,
                show(&[(*event).clone()]),
                event.kv.mod_revision
            ));
        }
        if let Some(previous) = &next.prev
            && model.get(&next.kv.key, next.kv.mod_revision - 1) != Some(previous)
        {
            return Err(format!("{name} got a previous value that was not: {previous:?}"));
        }
    }
    match got.next() {
        Some(extra) => Err(format!("{name} got {} too much", show(std::slice::from_ref(extra)))),
        None => Ok(()),
    }
}
