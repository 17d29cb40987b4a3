//! The Cluster service.

use skiff_proto::grpc::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::{Face, error};
use crate::kv::{KeyRange, Kv, RangeRequest};
use crate::store::Member;

fn wire(member: Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.node.name,
        peer_ur_ls: member.node.peer_urls,
        client_ur_ls: member.node.client_urls,
        // One that was added to vote is no learner to etcd's clients, only not started.
        is_learner: member.is_learner && !member.node.promote,
    }
}

/// At least one, each `http://` or `https://` with a host and a port and nothing behind.
fn check_urls(urls: &[String]) -> Result<(), Status> {
    let good = |url: &String| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let host_port = rest.and_then(|rest| rest.trim_end_matches('/').rsplit_once(':'));
        host_port.is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        })
    };
    if !urls.is_empty() && urls.iter().all(good) { Ok(()) } else { Err(error::bad_urls()) }
}

impl Face {
    fn members(&self) -> Vec<pb::Member> {
        self.store.members().into_iter().map(wire).collect()
    }

    /// Returns when this member knows what had been decided before the call.
    pub(super) async fn catch_up(&self) -> Result<(), Status> {
        let mut nothing = RangeRequest::new(KeyRange::One([0][..].into()));
        nothing.count_only = true;
        self.store.range(nothing).await.map(|_| ()).map_err(error::kv)
    }
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for Face {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        check_urls(&request.peer_ur_ls)?;
        // It tells its name and where its clients connect when it has started.
        let added = self.store.member_add(request.peer_ur_ls, request.is_learner).await;
        let id = added.map_err(error::member)?;
        let members = self.members();
        Ok(Response::new(pb::MemberAddResponse {
            header: self.header_now(),
            member: members.iter().find(|member| member.id == id).cloned(),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.store.member_remove(request.into_inner().id).await.map_err(error::member)?;
        let (header, members) = (self.header_now(), self.members());
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        check_urls(&request.peer_ur_ls)?;
        let updated = self.store.member_update(request.id, request.peer_ur_ls).await;
        updated.map_err(error::member)?;
        let (header, members) = (self.header_now(), self.members());
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.catch_up().await?;
        }
        let (header, members) = (self.header_now(), self.members());
        Ok(Response::new(pb::MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.store.member_promote(request.into_inner().id).await.map_err(error::member)?;
        let (header, members) = (self.header_now(), self.members());
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}

#[cfg(test)]
mod tests {
    use super::check_urls;

    #[test]
    fn peer_urls() {
        let check = |urls: &[&str]| {
            check_urls(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>()).is_ok()
        };
        assert!(check(&["http://10.0.0.1:2380", "https://[::1]:2380/"]));
        assert!(!check(&[]));
        for bad in ["10.0.0.1:2380", "http://10.0.0.1", "http://:1", "ftp://h:1", "http://h:1/p"] {
            assert!(!check(&[bad]), "{bad}");
        }
    }
}
