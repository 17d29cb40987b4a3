//! Docker's image references: `busybox` is `docker.io/library/busybox:latest`. The words of the errors
//! are those of the reference implementation (`distribution/reference`), which kubelets show.

use std::fmt;

use crate::ports::RuntimeError;

const DEFAULT_DOMAIN: &str = "docker.io";
const NAME_MAX_CHARS: usize = 255;
const TAG_MAX_CHARS: usize = 128;

/// A normalised reference: always a domain and a path, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    pub domain: String,
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    pub fn parse(text: &str) -> Result<Reference, RuntimeError> {
        parse(text).map_err(|why| RuntimeError::InvalidImageName {
            reference: text.to_owned(),
            why: format!("couldn't parse image name {text:?}: {why}"),
        })
    }

    /// `docker.io/library/busybox`
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The host that serves it: docker.io itself does not.
    pub fn registry_host(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { &self.domain }
    }

    /// Whether plain http may be spoken: only to this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.domain.rsplit_once(':').map_or(self.domain.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon after the last slash starts the tag; one before it belongs to a port.
    let name_start = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[name_start..].split_once(':') {
        Some((last, tag)) => (&rest[..name_start + last.len()], Some(tag)),
        None => (rest, None),
    };
    if name.is_empty() {
        return Err("invalid reference format".to_owned());
    }
    if name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(format!(
            "invalid repository name ({name}), cannot specify 64-byte hexadecimal strings"
        ));
    }
    let (domain, path) = split_domain(name);
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!(
            "invalid reference format: repository name ({path}) must be lowercase"
        ));
    }
    if !valid_domain(&domain) || !path.split('/').all(valid_component) || !tag.is_none_or(valid_tag)
    {
        return Err("invalid reference format".to_owned());
    }
    if domain.len() + 1 + path.len() > NAME_MAX_CHARS {
        return Err(format!("repository name must not be more than {NAME_MAX_CHARS} characters"));
    }
    if let Some(digest) = digest {
        check_digest(digest)?;
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { domain, path, tag, digest: digest.map(str::to_owned) })
}

/// The first part is a host when it looks like one: a dot, a port, capitals, or `localhost`.
fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.to_owned(), format!("library/{path}"));
    }
    (domain.to_owned(), path.to_owned())
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let valid_port =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return valid_port && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    valid_port
        && host.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// Letters and digits, joined by one dot, one or two underscores, or dashes.
fn valid_component(component: &str) -> bool {
    let mut words = 0;
    let mut rest = component;
    loop {
        let word =
            rest.bytes().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if word == 0 {
            return false;
        }
        words += 1;
        rest = &rest[word..];
        if rest.is_empty() {
            return words > 0;
        }
        let joint = rest.bytes().take_while(|b| matches!(b, b'.' | b'_' | b'-')).count();
        let (between, next) = rest.split_at(joint);
        if !(between == "."
            || between == "_"
            || between == "__"
            || between.bytes().all(|b| b == b'-') && joint > 0)
        {
            return false;
        }
        rest = next;
    }
}

fn valid_tag(tag: &str) -> bool {
    tag.len() <= TAG_MAX_CHARS
        && tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn check_digest(digest: &str) -> Result<(), String> {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return Err("invalid reference format".to_owned());
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return Err("unsupported digest algorithm".to_owned()),
    };
    if hex.len() != length {
        return Err("invalid checksum digest length".to_owned());
    }
    if !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("invalid checksum digest format".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let got = match parse(text) {
            Ok(reference) => reference.to_string(),
            Err(why) => format!("error: {why}"),
        };
        assert_eq!(got, expect, "of {text}");
    }

    #[test]
    fn names_are_completed() {
        check("busybox", "docker.io/library/busybox:latest");
        check("busybox:1.36", "docker.io/library/busybox:1.36");
        check("grafana/grafana", "docker.io/grafana/grafana:latest");
        check("index.docker.io/busybox", "docker.io/library/busybox:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/a/b:v1", "localhost:5000/a/b:v1");
        check("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest");
        check("[::1]:5000/app", "[::1]:5000/app:latest");
        check("quay.io/a/b_c/d--e.f", "quay.io/a/b_c/d--e.f:latest");
        check("foo/bar:5000", "docker.io/foo/bar:5000");
        let digest = format!("sha256:{}", "a".repeat(64));
        check(&format!("busybox@{digest}"), &format!("docker.io/library/busybox@{digest}"));
        check(&format!("busybox:1@{digest}"), &format!("docker.io/library/busybox:1@{digest}"));
    }

    #[test]
    fn bad_names_are_refused_in_upstreams_words() {
        check("", "error: invalid reference format");
        check(":tag", "error: invalid reference format");
        check(
            "UPPER",
            "error: invalid reference format: repository name (library/UPPER) must be lowercase",
        );
        check("a//b", "error: invalid reference format");
        check("a..b", "error: invalid reference format");
        check("-a", "error: invalid reference format");
        check("a b", "error: invalid reference format");
        check("a:tag with space", "error: invalid reference format");
        check("a:", "error: invalid reference format");
        check("a@sha256:abc", "error: invalid checksum digest length");
        check("a@md5:abc", "error: unsupported digest algorithm");
        check(
            &"a".repeat(64),
            &format!(
                "error: invalid repository name ({}), cannot specify 64-byte hexadecimal strings",
                "a".repeat(64)
            ),
        );
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        let loopback = |text: &str| parse(text).expect("valid").is_loopback();
        assert!(loopback("localhost:5000/a"));
        assert!(loopback("127.0.0.1:5000/a"));
        assert!(loopback("[::1]:5000/a"));
        assert!(!loopback("10.0.0.1:5000/a"));
        assert!(!loopback("busybox"));
    }
}
