//! Joining a cluster that runs: a member that starts for the first time asks the others who
//! it is. Its id was given when it was added.

use std::time::Duration;

use super::OpenError;
use crate::codec::{DecodeError, Decoder};
use crate::config::{Config, InitialState};
use crate::raft::network::envelope::{Envelope, decode_answer};
use crate::raft::network::transport::{Method, Target, Transport};
use crate::raft::types::{MemberId, MemberSet, decode_members};
use crate::wal::disk::Disk;

/// For one of the others to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fills in the cluster's id and this member's own, if it is to join and has no data yet.
pub(super) async fn discover(
    mut config: Config,
    disk: &dyn Disk,
    transport: &dyn Transport,
) -> Result<Config, OpenError> {
    let known = config.member_id.is_some() && config.cluster_id.is_some();
    if config.initial_state == InitialState::New
        || known
        || disk.exists(&config.data_dir.join("member"))
    {
        return Ok(config);
    }
    let mut faults = Vec::new();
    for member in &config.initial_cluster {
        if member.peer_urls == config.peer_urls {
            continue;
        }
        let (name, urls) = (member.name.clone(), member.peer_urls.clone());
        let target = Target { id: 0, name, urls };
        match ask(transport, &target).await {
            Ok((cluster_id, members)) => match find(&config, &members) {
                Ok(id) => {
                    (config.member_id, config.cluster_id) = (Some(id), Some(cluster_id));
                    return Ok(config);
                }
                Err(fault) => faults.push(fault),
            },
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        faults.push("the initial cluster names no other member to ask".into());
    }
    Err(OpenError::Join(faults.join("; ")))
}

async fn ask(transport: &dyn Transport, target: &Target) -> Result<(u64, MemberSet), String> {
    let message = Envelope { cluster_id: 0, from: 0, to: 0 }.wrap(&[]);
    let answer = transport.call(target, Method::Members, message, PATIENCE).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let text = |error: DecodeError| format!("{target}: {error}");
    let body = decode_answer(answer).map_err(text)?;
    let body = body.map_err(|refusal| format!("{target}: {refusal}"))?;
    let mut d = Decoder::new("list of members", body);
    let cluster_id = d.u64().map_err(text)?;
    Ok((cluster_id, decode_members(&mut d).map_err(text)?))
}

/// The member with this one's peer URLs.
fn find(config: &Config, members: &MemberSet) -> Result<MemberId, String> {
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    let mine = sorted(&config.peer_urls);
    let found = members.nodes().find(|(_, node)| sorted(&node.peer_urls) == mine);
    found.map(|(id, _)| *id).ok_or_else(|| {
        let urls = config.peer_urls.join(",");
        format!(
            "no member with the peer URLs {urls} has been added to it: first run \
             `etcdctl member add {} --peer-urls={urls}` against the cluster",
            config.name
        )
    })
}
