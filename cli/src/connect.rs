//! From flags and kubeconfig to a connected API.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use skiff_client::Api;
use skiff_client::grpc::GrpcApi;
use skiff_client::kubeconfig::Kubeconfig;

use crate::Global;
use crate::resources::Catalog;

/// Where `skiff server` writes its kubeconfig.
const DEFAULT_KUBECONFIG: &str = "/etc/skiff/skiff.yaml";

/// A connected client: the API, the kinds it serves, the namespace in force.
pub struct Session {
    pub api: Arc<dyn Api>,
    pub catalog: Catalog,
    pub namespace: String,
}

pub async fn connect(global: &Global) -> anyhow::Result<Session> {
    let (api, namespace) = api(global).await?;
    let infos = api.discover().await.map_err(explain)?;
    Ok(Session { api, catalog: Catalog::new(infos), namespace })
}

/// The API alone, for verbs that need no kinds.
pub async fn api(global: &Global) -> anyhow::Result<(Arc<dyn Api>, String)> {
    let path = kubeconfig_path(global);
    let config = Kubeconfig::load(&path).with_context(|| {
        format!(
            "no usable kubeconfig at {}: start the server, or name one with --kubeconfig",
            path.display()
        )
    })?;
    let context = global.context.as_deref().unwrap_or_default();
    let server = config.to_endpoint(context)?;
    let namespace = match (&global.namespace, config.context(context)?.namespace.as_str()) {
        (Some(flag), _) => flag.clone(),
        (None, "") => "default".to_owned(),
        (None, configured) => configured.to_owned(),
    };
    let api = GrpcApi::connect(&server).await?;
    Ok((api, namespace))
}

fn kubeconfig_path(global: &Global) -> PathBuf {
    if let Some(path) = &global.kubeconfig {
        return path.clone();
    }
    match std::env::var_os("KUBECONFIG").filter(|p| !p.is_empty()) {
        Some(path) => std::env::split_paths(&path).next().unwrap_or_default(),
        None => PathBuf::from(DEFAULT_KUBECONFIG),
    }
}

/// A failure in kubectl's words: `Error from server (NotFound): pods "x" not found`.
pub fn explain(status: skiff_proto::Status) -> anyhow::Error {
    if status.code == 503 && status.details.is_none() {
        return anyhow::anyhow!("The connection to the server was refused or lost: {status}");
    }
    match status.reason.as_str() {
        "" => anyhow::anyhow!("Error from server: {status}"),
        // kubectl leaves these messages as they are.
        "Invalid" => anyhow::anyhow!("{}", invalid(&status)),
        reason => anyhow::anyhow!("Error from server ({reason}): {status}"),
    }
}

/// `The Deployment "web" is invalid: spec.replicas: Invalid value: ...`, several causes below one
/// another, as kubectl tells them.
fn invalid(status: &skiff_proto::Status) -> String {
    let details = status.details.clone().unwrap_or_default();
    let head = match details.kind.is_empty() && details.name.is_empty() {
        true => "The request is invalid".to_owned(),
        false => format!("The {} {:?} is invalid", details.kind, details.name),
    };
    let cause = |c: &skiff_proto::status::Cause| match c.field.is_empty() {
        true => c.message.clone(),
        false => format!("{}: {}", c.field, c.message),
    };
    match details.causes.as_slice() {
        [] => format!("{head}: {}", status.message),
        [only] => format!("{head}: {}", cause(only)),
        many => {
            let lines: Vec<_> = many.iter().map(|c| format!("* {}", cause(c))).collect();
            format!("{head}: \n{}", lines.join("\n"))
        }
    }
}
