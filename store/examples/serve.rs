//! The store in a program of one's own: a single member with etcd's API on loopback, until
//! ctrl-C.
//!
//! ```text
//! cargo run --release -p skiff-store --example serve -- --data-dir /tmp/store
//! ```

use std::path::PathBuf;

use clap::Parser;
use skiff_store::{Config, Store};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "default")]
    name: String,
    #[arg(long)]
    data_dir: PathBuf,
    /// An http:// URL on loopback
    #[arg(long, default_value = "http://127.0.0.1:2379")]
    listen_client_urls: String,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let store = Store::open(Config::new(&args.name, &args.data_dir)).await?;
    let address = args.listen_client_urls.trim_start_matches("http://");
    let listener = tokio::net::TcpListener::bind(address).await?;
    let shutdown = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let ended = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        ended.cancel();
    });
    skiff_store::etcd::serve(store.clone(), listener, None, shutdown).await?;
    store.shutdown().await;
    Ok(())
}
