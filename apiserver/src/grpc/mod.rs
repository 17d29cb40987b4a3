//! The gRPC face: `skiff.api.v1.Api` over the core. It reads a request, calls the core as the
//! connection's user, and writes the answer; nothing is decided here.

mod chunks;
mod convert;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use hyper::body::Incoming;
use skiff_client::{
    Api, Deleted, ExecInput, ExecOptions, ExecOutput, ListOptions, WatchOptions, WriteOptions,
};
use skiff_proto::grpc::api;
use skiff_proto::grpc::api::api_server::{Api as Service, ApiServer};
use skiff_proto::resource::PODS;
use skiff_proto::{Status, WireObject};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Response, Streaming};
use tower::Service as _;

use crate::authn::{self, User};
use crate::core::Core;
use crate::core::caller::Caller;
use chunks::Chunks;

/// One message from a client: an object of the largest size that the store takes, with room
/// for its envelope.
const MAX_REQUEST_BYTES: usize = 4 << 20;

type Answer<T> = Result<Response<T>, tonic::Status>;
type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

/// Everything that speaks gRPC on the API's port. Requests carry their `Arc<User>` as an
/// extension, put there by the connection.
pub struct Services {
    api: ApiServer<Face>,
    /// Health and reflection, which are seldom asked; routing a request costs as much as
    /// a lookup in the cache.
    others: Routes,
}

pub fn services(core: Arc<Core>) -> Result<Services, tonic_reflection::server::Error> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(skiff_proto::grpc::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    // The core is ready when it exists; a server that drains says so.
    let (reporter, health) = tonic_health::server::health_reporter();
    let shutdown = core.config().shutdown.clone();
    tokio::spawn(async move {
        reporter.set_serving::<ApiServer<Face>>().await;
        shutdown.cancelled().await;
        reporter.set_not_serving::<ApiServer<Face>>().await;
    });
    let api = ApiServer::new(Face { core }).max_decoding_message_size(MAX_REQUEST_BYTES);
    Ok(Services { api, others: Routes::new(health).add_service(reflection) })
}

impl Services {
    pub async fn answer(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let answer = match service {
            Some((<ApiServer<Face> as NamedService>::NAME, _)) => {
                self.api.clone().call(request).await
            }
            _ => self.others.clone().call(request).await,
        };
        answer.unwrap_or_else(|never| match never {})
    }
}

#[derive(Clone)]
pub struct Face {
    core: Arc<Core>,
}

impl Face {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, tonic::Status> {
        let user = request.extensions().get::<Arc<User>>();
        let user = user.ok_or_else(|| tonic::Status::from(authn::unauthorized()))?;
        Ok(self.core.caller(user.clone()))
    }
}

fn wire(status: Status) -> tonic::Status {
    status.into()
}

#[tonic::async_trait]
impl Service for Face {
    async fn discover(
        &self,
        request: Request<api::DiscoverRequest>,
    ) -> Answer<api::DiscoverResponse> {
        let kinds = self.caller(&request)?.discover().await.map_err(wire)?;
        let resources = kinds.into_iter().map(convert::resource_info).collect();
        Ok(Response::new(api::DiscoverResponse { resources }))
    }

    async fn version(&self, request: Request<api::VersionRequest>) -> Answer<api::VersionResponse> {
        let version = self.caller(&request)?.version().await.map_err(wire)?;
        Ok(Response::new(api::VersionResponse {
            version: version.version,
            kubernetes_version: version.kubernetes_version,
            platform: version.platform,
        }))
    }

