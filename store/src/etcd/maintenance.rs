//! The Maintenance service.
//!
//! Alarms follow the disk by themselves here: `NOSPACE` is on while writes are refused, and
//! off when there is space again. So none can be raised by hand, and disarming one changes
//! nothing while its cause lasts.

use std::pin::Pin;

use futures_util::Stream;
use skiff_proto::grpc::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::{Face, VERSION, backup, error};
use crate::store::Alarm;

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

impl Face {
    fn alarms(&self) -> Vec<pb::AlarmMember> {
        let member_id = self.store.identity().member_id;
        let wire = |alarm| match alarm {
            Alarm::NoSpace => pb::AlarmType::Nospace,
        };
        let alarms = self.store.alarms().into_iter().map(wire);
        alarms.map(|alarm| pb::AlarmMember { member_id, alarm: alarm.into() }).collect()
    }
}

/// Of those that are on, those that are asked for; 0 asks for any.
fn asked(alarms: Vec<pb::AlarmMember>, request: &pb::AlarmRequest) -> Vec<pb::AlarmMember> {
    let wanted = |alarm: &pb::AlarmMember| {
        (request.member_id == 0 || request.member_id == alarm.member_id)
            && (request.alarm == 0 || request.alarm == alarm.alarm)
    };
    alarms.into_iter().filter(wanted).collect()
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for Face {
    type SnapshotStream = Chunks;

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction;
        let request = request.into_inner();
        let alarms = match request.action() {
            AlarmAction::Get => asked(self.alarms(), &request),
            // The answer lists what has been disarmed.
            AlarmAction::Deactivate => Vec::new(),
            AlarmAction::Activate => {
                return Err(Status::unimplemented(
                    "etcdserver: alarms follow the disk by themselves and cannot be raised",
                ));
            }
        };
        Ok(Response::new(pb::AlarmResponse { header: self.header_now(), alarms }))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.store.status();
        let mut errors: Vec<_> = self.alarms().iter().map(alarm_text).collect();
        if status.leader == 0 {
            errors.push("etcdserver: no leader".to_owned());
        }
        Ok(Response::new(pb::StatusResponse {
            header: self.header(status.revision),
            version: VERSION.to_owned(),
            db_size: size(status.db_bytes),
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors,
            db_size_in_use: size(status.db_bytes_in_use),
            is_learner: status.is_learner,
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.store.defragment().await.map_err(error::kv)?;
        Ok(Response::new(pb::DefragmentResponse { header: self.header_now() }))
    }

    /// etcd hashes its file here; two members agree on that only by chance. This is the hash
    /// of all records, as HashKV's of the newest revision.
    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let hashed = self.store.hash_kv(0).await.map_err(error::kv)?;
        let header = self.header(hashed.revision);
        Ok(Response::new(pb::HashResponse { header, hash: hashed.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        let hashed = self.store.hash_kv(revision).await.map_err(error::kv)?;
        Ok(Response::new(pb::HashKvResponse {
            header: self.header_now(),
            hash: hashed.hash,
            compact_revision: hashed.compacted,
        }))
    }

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Result<Response<Chunks>, Status> {
        self.catch_up().await?;
        Ok(Response::new(Box::pin(backup::stream(self).await?)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        self.store.move_leader(target).await.map_err(error::move_leader)?;
        Ok(Response::new(pb::MoveLeaderResponse { header: self.header_now() }))
    }
}

/// As etcd prints one.
fn alarm_text(alarm: &pb::AlarmMember) -> String {
    format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
