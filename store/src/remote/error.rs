//! etcd's codes and texts back to the store's failures. Its texts are part of its API:
//! clients have always compared them.

use tonic::{Code, Status};

use super::call::Failure;
use crate::kv::{Alarm, KvError, LeaseId};

/// What the text does not tell is left empty; the caller knows what it asked for.
pub fn kv(failure: Failure) -> KvError {
    let (status, url) = match failure {
        Failure::Refused { status, url } => (status, url),
        Failure::Unreachable(error) => return error,
        Failure::Unknown => return KvError::Timeout,
        Failure::Odd(what) => return KvError::Internal(format!("the datastore answered {what}")),
    };
    match status.message() {
        "etcdserver: key is not provided" => KvError::EmptyKey,
        "etcdserver: key not found" => KvError::KeyNotFound,
        "etcdserver: value is provided" => KvError::ValueProvided,
        "etcdserver: lease is provided" => KvError::LeaseProvided,
        "etcdserver: too many operations in txn request" => {
            KvError::TooManyOps { given: 0, limit: 0 }
        }
        "etcdserver: duplicate key given in txn request" => {
            KvError::DuplicateKey(Default::default())
        }
        "etcdserver: request is too large" => too_large(0),
        "etcdserver: mvcc: required revision has been compacted" => {
            KvError::Compacted { requested: 0, compacted: 0 }
        }
        "etcdserver: mvcc: required revision is a future revision" => {
            KvError::FutureRevision { requested: 0, current: 0 }
        }
        "etcdserver: mvcc: database space exceeded" => KvError::NoSpace {
            path: format!("the datastore {url} (compact, defragment, and disarm its alarm)"),
        },
        "etcdserver: corrupt cluster" => KvError::Alarmed(Alarm::Corrupt),
        "etcdserver: requested lease not found" => KvError::LeaseNotFound(0),
        "etcdserver: lease already exists" => KvError::LeaseExists(0),
        "etcdserver: too large lease TTL" => KvError::LeaseTtlTooLarge(0),
        "etcdserver: no leader" => KvError::NoLeader,
        text if text.starts_with("etcdserver: request timed out") => KvError::Timeout,
        "etcdserver: leader changed" => KvError::Timeout,
        _ => other(&status, &url),
    }
}

/// As [`kv`], of one lease.
pub fn lease(failure: Failure, id: LeaseId) -> KvError {
    match kv(failure) {
        KvError::LeaseNotFound(_) => KvError::LeaseNotFound(id),
        KvError::LeaseExists(_) => KvError::LeaseExists(id),
        other => other,
    }
}

fn too_large(limit_bytes: usize) -> KvError {
    KvError::TooLarge { bytes: 0, limit_bytes }
}

fn other(status: &Status, url: &str) -> KvError {
    let text = status.message();
    // gRPC's own words, before etcd sees the request: "... larger than max (A vs. B)" in Go,
    // "... length too large: found A bytes, the limit is: B bytes" in Rust.
    let gos = status.code() == Code::ResourceExhausted && text.contains("larger than max");
    if gos || text.contains("message length too large") {
        let mut words = text.split(|c: char| !c.is_ascii_digit());
        let limit = words.rfind(|word| !word.is_empty());
        return too_large(limit.and_then(|limit| limit.parse().ok()).unwrap_or(0));
    }
    KvError::Internal(format!("the datastore {url}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the etcd face says comes back as what it was, but for what the text leaves out.
    #[test]
    fn failures_survive_the_wire() {
        let failures = [
            KvError::EmptyKey,
            KvError::KeyNotFound,
            KvError::ValueProvided,
            KvError::LeaseProvided,
            KvError::TooManyOps { given: 0, limit: 0 },
            KvError::DuplicateKey(Default::default()),
            KvError::TooLarge { bytes: 0, limit_bytes: 0 },
            KvError::Compacted { requested: 0, compacted: 0 },
            KvError::FutureRevision { requested: 0, current: 0 },
            KvError::LeaseNotFound(0),
            KvError::LeaseExists(0),
            KvError::LeaseTtlTooLarge(0),
            KvError::NoLeader,
            KvError::Timeout,
            KvError::Alarmed(Alarm::Corrupt),
        ];
        for failure in failures {
            let status = crate::etcd::status(failure.clone());
            assert_eq!(kv(Failure::Refused { status, url: "u".into() }), failure);
        }
        let status = Status::resource_exhausted(
            "grpc: received message larger than max (2097200 vs. 2097152)",
        );
        let expect = KvError::TooLarge { bytes: 0, limit_bytes: 2097152 };
        assert_eq!(kv(Failure::Refused { status, url: "u".into() }), expect);
    }
}
