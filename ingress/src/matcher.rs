//! Host and path to a backend, with the precedence that the Ingress API documents: an exact
//! host before a wildcard before a rule without host; the longest path first, and an Exact
//! path before an equally long Prefix.

use std::collections::HashMap;

/// How a path of a rule matches. ImplementationSpecific is a Prefix here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathType {
    Exact,
    Prefix,
}

/// Routes to `T`. The first route added for a host, path and type stays.
#[derive(Debug)]
pub struct Matcher<T> {
    exact: HashMap<String, Paths<T>>,
    /// By the part after `*.`, which stands for exactly one label.
    wildcard: HashMap<String, Paths<T>>,
    any: Paths<T>,
}

#[derive(Debug)]
struct Paths<T> {
    exact: HashMap<String, T>,
    /// Without the slash at the end; the root is empty.
    prefix: HashMap<String, T>,
    /// Length of the longest prefix: longer paths need not be cut slash by slash above it.
    longest: usize,
    /// For what no path matches.
    fallback: Option<T>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), prefix: HashMap::new(), longest: 0, fallback: None }
    }
}

impl<T> Default for Matcher<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), any: Paths::default() }
    }
}

impl<T> Matcher<T> {
    /// Adds a path of a rule. An empty host means any, an empty path all.
    pub fn add(&mut self, host: &str, path_type: PathType, path: &str, to: T) {
        self.paths(host).add(path_type, path, to);
    }

    /// Where requests for a host go that no path matches; with an empty host, all others.
    pub fn add_fallback(&mut self, host: &str, to: T) {
        self.paths(host).fallback.get_or_insert(to);
    }

    /// `host` as the request names it, port and all; `path` without the query.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let host = canonical(host);
        let wildcard = host.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest));
        let tiers = [self.exact.get(&*host), wildcard, Some(&self.any)];
        let tiers = || tiers.iter().flatten();
        tiers()
            .find_map(|paths| paths.find(path))
            .or_else(|| tiers().find_map(|paths| paths.fallback.as_ref()))
    }

    fn paths(&mut self, host: &str) -> &mut Paths<T> {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix("*.") {
            Some(rest) => self.wildcard.entry(rest.to_owned()).or_default(),
            None if host.is_empty() => &mut self.any,
            None => self.exact.entry(host).or_default(),
        }
    }
}

impl<T> Paths<T> {
    fn add(&mut self, path_type: PathType, path: &str, to: T) {
        match path_type {
            PathType::Exact => {
                self.exact.entry(path.to_owned()).or_insert(to);
            }
            PathType::Prefix => {
                let path = path.strip_suffix('/').unwrap_or(path);
                self.longest = self.longest.max(path.len());
                self.prefix.entry(path.to_owned()).or_insert(to);
            }
        }
    }

    /// An Exact path is the whole path, so no prefix is longer.
    fn find(&self, path: &str) -> Option<&T> {
        if let Some(found) = self.exact.get(path) {
            return Some(found);
        }
        if self.prefix.is_empty() {
            return None;
        }
        let mut rest = path.strip_suffix('/').unwrap_or(path);
        loop {
            if rest.len() <= self.longest
                && let Some(found) = self.prefix.get(rest)
            {
                return Some(found);
            }
            // Cuts whole elements: /aaa/bbb is no prefix of /aaa/bbbxyz.
            rest = &rest[..rest.rfind('/')?];
        }
    }
}

