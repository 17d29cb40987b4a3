//! The Maintenance service.
//!
//! Alarms are etcd's: raised and disarmed through the log, the same on all members. Only
//! what a member says of its own full disk comes and goes by itself, and disarming that
//! changes nothing while its cause lasts. Where etcd leaves the header out of an answer
//! there is one here: its own `etcdctl -w fields` needs it.

use std::pin::Pin;

use futures_util::Stream;
use skiff_proto::grpc::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::{Face, VERSION, backup, error};
use crate::kv::Alarm;
use crate::mvcc::alarm::{AlarmChange, RaisedAlarm};

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

impl Face {
    fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.store.alarms().into_iter().map(alarm_member).collect()
    }

    async fn change_alarm(
        &self,
        raise: bool,
        request: &pb::AlarmRequest,
    ) -> Result<Vec<pb::AlarmMember>, Status> {
        let alarm = u8::try_from(request.alarm).ok().and_then(Alarm::numbered);
        let Some(alarm) = alarm else {
            // To raise none ends an etcd; to lower it is to lower nothing.
            return if raise { Err(error::no_such_alarm()) } else { Ok(Vec::new()) };
        };
        let of = RaisedAlarm { member: request.member_id, alarm, by_itself: false };
        let changed = self.store.alarm(AlarmChange { raise, of }).await.map_err(error::kv)?;
        Ok(changed.map(alarm_member).into_iter().collect())
    }
}

fn alarm_member(raised: RaisedAlarm) -> pb::AlarmMember {
    pb::AlarmMember { member_id: raised.member, alarm: raised.alarm.number().into() }
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
            // Of one kind or of all; as in etcd it is not asked whose.
            AlarmAction::Get => {
                self.catch_up().await?;
                let mut alarms = self.alarms();
                alarms.retain(|raised| request.alarm == 0 || request.alarm == raised.alarm);
                alarms
            }
            AlarmAction::Activate => self.change_alarm(true, &request).await?,
            AlarmAction::Deactivate => self.change_alarm(false, &request).await?,
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
