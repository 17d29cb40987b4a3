//! What a failure of the store means to a client of the API.

use skiff_proto::Status;
use skiff_proto::status::reason;
use skiff_store::kv::{Alarm, KvError};

/// The Status for a failed call to the store. Compaction is handled where it can happen,
/// since the words depend on what was asked.
pub fn status(error: KvError) -> Status {
    match error {
        KvError::Compacted { requested, compacted } => {
            Status::expired(format!("too old resource version: {requested} ({compacted})"))
        }
        KvError::FutureRevision { requested, current } => too_large(requested, current),
        KvError::TooLarge { .. } => Status::new(
            ("RequestEntityTooLarge", 413),
            format!("Request entity too large: {error}"),
        ),
        // 507 as WebDAV has it: nothing was written, and trying again helps once space is back.
        KvError::NoSpace { .. } | KvError::Alarmed(Alarm::NoSpace) => {
            Status::new(("InsufficientStorage", 507), error.to_string())
        }
        KvError::NoLeader | KvError::Unreachable { .. } | KvError::Stopped => {
            Status::unavailable(error.to_string())
        }
        KvError::Timeout => Status::new(
            reason::TIMEOUT,
            "Timeout: request did not complete within the allotted timeout; the write may still happen",
        ),
        other => Status::internal(other),
    }
}

/// A version that lies ahead of the store: upstream's words, with a hint to retry.
pub fn too_large(requested: i64, current: i64) -> Status {
    let message = format!("Too large resource version: {requested}, current: {current}");
    let mut status = Status::new(reason::TIMEOUT, format!("Timeout: {message}"));
    status.details = Some(Box::new(skiff_proto::status::Details {
        causes: vec![skiff_proto::status::Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }],
        retry_after_seconds: 1,
        ..Default::default()
    }));
    status
}
