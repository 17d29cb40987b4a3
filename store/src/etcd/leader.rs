//! Calls that ask not to be served by a member that has lost touch with the cluster.
//!
//! etcd's clients say so in the metadata. Without it a watch stays open on such a member,
//! and simply hears nothing.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tonic::Status;
use tonic::metadata::MetadataMap;

use super::{Face, error};

/// Ends when the leader has been gone for longer than an election takes.
pub type Guard = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Elections that may fail before the leader counts as lost; etcd waits as long.
const ELECTIONS: u32 = 3;

pub fn required(face: &Face, metadata: &MetadataMap) -> Result<Guard, Status> {
    let asked = metadata.get("hasleader").is_some_and(|value| value == "true");
    if !asked {
        return Ok(Box::pin(std::future::pending()));
    }
    let leadership = &face.store.inner.leadership;
    if leadership.current().is_none() {
        return Err(error::no_leader());
    }
    let mut leader = leadership.watch();
    let election = Duration::from_millis(face.store.inner.config.election_timeout_ms);
    Ok(Box::pin(async move {
        loop {
            if leader.wait_for(Option::is_none).await.is_err() {
                return;
            }
            let found = leader.wait_for(Option::is_some);
            if tokio::time::timeout(election * ELECTIONS, found).await.is_err() {
                return;
            }
        }
    }))
}
