//! The flags of `skiff store`, named as etcd's, and what can be wrong with them. All faults
//! are found before anything is touched, and told at once.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use skiff_store::{Config, InitialMember, InitialState, PeerTls};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// Start a new cluster of the members of --initial-cluster
    New,
    /// Join a cluster to which this member has been added
    Existing,
}

#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// This member's name
    #[arg(long, default_value = "default")]
    pub name: String,
    #[arg(long, default_value = "default.etcd")]
    pub data_dir: PathBuf,
    /// Where clients connect; plain http only on loopback
    #[arg(long, default_value = "http://127.0.0.1:2379", value_delimiter = ',')]
    pub listen_client_urls: Vec<String>,
    /// Where clients of other hosts reach this member; the listen URLs if it is not given
    #[arg(long, value_delimiter = ',')]
    pub advertise_client_urls: Vec<String>,
    /// Where other members connect; plain http only on loopback
    #[arg(long, default_value = "http://127.0.0.1:2380", value_delimiter = ',')]
    pub listen_peer_urls: Vec<String>,
    /// Where other members reach this one; the listen URLs if it is not given
    #[arg(long, value_delimiter = ',')]
    pub initial_advertise_peer_urls: Vec<String>,
    /// All voters of a new cluster, this one included: NAME=URL,NAME=URL
    #[arg(long, value_delimiter = ',')]
    pub initial_cluster: Vec<String>,
    #[arg(long, value_enum, default_value = "new")]
    pub initial_cluster_state: ClusterState,
    /// Tells clusters of the same members apart
    #[arg(long, default_value = "etcd-cluster")]
    pub initial_cluster_token: String,
    /// Milliseconds between a leader's signs of life
    #[arg(long, default_value_t = 100)]
    pub heartbeat_interval: u64,
    /// Milliseconds after which a leader that is not heard is replaced
    #[arg(long, default_value_t = 1000)]
    pub election_timeout: u64,
    /// Server certificate for https
    #[arg(long)]
    pub cert_file: Option<PathBuf>,
    #[arg(long)]
    pub key_file: Option<PathBuf>,
    /// CA of client certificates
    #[arg(long)]
    pub trusted_ca_file: Option<PathBuf>,
    /// Clients must show a certificate. They always must over https; this says it as etcd does
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub client_cert_auth: Option<bool>,
    /// Certificate for members, as server and as client
    #[arg(long)]
    pub peer_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub peer_key_file: Option<PathBuf>,
    /// CA of members' certificates
    #[arg(long)]
    pub peer_trusted_ca_file: Option<PathBuf>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    pub secure: bool,
}

/// Certificate, key and CA, as PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    pub cert_pem: String,
    pub key_pem: String,
    pub ca_pem: String,
}

/// Flags that fit together.
pub struct Settings {
    pub config: Config,
    pub clients: Vec<Listen>,
    pub peers: Vec<Listen>,
    pub client_tls: Option<Tls>,
}

#[derive(Debug, thiserror::Error)]
#[error("skiff store:\n  {}", .0.join("\n  "))]
pub struct Faults(pub Vec<String>);

impl StoreArgs {
    pub fn settings(&self) -> Result<Settings, Faults> {
        let mut faults = Vec::new();
        let client_tls = tls(
            ["--cert-file", "--key-file", "--trusted-ca-file"],
            [&self.cert_file, &self.key_file, &self.trusted_ca_file],
            &mut faults,
        );
        let peer_tls = tls(
            ["--peer-cert-file", "--peer-key-file", "--peer-trusted-ca-file"],
            [&self.peer_cert_file, &self.peer_key_file, &self.peer_trusted_ca_file],
            &mut faults,
        );
        if self.client_cert_auth == Some(false) {
            faults.push("--client-cert-auth=false: over https every client must show a certificate of --trusted-ca-file; leave the flag out".into());
        }
        let clients = listen("--listen-client-urls", &self.listen_client_urls, &mut faults);
        let peers = listen("--listen-peer-urls", &self.listen_peer_urls, &mut faults);
        let secure = |listens: &[Listen]| listens.iter().any(|listen| listen.secure);
        if secure(&clients) && client_tls.is_none() {
            faults.push(
                "--listen-client-urls: https needs --cert-file, --key-file and --trusted-ca-file"
                    .into(),
            );
        }
        if secure(&peers) && peer_tls.is_none() {
            faults.push("--listen-peer-urls: https needs --peer-cert-file, --peer-key-file and --peer-trusted-ca-file".into());
        }
        let config = self.config(&peer_tls, &mut faults);
        if let Err(error) = config.validate() {
            faults.extend(error.0);
        }
        if faults.is_empty() {
            Ok(Settings { config, clients, peers, client_tls })
        } else {
            Err(Faults(faults))
        }
    }

