//! The core group's small kinds.

use std::time::SystemTime;

use serde_json::Value;

use super::{Columns, age, count, list, name, or, pairs, since, size};
use crate::manifest::text;

pub const SERVICE: Columns = Columns {
    header: &["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"],
    wide: &["SELECTOR"],
    cells: |service, now| {
        vec![
            name(service),
            text(service, &["spec", "type"]).to_owned(),
            or(text(service, &["spec", "clusterIP"]), "<none>"),
            external_ip(service),
            or(&service_ports(service), "<none>"),
            age(service, now),
            pairs(&service["spec"]["selector"]),
        ]
    },
};

fn external_ip(service: &Value) -> String {
    let external = list(&service["spec"]["externalIPs"]).filter_map(Value::as_str);
    let balancer = list(&service["status"]["loadBalancer"]["ingress"])
        .map(|i| or(text(i, &["ip"]), text(i, &["hostname"])));
    let mut ips: Vec<String> = balancer.collect();
    ips.extend(external.map(str::to_owned));
    match text(service, &["spec", "type"]) {
        "ExternalName" => text(service, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" if ips.is_empty() => "<pending>".into(),
        _ => or(&ips.join(","), "<none>"),
    }
}

fn service_ports(service: &Value) -> String {
    let port = |p: &Value| {
        let protocol = or(text(p, &["protocol"]), "TCP");
        match count(&p["nodePort"]) {
            0 => format!("{}/{protocol}", count(&p["port"])),
            node_port => format!("{}:{node_port}/{protocol}", count(&p["port"])),
        }
    };
    list(&service["spec"]["ports"]).map(port).collect::<Vec<_>>().join(",")
}

pub const ENDPOINTS: Columns = Columns {
    header: &["NAME", "ENDPOINTS", "AGE"],
    wide: &[],
    cells: |endpoints, now| {
        let mut pairs = Vec::new();
        for subset in list(&endpoints["subsets"]) {
            for address in list(&subset["addresses"]) {
                for port in list(&subset["ports"]) {
                    pairs.push(format!("{}:{}", text(address, &["ip"]), count(&port["port"])));
                }
            }
        }
        vec![name(endpoints), shortened(&pairs), age(endpoints, now)]
    },
};

/// The first three, and how many more there are.
pub fn shortened(items: &[String]) -> String {
    match items.len() {
        0 => "<none>".into(),
        1..=3 => items.join(","),
        n => format!("{} + {} more...", items[..3].join(","), n - 3),
    }
}

pub const CONFIG_MAP: Columns = Columns {
    header: &["NAME", "DATA", "AGE"],
    wide: &[],
    cells: |o, now| {
        let data = size(&o["data"]) + size(&o["binaryData"]);
        vec![name(o), data.to_string(), age(o, now)]
    },
};

pub const SECRET: Columns = Columns {
    header: &["NAME", "TYPE", "DATA", "AGE"],
    wide: &[],
    cells: |o, now| {
        vec![name(o), text(o, &["type"]).to_owned(), size(&o["data"]).to_string(), age(o, now)]
    },
};

pub const SERVICE_ACCOUNT: Columns = Columns {
    header: &["NAME", "SECRETS", "AGE"],
    wide: &[],
    cells: |o, now| vec![name(o), size(&o["secrets"]).to_string(), age(o, now)],
};

pub const NAMESPACE: Columns = Columns {
    header: &["NAME", "STATUS", "AGE"],
    wide: &[],
    cells: |o, now| vec![name(o), text(o, &["status", "phase"]).to_owned(), age(o, now)],
};

pub const EVENT: Columns = Columns {
    header: &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
    wide: &["SOURCE", "COUNT", "NAME"],
    cells: |event, now| {
        let object = format!(
            "{}/{}",
            text(event, &["involvedObject", "kind"]).to_ascii_lowercase(),
            text(event, &["involvedObject", "name"])
        );
        vec![
            last_seen(event, now),
            text(event, &["type"]).to_owned(),
            text(event, &["reason"]).to_owned(),
            object,
            text(event, &["message"]).trim().to_owned(),
            text(event, &["source", "component"]).to_owned(),
            count(&event["count"]).to_string(),
            name(event),
        ]
    },
};

fn last_seen(event: &Value, now: SystemTime) -> String {
    let last = text(event, &["lastTimestamp"]);
    since(if last.is_empty() { text(event, &["eventTime"]) } else { last }, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{Style, table, tests};
    use serde_json::json;

    #[test]
    fn services_show_their_ports_and_addresses() {
        let service = |spec: Value| json!({"metadata": {"name": "web", "creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": spec});
        let rows = [
            service(
                json!({"type": "NodePort", "clusterIP": "10.43.0.7", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}),
            ),
            service(
                json!({"type": "LoadBalancer", "clusterIP": "10.43.0.8", "ports": [{"port": 53, "protocol": "UDP"}]}),
            ),
            service(json!({"type": "ExternalName", "externalName": "example.test"})),
        ];
        assert_eq!(
            table(&tests::info("Service"), &rows, Style::default(), tests::now()),
            "NAME   TYPE           CLUSTER-IP   EXTERNAL-IP    PORT(S)        AGE\n\
             web    NodePort       10.43.0.7    <none>         80:30080/TCP   60m\n\
             web    LoadBalancer   10.43.0.8    <pending>      53/UDP         60m\n\
             web    ExternalName   <none>       example.test   <none>         60m\n"
        );
    }

    #[test]
    fn long_endpoint_lists_are_shortened() {
        let items: Vec<String> = (1..=5).map(|n| format!("10.42.0.{n}:80")).collect();
        assert_eq!(shortened(&items), "10.42.0.1:80,10.42.0.2:80,10.42.0.3:80 + 2 more...");
    }
}
