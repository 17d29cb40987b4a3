//! kubeconfig files, as kubectl reads and writes them: clusters, users, and contexts that
//! join one of each. Certificates are in the file (base64) or named by path.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::grpc::Server;

#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("{operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("kubeconfig {}: {why}", path.display())]
    Syntax { path: PathBuf, why: String },
    #[error("kubeconfig {}: {what} {name:?} is not in it", path.display())]
    Missing { path: PathBuf, what: &'static str, name: String },
    #[error("kubeconfig {}: {field} is not base64: {source}", path.display())]
    Base64 { path: PathBuf, field: &'static str, source: base64::DecodeError },
}

/// A kubeconfig file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    pub kind: String,
    pub clusters: Vec<Named<ClusterItem>>,
    pub users: Vec<Named<UserItem>>,
    pub contexts: Vec<Named<ContextItem>>,
    pub current_context: String,
    /// Where it was read: relative paths in it start there.
    #[serde(skip)]
    path: PathBuf,
}

/// One entry of a list: its name, and what it is under the key of its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named<T> {
    pub name: String,
    #[serde(flatten)]
    pub item: T,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterItem {
    pub cluster: Cluster,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserItem {
    pub user: UserAuth,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContextItem {
    pub context: Context,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    pub server: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_authority: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate_authority_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_server_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct UserAuth {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_certificate: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_certificate_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_key_data: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    pub cluster: String,
    pub user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

impl Default for Kubeconfig {
    fn default() -> Self {
        Self {
            api_version: "v1".into(),
            kind: "Config".into(),
            clusters: Vec::new(),
            users: Vec::new(),
            contexts: Vec::new(),
            current_context: String::new(),
            path: PathBuf::new(),
        }
    }
}

impl Kubeconfig {
    /// A file with one cluster, one user and one context, all named `name`.
    pub fn single(name: &str, server: &Server) -> Self {
        let cluster = Cluster {
            server: server.url.clone(),
            certificate_authority_data: STANDARD.encode(&server.ca_pem),
            tls_server_name: server.tls_name.clone(),
            ..Cluster::default()
        };
        let user = UserAuth {
            client_certificate_data: STANDARD.encode(&server.cert_pem),
            client_key_data: STANDARD.encode(&server.key_pem),
            ..UserAuth::default()
        };
        let context = Context { cluster: name.into(), user: name.into(), ..Context::default() };
        Self {
            clusters: vec![Named { name: name.into(), item: ClusterItem { cluster } }],
            users: vec![Named { name: name.into(), item: UserItem { user } }],
            contexts: vec![Named { name: name.into(), item: ContextItem { context } }],
            current_context: name.into(),
            ..Self::default()
        }
    }

    pub fn load(path: &Path) -> Result<Self, KubeconfigError> {
        let text = read(path)?;
        let mut config: Self = serde_saphyr::from_str(&text).map_err(|error| {
            // The parser's own words quote the file, and keys are in it.
            let at =
                error.location().map(|at| format!(" at line {}", at.line())).unwrap_or_default();
            KubeconfigError::Syntax { path: path.into(), why: format!("it is no kubeconfig{at}") }
        })?;
        config.path = path.into();
        Ok(config)
    }

    /// Writes it so that only the owner can read it: the key in it is the user.
    pub fn write(&self, path: &Path) -> Result<(), KubeconfigError> {
        // One line for each certificate, as kubectl writes them.
        let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
        let text = serde_saphyr::to_string_with_options(self, options).map_err(|error| {
            KubeconfigError::Syntax { path: path.into(), why: error.to_string() }
        })?;
        skiff_kit::pki::write_private(path, text.as_bytes()).map_err(|error| {
            let source = std::io::Error::other(error.to_string());
            KubeconfigError::Io { operation: "writing", path: path.into(), source }
        })
    }

    /// The context of that name; empty: the current one.
    pub fn context(&self, name: &str) -> Result<&Context, KubeconfigError> {
        let name = if name.is_empty() { &self.current_context } else { name };
        let found = self.contexts.iter().find(|c| c.name == name);
        found.map(|c| &c.item.context).ok_or_else(|| self.missing("context", name))
    }

    /// What the context connects to, files read. An empty name: the current context.
    pub fn to_endpoint(&self, context: &str) -> Result<Server, KubeconfigError> {
        let context = self.context(context)?;
        let cluster = self.clusters.iter().find(|c| c.name == context.cluster);
        let cluster = cluster.ok_or_else(|| self.missing("cluster", &context.cluster))?;
        let user = self.users.iter().find(|u| u.name == context.user);
        let user = &user.ok_or_else(|| self.missing("user", &context.user))?.item.user;
        let cluster = &cluster.item.cluster;
        Ok(Server {
            url: cluster.server.clone(),
            ca_pem: self.pem(
                "certificate-authority-data",
                &cluster.certificate_authority_data,
                &cluster.certificate_authority,
            )?,
            cert_pem: self.pem(
                "client-certificate-data",
                &user.client_certificate_data,
                &user.client_certificate,
            )?,
            key_pem: self.pem("client-key-data", &user.client_key_data, &user.client_key)?,
            tls_name: cluster.tls_server_name.clone(),
        })
    }

    /// Data wins over a file, as in kubectl.
    fn pem(&self, field: &'static str, data: &str, file: &str) -> Result<String, KubeconfigError> {
        if !data.is_empty() {
            let bytes = STANDARD.decode(data.trim()).map_err(|source| KubeconfigError::Base64 {
                path: self.path.clone(),
                field,
                source,
            })?;
            return String::from_utf8(bytes).map_err(|_| KubeconfigError::Syntax {
                path: self.path.clone(),
                why: format!("{field} is not PEM text"),
            });
        }
        if file.is_empty() {
            return Ok(String::new());
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        read(&folder.join(file))
    }

    fn missing(&self, what: &'static str, name: &str) -> KubeconfigError {
        KubeconfigError::Missing { path: self.path.clone(), what, name: name.into() }
    }
}

fn read(path: &Path) -> Result<String, KubeconfigError> {
    std::fs::read_to_string(path).map_err(|source| KubeconfigError::Io {
        operation: "reading",
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server {
            url: "https://127.0.0.1:6443".into(),
            ca_pem: "CA".into(),
            cert_pem: "CERT".into(),
            key_pem: "KEY".into(),
            tls_name: String::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config");
        Kubeconfig::single("skiff", &server()).write(&path).expect("writes");
        let read = Kubeconfig::load(&path).expect("reads");
        assert_eq!(read.to_endpoint("").expect("an endpoint"), server());
        assert_eq!(read.to_endpoint("skiff").expect("an endpoint"), server());
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).expect("there").permissions(),
        );
        assert_eq!(mode & 0o077, 0);
    }

    #[test]
    fn a_file_of_kubectl_with_paths() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in [("ca.crt", "CA"), ("c.crt", "CERT"), ("c.key", "KEY")] {
            std::fs::write(dir.path().join(name), text).expect("writes");
        }
        let text = "
apiVersion: v1
kind: Config
preferences: {}
clusters:
- cluster:
    certificate-authority: ca.crt
    server: https://127.0.0.1:6443
  name: k
users:
- name: admin
  user:
    client-certificate: c.crt
    client-key: c.key
contexts:
- context: {cluster: k, user: admin, namespace: web}
  name: dev
current-context: dev
";
        let path = dir.path().join("config");
        std::fs::write(&path, text).expect("writes");
        let config = Kubeconfig::load(&path).expect("reads");
        assert_eq!(config.context("").expect("current").namespace, "web");
        assert_eq!(config.to_endpoint("dev").expect("an endpoint"), server());
        let missing = config.to_endpoint("prod").expect_err("no such context");
        assert!(missing.to_string().contains("context \"prod\" is not in it"), "{missing}");
    }
}
