//! What the runtime asks: `CNI_*` variables and the configuration on stdin.
//!
//! The cni-plugin crate's types read the configuration. Its own reading of the environment is not used: it refuses
//! container ids with capitals, knows neither STATUS nor GC, answers VERSION by exiting the process, and reports
//! every error as version 1.0.0. Here the environment is a parameter, so all of it is tested without a process.

use std::path::PathBuf;

use cni_plugin::config::NetworkConfig;
use serde::Deserialize;
use serde_json::Value;

use crate::conf::is_link_name;
use crate::error::CniError;
use crate::hostport::PortMapping;

/// Versions of the specification this plugin answers in. 0.1 and 0.2 have another result format altogether.
pub const SUPPORTED_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The version to answer errors in when the configuration did not name a usable one.
pub const FALLBACK_VERSION: &str = "1.0.0";

/// The command in `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Version,
    Status,
    Gc,
}

/// An attachment that GC must spare, as `cni.dev/valid-attachments` lists them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container: String,
    pub ifname: String,
}

/// One call of the plugin, read and checked.
#[derive(Clone, Debug)]
pub struct Request {
    pub command: Command,
    pub version: String,
    pub container: String,
    pub ifname: String,
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`: pairs separated by semicolons. Keys nobody knows are ignored, as every plugin in use does.
    pub args: Vec<(String, String)>,
    pub config: NetworkConfig,
    pub valid_attachments: Vec<Attachment>,
    /// `runtimeConfig.portMappings`.
    pub port_mappings: Vec<PortMapping>,
}

/// What a call comes down to: VERSION is answered from constants, the rest needs the request.
#[derive(Debug)]
pub enum Call {
    Version { version: String },
    Run(Box<Request>),
}

/// The version of the specification that an answer to this input must carry.
pub fn answer_version(stdin: &[u8]) -> String {
    let named = serde_json::from_slice::<Value>(stdin)
        .ok()
        .and_then(|config| config.get("cniVersion").and_then(Value::as_str).map(str::to_owned));
    named
        .filter(|version| SUPPORTED_VERSIONS.contains(&version.as_str()))
        .unwrap_or(FALLBACK_VERSION.to_owned())
}

/// Reads a call from the environment and stdin.
pub fn read(env: &dyn Fn(&str) -> Option<String>, stdin: &[u8]) -> Result<Call, CniError> {
    let command = read_command(env)?;
    if command == Command::Version {
        // The specification gives VERSION a document with cniVersion; older runtimes send nothing.
        return Ok(Call::Version { version: answer_version(stdin) });
    }
    let mut document: Value =
        serde_json::from_slice(stdin).map_err(|error| CniError::Decode(error.to_string()))?;
    let version = document.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0").to_owned();
    let Some(age) = SUPPORTED_VERSIONS.iter().position(|known| *known == version) else {
        return Err(CniError::IncompatibleVersion(version));
    };
    if command == Command::Check && age < 2 {
        return Err(CniError::CommandTooNew { command: "CHECK", needed: "0.4.0", found: version });
    }
    let mut faults = Vec::new();
    let container = read_container(env, command, &mut faults);
    let ifname = read_ifname(env, command, &mut faults);
    let netns = read_netns(env, command, &mut faults);
    if !faults.is_empty() {
        return Err(CniError::BadEnvironment(faults));
    }
    let valid_attachments = match document.get_mut("cni.dev/valid-attachments") {
        Some(list) => serde_json::from_value(list.take())
            .map_err(|error| CniError::Decode(format!("cni.dev/valid-attachments: {error}")))?,
        None => Vec::new(),
    };
    // The crate's own type for these knows no hostIP.
    let listed = document.get_mut("runtimeConfig").and_then(Value::as_object_mut);
    let port_mappings = match listed.and_then(|fields| fields.remove("portMappings")) {
        Some(list) => serde_json::from_value(list)
            .map_err(|error| CniError::Decode(format!("runtimeConfig.portMappings: {error}")))?,
        None => Vec::new(),
    };
    let config: NetworkConfig =
        serde_json::from_value(document).map_err(|error| CniError::Decode(error.to_string()))?;
    if !is_identifier(&config.name) {
        let fault = format!(
            "name: {:?} must start with a letter or digit and hold only these, '.', '_', '-'",
            config.name
        );
        return Err(CniError::BadConfig(vec![fault]));
    }
    let args = parse_args(&env("CNI_ARGS").unwrap_or_default());
    Ok(Call::Run(Box::new(Request {
        command,
        version,
        container,
        ifname,
        netns,
        args,
        config,
        valid_attachments,
        port_mappings,
    })))
}

fn read_command(env: &dyn Fn(&str) -> Option<String>) -> Result<Command, CniError> {
    match env("CNI_COMMAND").as_deref() {
        Some("ADD") => Ok(Command::Add),
        Some("DEL") => Ok(Command::Del),
        Some("CHECK") => Ok(Command::Check),
        Some("VERSION") => Ok(Command::Version),
        Some("STATUS") => Ok(Command::Status),
        Some("GC") => Ok(Command::Gc),
        other => Err(CniError::BadEnvironment(vec![format!(
            "CNI_COMMAND is {:?}; it must be ADD, DEL, CHECK, STATUS, GC or VERSION",
            other.unwrap_or_default()
        )])),
    }
}

fn names_a_container(command: Command) -> bool {
    matches!(command, Command::Add | Command::Del | Command::Check)
}

fn read_container(
    env: &dyn Fn(&str) -> Option<String>,
    command: Command,
    faults: &mut Vec<String>,
) -> String {
    let container = env("CNI_CONTAINERID").unwrap_or_default();
    if names_a_container(command) && !is_identifier(&container) {
        faults.push(format!(
            "CNI_CONTAINERID is {container:?}; it must start with a letter or digit and hold only these, '.', '_', '-'"
        ));
    }
    container
}

fn read_ifname(
    env: &dyn Fn(&str) -> Option<String>,
    command: Command,
    faults: &mut Vec<String>,
) -> String {
    let ifname = env("CNI_IFNAME").unwrap_or_default();
    if names_a_container(command) && !is_link_name(&ifname) {
        faults.push(format!(
            "CNI_IFNAME is {ifname:?}; it must be a link name of 1 to 15 characters"
        ));
    }
    ifname
}

fn read_netns(
    env: &dyn Fn(&str) -> Option<String>,
    command: Command,
    faults: &mut Vec<String>,
) -> Option<PathBuf> {
    let netns = env("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from);
    if matches!(command, Command::Add | Command::Check) && netns.is_none() {
        faults.push(
            "CNI_NETNS is missing; it must be the path of the container's network namespace"
                .to_owned(),
        );
    }
    netns
}

/// Container ids and network names: the specification's pattern, capitals included.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn parse_args(text: &str) -> Vec<(String, String)> {
    text.split(';')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(env: &[(&str, &str)], stdin: &str) -> Result<Call, CniError> {
        let lookup = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        read(&lookup, stdin.as_bytes())
    }

    fn add(container: &'static str, ifname: &'static str) -> Vec<(&'static str, &'static str)> {
        vec![
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", container),
            ("CNI_IFNAME", ifname),
            ("CNI_NETNS", "/var/run/netns/x"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"),
        ]
    }

    const CONF: &str = r#"{"cniVersion":"1.0.0","name":"pods","type":"skiff-bridge"}"#;

    #[test]
    fn capitals_in_container_ids_are_fine() {
        let Ok(Call::Run(request)) = call(&add("Ab.c_D-1", "eth0"), CONF) else {
            panic!("refused")
        };
        assert_eq!(request.container, "Ab.c_D-1");
        assert_eq!(request.args[1], ("K8S_POD_NAME".to_owned(), "web".to_owned()));
    }

    #[test]
    fn every_bad_variable_is_named() {
        let env = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "a/b")];
        let Err(CniError::BadEnvironment(faults)) = call(&env, CONF) else { panic!("accepted") };
        assert_eq!(faults.len(), 3, "{faults:#?}");
    }

    #[test]
    fn errors_by_code() {
        let code = |env: &[(&str, &str)], stdin: &str| call(env, stdin).unwrap_err().code();
        let good = add("c1", "eth0");
        assert_eq!(code(&good, "{"), 6);
        assert_eq!(code(&good, r#"{"cniVersion":"0.2.0","name":"pods","type":"x"}"#), 1);
        assert_eq!(code(&good, r#"{"name":"pods","type":"x"}"#), 1);
        assert_eq!(code(&good, r#"{"cniVersion":"1.0.0","name":"../pods","type":"x"}"#), 7);
        assert_eq!(code(&good, r#"{"cniVersion":"1.0.0","type":"x"}"#), 6);
        assert_eq!(code(&[("CNI_COMMAND", "ATTACH")], CONF), 4);
        assert_eq!(code(&[], CONF), 4);
        let mut check = add("c1", "eth0");
        check[0].1 = "CHECK";
        assert_eq!(code(&check, r#"{"cniVersion":"0.3.1","name":"pods","type":"x"}"#), 1);
    }

    #[test]
    fn del_needs_no_namespace() {
        let env = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        assert!(call(&env, CONF).is_ok());
    }

    #[test]
    fn version_needs_nothing() {
        let Ok(Call::Version { version }) = call(&[("CNI_COMMAND", "VERSION")], "") else {
            panic!("refused")
        };
        assert_eq!(version, "1.0.0");
        assert_eq!(answer_version(br#"{"cniVersion":"0.4.0"}"#), "0.4.0");
    }

    #[test]
    fn gc_reads_the_attachments_to_spare() {
        let stdin = r#"{"cniVersion":"1.1.0","name":"pods","type":"x",
            "cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}"#;
        let Ok(Call::Run(request)) = call(&[("CNI_COMMAND", "GC")], stdin) else {
            panic!("refused")
        };
        assert_eq!(request.valid_attachments[0].container, "c1");
    }
}
