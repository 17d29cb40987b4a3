//! The syntax of names, labels, ports and addresses, with upstream's explanations. Each check
//! returns the faults found; none means valid.

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED_SHAPE: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

pub(in crate::registry) type Faults = Vec<String>;

fn too_long(bytes: usize) -> String {
    format!("must be no more than {bytes} bytes")
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Starts and ends with `edge`, and `inner` or `edge` between.
fn shaped(text: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    edge(*first) && edge(*last) && bytes.iter().all(|b| edge(*b) || inner.contains(b))
}

fn is_label(text: &str) -> bool {
    shaped(text, lower, b"-")
}

fn faults(long: bool, max: usize, shape: bool, explanation: &str) -> Faults {
    let mut faults = Faults::new();
    if long {
        faults.push(too_long(max));
    }
    if !shape {
        faults.push(explanation.to_owned());
    }
    faults
}

pub(in crate::registry) fn dns_label(text: &str) -> Faults {
    faults(text.len() > LABEL_MAX, LABEL_MAX, is_label(text), LABEL_1123)
}

pub(in crate::registry) fn dns_1035_label(text: &str) -> Faults {
    let shape = is_label(text) && text.as_bytes()[0].is_ascii_lowercase();
    faults(text.len() > LABEL_MAX, LABEL_MAX, shape, LABEL_1035)
}

pub(in crate::registry) fn subdomain(text: &str) -> Faults {
    let shape = text.split('.').all(is_label);
    faults(text.len() > SUBDOMAIN_MAX, SUBDOMAIN_MAX, shape, SUBDOMAIN_1123)
}

pub(in crate::registry) fn wildcard_subdomain(text: &str) -> Faults {
    let shape = text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label));
    faults(text.len() > SUBDOMAIN_MAX, SUBDOMAIN_MAX, shape, WILDCARD)
}

/// A segment of a URL path: what every name must be at least.
pub(in crate::registry) fn path_segment(text: &str) -> Faults {
    match text {
        "." | ".." => return vec![format!("may not be '{text}'")],
        _ => {}
    }
    let forbidden = ["/", "%"].iter().filter(|c| text.contains(**c));
    forbidden.map(|c| format!("may not contain '{c}'")).collect()
}

fn qualified_part(text: &str) -> bool {
    shaped(text, |b| b.is_ascii_alphanumeric(), b"-_.")
}

/// A label key: a name, perhaps after a DNS prefix and `/`.
pub(in crate::registry) fn qualified_name(text: &str) -> Faults {
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((_, rest)) if rest.contains('/') => return vec![QUALIFIED_SHAPE.to_owned()],
        Some((prefix, name)) => (Some(prefix), name),
    };
    let mut found = Faults::new();
    match prefix {
        Some("") => found.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            found.extend(subdomain(prefix).into_iter().map(|f| format!("prefix part {f}")));
        }
        None => {}
    }
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        found.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !qualified_part(name) {
        found.push(QUALIFIED.to_owned());
    }
    found
}

pub(in crate::registry) fn label_value(text: &str) -> Faults {
    let shape = text.is_empty() || qualified_part(text);
    faults(text.len() > LABEL_MAX, LABEL_MAX, shape, LABEL_VALUE)
}

/// The name of a port in a container or a service: IANA's.
pub(in crate::registry) fn port_name(text: &str) -> Faults {
    let mut found = Faults::new();
    if text.len() > 15 {
        found.push("must be no more than 15 characters".to_owned());
    }
    if !text.bytes().all(|b| lower(b) || b == b'-') {
        found.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        found.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        found.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        found.push("must not begin or end with a hyphen".to_owned());
    }
    found
}

pub(in crate::registry) fn port_number(port: i64) -> Faults {
    if (1..=65535).contains(&port) {
        Faults::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

pub(in crate::registry) fn env_name(text: &str) -> Faults {
    let shape = text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=');
    if shape && !text.is_empty() { Faults::new() } else { vec![ENV_NAME.to_owned()] }
}

/// A key of a ConfigMap or a Secret: a file name.
pub(in crate::registry) fn config_key(text: &str) -> Faults {
    let shape =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let mut found = faults(text.len() > SUBDOMAIN_MAX, SUBDOMAIN_MAX, shape, CONFIG_KEY);
    match text {
        "." => found.push("must not be '.'".to_owned()),
        ".." => found.push("must not be '..'".to_owned()),
        text if text.starts_with("..") => found.push("must not start with '..'".to_owned()),
        _ => {}
    }
    found
}

pub(in crate::registry) fn ip(text: &str) -> Faults {
    // Rust refuses leading zeros and prefixes, as upstream's strict parser does.
    if text.parse::<std::net::IpAddr>().is_ok() {
        Faults::new()
    } else {
        vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
    }
}

pub(in crate::registry) fn cidr(text: &str) -> Faults {
    let valid = text.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    if valid {
        Faults::new()
    } else {
        vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
    }
}

/// `25%`: the texts an int-or-string that counts may have.
pub(in crate::registry) fn percent(text: &str) -> Faults {
    let digits = text.strip_suffix('%');
    if digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())) {
        Faults::new()
    } else {
        vec!["a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (check, good, bad) in [
            (dns_label as fn(&str) -> Faults, "web-1", vec!["Web", "-web", "web-", "a.b", ""]),
            (dns_1035_label, "web-1", vec!["1web", "web.x", ""]),
            (subdomain, "a.b-c.d", vec!["a..b", ".a", "A.b", "a_b"]),
            (wildcard_subdomain, "*.a.b", vec!["*.", "a.*.b", "*.*.a"]),
            (qualified_name, "app.kubernetes.io/name_1", vec!["/x", "a/b/c", "A!/b", "x/"]),
            (label_value, "A_b.c-1", vec!["-a", "a b", "a/b"]),
            (port_name, "http-2", vec!["80", "a--b", "-a", "sixteen-letters-x", "HTTP"]),
            (env_name, "MY.VAR-1", vec!["", "A=B", "ü"]),
            (config_key, "app.conf", vec!["a/b", "..", "..x", ""]),
            (ip, "10.0.0.1", vec!["010.0.0.1", "10.0.0", "x"]),
            (cidr, "10.0.0.0/8", vec!["10.0.0.0", "10.0.0.0/33", "x/8"]),
            (percent, "25%", vec!["25", "%", "-1%"]),
        ] {
            assert_eq!(check(good), Faults::new(), "{good}");
            for text in bad {
                assert!(!check(text).is_empty(), "{text}");
            }
        }
        assert_eq!(label_value(""), Faults::new());
    }

    #[test]
    fn length_is_told_apart_from_shape() {
        assert_eq!(dns_label(&"a".repeat(64)), vec!["must be no more than 63 bytes"]);
        assert_eq!(dns_label(&"A".repeat(64)).len(), 2);
    }
}