    fn config(&self, peer_tls: &Option<Tls>, faults: &mut Vec<String>) -> Config {
        let mut config = Config::new(&self.name, &self.data_dir);
        config.client_urls = advertised(
            "--advertise-client-urls",
            &self.advertise_client_urls,
            &self.listen_client_urls,
            faults,
        );
        config.peer_urls = advertised(
            "--initial-advertise-peer-urls",
            &self.initial_advertise_peer_urls,
            &self.listen_peer_urls,
            faults,
        );
        config.initial_cluster = initial_cluster(&self.initial_cluster, faults);
        config.cluster_token.clone_from(&self.initial_cluster_token);
        config.heartbeat_ms = self.heartbeat_interval;
        config.election_timeout_ms = self.election_timeout;
        if self.initial_cluster_state == ClusterState::Existing {
            config.initial_state = InitialState::Existing;
            if self.initial_cluster.is_empty() {
                faults.push("--initial-cluster-state=existing: --initial-cluster must name this member and at least one that runs, as `etcdctl member add` printed it".into());
            }
        }
        let https = |url: &String| url.starts_with("https://");
        let others = config.initial_cluster.iter().flat_map(|member| &member.peer_urls);
        if peer_tls.is_none() && others.clone().any(https) {
            faults.push("--initial-cluster: https needs --peer-cert-file, --peer-key-file and --peer-trusted-ca-file".into());
        }
        config.peer_tls = peer_tls.as_ref().map(|tls| PeerTls {
            ca_pem: tls.ca_pem.clone(),
            cert_pem: tls.cert_pem.clone(),
            key_pem: tls.key_pem.clone(),
        });
        config
    }
}

/// All three files or none.
fn tls(flags: [&str; 3], files: [&Option<PathBuf>; 3], faults: &mut Vec<String>) -> Option<Tls> {
    if files.iter().all(|file| file.is_none()) {
        return None;
    }
    let before = faults.len();
    let mut texts = Vec::new();
    for (flag, file) in flags.iter().zip(files) {
        match file.as_ref().map(std::fs::read_to_string) {
            Some(Ok(text)) => texts.push(text),
            Some(Err(error)) => {
                let path = file.as_deref().unwrap_or_else(|| "".as_ref()).display();
                faults.push(format!("{flag} {path}: {error}"));
            }
            None => faults.push(format!("{flag} is missing: {} go together", flags.join(", "))),
        }
    }
    let [cert_pem, key_pem, ca_pem] = <[String; 3]>::try_from(texts).ok()?;
    (faults.len() == before).then_some(Tls { cert_pem, key_pem, ca_pem })
}

