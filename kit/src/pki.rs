//! The cluster's own certificate authorities and the certificates they issue.
//!
//! Files are written whole (temp, fsync, rename), keys with mode 0600, so that a power loss
//! never leaves half a certificate.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

/// How long an authority is valid.
pub const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long what it issues is valid; renewed at two thirds of it.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Backdated by this much, so that a member whose clock is a little behind accepts it.
const BACKDATE: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("certificate {name}: {why}")]
    Certificate { name: String, why: String },
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

/// What a certificate is to say.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The user's name, or the server's.
    pub common_name: String,
    /// The user's group. One, since that is what the certificate library can write.
    pub organization: Option<String>,
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
}

/// A certificate authority.
pub struct Ca {
    name: String,
    pub cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Reads `<dir>/<name>.crt` and `.key`, or makes them at the first start.
    pub fn load_or_create(dir: &Path, name: &str) -> Result<Self, PkiError> {
        let (cert_path, key_path) =
            (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        if !cert_path.exists() {
            let key = KeyPair::generate().map_err(|e| fault(name, e))?;
            let params = ca_params(name);
            let cert = params.self_signed(&key).map_err(|e| fault(name, e))?;
            // The key first: a certificate without its key would be taken for a whole CA.
            write_private(&key_path, key.serialize_pem().as_bytes())?;
            write_private(&cert_path, cert.pem().as_bytes())?;
        }
        Self::from_pem(name, read(&cert_path)?, &read(&key_path)?)
    }

    pub fn from_pem(name: &str, cert_pem: String, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(|e| fault(name, e))?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key).map_err(|e| fault(name, e))?;
        Ok(Self { name: name.into(), cert_pem, issuer })
    }

    /// Issues a certificate for both sides of TLS, valid from now.
    pub fn issue(&self, request: &Request, lifetime: Duration) -> Result<Identity, PkiError> {
        let name = &request.common_name;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        if let Some(organization) = &request.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        for dns in &request.dns_names {
            let dns = dns.as_str().try_into().map_err(|e| fault(name, e))?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params.subject_alt_names.extend(request.ips.iter().copied().map(SanType::IpAddress));
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(now + lifetime);
        let key = KeyPair::generate().map_err(|e| fault(name, e))?;
        let cert = params.signed_by(&key, &self.issuer).map_err(|e| fault(name, e))?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Reads `<dir>/<file>.crt` and `.key`; issues them anew when they are missing, past two
    /// thirds of their life, of another authority, or lack a name that is asked for now.
    pub fn load_or_issue(
        &self,
        dir: &Path,
        file: &str,
        request: &Request,
    ) -> Result<Identity, PkiError> {
        let (cert_path, key_path) =
            (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        if cert_path.exists() && key_path.exists() {
            let identity = Identity { cert_pem: read(&cert_path)?, key_pem: read(&key_path)? };
            if self.still_good(&identity, request, SystemTime::now()) {
                return Ok(identity);
            }
            tracing::info!(certificate = file, authority = self.name, "renewing certificate");
        }
        let identity = self.issue(request, LEAF_LIFETIME)?;
        write_private(&key_path, identity.key_pem.as_bytes())?;
        write_private(&cert_path, identity.cert_pem.as_bytes())?;
        Ok(identity)
    }

    fn still_good(&self, identity: &Identity, request: &Request, now: SystemTime) -> bool {
        let facts = |pem: &str| Facts::read(pem).ok();
        let (Some(leaf), Some(ca)) = (facts(&identity.cert_pem), facts(&self.cert_pem)) else {
            return false;
        };
        let named = request.dns_names.iter().all(|name| leaf.dns_names.contains(name))
            && request.ips.iter().all(|ip| leaf.ips.contains(ip));
        leaf.issuer_key == ca.key && named && now < leaf.renew_at()
    }
}

/// What a certificate says, as far as renewal needs it.
struct Facts {
    not_before: SystemTime,
    not_after: SystemTime,
    key: Vec<u8>,
    issuer_key: Vec<u8>,
    dns_names: Vec<String>,
    ips: Vec<IpAddr>,
}

impl Facts {
    fn read(pem: &str) -> Result<Self, String> {
        use x509_parser::prelude::{GeneralName, ParsedExtension};
        let (_, block) =
            x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| e.to_string())?;
        let cert = block.parse_x509().map_err(|e| e.to_string())?;
        let at = |t: x509_parser::time::ASN1Time| SystemTime::from(t.to_datetime());
        let mut facts = Self {
            not_before: at(cert.validity().not_before),
            not_after: at(cert.validity().not_after),
            key: Vec::new(),
            issuer_key: Vec::new(),
            dns_names: Vec::new(),
            ips: Vec::new(),
        };
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => facts.key = id.0.to_vec(),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.issuer_key =
                        id.key_identifier.as_ref().map(|k| k.0.to_vec()).unwrap_or_default();
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::DNSName(dns) => facts.dns_names.push((*dns).to_owned()),
                            GeneralName::IPAddress(bytes) => {
                                facts.ips.extend(ip_from_octets(bytes))
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life * 2 / 3
    }
}

fn ip_from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("skiff {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    let now = SystemTime::now();
    params.not_before = OffsetDateTime::from(now - BACKDATE);
    params.not_after = OffsetDateTime::from(now + CA_LIFETIME);
    params
}

fn fault(name: &str, why: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate { name: name.into(), why: why.to_string() }
}

fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::Io {
        operation: "read",
        path: path.into(),
        source,
    })
}

/// Writes a file that only its owner may read: temp, fsync, rename, fsync of the folder.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let whole = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let temp = path.with_extension("tmp");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temp, path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    whole().map_err(|source| PkiError::Io { operation: "write", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(ips: &[&str]) -> Request {
        Request {
            common_name: "node".into(),
            organization: Some("system:nodes".into()),
            dns_names: vec!["localhost".into()],
            ips: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
        }
    }

    #[test]
    fn keeps_a_certificate_until_it_no_longer_fits() {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Ca::load_or_create(dir.path(), "cluster-ca").expect("a CA");
        let first = ca.load_or_issue(dir.path(), "node", &request(&["10.0.0.1"])).expect("issues");
        let again = ca.load_or_issue(dir.path(), "node", &request(&["10.0.0.1"])).expect("loads");
        assert_eq!(first.cert_pem, again.cert_pem);
        let moved = ca.load_or_issue(dir.path(), "node", &request(&["10.0.0.2"])).expect("renews");
        assert_ne!(first.cert_pem, moved.cert_pem, "the new address is not in the old certificate");
    }

    #[test]
    fn renews_after_two_thirds_of_its_life_or_for_another_authority() {
        let dir = tempfile::tempdir().expect("a folder");
        let ca = Ca::load_or_create(dir.path(), "cluster-ca").expect("a CA");
        let identity = ca.issue(&request(&[]), LEAF_LIFETIME).expect("issues");
        let now = SystemTime::now();
        assert!(ca.still_good(&identity, &request(&[]), now + LEAF_LIFETIME * 6 / 10));
        assert!(!ca.still_good(&identity, &request(&[]), now + LEAF_LIFETIME * 7 / 10));
        let other = Ca::load_or_create(dir.path(), "other-ca").expect("a CA");
        assert!(!other.still_good(&identity, &request(&[]), now));
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        Ca::load_or_create(dir.path(), "cluster-ca").expect("a CA");
        let mode = std::fs::metadata(dir.path().join("cluster-ca.key"))
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
