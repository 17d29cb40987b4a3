//! `skiff snapshot`: the whole cluster in one verified file, and a new cluster from it.
//!
//! Beside the store's snapshot the file has all of the server's `<data-dir>/tls`, so that a
//! restored cluster is known by the same authorities and old certificates go on to work. So
//! the file opens the cluster to whoever reads it: it is written with mode 0600.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use skiff_proto::Timestamp;
use skiff_store::remote::{Flags, Options, Tls, save};
use skiff_store::snapshot::{Kept, backup::is_bare};
use skiff_store::{Config, InitialMember, RestoreOptions, SnapshotStatus, Store};

const DATA_DIR: &str = "/var/lib/skiff";
/// Of all that a server keeps beside its store; certificates are a few KiB.
const MAX_KEPT_BYTES: u64 = 1 << 20;

#[derive(Debug, Args)]
pub struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Save a running store, and the cluster's authorities and keys, to FILE
    Save(SaveArgs),
    /// Make a new cluster's data folder from FILE
    Restore(RestoreArgs),
    /// Verify FILE, and say what it holds
    Status(StatusArgs),
}

#[derive(Debug, Args)]
struct SaveArgs {
    file: PathBuf,
    /// The server's folder: its certificates open the store and are kept in FILE
    #[arg(long, default_value = DATA_DIR)]
    data_dir: PathBuf,
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "https://127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// CA of the store [default: <data-dir>/tls/store-ca.crt]
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// [default: <data-dir>/tls/store-client.crt]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// [default: <data-dir>/tls/store-client.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Without <data-dir>/tls: of a `skiff store`, or where keys must not leave the host
    #[arg(long)]
    store_only: bool,
}

#[derive(Debug, Args)]
struct RestoreArgs {
    file: PathBuf,
    /// The new server's folder; with --store-only that of `skiff store`
    #[arg(long, default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// This member's name
    #[arg(long, default_value = "default")]
    name: String,
    /// All members of the new cluster: NAME=URL,... [default: this one alone]
    #[arg(long, value_delimiter = ',')]
    initial_cluster: Vec<String>,
    /// Tells the new cluster from the old one
    #[arg(long, default_value = "skiff")]
    initial_cluster_token: String,
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2380")]
    initial_advertise_peer_urls: Vec<String>,
    /// Leave out this many revisions, which clients may have seen after the snapshot
    #[arg(long, default_value_t = 0)]
    bump_revision: u64,
    /// Tell all watches from before to list again
    #[arg(long)]
    mark_compacted: bool,
    /// The store alone, right into --data-dir
    #[arg(long)]
    store_only: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    file: PathBuf,
    /// json
    #[arg(short, long)]
    output: Option<String>,
}

pub async fn run(args: SnapshotArgs) -> anyhow::Result<i32> {
    match args.command {
        SnapshotCommand::Save(args) => run_save(args).await?,
        SnapshotCommand::Restore(args) => tokio::task::spawn_blocking(|| restore(args)).await??,
        SnapshotCommand::Status(args) => status(&args)?,
    }
    Ok(0)
}

async fn run_save(args: SaveArgs) -> anyhow::Result<()> {
    let tls = args.data_dir.join("tls");
    let kept = if args.store_only { Vec::new() } else { keep(&tls)? };
    let flags = Flags { endpoint: "--endpoints", ca: "--cacert", cert: "--cert", key: "--key" };
    let secure = args.endpoints.iter().any(|url| url.starts_with("https://"));
    let read = |flag: &str, given: &Option<PathBuf>, default: &str| {
        let path = given.clone().unwrap_or_else(|| tls.join(default));
        std::fs::read_to_string(&path).with_context(|| format!("read {flag} {}", path.display()))
    };
    let tls_options = match secure {
        true => Some(Tls {
            ca_pem: read("--cacert", &args.cacert, "store-ca.crt")?,
            identity: Some((
                read("--cert", &args.cert, "store-client.crt")?,
                read("--key", &args.key, "store-client.key")?,
            )),
        }),
        false => None,
    };
    let options =
        Options { endpoints: args.endpoints, tls: tls_options, flags, ..Default::default() };
    let created = Timestamp::seconds(SystemTime::now()).to_string();
    let status = save(&options, &args.file, created, &kept).await?;
    println!("Snapshot saved at {}", args.file.display());
    println!("{}", summary(&status));
    Ok(())
}

/// The server's certificates and keys.
fn keep(dir: &Path) -> anyhow::Result<Vec<Kept>> {
    let say =
        || format!("read {}: is --data-dir the server's? Without one: --store-only", dir.display());
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(say)? {
        let entry = entry.with_context(say)?;
        let metadata = entry.metadata().with_context(say)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !metadata.is_file() || !is_bare(&name) {
            continue;
        }
        if metadata.len() > MAX_KEPT_BYTES {
            bail!(
                "{} is no certificate or key: it has {} bytes",
                entry.path().display(),
                metadata.len()
            );
        }
        let content = std::fs::read(entry.path()).with_context(say)?;
        kept.push(Kept { name, content });
    }
    kept.sort_by(|a, b| a.name.cmp(&b.name));
    if kept.is_empty() {
        bail!(
            "{} holds no certificates: is --data-dir the server's? Without one: --store-only",
            dir.display()
        );
    }
    Ok(kept)
}

