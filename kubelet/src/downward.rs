//! The downward API: fields of a pod and resources of a container as text, for environment
//! variables and volumes. Pure.

use std::fmt::Write;
use std::net::IpAddr;

use skiff_proto::Quantity;
use skiff_proto::model::{Pod, ResourceFieldSelector};

/// What a pod's fields need beyond its manifest.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub pod_ips: Vec<IpAddr>,
    pub host_ip: Option<IpAddr>,
    /// What a container without a limit is told it has.
    pub allocatable_milli_cpu: i64,
    pub allocatable_memory_bytes: i64,
}

pub fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let ip = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" | "status.hostIPs" => ip(facts.host_ip),
        "status.podIP" => ip(facts.pod_ips.first().copied()),
        "status.podIPs" => {
            facts.pod_ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
        }
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['key']` as map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One `key="value"` a line, values quoted as Go's `%q`.
fn lines(map: &std::collections::BTreeMap<String, String>) -> String {
    let quoted = map.iter().map(|(key, value)| {
        let mut line = format!("{key}=\"");
        for c in value.chars() {
            match c {
                '"' => line.push_str("\\\""),
                '\\' => line.push_str("\\\\"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                c if c.is_control() => {
                    // Writing to a String cannot fail.
                    let _ = write!(line, "\\x{:02x}", u32::from(c));
                }
                c => line.push(c),
            }
        }
        line.push('"');
        line
    });
    quoted.collect::<Vec<_>>().join("\n")
}

/// `own` names the container that a selector without a name means.
pub fn resource(
    pod: &Pod,
    own: &str,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let name = if selector.container_name.is_empty() { own } else { &selector.container_name };
    let mut all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let container =
        all.find(|c| c.name == name).ok_or_else(|| format!("container {name} not found"))?;
    let (list, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let given = match list {
        "limits" => container.resources.limits.get(resource),
        "requests" => container.resources.requests.get(resource),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let fallback = match (list, resource) {
        ("limits", "cpu") => Quantity::from_milli(facts.allocatable_milli_cpu),
        ("limits", "memory") => Quantity::from_value(facts.allocatable_memory_bytes),
        _ => Quantity::from_value(0),
    };
    let value = given.cloned().unwrap_or(fallback);
    let one = Quantity::from_value(1);
    let divisor = selector.divisor.as_ref().filter(|d| !d.is_zero()).unwrap_or(&one);
    let up = |a: i64, b: i64| a.div_euclid(b.max(1)) + i64::from(a.rem_euclid(b.max(1)) != 0);
    Ok(match resource {
        "cpu" => up(value.milli(), divisor.milli()),
        _ => up(value.value(), divisor.value()),
    }
    .to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "web", "tier": "a\"b"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}]}
        }))
        .expect("a pod")
    }

    #[test]
    fn fields() {
        let facts = Facts { pod_ips: vec![[10, 0, 0, 2].into()], ..Default::default() };
        let get = |path| field(&pod(), path, &facts);
        assert_eq!(get("metadata.labels['app']").as_deref(), Ok("web"));
        assert_eq!(get("metadata.labels").as_deref(), Ok("app=\"web\"\ntier=\"a\\\"b\""));
        assert_eq!(get("status.podIP").as_deref(), Ok("10.0.0.2"));
        assert_eq!(get("spec.nodeName").as_deref(), Ok("n1"));
        assert_eq!(get("spec.tolerations"), Err("unsupported fieldPath: spec.tolerations".into()));
    }

    #[test]
    fn resources_round_up_and_default_to_the_node() {
        let facts = Facts { allocatable_memory_bytes: 1 << 30, ..Default::default() };
        let get = |resource: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                divisor: divisor.and_then(Quantity::parse),
                ..Default::default()
            };
            resource_text(&selector, &facts)
        };
        assert_eq!(get("limits.cpu", None), "2");
        assert_eq!(get("limits.cpu", Some("1m")), "1500");
        assert_eq!(get("limits.memory", Some("1Mi")), "1024");
        assert_eq!(get("requests.cpu", None), "0");
    }

    fn resource_text(selector: &ResourceFieldSelector, facts: &Facts) -> String {
        resource(&pod(), "c", selector, facts).expect("resolves")
    }
}
