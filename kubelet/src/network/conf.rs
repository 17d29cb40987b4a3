//! The network configuration of a node: the lexicographically first valid file, as container runtimes
//! choose it, a list of plugins or a single one.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// What this side of CNI speaks.
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conf {
    pub name: String,
    pub version: String,
    pub plugins: Vec<Plugin>,
    /// The text it was read from: removals use the configuration that the addition used.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plugin {
    /// The name of its program.
    pub kind: String,
    pub conf: Value,
}

impl Conf {
    pub fn parse(text: &str) -> Result<Conf, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let word = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = word("name").filter(|name| !name.is_empty()).ok_or("field name is missing")?;
        let version = word("cniVersion").unwrap_or_else(|| "0.2.0".to_owned());
        if !VERSIONS.contains(&version.as_str()) {
            return Err(format!("cniVersion {version} is not one of {}", VERSIONS.join(", ")));
        }
        let list = match value.get("plugins") {
            Some(Value::Array(list)) => list.clone(),
            Some(_) => return Err("field plugins is no list".to_owned()),
            None => vec![value.clone()],
        };
        if list.is_empty() {
            return Err("field plugins is empty".to_owned());
        }
        let plugins = list.into_iter().enumerate().map(|(at, conf)| plugin(at, conf));
        Ok(Conf {
            name,
            version,
            plugins: plugins.collect::<Result<_, _>>()?,
            text: text.to_owned(),
        })
    }
}

fn plugin(at: usize, conf: Value) -> Result<Plugin, String> {
    let kind = conf.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind.is_empty() || kind.contains('/') {
        return Err(format!("plugins[{at}].type {kind:?} is no name of a program"));
    }
    Ok(Plugin { kind, conf })
}

/// Read at every use, so that a new file needs no restart.
pub(super) fn load(dir: &Path) -> Result<Conf, String> {
    let mut faults = Vec::new();
    for path in files(dir) {
        let parsed = std::fs::read_to_string(&path)
            .map_err(|e| e.to_string())
            .and_then(|text| Conf::parse(&text));
        match parsed {
            Ok(conf) => return Ok(conf),
            Err(why) => faults.push(format!("{}: {why}", path.display())),
        }
    }
    match faults.is_empty() {
        true => Err(format!("no network config found in {}", dir.display())),
        false => {
            Err(format!("no valid networks found in {}: {}", dir.display(), faults.join("; ")))
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let suffixes = ["conflist", "conf", "json"];
    let wanted = |path: &PathBuf| {
        path.extension().is_some_and(|suffix| suffixes.iter().any(|one| suffix == *one))
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(wanted).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let got = match Conf::parse(text) {
            Ok(conf) => {
                let kinds: Vec<_> =
                    conf.plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
                format!("{} {} {}", conf.name, conf.version, kinds.join(","))
            }
            Err(why) => why,
        };
        assert_eq!(got, expect);
    }

    #[test]
    fn lists_and_single_plugins() {
        check(
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#,
            "n 1.0.0 bridge,portmap",
        );
        check(r#"{"cniVersion":"0.4.0","name":"n","type":"bridge"}"#, "n 0.4.0 bridge");
        check(r#"{"name":"n","plugins":[]}"#, "field plugins is empty");
        check(r#"{"plugins":[{"type":"bridge"}]}"#, "field name is missing");
        check(
            r#"{"name":"n","type":"../sh"}"#,
            "plugins[0].type \"../sh\" is no name of a program",
        );
        check(
            r#"{"cniVersion":"9.0.0","name":"n","type":"x"}"#,
            "cniVersion 9.0.0 is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
        );
    }

    #[test]
    fn the_first_valid_file_is_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        assert!(load(dir.path()).expect_err("refused").starts_with("no network config found"));
        write("00-readme.txt", "no");
        write("05-broken.conflist", "{");
        assert!(load(dir.path()).expect_err("refused").contains("05-broken.conflist: not JSON"));
        write("20-b.conf", r#"{"name":"b","type":"x"}"#);
        write("10-a.conflist", r#"{"name":"a","plugins":[{"type":"x"}]}"#);
        assert_eq!(load(dir.path()).expect("a configuration").name, "a");
    }
}
