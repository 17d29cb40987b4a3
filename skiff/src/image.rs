//! `skiff image`: the images of this node, through its containerd.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use skiff_cli::out::print;
use skiff_kubelet::ports::Runtime;
use skiff_kubelet::runtime::{Config, Containerd};

#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: Image,
    /// containerd's socket
    #[arg(long, global = true, default_value = "/run/skiff/containerd/containerd.sock")]
    containerd_address: PathBuf,
    /// The server's data folder
    #[arg(long, global = true, default_value = "/var/lib/skiff")]
    data_dir: PathBuf,
    /// The server's run folder
    #[arg(long, global = true, default_value = "/run/skiff")]
    run_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Image {
    /// Read OCI or docker archives: skiff image import web.tar
    Import {
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// List images
    #[command(alias = "ls")]
    List,
    /// Fetch an image from its registry
    Pull { image: String },
    /// Remove an image
    #[command(alias = "rm")]
    Remove { image: String },
}

pub async fn run(args: ImageArgs) -> anyhow::Result<i32> {
    let config = Config {
        state_dir: args.run_dir,
        data_dir: args.data_dir,
        ..Config::new(&args.containerd_address)
    };
    let runtime = Containerd::connect(config).await.map_err(|error| {
        anyhow::anyhow!("{error}; is the server running on this host? (or name its socket with --containerd-address)")
    })?;
    match args.command {
        Image::Import { archives } => {
            for archive in archives {
                for image in runtime.import(&archive).await? {
                    print(format_args!("imported {}\n", image.reference));
                }
            }
        }
        Image::List => {
            let mut images = runtime.images().await?;
            images.sort_by(|a, b| a.reference.cmp(&b.reference));
            let row = |i: &skiff_kubelet::ports::Image| {
                vec![i.reference.clone(), short(&i.id), mebibytes(i.size_bytes)]
            };
            let rows: Vec<_> = images.iter().map(row).collect();
            let table = skiff_cli::table::layout(&["IMAGE", "ID", "SIZE"], &rows, true);
            print(format_args!("{table}"));
        }
        Image::Pull { image } => {
            eprintln!("pulling {image} ...");
            let image = runtime.pull(&image, None).await?;
            let (id, size) = (short(&image.id), mebibytes(image.size_bytes));
            print(format_args!("pulled {} ({id}, {size})\n", image.reference));
        }
        Image::Remove { image } => {
            runtime.remove_image(&image).await?;
            print(format_args!("removed {image}\n"));
        }
    }
    Ok(0)
}

/// The first twelve digits of a digest.
fn short(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(12).collect()
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}MiB", bytes as f64 / f64::from(1 << 20))
}
