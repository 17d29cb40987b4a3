//! The one binary: cluster parts, client, and CNI plugin, by how it is called.

mod check;
mod cleanup;
mod command;
mod config;
mod image;
mod kubeconfig;
mod server;
mod snapshot;
mod store;

use std::process::ExitCode;

use clap::Parser;

use crate::command::{Cli, Command};

fn main() -> ExitCode {
    // A kubelet calls network plugins by their own names, with the command in the environment.
    if std::env::var_os("CNI_COMMAND").is_some() {
        return skiff_cni::run_from_env();
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("{}", skiff_cli::error_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<i32> {
    skiff_kit::tls::install_provider();
    let runtime = runtime(&cli.command)?;
    let outcome = runtime.block_on(dispatch(cli));
    // A blocked thread, such as one that reads stdin, must not hold the process.
    runtime.shutdown_background();
    outcome
}

/// Servers get two workers: more only cost memory on the small machines skiff is for.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match command {
        Command::Server(_) | Command::Store(_) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2);
            builder
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

async fn dispatch(cli: Cli) -> anyhow::Result<i32> {
    match cli.command {
        Command::Server(args) => {
            server::run(config::ServerConfig::from_args(*args)?).await.map(|()| 0)
        }
        Command::Store(args) => store::run(args).await.map(|()| 0),
        Command::Snapshot(args) => snapshot::run(args).await,
        Command::Image(args) => image::run(args).await,
        Command::Check(args) => check::run(&args),
        Command::Cleanup(args) => cleanup::run(&args).await,
        Command::Verb(verb) => skiff_cli::run(cli.global, verb).await,
    }
}
