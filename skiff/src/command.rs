//! The command line.

use clap::{Parser, Subcommand};

use crate::config::ServerArgs;

/// A Kubernetes-style cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "skiff", version, disable_version_flag = true, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: skiff_cli::Global,
    #[command(subcommand)]
    pub command: Command,
}

// One command is made a process: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the cluster: control plane and node, all in one
    Server(Box<ServerArgs>),
    /// Run the store alone; etcd's clients can talk to it
    Store(crate::store::StoreArgs),
    /// Back the cluster up to one file, and make a new cluster from it
    Snapshot(crate::snapshot::SnapshotArgs),
    /// Images on this node: import, list, pull
    Image(crate::image::ImageArgs),
    /// What this host lacks, and how to mend it
    Check(crate::check::CheckArgs),
    /// Remove from this host what a stopped server has left: containers, rules, links, mounts
    Cleanup(crate::cleanup::CleanupArgs),
    #[command(flatten)]
    Verb(skiff_cli::Verb),
}
