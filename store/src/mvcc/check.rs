//! What is wrong with a request by itself, before anything is proposed: etcd's own rules.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::kv::{KeyRange, KvError, Op, PutRequest, TxnRequest};

/// Refuses empty keys, contradictory puts, too many operations, and a transaction that
/// would write one key twice.
pub fn check_txn(txn: &TxnRequest, max_ops: usize) -> Result<(), KvError> {
    check_shape(txn, max_ops, max_ops)?;
    for branch in [&txn.success, &txn.failure] {
        // One operation does not write a key twice.
        if branch.len() > 1 || matches!(branch.first(), Some(Op::Txn(_))) {
            check_intervals(branch)?;
        }
    }
    Ok(())
}

fn check_shape(txn: &TxnRequest, left: usize, limit: usize) -> Result<(), KvError> {
    let given = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    if given > left {
        return Err(KvError::TooManyOps { given, limit });
    }
    for compare in &txn.compare {
        compare.range.check()?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(range) => range.range.check()?,
            Op::Put(put) => check_put(put)?,
            Op::Delete(delete) => delete.range.check()?,
            Op::Txn(nested) => check_shape(nested, left - given, limit)?,
        }
    }
    Ok(())
}

fn check_put(put: &PutRequest) -> Result<(), KvError> {
    if put.key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(KvError::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(KvError::LeaseProvided);
    }
    Ok(())
}

/// The keys a list of operations may put, and the ranges it may delete.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn put(&mut self, key: &Bytes, allowed_twice: Option<&BTreeSet<Bytes>>) -> Result<(), KvError> {
        let twice =
            self.puts.contains(key) && !allowed_twice.is_some_and(|keys| keys.contains(key));
        if twice || self.deletes.iter().any(|range| range.contains(key)) {
            return Err(KvError::DuplicateKey(key.clone()));
        }
        self.puts.insert(key.clone());
        Ok(())
    }
}

/// Only one branch of a nested transaction runs, so the two may put the same key; nothing
/// else may, and no put may lie in a range deleted at the same level or above.
fn check_intervals(ops: &[Op]) -> Result<Writes, KvError> {
    let mut writes = Writes::default();
    for op in ops {
        // To etcd, looking for keys written twice, a range to the end of all keys is empty:
        // its end, `\0`, lies before every key.
        if let Op::Delete(delete) = op
            && !matches!(delete.range, KeyRange::From(_))
        {
            writes.deletes.push(delete.range.clone());
        }
    }
    for op in ops {
        let Op::Txn(txn) = op else { continue };
        let success = check_intervals(&txn.success)?;
        let failure = check_intervals(&txn.failure)?;
        for key in &success.puts {
            writes.put(key, None)?;
        }
        for key in &failure.puts {
            writes.put(key, Some(&success.puts))?;
        }
        writes.deletes.extend(success.deletes);
        writes.deletes.extend(failure.deletes);
    }
    for op in ops {
        if let Op::Put(put) = op {
            writes.put(&put.key, None)?;
        }
    }
    Ok(writes)
}

/// Whether a transaction can change anything.
pub fn is_read_only(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Range(_) => true,
        Op::Put(_) | Op::Delete(_) => false,
        Op::Txn(nested) => is_read_only(nested),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::DeleteRequest;

    fn put(key: &'static str) -> Op {
        Op::Put(PutRequest {
            key: key.into(),
            value: "v".into(),
            lease: 0,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        })
    }

    fn delete(start: &'static str, end: &'static str) -> Op {
        Op::Delete(DeleteRequest {
            range: KeyRange::from_etcd(start.into(), end.into()),
            prev_kv: false,
        })
    }

    fn txn(success: Vec<Op>, failure: Vec<Op>) -> TxnRequest {
        TxnRequest { compare: vec![], success, failure }
    }

    fn check(success: Vec<Op>) -> Result<(), KvError> {
        check_txn(&txn(success, vec![]), 128)
    }

    /// The table of etcd's own test of these rules.
    #[test]
    fn a_key_is_written_once() {
        let dup = |key: &'static str| Err(KvError::DuplicateKey(key.into()));
        assert_eq!(check(vec![put("a"), put("b")]), Ok(()));
        assert_eq!(check(vec![put("a"), put("a")]), dup("a"));
        assert_eq!(check(vec![put("a"), delete("a", "")]), dup("a"));
        assert_eq!(check(vec![delete("a", "c"), put("b")]), dup("b"));
        assert_eq!(check(vec![delete("a", "c"), put("c")]), Ok(()));
        assert_eq!(check(vec![delete("a", "c"), delete("b", "d")]), Ok(()));
        let either = || Op::Txn(txn(vec![put("a")], vec![put("a")]));
        assert_eq!(check(vec![either()]), Ok(()));
        assert_eq!(check(vec![either(), either()]), dup("a"));
        assert_eq!(check(vec![either(), put("a")]), dup("a"));
        assert_eq!(check(vec![delete("a", ""), either()]), dup("a"));
        let nested_delete = Op::Txn(txn(vec![delete("a", "b")], vec![]));
        assert_eq!(check(vec![nested_delete, put("a")]), dup("a"));
    }

    #[test]
    fn contradictory_puts_and_empty_keys() {
        let change = |f: fn(&mut PutRequest)| {
            let Op::Put(mut p) = put("k") else { unreachable!() };
            f(&mut p);
            check(vec![Op::Put(p)])
        };
        assert_eq!(change(|p| p.key = Bytes::new()), Err(KvError::EmptyKey));
        assert_eq!(change(|p| p.ignore_value = true), Err(KvError::ValueProvided));
        assert_eq!(
            change(|p| {
                p.ignore_lease = true;
                p.lease = 3;
            }),
            Err(KvError::LeaseProvided)
        );
        assert_eq!(check(vec![delete("", "")]), Err(KvError::EmptyKey));
        assert_eq!(check(vec![delete("", "\0")]), Err(KvError::EmptyKey));
        assert_eq!(check(vec![delete("\0", "\0")]), Ok(()));
    }

    #[test]
    fn operations_are_counted_down_the_nesting() {
        let many = |n: usize| (0..n).map(|_| delete("a", "")).collect::<Vec<_>>();
        assert_eq!(check(many(128)), Ok(()));
        assert_eq!(check(many(129)), Err(KvError::TooManyOps { given: 129, limit: 128 }));
        let mut nested = many(100);
        nested.push(Op::Txn(txn(many(28), vec![])));
        assert_eq!(check(nested), Err(KvError::TooManyOps { given: 28, limit: 128 }));
    }
}
