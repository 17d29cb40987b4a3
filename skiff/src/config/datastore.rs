//! Which etcd cluster is used instead of the embedded store, with k3s' flag names.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use skiff_store::remote::{Options, Tls};

use super::Faults;

/// A cluster, and the files that open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datastore {
    pub endpoints: Vec<String>,
    pub ca_file: Option<PathBuf>,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Datastore {
    /// `files`: of the CA, the certificate and the key.
    pub(super) fn checked(
        endpoints: Vec<String>,
        files: [Option<PathBuf>; 3],
        faults: &mut Faults,
    ) -> Option<Self> {
        let [ca_file, cert, key] = files;
        let endpoints: Vec<_> = endpoints
            .into_iter()
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty())
            .collect();
        if endpoints.is_empty() {
            for (flag, file) in [
                ("datastore-cafile", &ca_file),
                ("datastore-certfile", &cert),
                ("datastore-keyfile", &key),
            ] {
                if let Some(file) = file {
                    faults.add(flag, file.display(), "needs --datastore-endpoint");
                }
            }
            return None;
        }
        for url in &endpoints {
            if let Some(why) = fault(url, ca_file.is_some()) {
                faults.add("datastore-endpoint", url, why);
            }
        }
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(cert), None) => {
                faults.add("datastore-certfile", cert.display(), "needs --datastore-keyfile");
                None
            }
            (None, Some(key)) => {
                faults.add("datastore-keyfile", key.display(), "needs --datastore-certfile");
                None
            }
        };
        Some(Self { endpoints, ca_file, identity })
    }

    /// With what the files hold.
    pub fn options(&self) -> anyhow::Result<Options> {
        let read = |flag: &str, path: &PathBuf| {
            std::fs::read_to_string(path)
                .with_context(|| format!("read --datastore-{flag} {}", path.display()))
        };
        let identity = match &self.identity {
            Some((cert, key)) => Some((read("certfile", cert)?, read("keyfile", key)?)),
            None => None,
        };
        let tls = match &self.ca_file {
            Some(path) => Some(Tls { ca_pem: read("cafile", path)?, identity }),
            None => None,
        };
        Ok(Options { endpoints: self.endpoints.clone(), tls, ..Default::default() })
    }
}

fn fault(url: &str, has_ca: bool) -> Option<&'static str> {
    if url.starts_with("https://") {
        return (!has_ca).then_some("needs --datastore-cafile");
    }
    let Some(rest) = url.strip_prefix("http://") else {
        return Some("is no https://HOST:PORT of an etcd cluster");
    };
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    (!local).then_some("would send Secrets in the clear: http is for loopback only, use https")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, files: [Option<&str>; 3], expect: &str) {
        let mut faults = Faults::default();
        let files = files.map(|file| file.map(PathBuf::from));
        let urls = url.split(',').map(str::to_owned).collect();
        Datastore::checked(urls, files, &mut faults);
        let text = faults.finish().map_or_else(|error| error.to_string(), |()| "good".into());
        assert!(text.contains(expect), "{url}: {text}");
    }

    #[test]
    fn what_does_not_fit_together_is_said_before_anything_is_opened() {
        let all = [Some("ca"), Some("cert"), Some("key")];
        check("https://a:2379,https://b:2379/", all, "good");
        check("http://127.0.0.1:2379,http://[::1]:2379,http://localhost:2379", [None; 3], "good");
        check(
            "https://a:2379",
            [None; 3],
            "--datastore-endpoint https://a:2379 needs --datastore-cafile",
        );
        check("http://10.0.0.1:2379", [None; 3], "loopback only");
        check("mysql://a", all, "--datastore-endpoint mysql://a is no https://HOST:PORT");
        check("https://a:1", [Some("ca"), Some("c"), None], "--datastore-certfile c needs");
        check("https://a:1", [Some("ca"), None, Some("k")], "--datastore-keyfile k needs");
        check("", all, "--datastore-cafile ca needs --datastore-endpoint");
    }
}