/// Lower case, without port and without the dot that ends an absolute name.
fn canonical(host: &str) -> std::borrow::Cow<'_, str> {
    let name = match host.strip_prefix('[') {
        // An IPv6 address; no rule has one as its host.
        Some(_) => host,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::PathType::*;
    use super::*;

    /// The table of examples in the Kubernetes documentation of Ingress, line by line.
    #[test]
    fn paths_match_as_documented() {
        for (rules, path, expected) in [
            (vec![(Prefix, "/")], "/any/path", Some("/")),
            (vec![(Exact, "/foo")], "/foo", Some("/foo")),
            (vec![(Exact, "/foo")], "/bar", None),
            (vec![(Exact, "/foo")], "/foo/", None),
            (vec![(Exact, "/foo/")], "/foo", None),
            (vec![(Prefix, "/foo")], "/foo", Some("/foo")),
            (vec![(Prefix, "/foo")], "/foo/", Some("/foo")),
            (vec![(Prefix, "/foo/")], "/foo", Some("/foo/")),
            (vec![(Prefix, "/foo/")], "/foo/", Some("/foo/")),
            (vec![(Prefix, "/aaa/bb")], "/aaa/bbb", None),
            (vec![(Prefix, "/aaa/bbb")], "/aaa/bbb", Some("/aaa/bbb")),
            (vec![(Prefix, "/aaa/bbb/")], "/aaa/bbb", Some("/aaa/bbb/")),
            (vec![(Prefix, "/aaa/bbb")], "/aaa/bbb/", Some("/aaa/bbb")),
            (vec![(Prefix, "/aaa/bbb")], "/aaa/bbb/ccc", Some("/aaa/bbb")),
            (vec![(Prefix, "/aaa/bbb")], "/aaa/bbbxyz", None),
            (vec![(Prefix, "/"), (Prefix, "/aaa")], "/aaa/ccc", Some("/aaa")),
            (
                vec![(Prefix, "/"), (Prefix, "/aaa"), (Prefix, "/aaa/bbb")],
                "/aaa/bbb",
                Some("/aaa/bbb"),
            ),
            (vec![(Prefix, "/"), (Prefix, "/aaa"), (Prefix, "/aaa/bbb")], "/ccc", Some("/")),
            (vec![(Prefix, "/aaa")], "/ccc", None),
        ] {
            let mut matcher = Matcher::default();
            for (path_type, rule) in &rules {
                matcher.add("", *path_type, rule, *rule);
            }
            assert_eq!(matcher.find("any", path).copied(), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn exact_goes_before_prefix() {
        let mut matcher = Matcher::default();
        matcher.add("", Prefix, "/foo", "prefix");
        matcher.add("", Exact, "/foo", "exact");
        assert_eq!(matcher.find("", "/foo"), Some(&"exact"));
        assert_eq!(matcher.find("", "/foo/"), Some(&"prefix"));
    }

    /// The table of wildcard hosts in the Kubernetes documentation of Ingress, and hosts as
    /// clients write them.
    #[test]
    fn hosts_match_as_documented() {
        let mut matcher = Matcher::default();
        matcher.add("*.foo.com", Prefix, "/", "wildcard");
        matcher.add("precise.foo.com", Prefix, "/", "precise");
        for (host, expected) in [
            ("bar.foo.com", Some("wildcard")),
            ("baz.bar.foo.com", None),
            ("foo.com", None),
            ("precise.foo.com", Some("precise")),
            ("precise.foo.com:8080", Some("precise")),
            ("PRECISE.Foo.Com.", Some("precise")),
            ("[::1]:80", None),
            ("", None),
        ] {
            assert_eq!(matcher.find(host, "/").copied(), expected, "{host}");
        }
    }

    #[test]
    fn a_wider_host_answers_for_paths_the_narrower_lacks() {
        let mut matcher = Matcher::default();
        matcher.add("a.foo.com", Prefix, "/api", "precise");
        matcher.add("*.foo.com", Prefix, "/web", "wildcard");
        matcher.add("", Prefix, "/any", "any");
        matcher.add_fallback("a.foo.com", "fallback");
        matcher.add_fallback("", "default");
        for (host, path, expected) in [
            ("a.foo.com", "/api/x", "precise"),
            ("a.foo.com", "/web", "wildcard"),
            ("a.foo.com", "/any", "any"),
            ("a.foo.com", "/other", "fallback"),
            ("b.foo.com", "/api", "default"),
            ("elsewhere", "/", "default"),
        ] {
            assert_eq!(matcher.find(host, path), Some(&expected), "{host}{path}");
        }
    }

    #[test]
    fn the_first_of_equal_routes_stays() {
        let mut matcher = Matcher::default();
        matcher.add("a", Prefix, "/x/", "old");
        matcher.add("A", Prefix, "/x", "new");
        assert_eq!(matcher.find("a", "/x"), Some(&"old"));
    }
}
