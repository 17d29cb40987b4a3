//! The kubectl-like client: verbs, flags and output that kubectl users know, over gRPC.
//!
//! What is printed is made by pure functions (`columns`, `describe`, `jsonpath`, `merge`);
//! `verbs` reads flags, calls the API and prints.

pub mod columns;
pub mod connect;
pub mod describe;
pub mod jsonpath;
pub mod manifest;
pub mod merge;
pub mod out;
pub mod output;
pub mod resources;
pub mod table;
mod terminal;
mod verbs;

use clap::{Args, Subcommand};

pub use verbs::run;

/// Flags of every verb.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Kubeconfig file (default: $KUBECONFIG, then /etc/skiff/skiff.yaml)
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Namespace
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

/// What `skiff VERB` can do with a cluster.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show objects
    Get(verbs::get::Get),
    /// Show one object in detail, with its events
    Describe(verbs::describe::Describe),
    /// Create or change objects to match manifests
    Apply(verbs::apply::Apply),
    /// Create objects from manifests
    Create(verbs::create::Create),
    /// Delete objects
    Delete(verbs::delete::Delete),
    /// Print a container's log
    Logs(verbs::logs::Logs),
    /// Run a command in a container
    Exec(verbs::exec::Exec),
    /// Set the number of replicas
    Scale(verbs::scale::Scale),
    /// Follow and steer the rollout of a deployment
    #[command(subcommand)]
    Rollout(verbs::rollout::Rollout),
    /// Set an image: set image deployment/web web=web:2
    #[command(subcommand)]
    Set(verbs::set::Set),
    /// Change fields with a patch
    Patch(verbs::patch::PatchArgs),
    /// Set or remove labels
    Label(verbs::label::Label),
    /// Set or remove annotations
    Annotate(verbs::label::Annotate),
    /// Wait for a condition
    Wait(verbs::wait::Wait),
    /// List the kinds served
    #[command(name = "api-resources")]
    ApiResources(verbs::discover::ApiResources),
    /// Versions of client and server
    Version(verbs::discover::Version),
}

/// How a failure is told on the terminal: `error: ...`, unless its words say so already.
pub fn error_line(error: &anyhow::Error) -> String {
    verbs::apply::prefixed(error)
}