    async fn get(&self, request: Request<api::GetRequest>) -> Answer<WireObject> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let target =
            convert::target(r.resource, r.namespace, r.name, r.subresource).map_err(wire)?;
        let object = caller.get(&target).await.map_err(wire)?;
        Ok(Response::new(WireObject(object)))
    }

    type ListStream = Outgoing<api::ListChunk>;

    async fn list(&self, request: Request<api::ListRequest>) -> Answer<Self::ListStream> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let (labels, fields) =
            convert::selectors(&r.label_selector, &r.field_selector).map_err(wire)?;
        let target = convert::target(r.resource, r.namespace, String::new(), String::new());
        let options = ListOptions {
            labels,
            fields,
            limit: r.limit,
            continue_token: r.continue_token,
            resource_version: r.resource_version,
        };
        let list = caller.list(&target.map_err(wire)?, &options).await.map_err(wire)?;
        Ok(Response::new(Box::pin(futures_util::stream::iter(Chunks::new(list).map(Ok)))))
    }

    type WatchStream = Outgoing<api::WatchEvent>;

    async fn watch(&self, request: Request<api::WatchRequest>) -> Answer<Self::WatchStream> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let (labels, fields) =
            convert::selectors(&r.label_selector, &r.field_selector).map_err(wire)?;
        let target = convert::target(r.resource, r.namespace, String::new(), String::new());
        let options = WatchOptions {
            labels,
            fields,
            resource_version: r.resource_version,
            allow_bookmarks: r.allow_bookmarks,
        };
        let events = caller.watch(&target.map_err(wire)?, &options).await.map_err(wire)?;
        let events = events.map(|event| event.map(convert::event).map_err(wire));
        Ok(Response::new(Box::pin(events)))
    }

    async fn create(&self, request: Request<api::CreateRequest>) -> Answer<WireObject> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let target =
            convert::target(r.resource, r.namespace, r.name, r.subresource).map_err(wire)?;
        let options = write_options(r.dry_run, r.field_validation);
        let object = caller.create(&target, r.json, &options).await.map_err(wire)?;
        Ok(Response::new(WireObject(object)))
    }

    async fn update(&self, request: Request<api::UpdateRequest>) -> Answer<WireObject> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let target =
            convert::target(r.resource, r.namespace, r.name, r.subresource).map_err(wire)?;
        let options = write_options(r.dry_run, r.field_validation);
        let object = caller.update(&target, r.json, &options).await.map_err(wire)?;
        Ok(Response::new(WireObject(object)))
    }

    async fn patch(&self, request: Request<api::PatchRequest>) -> Answer<WireObject> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let target =
            convert::target(r.resource, r.namespace, r.name, r.subresource).map_err(wire)?;
        let patch = convert::patch(r.r#type, r.patch).map_err(wire)?;
        let options = write_options(r.dry_run, r.field_validation);
        let object = caller.patch(&target, patch, &options).await.map_err(wire)?;
        Ok(Response::new(WireObject(object)))
    }

    async fn delete(&self, request: Request<api::DeleteRequest>) -> Answer<api::DeleteResponse> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let target =
            convert::target(r.resource, r.namespace, r.name, String::new()).map_err(wire)?;
        let options = convert::delete_options(r.options);
        let (object, gone) = match caller.delete(&target, &options).await.map_err(wire)? {
            Deleted::Gone(object) => (object, true),
            Deleted::Terminating(object) => (object, false),
        };
        Ok(Response::new(api::DeleteResponse { object: Some(WireObject(object)), gone }))
    }

    async fn delete_collection(
        &self,
        request: Request<api::DeleteCollectionRequest>,
    ) -> Answer<api::DeleteCollectionResponse> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let (labels, fields) =
            convert::selectors(&r.label_selector, &r.field_selector).map_err(wire)?;
        let target = convert::target(r.resource, r.namespace, String::new(), String::new());
        let list = ListOptions { labels, fields, ..ListOptions::default() };
        let options = convert::delete_options(r.options);
        let deleted = caller.delete_collection(&target.map_err(wire)?, &list, &options).await;
        let items = deleted.map_err(wire)?.into_iter().map(WireObject).collect();
        Ok(Response::new(api::DeleteCollectionResponse { items }))
    }

    type LogsStream = Outgoing<api::LogChunk>;

    async fn logs(&self, request: Request<api::LogsRequest>) -> Answer<Self::LogsStream> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        let target = skiff_client::Target::one(&PODS, &r.namespace, &r.pod);
        let options = convert::log_options(r.container, r.options);
        let bytes = caller.logs(&target, &options).await.map_err(wire)?;
        let chunks = bytes.map(|chunk| chunk.map(|data| api::LogChunk { data }).map_err(wire));
        Ok(Response::new(Box::pin(chunks)))
    }

    type ExecStream = Outgoing<api::ExecOutput>;

    async fn exec(&self, request: Request<Streaming<api::ExecInput>>) -> Answer<Self::ExecStream> {
        let caller = self.caller(&request)?;
        let mut input = request.into_inner();
        let first = input.message().await?.and_then(|message| message.input);
        let Some(api::exec_input::Input::Start(start)) = first else {
            return Err(wire(Status::bad_request(
                "the first message of an exec must be its start",
            )));
        };
        let target = skiff_client::Target::one(&PODS, &start.namespace, &start.pod);
        let options = ExecOptions {
            container: start.container,
            command: start.command,
            stdin: start.stdin,
            tty: start.tty,
        };
        let output =
            caller.exec(&target, &options, Box::pin(exec_input(input))).await.map_err(wire)?;
        Ok(Response::new(Box::pin(output.map(|o| o.map(exec_output).map_err(wire)))))
    }
}

fn write_options(dry_run: bool, validation: i32) -> WriteOptions {
    WriteOptions { dry_run, field_validation: convert::validation(validation) }
}

/// The client's messages; a client that breaks off closes stdin.
fn exec_input(input: Streaming<api::ExecInput>) -> impl Stream<Item = ExecInput> + Send {
    use api::exec_input::Input;
    input.take_while(|message| std::future::ready(message.is_ok())).filter_map(|message| async {
        match message.ok()?.input? {
            Input::Start(_) => None,
            Input::Stdin(bytes) => Some(ExecInput::Stdin(bytes)),
            Input::CloseStdin(_) => Some(ExecInput::CloseStdin),
            Input::Resize(size) => Some(ExecInput::Resize {
                width: u16::try_from(size.width).unwrap_or(u16::MAX),
                height: u16::try_from(size.height).unwrap_or(u16::MAX),
            }),
        }
    })
}

fn exec_output(output: ExecOutput) -> api::ExecOutput {
    use api::exec_output::Output;
    let output = match output {
        ExecOutput::Stdout(bytes) => Output::Stdout(bytes),
        ExecOutput::Stderr(bytes) => Output::Stderr(bytes),
        ExecOutput::Exit(code) => Output::ExitCode(code),
    };
    api::ExecOutput { output: Some(output) }
}
