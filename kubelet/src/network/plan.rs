//! One call of one plugin: its environment and its input, as the CNI specification has them.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::conf::{Conf, Plugin};
use crate::ports::{PodRef, PortMapping};

/// What is attached to the network.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    pub container_id: String,
    /// Empty: the namespace is gone, and the plugins remove what they keep elsewhere.
    pub namespace_path: PathBuf,
    pub interface: String,
    pub pod: PodRef,
    pub ports: Vec<PortMapping>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub kind: String,
    pub command: &'static str,
    pub environment: Vec<(&'static str, String)>,
    pub input: Value,
}

pub(super) fn call(
    conf: &Conf,
    plugin: &Plugin,
    command: &'static str,
    attachment: &Attachment,
    previous: Option<&Value>,
) -> Call {
    let pod = &attachment.pod;
    let arguments = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, attachment.container_id, pod.uid
    );
    Call {
        kind: plugin.kind.clone(),
        command,
        environment: vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", attachment.container_id.clone()),
            ("CNI_NETNS", attachment.namespace_path.display().to_string()),
            ("CNI_IFNAME", attachment.interface.clone()),
            ("CNI_ARGS", arguments),
        ],
        input: input(conf, plugin, attachment, previous),
    }
}

fn input(conf: &Conf, plugin: &Plugin, attachment: &Attachment, previous: Option<&Value>) -> Value {
    let mut input = plugin.conf.clone();
    input["name"] = json!(conf.name);
    input["cniVersion"] = json!(conf.version);
    // Capabilities are between us and the configuration; a plugin gets their values.
    let declared = input.as_object_mut().and_then(|fields| fields.remove("capabilities"));
    let declares = |name: &str| declared.as_ref().is_some_and(|all| all[name] == json!(true));
    if declares("portMappings") && !attachment.ports.is_empty() {
        input["runtimeConfig"] = json!({"portMappings": attachment.ports});
    }
    if let Some(previous) = previous {
        input["prevResult"] = previous.clone();
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(ports: Vec<PortMapping>) -> Attachment {
        Attachment {
            container_id: "box".into(),
            namespace_path: "/run/netns/box".into(),
            interface: "eth0".into(),
            pod: PodRef { namespace: "ns".into(), name: "web".into(), uid: "u".into() },
            ports,
        }
    }

    #[test]
    fn the_chain_as_the_specification_has_it() {
        let text = r#"{"cniVersion":"1.0.0","name":"net","plugins":[
            {"type":"bridge","ipam":{"type":"host-local"}},
            {"type":"portmap","capabilities":{"portMappings":true}}]}"#;
        let conf = Conf::parse(text).expect("a configuration");
        let ports = vec![PortMapping {
            host_port: 80,
            container_port: 8080,
            protocol: "tcp".into(),
            host_ip: String::new(),
        }];
        let first = call(&conf, &conf.plugins[0], "ADD", &attachment(ports.clone()), None);
        assert_eq!(
            first.input,
            json!({"type": "bridge", "ipam": {"type": "host-local"}, "name": "net", "cniVersion": "1.0.0"})
        );
        assert_eq!(
            first.environment,
            [
                ("CNI_COMMAND", "ADD".to_owned()),
                ("CNI_CONTAINERID", "box".to_owned()),
                ("CNI_NETNS", "/run/netns/box".to_owned()),
                ("CNI_IFNAME", "eth0".to_owned()),
                (
                    "CNI_ARGS",
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=box;K8S_POD_UID=u"
                        .to_owned()
                ),
            ]
        );
        let previous = json!({"ips": []});
        let second = call(&conf, &conf.plugins[1], "ADD", &attachment(ports), Some(&previous));
        assert_eq!(
            second.input,
            json!({"type": "portmap", "name": "net", "cniVersion": "1.0.0", "prevResult": {"ips": []},
                "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]}})
        );
        let without = call(&conf, &conf.plugins[1], "DEL", &attachment(Vec::new()), None);
        assert_eq!(without.input, json!({"type": "portmap", "name": "net", "cniVersion": "1.0.0"}));
    }
}
