//! Between the wire's messages and the API's own types, as a caller sees them: of the API
//! server, and of a kubelet, whose streams carry the same things.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use skiff_proto::grpc::{api, node};
use skiff_proto::object::IndexMeta;
use skiff_proto::{Object, Resource, Status, WireObject};

use crate::api::*;
use crate::scan;

pub fn log_options(options: &LogOptions) -> api::LogOptions {
    api::LogOptions {
        follow: options.follow,
        previous: options.previous,
        timestamps: options.timestamps,
        tail_lines: options.tail_lines,
        since_seconds: options.since_seconds,
        since_time: options.since_time.clone(),
        limit_bytes: options.limit_bytes,
    }
}

type Failure = fn(tonic::Status) -> Status;

/// A log as it arrives; `failure` says what an error on the way means to the caller.
pub fn log_bytes(
    chunks: impl Stream<Item = std::result::Result<api::LogChunk, tonic::Status>> + Send + 'static,
    failure: Failure,
) -> ByteStream {
    Box::pin(chunks.map(move |chunk| chunk.map(|chunk| chunk.data).map_err(failure)))
}

/// What a command says, until its exit code.
pub fn exec_output(
    output: impl Stream<Item = std::result::Result<api::ExecOutput, tonic::Status>> + Send + 'static,
    failure: Failure,
) -> ExecOutputStream {
    use api::exec_output::Output;
    Box::pin(output.filter_map(move |message| async move {
        Some(match message {
            Ok(message) => Ok(match message.output? {
                Output::Stdout(bytes) => ExecOutput::Stdout(bytes),
                Output::Stderr(bytes) => ExecOutput::Stderr(bytes),
                Output::ExitCode(code) => ExecOutput::Exit(code),
            }),
            Err(error) => Err(failure(error)),
        })
    }))
}

fn terminal_size(width: u16, height: u16) -> api::TerminalSize {
    api::TerminalSize { width: width.into(), height: height.into() }
}

impl From<ExecInput> for api::exec_input::Input {
    fn from(input: ExecInput) -> Self {
        match input {
            ExecInput::Stdin(bytes) => Self::Stdin(bytes),
            ExecInput::CloseStdin => Self::CloseStdin(true),
            ExecInput::Resize { width, height } => Self::Resize(terminal_size(width, height)),
        }
    }
}

impl From<ExecInput> for node::node_exec_input::Input {
    fn from(input: ExecInput) -> Self {
        match input {
            ExecInput::Stdin(bytes) => Self::Stdin(bytes),
            ExecInput::CloseStdin => Self::CloseStdin(true),
            ExecInput::Resize { width, height } => Self::Resize(terminal_size(width, height)),
        }
    }
}

/// The envelope names the object; the rest of the index is read from `metadata` alone, member
/// by member, since most of them are not wanted.
pub fn object(wire: WireObject) -> Result<Arc<Object>> {
    let mut shared = wire.0;
    let json = shared.json.clone();
    // Nobody else has it yet, so this copies nothing.
    let index = &mut Arc::make_mut(&mut shared).index.metadata;
    match rest_of_metadata(&json, index) {
        Ok(()) => Ok(shared),
        Err(error) => {
            let (kind, name) = (&shared.index.kind, shared.name());
            let why = format!("{kind} {name:?} from the server is not readable: {error}");
            Err(Status::internal(why))
        }
    }
}

/// What the envelope does not name of the index.
fn rest_of_metadata(
    json: &[u8],
    index: &mut IndexMeta,
) -> std::result::Result<(), serde_json::Error> {
    for member in scan::members_of(json, "metadata") {
        let value = &json[member.value];
        match member.key {
            b"generation" => index.generation = serde_json::from_slice(value)?,
            b"labels" => index.labels = serde_json::from_slice(value)?,
            b"ownerReferences" => index.owner_references = serde_json::from_slice(value)?,
            b"finalizers" => index.finalizers = serde_json::from_slice(value)?,
            b"creationTimestamp" => index.creation_timestamp = serde_json::from_slice(value)?,
            b"deletionTimestamp" => index.deletion_timestamp = serde_json::from_slice(value)?,
            _ => {}
        }
    }
    Ok(())
}

pub fn event(wire: api::WatchEvent) -> Result<WatchEvent> {
    use api::watch_event::Type;
    let kind = wire.r#type();
    let wire = wire.object.unwrap_or_default();
    Ok(match kind {
        Type::Added => WatchEvent::Added(object(wire)?),
        Type::Modified => WatchEvent::Modified(object(wire)?),
        Type::Deleted => WatchEvent::Deleted(object(wire)?),
        Type::Bookmark => {
            WatchEvent::Bookmark { resource_version: wire.0.resource_version().to_owned() }
        }
        Type::Unspecified => return Err(Status::internal("an event without a type")),
    })
}

pub fn resource(resource: &Resource) -> Option<api::Resource> {
    Some(api::Resource {
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        resource: resource.plural.to_string(),
    })
}

pub fn resource_info(wire: api::ResourceInfo) -> ResourceInfo {
    let resource = wire.resource.unwrap_or_default();
    ResourceInfo {
        resource: Resource {
            group: resource.group.into(),
            version: resource.version.into(),
            plural: resource.resource.into(),
        },
        kind: wire.kind,
        singular: wire.singular,
        short_names: wire.short_names,
        categories: wire.categories,
        namespaced: wire.namespaced,
        verbs: wire.verbs,
        subresources: wire.subresources,
    }
}

pub fn validation(options: &WriteOptions) -> i32 {
    match options.field_validation {
        FieldValidation::Strict => api::FieldValidation::Strict,
        FieldValidation::Warn => api::FieldValidation::Warn,
        FieldValidation::Ignore => api::FieldValidation::Ignore,
    }
    .into()
}

pub fn delete_options(options: &DeleteOptions) -> api::DeleteOptions {
    let propagation = match options.propagation {
        Propagation::Default => api::Propagation::Default,
        Propagation::Background => api::Propagation::Background,
        Propagation::Foreground => api::Propagation::Foreground,
        Propagation::Orphan => api::Propagation::Orphan,
    };
    api::DeleteOptions {
        grace_period_seconds: options.grace_period_seconds,
        propagation: propagation.into(),
        uid: options.uid.clone(),
        resource_version: options.resource_version.clone(),
        dry_run: options.dry_run,
    }
}