fn restore(args: RestoreArgs) -> anyhow::Result<()> {
    // Read to its end first: nothing is touched for a file that is not whole.
    let status = Store::snapshot_status(&args.file)?;
    let store_dir = match args.store_only {
        true => args.data_dir.clone(),
        false => args.data_dir.join("store"),
    };
    let mut config = Config::new(&args.name, &store_dir);
    config.peer_urls = args.initial_advertise_peer_urls;
    config.cluster_token = args.initial_cluster_token;
    config.initial_cluster = members(&args.initial_cluster)?;
    config.validate()?;
    let tls = args.data_dir.join("tls");
    if !args.store_only {
        if status.files.is_empty() {
            bail!(
                "{} holds a store alone, without a cluster's certificates: restore it with --store-only, \
                 or put the old cluster's files in {} and restore with --store-only to {}",
                args.file.display(),
                tls.display(),
                store_dir.display()
            );
        }
        if store_dir.exists() || tls.exists() {
            bail!(
                "{} holds a cluster already: restore into an empty folder",
                args.data_dir.display()
            );
        }
    }
    let options =
        RestoreOptions { bump_revision: args.bump_revision, mark_compacted: args.mark_compacted };
    let identity = Store::restore_with(&args.file, &config, options)?;
    if !args.store_only {
        write_kept(&tls, &status.files)?;
    }
    println!(
        "Restored revision {} to {} as member {:x} of cluster {:x}",
        status.revision,
        args.data_dir.display(),
        identity.member_id,
        identity.cluster_id
    );
    Ok(())
}

fn write_kept(dir: &Path, files: &[Kept]) -> anyhow::Result<()> {
    use std::io::Write as _;
    std::fs::create_dir_all(dir).with_context(|| format!("make the folder {}", dir.display()))?;
    for file in files {
        let path = dir.join(&file.name);
        let mut options = std::fs::OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        options
            .open(&path)
            .and_then(|mut out| {
                out.write_all(&file.content)?;
                out.sync_all()
            })
            .with_context(|| format!("write {}", path.display()))?;
    }
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("sync the folder {}", dir.display()))
}

/// `NAME=URL` each; a name that comes again has another URL.
fn members(given: &[String]) -> anyhow::Result<Vec<InitialMember>> {
    let mut members: Vec<InitialMember> = Vec::new();
    for text in given {
        let (name, url) = text
            .split_once('=')
            .filter(|(name, url)| !name.is_empty() && !url.is_empty())
            .with_context(|| format!("--initial-cluster {text} is no NAME=URL"))?;
        match members.iter_mut().find(|member| member.name == name) {
            Some(member) => member.peer_urls.push(url.to_owned()),
            None => members
                .push(InitialMember { name: name.to_owned(), peer_urls: vec![url.to_owned()] }),
        }
    }
    Ok(members)
}

fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let status = Store::snapshot_status(&args.file)?;
    match args.output.as_deref() {
        None => println!("{}", summary(&status)),
        Some("json") => {
            let files: Vec<_> = status.files.iter().map(|file| &file.name).collect();
            let json = serde_json::json!({
                "clusterID": format!("{:x}", status.cluster_id),
                "revision": status.revision,
                "compactRevision": status.compacted,
                "records": status.records,
                "totalSize": status.bytes,
                "created": status.manifest.as_ref().map(|manifest| &manifest.created),
                "version": status.manifest.as_ref().map(|manifest| &manifest.version),
                "files": files,
            });
            println!("{json:#}");
        }
        Some(other) => bail!("--output {other} is not known: json"),
    }
    Ok(())
}

fn summary(status: &SnapshotStatus) -> String {
    let created = match &status.manifest {
        Some(manifest) => format!("{} by skiff {}", manifest.created, manifest.version),
        None => "not said: saved through etcd's API".to_owned(),
    };
    let files: Vec<_> = status.files.iter().map(|file| file.name.as_str()).collect();
    let files = if files.is_empty() { "none: the store alone".to_owned() } else { files.join(" ") };
    format!(
        "verified:    whole, its hashes match\ncreated:     {created}\ncluster:     {:x}\n\
         revision:    {} (history from {})\nrecords:     {}\nsize:        {} bytes\nwith files:  {files}",
        status.cluster_id, status.revision, status.compacted, status.records, status.bytes
    )
}

#[cfg(test)]
mod tests {
    use super::members;

    #[test]
    fn members_of_a_new_cluster() {
        let given = ["a=http://a:1", "b=http://b:1", "a=http://a:2"].map(str::to_owned);
        let members = members(&given).expect("reads");
        assert_eq!(members.len(), 2);
        assert_eq!(members[0].peer_urls, ["http://a:1", "http://a:2"]);
        let text = super::members(&["a".to_owned()]).expect_err("no URL").to_string();
        assert_eq!(text, "--initial-cluster a is no NAME=URL");
    }
}
