//! The calling side: one lazily opened connection per member and purpose.

use std::future::Future;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use skiff_proto::grpc::raft::raft_client::RaftClient;
use skiff_proto::grpc::raft::{Message, SnapshotChunk};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{MAX_MESSAGE_BYTES, PeerTls, messages};
use crate::codec::DecodeError;
use crate::raft::machine::SnapshotOf;
use crate::raft::types::*;
use crate::snapshot::SnapshotFile;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

#[derive(Debug, Clone, Default)]
pub struct Network {
    pub tls: Option<PeerTls>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, _target: MemberId, node: &MemberNode) -> Peer {
        Peer { node: node.clone(), tls: self.tls.clone(), client: None, attempt: 0 }
    }
}

type Client = RaftClient<Channel>;

/// A member that is called.
pub struct Peer {
    node: MemberNode,
    tls: Option<PeerTls>,
    client: Option<Client>,
    /// Counts failures, so that the next URL gets its turn.
    attempt: usize,
}

impl Peer {
    fn client(&mut self) -> Result<Client, Unreachable<TypeConfig>> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let urls = &self.node.peer_urls;
        let url = urls.get(self.attempt % urls.len().max(1));
        let url = url.ok_or_else(|| {
            Unreachable::from_string(format!("member {} has no peer URL", self.node.name))
        })?;
        let unreachable = |error: tonic::transport::Error| {
            Unreachable::from_string(format!("peer {url}: {error}"))
        };
        let mut endpoint = Endpoint::from_shared(url.clone()).map_err(unreachable)?;
        endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        if let Some(tls) = &self.tls {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(&tls.ca_pem))
                .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem));
            endpoint = endpoint.tls_config(tls).map_err(unreachable)?;
        }
        let client = RaftClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        self.client = Some(client.clone());
        Ok(client)
    }

    fn failed(&mut self, status: &tonic::Status) -> Unreachable<TypeConfig> {
        self.client = None;
        self.attempt += 1;
        Unreachable::from_string(format!("member {}: {status}", self.node.name))
    }

    /// One call and its answer, within the time Raft allows.
    async fn call<F, T>(
        &mut self,
        option: &RPCOption,
        body: Bytes,
        send: impl FnOnce(Client, Message) -> F,
        decode: impl FnOnce(Bytes) -> Result<T, DecodeError>,
    ) -> Result<T, RPCError<TypeConfig>>
    where
        F: Future<Output = Result<tonic::Response<Message>, tonic::Status>>,
    {
        let client = self.client()?;
        let answer = tokio::time::timeout(option.soft_ttl(), send(client, Message { body })).await;
        let answer =
            answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")));
        let message = answer.map_err(|status| self.failed(&status))?.into_inner();
        decode(message.body).map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = messages::encode_append(rpc);
        let send =
            |mut client: Client, message| async move { client.append_entries(message).await };
        self.call(&option, body, send, messages::decode_appended).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = messages::encode_vote_request(&rpc, false);
        let send = |mut client: Client, message| async move { client.vote(message).await };
        self.call(&option, body, send, messages::decode_voted).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = messages::encode_vote_request(&rpc, true);
        let send = |mut client: Client, message| async move { client.vote(message).await };
        self.call(&option, body, send, messages::decode_voted).await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = messages::encode_transfer(&req);
        let send =
            |mut client: Client, message| async move { client.transfer_leader(message).await };
        self.call(&option, body, send, messages::decode_transferred).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client()?;
        let applied = AppliedTo {
            log_id: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership.clone(),
        };
        let header = messages::encode_snapshot_header(&vote, &applied);
        let chunks = read_chunks(snapshot.snapshot, header);
        let answer = tokio::select! {
            answer = client.install_snapshot(ReceiverStream::new(chunks)) => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let message = answer.map_err(|status| self.failed(&status))?.into_inner();
        messages::decode_installed(message.body)
            .map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
    }
}

/// Reads the file ahead of the network, a few chunks at most. If reading fails the stream
/// just ends; the receiver finds the snapshot incomplete and refuses it.
fn read_chunks(file: SnapshotFile, header: Bytes) -> mpsc::Receiver<SnapshotChunk> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut header = header;
        let mut read = || -> Result<(), Box<dyn std::error::Error>> {
            let mut input = file.open()?;
            loop {
                let mut data = vec![0; CHUNK_BYTES];
                let read = input.read(&mut data)?;
                data.truncate(read);
                let chunk =
                    SnapshotChunk { header: std::mem::take(&mut header), data: data.into() };
                if read == 0 || chunks.blocking_send(chunk).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            tracing::error!(path = %file.path().display(), %error, "cannot read a snapshot to send it");
        }
    });
    receiver
}
