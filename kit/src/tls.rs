//! rustls configurations from the cluster's certificates, and who a peer is.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::pki::Identity;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS configuration: {0}")]
    Config(String),
}

/// Who a client certificate says it is: its common name and organizations, as Kubernetes
/// reads user and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// What a server asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate, no connection.
    Required,
    /// The request decides; a certificate that is given must be good.
    Optional,
}

/// Makes ring the process's cryptography. Call it once, first thing in `main`; repeating it is harmless.
pub fn install_provider() {
    // An error means that another call was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A server that proves `identity` and accepts clients of `client_ca_pem`, for HTTP/2 and HTTP/1.1.
pub fn server_config(
    identity: &Identity,
    client_ca_pem: &str,
    client_auth: ClientAuth,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(client_ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let verifier = match client_auth {
        ClientAuth::Required => verifier,
        ClientAuth::Optional => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(config)?;
    let (chain, key) = chain_and_key(identity)?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(config)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(config)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}

/// A client that trusts `ca_pem` and shows `identity` when asked.
pub fn client_config(ca_pem: &str, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(config)?
        .with_root_certificates(roots(ca_pem)?);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (chain, key) = chain_and_key(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(config)
        }
    }
}

/// Reads the peer from its certificate.
pub fn peer(certificate: &CertificateDer<'_>) -> Result<Peer, TlsError> {
    let (_, cert) = x509_parser::parse_x509_certificate(certificate).map_err(config)?;
    let text =
        |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
    let subject = cert.subject();
    Ok(Peer {
        common_name: subject.iter_common_name().find_map(text).unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
    })
}

fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        store.add(cert.map_err(config)?).map_err(config)?;
    }
    if store.is_empty() {
        return Err(TlsError::Config("the CA file holds no certificate".into()));
    }
    Ok(store)
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn chain_and_key(identity: &Identity) -> Result<ChainAndKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(config)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(config)?;
    Ok((chain, key))
}

fn config(why: impl std::fmt::Display) -> TlsError {
    TlsError::Config(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Ca, LEAF_LIFETIME, Request};

    #[test]
    fn a_peer_is_its_common_name_and_organization() {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Ca::load_or_create(dir.path(), "ca").expect("a CA");
        let request = Request {
            common_name: "system:node:n1".into(),
            organization: Some("system:nodes".into()),
            ..Default::default()
        };
        let identity = ca.issue(&request, LEAF_LIFETIME).expect("issues");
        let der = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).expect("PEM");
        let peer = peer(&der).expect("reads");
        assert_eq!(peer.common_name, "system:node:n1");
        assert_eq!(peer.organizations, ["system:nodes"]);
        server_config(&identity, &ca.cert_pem, ClientAuth::Required).expect("a server");
        client_config(&ca.cert_pem, Some(&identity)).expect("a client");
    }
}
