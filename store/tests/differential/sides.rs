//! One side of the comparison: what it answers, as text.

use std::fmt::Debug;

use pb::{kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient};
use skiff_proto::grpc::etcdserverpb as pb;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::generate::Operation;
use super::watches::Watches;

/// One of the two, and its clients.
pub struct Side {
    pub kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    pub watches: Watches,
}

/// Which member of which cluster answers, and when, is no difference.
fn plain(header: &mut Option<pb::ResponseHeader>) -> i64 {
    let revision = header.as_ref().map_or(0, |header| header.revision);
    *header = Some(pb::ResponseHeader { revision, ..Default::default() });
    revision
}

fn show<T: Debug>(
    outcome: Result<Response<T>, Status>,
    clean: impl Fn(&mut T) -> i64,
) -> (String, i64) {
    match outcome {
        Ok(response) => {
            let mut response = response.into_inner();
            let revision = clean(&mut response);
            (format!("{response:#?}"), revision)
        }
        Err(status) => (format!("{:?}: {}", status.code(), status.message()), 0),
    }
}

impl Side {
    pub async fn connect(url: &str) -> Self {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watches: Watches::on(WatchClient::new(channel)).await,
        }
    }

    pub async fn answer(&mut self, operation: Operation) -> (String, i64) {
        match operation {
            Operation::Range(r) => show(self.kv.range(r).await, |r| plain(&mut r.header)),
            Operation::Put(r) => show(self.kv.put(r).await, |r| plain(&mut r.header)),
            Operation::Delete(r) => show(self.kv.delete_range(r).await, |r| plain(&mut r.header)),
            Operation::Txn(r) => show(self.kv.txn(r).await, |r| plain(&mut r.header)),
            Operation::Compact(r) => show(self.kv.compact(r).await, |r| plain(&mut r.header)),
            Operation::Grant(r) => show(self.lease.lease_grant(r).await, |r| plain(&mut r.header)),
            Operation::Revoke(r) => {
                show(self.lease.lease_revoke(r).await, |r| plain(&mut r.header))
            }
            Operation::Look(r) => show(self.lease.lease_time_to_live(r).await, |r| {
                // The clocks began at different moments, and etcd gives keys in any order.
                r.ttl = r.ttl.signum();
                r.keys.sort();
                plain(&mut r.header)
            }),
            Operation::Leases => {
                show(self.lease.lease_leases(pb::LeaseLeasesRequest {}).await, |r| {
                    r.leases.sort_by_key(|lease| lease.id);
                    plain(&mut r.header)
                })
            }
            Operation::KeepAlive(r) => {
                let answers = self.lease.lease_keep_alive(tokio_stream::once(r)).await;
                let mut answers = answers.unwrap().into_inner();
                let answer = answers.message().await.map(|answer| Response::new(answer.unwrap()));
                show(answer, |r| plain(&mut r.header))
            }
            Operation::Watch(r) => (self.watches.open(*r).await, 0),
        }
    }
}

/// The lines around the first one that differs.
pub fn first_difference(expect: &str, got: &str) -> String {
    let (expect, got): (Vec<_>, Vec<_>) = (expect.lines().collect(), got.lines().collect());
    let same = expect.iter().zip(&got).take_while(|(theirs, ours)| theirs == ours).count();
    let around = |lines: &[&str]| {
        let from = same.saturating_sub(16).min(lines.len());
        lines[from..(same + 16).min(lines.len())].join("\n")
    };
    format!("\netcd:\n{}\nskiff:\n{}", around(&expect), around(&got))
}

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}
