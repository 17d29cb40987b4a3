//! One gRPC channel to containerd, the namespace that every call carries, and the way from a gRPC status
//! to a `RuntimeError`. The channel connects again by itself after a restart of containerd.

use std::path::{Path, PathBuf};

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::ports::RuntimeError;

/// A list of containers carries their whole specifications (about 10 kB each).
const ANSWER_MAX_BYTES: usize = 64 << 20;

#[derive(Clone)]
pub(super) struct Connection {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    address: PathBuf,
}

impl Connection {
    /// Makes the channel; the first call connects.
    pub fn new(address: &Path, namespace: &str) -> Result<Connection, RuntimeError> {
        let unusable =
            |why: String| RuntimeError::Unavailable { address: address.display().to_string(), why };
        let endpoint = Endpoint::from_shared(format!("unix://{}", address.display()))
            .map_err(|e| unusable(e.to_string()))?;
        Ok(Connection {
            channel: endpoint.connect_lazy(),
            namespace: namespace
                .parse()
                .map_err(|_| unusable(format!("{namespace:?} is no namespace name")))?,
            address: address.to_path_buf(),
        })
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// A request whose new content and snapshots belong to this lease.
    pub fn leased<T>(&self, lease: &Lease, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().insert("containerd-lease", lease.0.clone());
        request
    }

    pub fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    pub fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    pub fn diff(&self) -> DiffClient<Channel> {
        DiffClient::new(self.channel.clone())
    }

    pub fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }

    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    pub fn introspection(&self) -> IntrospectionClient<Channel> {
        IntrospectionClient::new(self.channel.clone())
    }

    pub fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel.clone())
    }

    pub fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    pub fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES)
    }

    pub fn version(&self) -> VersionClient<Channel> {
        VersionClient::new(self.channel.clone())
    }

    /// What a refused call means to the caller.
    pub fn failed(&self, operation: impl Into<String>, status: &Status) -> RuntimeError {
        match status.code() {
            Code::Unavailable => RuntimeError::Unavailable {
                address: self.address.display().to_string(),
                why: status.message().to_owned(),
            },
            _ => RuntimeError::Failed {
                operation: operation.into(),
                why: status.message().to_owned(),
            },
        }
    }
}

/// Keeps containerd's garbage collector away from content that no image names yet.
#[derive(Clone)]
pub(super) struct Lease(MetadataValue<Ascii>);

impl Lease {
    pub fn new(id: &str) -> Option<Lease> {
        id.parse().ok().map(Lease)
    }

    pub fn id(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

pub(super) fn is_not_found(status: &Status) -> bool {
    status.code() == Code::NotFound
}

pub(super) fn already_exists(status: &Status) -> bool {
    status.code() == Code::AlreadyExists
}

/// Not found is what a removal wants.
pub(super) fn ignore_not_found<T>(result: Result<T, Status>) -> Result<(), Status> {
    match result {
        Ok(_) => Ok(()),
        Err(status) if is_not_found(&status) => Ok(()),
        Err(status) => Err(status),
    }
}
