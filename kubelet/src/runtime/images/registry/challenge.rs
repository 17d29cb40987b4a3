//! What a registry answers to those it does not know: `WWW-Authenticate` (RFC 9110, 11.6.1), and where a
//! token can be had (distribution's token authentication).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Unreserved characters of RFC 3986 stay as they are.
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Challenge {
    /// The first challenge of a header that can be answered.
    pub fn parse(header: &str) -> Option<Challenge> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = Default::default();
        for (name, value) in Parameters(parameters) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = value,
                "service" => service = value,
                "scope" => scope = value,
                _ => {}
            }
        }
        (!realm.is_empty()).then_some(Challenge::Bearer { realm, service, scope })
    }
}

/// The address of a token that allows to pull from a repository.
pub fn token_url(realm: &str, service: &str, scope: &str, repository: &str) -> String {
    let pull = format!("repository:{repository}:pull");
    let scope = if scope.is_empty() { pull.as_str() } else { scope };
    let joint = if realm.contains('?') { '&' } else { '?' };
    let encode = |text| utf8_percent_encode(text, QUERY).to_string();
    let service = if service.is_empty() { None } else { Some(encode(service)) };
    let service = service.map(|service| format!("service={service}&")).unwrap_or_default();
    // Several scopes are told apart by blanks, and asked for one by one.
    let scopes: Vec<String> =
        scope.split_whitespace().map(|one| format!("scope={}", encode(one))).collect();
    format!("{realm}{joint}{service}{}", scopes.join("&"))
}

/// `name=value` and `name="quoted value"`, separated by commas.
struct Parameters<'a>(&'a str);

impl Iterator for Parameters<'_> {
    type Item = (String, String);

    fn next(&mut self) -> Option<(String, String)> {
        let (name, rest) = self.0.trim_start_matches([',', ' ', '\t']).split_once('=')?;
        let rest = rest.trim_start();
        let mut value = String::new();
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            self.0 = &rest[end..];
            return Some((name.trim().to_owned(), rest[..end].trim().to_owned()));
        };
        let mut characters = quoted.char_indices();
        self.0 = "";
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    break;
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                other => value.push(other),
            }
        }
        Some((name.trim().to_owned(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_server_of_docker_hub_is_found() {
        let header = r#"Bearer realm="https://auth.docker.test/token",service="registry.docker.test",scope="repository:library/busybox:pull""#;
        let Some(Challenge::Bearer { realm, service, scope }) = Challenge::parse(header) else {
            panic!("no bearer challenge");
        };
        assert_eq!(
            token_url(&realm, &service, &scope, "library/busybox"),
            "https://auth.docker.test/token?service=registry.docker.test&scope=repository:library/busybox:pull"
        );
    }

    #[test]
    fn quotes_escapes_and_missing_parts() {
        let parsed = Challenge::parse(
            r#"bearer Realm = "https://a/\"t\"?x=1" , service=s p, scope="a,b c""#,
        );
        let (realm, service, scope) =
            (r#"https://a/"t"?x=1"#.to_owned(), "s p".to_owned(), "a,b c".to_owned());
        assert_eq!(
            parsed,
            Some(Challenge::Bearer {
                realm: realm.clone(),
                service: service.clone(),
                scope: scope.clone()
            })
        );
        assert_eq!(
            token_url(&realm, &service, &scope, "x"),
            r#"https://a/"t"?x=1&service=s%20p&scope=a%2Cb&scope=c"#
        );
        assert_eq!(
            token_url("https://a/t", "", "", "x/y"),
            "https://a/t?scope=repository:x/y:pull"
        );
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Bearer service=\"without realm\""), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
        let cut = Challenge::parse("Bearer realm=\"https://a");
        assert!(matches!(cut, Some(Challenge::Bearer { realm, .. }) if realm == "https://a"));
    }
}
