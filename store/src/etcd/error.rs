//! Failures as etcd's clients know them: the codes and the texts of etcd's own gRPC errors.
//! Clients compare the texts, so they are exact.

use tonic::{Code, Status};

use crate::kv::{Alarm, KvError};
use crate::store::MemberError;

pub fn kv(error: KvError) -> Status {
    let (code, text) = match error {
        KvError::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
        KvError::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        KvError::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        KvError::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        KvError::TooManyOps { .. } => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        KvError::DuplicateKey(_) => {
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
        }
        KvError::TooLarge { .. } => (Code::InvalidArgument, "etcdserver: request is too large"),
        KvError::Compacted { .. } => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
        }
        KvError::FutureRevision { .. } => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        KvError::Alarmed(Alarm::Corrupt) => (Code::DataLoss, "etcdserver: corrupt cluster"),
        KvError::NoSpace { .. } | KvError::Alarmed(Alarm::NoSpace) => {
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        }
        KvError::LeaseNotFound(_) => (Code::NotFound, "etcdserver: requested lease not found"),
        KvError::LeaseExists(_) => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        KvError::LeaseTtlTooLarge(_) => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        KvError::NoLeader | KvError::Unreachable { .. } => return no_leader(),
        KvError::Timeout => (Code::Unavailable, "etcdserver: request timed out"),
        KvError::Stopped => return stopped(),
        // As etcd answers what it has no code for. Clients do not try again by themselves.
        KvError::Internal(text) => return Status::unknown(format!("etcdserver: {text}")),
    };
    Status::new(code, text)
}

pub fn member(error: MemberError) -> Status {
    let (code, text) = match error {
        MemberError::NotFound(_) => (Code::NotFound, "etcdserver: member not found"),
        MemberError::Exists => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
        MemberError::NotLearner(_) => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        MemberError::NotReady(_) => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        MemberError::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
        MemberError::TooFewStarted => (
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        MemberError::TooManyLearners => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
        MemberError::Store(error) => return kv(error),
    };
    Status::new(code, text)
}

/// Asking for the lead to be moved has errors of its own.
pub fn move_leader(error: MemberError) -> Status {
    match error {
        MemberError::Store(KvError::NoLeader) => {
            Status::failed_precondition("etcdserver: not leader")
        }
        MemberError::NotFound(_) | MemberError::NotReady(_) => {
            Status::failed_precondition("etcdserver: bad leader transferee")
        }
        other => member(other),
    }
}

pub fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

pub fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

pub fn bad_urls() -> Status {
    Status::invalid_argument("etcdserver: given member URLs are invalid")
}

pub fn no_such_alarm() -> Status {
    Status::invalid_argument("etcdserver: there is no such alarm")
}

pub fn bad_sort() -> Status {
    Status::invalid_argument("etcdserver: invalid sort option")
}

/// Of the whole Auth service. Clients that were given a user and a password go on without
/// when they read the first text.
pub fn auth(method: &str) -> Status {
    match method {
        "Authenticate" | "AuthDisable" => {
            Status::failed_precondition("etcdserver: authentication is not enabled")
        }
        _ => Status::unimplemented(
            "etcdserver: users and roles are not offered: a client is known by its certificate",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: KvError, code: Code, text: &str) {
        let status = kv(error);
        assert_eq!((status.code(), status.message()), (code, text));
    }

    #[test]
    fn codes_and_texts_are_etcds() {
        let compacted = KvError::Compacted { requested: 1, compacted: 2 };
        check(
            compacted,
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        );
        check(KvError::NoLeader, Code::Unavailable, "etcdserver: no leader");
        check(KvError::LeaseNotFound(7), Code::NotFound, "etcdserver: requested lease not found");
        let space = KvError::NoSpace { path: "/data".into() };
        check(space, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        let bad = move_leader(MemberError::NotReady(1));
        assert_eq!(bad.message(), "etcdserver: bad leader transferee");
    }
}