/// Host and port of a URL without a path, and whether it is https.
fn split(url: &str) -> Result<(&str, u16, bool), String> {
    let (rest, secure) = if let Some(rest) = url.strip_prefix("https://") {
        (rest, true)
    } else if let Some(rest) = url.strip_prefix("http://") {
        (rest, false)
    } else {
        return Err(format!("{url} must begin with http:// or https://"));
    };
    let parts = rest.trim_end_matches('/').rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() && !host.contains('/') => Ok((host, port, secure)),
        _ => Err(format!("{url} must be scheme://host:port, as in http://127.0.0.1:2380")),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// A URL that others may use, checked.
fn check(flag: &str, url: &str, faults: &mut Vec<String>) -> Option<(String, u16, bool)> {
    match split(url) {
        Ok((host, _, false)) if !is_loopback(host) => {
            faults.push(format!(
                "{flag} {url}: plain http is for loopback only; use https:// with certificates"
            ));
            None
        }
        Ok((host, port, secure)) => Some((host.to_owned(), port, secure)),
        Err(fault) => {
            faults.push(format!("{flag} {fault}"));
            None
        }
    }
}

fn listen(flag: &str, urls: &[String], faults: &mut Vec<String>) -> Vec<Listen> {
    let mut listens = Vec::new();
    for url in urls {
        let Some((host, port, secure)) = check(flag, url, faults) else { continue };
        let host = host.replace("localhost", "127.0.0.1");
        match format!("{host}:{port}").parse() {
            Ok(address) => listens.push(Listen { address, secure }),
            Err(_) => faults.push(format!("{flag} {url}: {host} is no IP address of this host")),
        }
    }
    listens
}

fn advertised(
    flag: &str,
    urls: &[String],
    listen: &[String],
    faults: &mut Vec<String>,
) -> Vec<String> {
    let given = if urls.is_empty() { listen } else { urls };
    if !urls.is_empty() {
        for url in urls {
            check(flag, url, faults);
        }
    } else if listen.iter().any(|url| url.contains("://0.0.0.0:") || url.contains("://[::]:")) {
        faults.push(format!("{flag} is missing: nobody can connect to an unspecified address"));
    }
    given.iter().map(|url| url.trim_end_matches('/').to_owned()).collect()
}

/// A name that is given several times has several URLs.
fn initial_cluster(members: &[String], faults: &mut Vec<String>) -> Vec<InitialMember> {
    let mut cluster: Vec<InitialMember> = Vec::new();
    for member in members {
        let Some((name, url)) = member.split_once('=') else {
            faults.push(format!("--initial-cluster {member}: must be NAME=URL"));
            continue;
        };
        check("--initial-cluster", url, faults);
        let url = url.trim_end_matches('/').to_owned();
        match cluster.iter_mut().find(|member| member.name == name) {
            Some(member) => member.peer_urls.push(url),
            None => cluster.push(InitialMember { name: name.to_owned(), peer_urls: vec![url] }),
        }
    }
    cluster
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        store: StoreArgs,
    }

    fn parse(args: &str) -> Result<Settings, Vec<String>> {
        let words = std::iter::once("store").chain(args.split_whitespace());
        Program::parse_from(words).store.settings().map_err(|faults| faults.0)
    }

    #[test]
    fn a_member_of_three() {
        let settings = parse(
            "--name b --listen-client-urls http://127.0.0.1:12379 \
             --listen-peer-urls http://127.0.0.1:12380 \
             --initial-cluster a=http://127.0.0.1:22380,b=http://127.0.0.1:12380",
        );
        let settings = settings.unwrap_or_else(|faults| panic!("{faults:?}"));
        assert_eq!(settings.config.peer_urls, ["http://127.0.0.1:12380"]);
        assert_eq!(settings.config.client_urls, ["http://127.0.0.1:12379"]);
        assert_eq!(settings.config.initial_cluster.len(), 2);
        assert_eq!(settings.peers[0].address.port(), 12380);
    }

    #[test]
    fn all_faults_at_once_with_how_to_mend_them() {
        let faults = parse(
            "--listen-client-urls http://10.0.0.1:2379 --listen-peer-urls https://10.0.0.1:2380 \
             --initial-cluster a --initial-cluster-state existing --cert-file /nowhere/cert \
             --election-timeout 300",
        );
        let faults = faults.err().expect("refused");
        for expected in [
            "--cert-file /nowhere/cert: No such file or directory",
            "--key-file is missing: --cert-file, --key-file, --trusted-ca-file go together",
            "--listen-client-urls http://10.0.0.1:2379: plain http is for loopback only",
            "--listen-peer-urls: https needs --peer-cert-file",
            "--initial-cluster a: must be NAME=URL",
            "election timeout: must be at least five heartbeat intervals",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:#?}");
        }
    }

    #[test]
    fn urls_have_a_host_and_a_port() {
        assert_eq!(split("https://a.example:2380/"), Ok(("a.example", 2380, true)));
        assert!(split("10.0.0.1:2380").is_err());
        assert!(split("http://10.0.0.1").is_err());
        assert!(is_loopback("[::1]") && is_loopback("localhost") && !is_loopback("10.0.0.1"));
    }
}
