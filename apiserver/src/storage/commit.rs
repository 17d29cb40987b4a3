//! One write of one object: a single transaction that happens only if the object, and what
//! the write relies on, is as it was seen.

use std::sync::Arc;

use bytes::Bytes;
use skiff_proto::Status;
use skiff_store::kv::{
    Compare, CompareResult, CompareTarget, DeleteRequest, KeyRange, KeyValue, Kv, LeaseId, Op,
    OpResponse, PutRequest, RangeRequest, Revision, TxnRequest,
};

use super::error;
use crate::cache::hub::Hub;
use crate::cache::{Entry, Prepared};

/// A key that must be as it was seen for the write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub key: Bytes,
    /// 0: it must not exist.
    pub revision: Revision,
}

/// A change of the store beside the object's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    Put(Bytes, Bytes),
    Delete(Bytes),
}

#[derive(Debug)]
pub struct Write {
    pub key: Bytes,
    /// The object's revision as it was seen; 0: it must not exist.
    pub expected: Revision,
    /// `None`: removes the object.
    pub object: Option<Arc<Prepared>>,
    pub lease: LeaseId,
    pub guards: Vec<Guard>,
    pub beside: Vec<Beside>,
}

#[derive(Debug)]
pub enum Outcome {
    Done {
        revision: Revision,
        /// The object as written.
        entry: Option<Arc<Entry>>,
    },
    /// Nothing was written: this is how the object and the guards are.
    Lost { object: Option<KeyValue>, guards: Vec<Option<KeyValue>> },
}

pub async fn commit(kv: &dyn Kv, hub: &Hub, write: Write) -> Result<Outcome, Status> {
    let announced = write.object.as_ref().map(|object| hub.announce(&write.key, object));
    let answer = kv.txn(transaction(&write)).await.map_err(error::status)?;
    if answer.succeeded {
        let entry = write.object.as_ref().map(|object| object.entry(answer.revision));
        // The watch may not have come by yet: then it parses, which is correct too.
        drop(announced);
        return Ok(Outcome::Done { revision: answer.revision, entry });
    }
    let mut found = answer.responses.into_iter().map(|response| match response {
        OpResponse::Range(range) => range.kvs.into_iter().next(),
        _ => None,
    });
    Ok(Outcome::Lost { object: found.next().flatten(), guards: found.collect() })
}

fn transaction(write: &Write) -> TxnRequest {
    let seen = |key: &Bytes, revision| Compare {
        range: KeyRange::One(key.clone()),
        target: CompareTarget::Mod(revision),
        result: CompareResult::Equal,
    };
    let read = |key: &Bytes| Op::Range(RangeRequest::new(KeyRange::One(key.clone())));
    let guards = write.guards.iter();
    let own = match &write.object {
        Some(object) => put(write.key.clone(), object.value.clone(), write.lease),
        None => delete(write.key.clone()),
    };
    let beside = write.beside.iter().map(|beside| match beside {
        Beside::Put(key, value) => put(key.clone(), value.clone(), 0),
        Beside::Delete(key) => delete(key.clone()),
    });
    TxnRequest {
        compare: std::iter::once(seen(&write.key, write.expected))
            .chain(guards.clone().map(|g| seen(&g.key, g.revision)))
            .collect(),
        success: std::iter::once(own).chain(beside).collect(),
        failure: std::iter::once(read(&write.key)).chain(guards.map(|g| read(&g.key))).collect(),
    }
}

fn put(key: Bytes, value: Bytes, lease: LeaseId) -> Op {
    Op::Put(PutRequest {
        key,
        value,
        lease,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn delete(key: Bytes) -> Op {
    Op::Delete(DeleteRequest { range: KeyRange::One(key), prev_kv: false })
}
